"""The server: answers, refusals, overload, health, metrics, and how a model is swapped while it serves."""

import io
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest

from ctnet_ray.errors import CtnetError
from ctnet_ray.serving.http.access import check_host, is_allowed, read_token
from ctnet_ray.serving.http.metrics import ServingMetrics
from ctnet_ray.serving.http.request import ARROW, Limits
from ctnet_ray.serving.http.served_model import ServedModel, keep_looking, try_once
from tests.unit.serving_world import TWO, FormulaScorer, Registry, Server, serving

TOKEN = "a-token-of-24-characters"  # noqa: S105
DIGEST = sha256(TOKEN.encode()).digest()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(limits=Limits(body_bytes=1000, candidates=50)) as server:
        yield server


def test_scores_come_with_model_and_version(server: Server) -> None:
    status, said = server.score(TWO)
    assert (status, said["model"], said["version"]) == (200, "ctnet", "1")
    assert said["scores"] == pytest.approx([1 / 2.5, 1 / 3], rel=1e-7)


def test_arrow_is_taken_and_given(server: Server) -> None:
    table = pa.table({"item": ["a", "b"], "price": pa.array([0.5, 1], pa.float32())})
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema.with_metadata({"user": '{"user": 7}'})) as writer:
        writer.write_table(table)
    assert server.score(stream.getvalue(), ARROW)[1]["scores"] == pytest.approx([0.4, 1 / 3], rel=1e-7)
    response = server.send("POST", "/score", stream.getvalue(), content_type=ARROW, accept=ARROW)
    answered = pa.ipc.open_stream(response.content).read_all()
    assert response.headers["content-type"] == ARROW
    assert answered.schema.metadata == {b"model": b"ctnet", b"version": b"1"}
    assert answered["score"].to_pylist() == pytest.approx([0.4, 1 / 3], rel=1e-7)


def test_a_fault_is_said_with_its_field(server: Server) -> None:
    status, said = server.score({"candidates": {"itm": [1]}})
    assert status == 422
    known = "the model reads clicked, item, pixels, price, user"
    assert said == {"error": f"unknown field 'itm' (did you mean 'item'?): {known}", "field": "itm"}


def test_what_the_scorer_refuses_is_the_client_s_fault(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InputError(CtnetError):
        field = "user"

    def refuse(self: FormulaScorer, user: object, candidates: object) -> None:
        raise InputError("field 'user' is missing: give it")

    monkeypatch.setattr(FormulaScorer, "score_request", refuse)
    assert server.score(TWO) == (422, {"error": "field 'user' is missing: give it", "field": "user"})


def test_a_defect_is_not_shown_and_ends_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FormulaScorer, "score_request", lambda *_: 1 / 0)
        status, said = server.score(TWO)
    assert (status, said) == (500, {"error": "the server failed at this request: its log says where"})
    assert "ZeroDivisionError" in caplog.text
    assert server.score(TWO)[0] == 200


def test_a_body_that_is_too_large_is_not_read(server: Server) -> None:
    status, said = server.score(b"x" * 1001)
    assert (status, said["error"]) == (413, "the body is larger than 1000 bytes: send several requests")
    unsaid = server.send("POST", "/score", iter([b"x" * 600] * 2), content_type="application/json")
    assert (unsaid.status, unsaid.headers["connection"]) == (413, "close")
    sent = server.send("POST", "/score", None, content_type="application/json", content_length=str(10 << 20))
    assert sent.status == 413


def test_too_many_candidates(server: Server) -> None:
    status, said = server.score({"candidates": {"item": [1] * 51}})
    assert (status, said["field"]) == (422, "candidates")


def test_another_content_type_path_or_method(server: Server) -> None:
    assert server.score(TWO, "text/plain")[0] == 415
    assert server.send("POST", "/score", b"{}").status == 415
    for method, path, status in (("GET", "/score", 405), ("POST", "/ready", 405), ("GET", "/", 404)):
        response = server.send(method, path)
        assert response.status == status
        assert json.loads(response.content)["error"] == (
            f"{method} {path} is not there: there are POST /score, GET /healthz, /ready and /metrics"
        )


def test_health_and_readiness(server: Server) -> None:
    assert server.get("/healthz") == "ok"
    ready = json.loads(server.get("/ready"))
    assert {name: ready[name] for name in ("ready", "model", "version", "day", "asked", "failure")} == {
        "ready": True,
        "model": "ctnet",
        "version": "1",
        "day": "2022-05-04",
        "asked": "ctnet@champion",
        "failure": "",
    }


def test_a_token_is_asked_for() -> None:
    with serving(token=DIGEST) as server:
        refused = server.send("POST", "/score", json.dumps(TWO).encode(), content_type="application/json")
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        for header in ("Bearer other", f"Basic {TOKEN}", TOKEN, "Bearer"):
            assert server.score(TWO, authorization=header)[0] == 401
        assert server.score(TWO, authorization=f"Bearer {TOKEN}")[0] == 200
        assert server.score(TWO, authorization=f"bearer  {TOKEN} ")[0] == 200
        assert server.send("GET", "/metrics").status == 401
        assert 'status="401"' in server.get("/metrics", authorization=f"Bearer {TOKEN}")
        # A probe has no token, and learns nothing of the model.
        assert json.loads(server.get("/ready")) == {"ready": True}
        assert json.loads(server.get("/ready", authorization=f"Bearer {TOKEN}"))["model"] == "ctnet"
        assert server.get("/healthz") == "ok"


def test_where_a_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CTNET_SERVE_TOKEN", raising=False)
    assert read_token(None) is None
    assert is_allowed("", None)
    monkeypatch.setenv("CTNET_SERVE_TOKEN", TOKEN)
    assert read_token(None) == DIGEST
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(str(file)) == DIGEST
    for bad in ("", "brief", "a token with some spaces", "\xe4" * 20):
        file.write_text(bad)
        with pytest.raises(CtnetError, match="is too short or no plain text") as caught:
            read_token(str(file))
        assert f" {bad} " not in str(caught.value)
    with pytest.raises(CtnetError, match=r"no access token in .*FileNotFoundError"):
        read_token(str(tmp_path / "none"))


def test_others_may_call_only_with_a_token() -> None:
    check_host("127.0.0.1", None)
    check_host("0.0.0.0", DIGEST)  # noqa: S104
    with pytest.raises(CtnetError, match="is open to other machines and there is no access token"):
        check_host("10.0.0.1", None)


def test_what_is_beyond_the_queue_is_refused_at_once() -> None:
    with serving(most_waiting=2, most_together=1) as server, ThreadPoolExecutor(3) as pool:
        scorer = server.registry.scorers[0]
        scorer.may_answer.clear()
        asked = [pool.submit(server.score, TWO) for _ in range(3)]  # one is scored, two wait
        while "ctnet_waiting_requests 2.0" not in server.get("/metrics"):
            time.sleep(0.01)
        response = server.send("POST", "/score", json.dumps(TWO).encode(), content_type="application/json")
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert server.get("/healthz") == "ok"
        scorer.may_answer.set()
        assert [one.result()[0] for one in asked] == [200, 200, 200]
        assert server.score(TWO)[0] == 200
        assert "ctnet_waiting_requests 0.0" in server.get("/metrics")


def test_metrics_are_by_version() -> None:
    with serving() as server:
        server.score(TWO)
        server.registry.version = 2
        assert server.model.look()
        server.score(TWO)
        server.score({"candidates": {"item": [1] * 3}})
        server.score({"candidates": {"itm": [1]}})
        server.score(b"", "text/plain")
        text = server.get("/metrics")
    values = dict(re.findall(r"^(\w+{.*}) ([\d.]+)$", text, re.MULTILINE))
    for version, scored, candidates in (("1", "1.0", "2.0"), ("2", "2.0", "5.0")):
        which = f'model="ctnet",version="{version}"'
        assert values[f'ctnet_requests_total{{model="ctnet",status="200",version="{version}"}}'] == scored
        assert values[f"ctnet_request_seconds_count{{{which}}}"] == scored
        assert values[f"ctnet_candidates_sum{{{which}}}"] == candidates
        assert values[f"ctnet_served_version{{{which}}}"] == str(float(version == "2"))
    assert values['ctnet_requests_total{model="ctnet",status="422",version="2"}'] == "1.0"
    assert values['ctnet_requests_total{model="",status="415",version=""}'] == "1.0"
    assert values['ctnet_model_loads_total{outcome="swapped"}'] == "2.0"


def test_swaps_under_load_drop_and_mix_nothing() -> None:
    with serving() as server, ThreadPoolExecutor(4) as pool:
        ended = threading.Event()

        def ask() -> list[tuple[int, str, list[float]]]:
            answers = []
            while not ended.is_set():
                status, said = server.score(TWO)
                answers.append((status, said["version"], said["scores"]))
            return answers

        asking = [pool.submit(ask) for _ in range(4)]
        for version in range(2, 22):
            time.sleep(0.02)
            server.registry.version = version
            assert server.model.look()
        ended.set()
        answers = [answer for asked in asking for answer in asked.result()]
    assert {status for status, _, _ in answers} == {200}
    assert len({version for _, version, _ in answers}) > 10
    for _, version, scores in answers:
        number = int(version)
        assert scores == pytest.approx([number / (number + 1.5), number / (number + 2)], rel=1e-6)


def test_a_load_that_fails_keeps_what_answers(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        server.registry.version = 2
        server.registry.broken = {2}
        for _ in range(2):
            assert not server.model.look()
        assert server.score(TWO)[1]["version"] == "1"
        assert json.loads(server.get("/ready"))["failure"] == "ctnet/2 is damaged: make it again"
        assert 'ctnet_model_loads_total{outcome="failed"} 2.0' in server.get("/metrics")
        # Said once, not at each look.
        assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
            "ctnet/1 stays: ctnet/2 is damaged: make it again"
        ]
        server.registry.broken = set()
        assert server.model.look()
        assert json.loads(server.get("/ready"))["failure"] == ""
        assert server.score(TWO)[1]["version"] == "2"


def test_a_registry_that_fails_keeps_what_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    model = ServedModel(registry, ServingMetrics())
    with monkeypatch.context() as patch:
        patch.setattr(registry, "current", lambda: 1 / 0)
        assert not model.look()
    assert model.standing().failure == "ZeroDivisionError: division by zero"
    assert not model.look()
    assert model.standing().failure == ""


def test_a_version_that_scores_no_probability_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ServedModel(Registry(), ServingMetrics())
    monkeypatch.setattr(FormulaScorer, "score_request", lambda *_: [float("nan")])
    registry = Registry(2)
    with pytest.raises(CtnetError, match="ctnet/2 scores a row of zeros nan: it is not served"):
        ServedModel(registry, ServingMetrics())
    assert registry.scorers[0].asked == []
    assert model.standing().version == "1"


def test_a_version_is_tried_on_a_row_of_all_fields() -> None:
    registry = Registry()
    ServedModel(registry, ServingMetrics())
    user = {"user": "0", "clicked": ["0"], "item": "0", "price": 0.0}
    assert registry.scorers[0].asked == [(user, {"pixels": [[0.0, 0.0]]})]


def test_looks_go_on_until_they_are_ended() -> None:
    ended, looked = threading.Event(), threading.Semaphore(0)
    thread = keep_looking(looked.release, 0.001, ended)
    for _ in range(3):
        assert looked.acquire(timeout=5)
    ended.set()
    thread.join(5)
    assert not thread.is_alive()


def test_the_row_that_tries_a_model_leaves_out_what_is_looked_up() -> None:
    scorer = FormulaScorer(1)
    scorer.fields = tuple(replace(field, looked_up=field.name == "price") for field in scorer.fields)
    try_once(scorer)
    ((user, candidates),) = scorer.asked
    assert {*user, *candidates} == {"user", "clicked", "item", "pixels"}
