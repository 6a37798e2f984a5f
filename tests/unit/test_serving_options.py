"""How a model is served, checked before Ray starts; and the load generator."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.serving.knee import main
from benchmarks.serving.load import find_knee, knee, offer
from ctnet_ray.cluster.serving import ServingOptions, check_port, listen
from ctnet_ray.config import TrackingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration import serving as server
from tests.unit.serving_world import TWO, serving


def test_what_can_t_be_is_named() -> None:
    wrong = {
        "port": 0,
        "replicas": 0,
        "threads": 0,
        "most_waiting": -1,
        "most_together": 0,
        "look_seconds": 0,
        "keep_alive_seconds": 0,
    }
    for name, value in wrong.items():
        with pytest.raises(CtnetError, match=f"--{name} can't be {value}: give"):
            replace(ServingOptions(), **{name: value})


def test_a_server_is_ended_in_order_though_ray_took_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    @contextmanager
    def like_ray(source: object, options: ServingOptions) -> Iterator[str]:
        signal.signal(signal.SIGTERM, lambda number, frame: pytest.fail("aborted"))
        yield "http://127.0.0.1:8000"
        said.append("ended")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(server, "serving", like_ray)
    monkeypatch.setattr(server, "model_source", lambda name, tracking: None)
    monkeypatch.setattr(server, "while_ray_lives", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        server.serve_model("ctnet@champion", ServingOptions(), TrackingConfig())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert said == ["ended"]


def test_a_port_that_is_taken_is_not_shared() -> None:
    with closing(listen("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        check_port("127.0.0.1", port)  # nobody is called yet
        listening.listen()
        with pytest.raises(CtnetError, match=f"port {port} of 127.0.0.1 is taken"):
            check_port("127.0.0.1", port)
        # A replica's own kind may.
        listen("127.0.0.1", port).close()
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(CtnetError, match=f"can't listen on 127.0.0.1, port {port}"):
            listen("127.0.0.1", port)


def test_a_load_is_offered_at_its_rate_and_failures_are_counted() -> None:
    with serving() as server:
        good, bad = json.dumps(TWO).encode(), b"{}"
        load = offer("127.0.0.1", server.port, [good], 50, 1.0)
        assert 30 < load.rate < 75  # Poisson: 50 and three standard deviations
        assert load.versions == {"1": round(load.rate)}
        assert load.is_sustained
        assert 0 < load.p50 <= load.p95 <= load.p99
        half = offer("127.0.0.1", server.port, [good, bad], 50, 1.0)
        assert half.failed == round(half.rate) // 2
        assert not half.is_sustained


class ClosesSoon(BaseHTTPRequestHandler):
    """Closes connections that are idle for a moment."""

    protocol_version = "HTTP/1.1"
    timeout = 0.01

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_a_connection_that_the_server_closed_while_idle_is_no_failure() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), ClosesSoon) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        load = offer("127.0.0.1", server.server_port, [b"{}"], 15, 1.5)
        server.shutdown()
    assert load.answered > 0
    assert load.failed == 0


def test_the_knee_is_the_last_rate_that_was_kept_up_with() -> None:
    with serving() as server:
        loads = find_knee("127.0.0.1", server.port, [json.dumps(TWO).encode()], 0.2, 0.0)
    assert len(loads) == 1  # no p99 is zero
    assert knee(loads, 0.0) is None
    assert knee(loads, 1e6) == loads[0]


def test_the_load_command_prints_each_rate_and_the_knee(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CtnetError, match=r"no request in .*: write its JSON body into it"):
        main(str(tmp_path / "none.json"))
    body = tmp_path / "request.json"
    body.write_text(json.dumps(TWO))
    with serving() as server:
        main(str(body), server.port, seconds=0.2, most_p99=0.0)
    printed = capsys.readouterr().out
    assert "answered/s" in printed
    assert "knee: none" in printed
