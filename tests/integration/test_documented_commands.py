"""What README and docs tell people to type: every option is there, and what takes minutes at most runs."""

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import requests
import yaml
from jsonargparse import auto_parser
from ray.scripts.scripts import cli as ray_cli

import ctnet_ray
from ctnet_ray.cluster.serving import listen
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.tracking.tracker import Tracker
from ctnet_ray.writers.synthetic import write_schema, write_world
from ctnet_ray.writers.synthetic_config import WorldConfig
from jobs import command as command_module
from tests.documented import ROOT, read_blocks, read_blocks_of
from tests.integration.commands import start

Check = Literal["run", "parse", "none"]
#: What is done with each block that names no language; a new one must be put in here.
CHECKS: dict[tuple[str, str], Check] = {
    ("README.md", "make demo"): "run",
    ("README.md", ".venv/bin/python -m jobs.serve --model demo.channe"): "run",
    ("README.md", "curl http://127.0.0.1:8000/score -H 'Content-Type:"): "run",
    ("README.md", ". .venv/bin/activate"): "run",
    ("README.md", "python -m jobs.pretrain_source --config configs/so"): "run",
    ("README.md", "ray up ray_cluster.yaml"): "parse",  # a cluster
    ("CONTRIBUTING.md", "make setup"): "parse",  # runs this test
    ("docs/cluster.md", "export RAY_AUTH_MODE=token"): "parse",  # a cluster, as all on this page
    ("docs/cluster.md", ". .venv/bin/activate"): "parse",
    ("docs/cluster.md", "ray get-auth-token --generate"): "parse",
    ("docs/daily.md", "python -m jobs.daily --config configs/source.yaml"): "run",
    ("docs/daily.md", "python -m jobs.retain two-teams.feed.source --newe"): "parse",
    ("docs/daily.md", "export MLFLOW=sqlite:///demo/mlflow.db"): "run",
    ("docs/daily.md", "python -m jobs.daily --config configs/target.yaml"): "parse",
    ("docs/data.md", "cp configs/table_mapping_example.yaml my_mapping.y"): "run",
    ("docs/data.md", "python -m jobs.prepare table --raw DIR --mapping c"): "parse",  # a download
    ("docs/data.md", "python -m jobs.prepare table --raw 'logs/2022-05-0"): "parse",  # a day's log
    ("docs/data.md", "python -m jobs.prepare register --store samples"): "parse",  # days of another tool
    ("docs/data.md", "python -m jobs.prepare statistics --store samples"): "parse",  # a bucket
    ("docs/data.md", "python -m jobs.inspect --store samples --output lo"): "run",
    ("docs/data.md", "python -m jobs.pretrain_source --data.store sample"): "run",
    ("docs/install.md", "make setup"): "parse",  # the network
    ("docs/install.md", "python3.11 -m venv .venv"): "none",  # the network, a GPU
    ("docs/install.md", ".venv/bin/python -c 'import torch, torchrec; print"): "none",  # a GPU
    ("docs/methods.md", "python -m jobs.compare --config configs/kuairand.y"): "parse",  # KuaiRand
    (
        "docs/mlflow.md",
        "mlflow ui --backend-store-uri sqlite:///mlflow.db",
    ): "none",  # test_mlflow_ui.py
    ("docs/mlflow.md", "CTNET_DOCS_IMAGES=docs/images python -m pytest tes"): "none",
    ("docs/results.md", "python -m benchmarks.outside_checks --store data/k"): "parse",  # KuaiRand
    ("docs/results.md", "for s in 0 1 2 3; do python -m jobs.prepare synthe"): "parse",  # 20 minutes
    ("docs/results.md", "for seed in 0 1 2; do python -m jobs.prepare synth"): "parse",
    ("docs/results.md", "python -m jobs.prepare kuairand --raw DIR --out da"): "parse",  # KuaiRand
    ("docs/results.md", "python -m benchmarks.slices --store data/kuairand"): "parse",
    ("docs/results.md", "python -m benchmarks.attribute_rates --store data/"): "parse",
    ("docs/results.md", "for s in 0 1 2 3 4; do python -m jobs.prepare synt"): "parse",  # hours
    ("docs/results.md", "python -m jobs.prepare synthetic --out demo/sample"): "parse",
    ("docs/results.md", "for s in 0 1 2; do python -m jobs.prepare syntheti"): "parse",
    (
        "docs/results.md",
        "python -m tuning.sweep --config configs/kuairand_s",
    ): "parse",  # test_sweep.py
    ("docs/results.md", "python -m benchmarks.recovery --store data/kuairan"): "parse",
    ("docs/scoring.md", "python -m jobs.export two-teams.channel.ctnet --ou"): "run",
    ("docs/scoring.md", "mlflow models serve -m exported --env-manager loca"): "none",  # test_mlflow_serve.py
    ("docs/scoring.md", "python -m jobs.export two-teams.channel.ctnet/1 --"): "run",
    ("docs/sweeps.md", "python -m tuning.sweep --config configs/kuairand_s"): "parse",
}
#: Files that people make of a shipped one.
COPIES = {"my_comparison.yaml": "demo.yaml", "my_source.yaml": "source.yaml"}
#: What stands for FILE.yaml.
FILES = {"jobs.pretrain_source": "configs/source.yaml", "tuning.sweep": "configs/kuairand_sweep.yaml"}
BLOCKS = read_blocks()
SERVE = ("README.md", ".venv/bin/python -m jobs.serve --model demo.channe")
CURL = ("README.md", "curl http://127.0.0.1:8000/score -H 'Content-Type:")


def test_every_block_is_checked_or_said_not_to_be() -> None:
    assert list(BLOCKS) == list(CHECKS)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder but for what a checkout has that commands name."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "ray_cluster.yaml", tmp_path)
    for copy, name in COPIES.items():
        shutil.copy(ROOT / "configs" / name, tmp_path / copy)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("key", [key for key, check in CHECKS.items() if check != "none"], ids=str)
def test_all_that_a_command_names_is_there(
    key: tuple[str, str], fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(components: Any, *, args: list[str] | None, **settings: Any) -> None:
        auto_parser(components, **settings).parse_args(args)

    monkeypatch.setattr(command_module, "auto_cli", parse)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in _typed(BLOCKS[key].commands):
        match words:
            case ["python" | ".venv/bin/python", "-m", module, *options]:
                start(
                    monkeypatch, module, [FILES[module] if word == "FILE.yaml" else word for word in options]
                )
            case ["make", *names]:
                assert set(names) <= set(targets)
            case ["cp", file, _]:
                assert (fresh / file).is_file()
            case ["ray", *options]:
                _parse_for_ray(options)
            case _:
                assert words[0] in {".", "curl", "export", ".venv/bin/pre-commit"}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_the_demo(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_demo_samples(days=10)  # the demo writes what is not there, at a size of minutes
    _run(monkeypatch, "README.md", "make demo")
    assert (fresh / "demo/report/index.html").is_file()

    answer = _answer_while_served(monkeypatch)
    (shown,) = (json.loads(text) for text in read_blocks_of("README.md", "json"))
    newest = Tracker("sqlite:///demo/mlflow.db", "demo").resolve("demo.channel.ctnet")
    assert (answer["model"], answer["version"]) == ("demo.channel.ctnet", str(newest.number))
    assert all(0 < score < 1 for score in answer["scores"])
    assert (answer.keys(), len(answer["scores"])) == (shown.keys(), len(shown["scores"]))


def _answer_while_served(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Serve as README says, on another port, and return what its `curl` gets."""
    ((_, _, module, *options),) = BLOCKS[SERVE].commands
    ((_, address, _, header, _, body),) = BLOCKS[CURL].commands
    with listen("127.0.0.1", 0) as free:
        port = str(free.getsockname()[1])
    name, value = header.split(": ")
    is_over, rays = threading.Event(), signal.getsignal(signal.SIGTERM)

    def ask() -> requests.Response | None:
        while not is_over.wait(0.2):
            with suppress(requests.ConnectionError):
                response = requests.post(
                    address.replace("8000", port), body, headers={name: value}, timeout=60
                )
                # It ends the server, which answers a moment before it listens to signals.
                while signal.getsignal(signal.SIGTERM) == rays:
                    if is_over.wait(0.05):
                        return response
                os.kill(os.getpid(), signal.SIGTERM)
                return response
        return None

    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(ask)
        try:
            start(patch, module, [*options, "--port", port])
        finally:
            is_over.set()
        response = asked.result()
    assert response is not None
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.slow  # the next one starts the same runs, by the daily job
@pytest.mark.usefixtures("cluster")
def test_two_teams_on_the_samples_of_the_demo(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_demo_samples(days=10)
    _run(monkeypatch, "README.md", "python -m jobs.pretrain_source --config configs/so")
    tracker = Tracker(f"sqlite:///{fresh}/demo/mlflow.db", "two-teams")
    versions = {name: tracker.versions(f"two-teams.{name}") for name in ("feed.source", "channel.ctnet")}
    assert {name: len(series) for name, series in versions.items()} == {"feed.source": 9, "channel.ctnet": 5}
    assert all(version.uri.startswith(f"{fresh}/demo/models/") for version in versions["channel.ctnet"])


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_day_after_the_other_to_a_champion_and_back(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_demo_samples(days=7)
    _run(monkeypatch, "docs/daily.md", "python -m jobs.daily --config configs/source.yaml")
    tracker = Tracker(f"sqlite:///{fresh}/demo/mlflow.db", "two-teams")
    assert [len(tracker.versions(f"two-teams.channel.{name}")) for name in ("base", "ctnet")] == [7, 3]
    # Which model is better on a hundred rows is chance.
    _run(monkeypatch, "docs/daily.md", "export MLFLOW=sqlite:///demo/mlflow.db", {"jobs.promote": "--accept"})
    champion = tracker.resolve("two-teams.channel.ctnet@champion")
    assert champion.number == 1
    assert json.loads(champion.tags["champion.promoted"])["evidence"]["days"] == ["2022-04-30", "2022-05-01"]
    _check_scores(fresh, monkeypatch, champion.uri)


def _check_scores(fresh: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Run what README and docs/scoring.md say of two teams' versions."""
    # Of what they call rows, user and candidates: none says anything.
    names = [field.name for field in ctnet_ray.open_version(version).fields]
    user = {name: None for name in names if name != "item"}
    given = {"user": user, "candidates": {"item": [1, 2]}, "rows": {name: [None] for name in names}}
    given["frame"] = pd.DataFrame(given["rows"])
    for block in [*read_blocks_of("README.md", "python"), *read_blocks_of("docs/scoring.md", "python")]:
        exec(block, dict(given))  # noqa: S102

    _run(monkeypatch, "docs/scoring.md", "python -m jobs.export two-teams.channel.ctnet --ou")
    _run(monkeypatch, "docs/scoring.md", "python -m jobs.export two-teams.channel.ctnet/1 --")
    names = [path.name for path in (fresh / "served-2").iterdir()]
    assert {"_manifest.json", "program.pt2", "table_0000.safetensors"} <= {*names}
    assert sorted(path.name for path in (fresh / "served").iterdir()) == sorted([*names, "deltas"])
    parts = pq.read_table(fresh / "scores")
    days = (fresh / "demo/samples/channel").glob("*/*.parquet")
    assert parts.num_rows == sum(pq.read_metadata(day).num_rows for day in days)
    assert 0 < np.min(parts["score"]) < np.max(parts["score"]) < 1


def test_logs_of_one_s_own_become_samples(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_logs(fresh / "logs")
    _run(monkeypatch, "docs/data.md", "cp configs/table_mapping_example.yaml my_mapping.y")
    store = SampleStore(str(fresh / "samples"))
    assert [day.day for day in store.days("feed")] == [25, 26, 27, 28, 29]
    assert (fresh / "samples/schema.yaml").is_file()
    _run(monkeypatch, "docs/data.md", "python -m jobs.inspect --store samples --output lo")
    (advice,) = json.loads((fresh / "look/inspection.json").read_text())["advice"]
    assert (advice["source"], advice["target"]) == ("feed", "channel")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_logs_of_one_s_own_are_prepared_compared_and_trained_on(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_logs(fresh / "logs")
    config = fresh / "my_comparison.yaml"
    values = yaml.safe_load(config.read_text().replace("demo/", ""))
    values["comparison"] |= {
        "methods": ["base", "ctnet"],
        "transfer_day": "2022-04-27",
        "first_scored_day": "2022-04-28",
        "last_scored_day": "2022-04-29",
    }
    config.write_text(yaml.safe_dump(values))
    _run(monkeypatch, "README.md", ". .venv/bin/activate")
    assert (fresh / "report/index.html").is_file()

    _run(monkeypatch, "docs/data.md", "python -m jobs.pretrain_source --data.store sample")
    tracker = Tracker(f"sqlite:///{fresh}/mlflow.db", "ctnet")
    for name in ("ctnet.feed.source", "ctnet.channel.base"):
        assert [version.day.day for version in tracker.versions(name)] == [25, 26, 27, 28]


def _run(patch: pytest.MonkeyPatch, page: str, begins: str, more: Mapping[str, str] | None = None) -> None:
    """Run a block's commands, some modules' with one more option."""
    for words in _typed(BLOCKS[page, begins].commands):
        match words:
            case ["python", "-m", module, *options]:
                start(patch, module, [*map(os.path.expandvars, options), *_option(module, more)])
            case ["export", setting]:
                patch.setenv(*setting.split("=", 1))
            case ["make", "demo"]:
                assert "\t@$(BIN)/python -m jobs.demo\n" in (ROOT / "Makefile").read_text()
                start(patch, "jobs.demo")
            case ["cp", file, copy]:
                shutil.copy(file, copy)
            case _:
                assert words in (["make", "test"], [".", ".venv/bin/activate"])


def _write_demo_samples(days: int) -> None:
    world = WorldConfig(
        days=days, source_rows=200, target_rows=100, users=60, evergreen_items=80, new_items=5
    )
    write_world(SampleStore("demo/samples"), world)
    write_schema("demo/samples/schema.yaml", world)


def _option(module: str, more: Mapping[str, str] | None) -> list[str]:
    return [more[module]] if more and module in more else []


def _write_logs(folder: Path) -> None:
    """Write five days of logs in two files, as the mapping to copy describes them."""
    rng, rows = np.random.default_rng(0), np.arange(800)
    user, item = rng.integers(40, size=len(rows)), rng.integers(60, size=len(rows))
    noon = int(datetime(2022, 4, 25, 12, tzinfo=UTC).timestamp())
    columns = {
        "timestamp": 1000 * (noon + 86_400 * (rows % 5) + rows),
        "scene": np.minimum(rows % 3, 1),  # twice as many rows of the source
        "user_id": user,
        "item_id": item,
        "rating": rng.integers(11, size=len(rows)),
        "request_id": rows // 10,
        "category": item % 7,
        "price_cents": 100 * item,
        "title_words": [f"w{one % 5}|w{one % 3}" for one in item],
    }
    folder.mkdir()
    for part in range(2):
        pd.DataFrame(columns).iloc[part::2].to_csv(folder / f"{part}.csv.gz", index=False)


def _typed(commands: Iterable[list[str]]) -> Iterator[list[str]]:
    """Yield commands without those that `...` ends; one that a cluster is given comes after its giver."""
    for words in commands:
        if words[-1] == "...":
            continue
        yield words
        if words[:3] == ["ray", "job", "submit"]:
            yield words[words.index("--") + 1 :]


def _parse_for_ray(words: list[str]) -> None:
    command: click.Command | None = ray_cli
    context = click.Context(ray_cli)
    while isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(context, name)
    assert command, words
    command.make_context("", list(words))
