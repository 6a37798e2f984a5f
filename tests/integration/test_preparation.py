"""Samples prepared by tasks of Ray: the bytes of one process, on one node, on two, and where one is lost."""

import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import yaml
from rich.progress import Progress

from ctnet_ray.cluster.preparation import on_ray
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.table import write_table
from tests.integration.commands import start
from tests.integration.nodes import end, head_node, made, submit_when_ready, wait_for, worker_node
from tests.unit.test_work import MAPPING, Command, content, prepared, row

ROWS = 1_000_000
FILES = 4
STEPS = 12


def write_log(folder: Path) -> list[str]:
    """Write a log of several files whose rows are of all days."""
    rng, part = np.random.default_rng(0), ROWS // FILES
    for number in range(FILES):
        columns = {
            "at": rng.integers(0, STEPS * 86_400, part),
            "who": rng.integers(0, 20_000, part),
            "what": rng.integers(0, 5_000, part),
            "clicked": (rng.random(part) < 0.1).astype(np.int8),
            "scene": pa.array(["feed", "channel"]).take(pa.array((rng.random(part) < 0.3).astype(np.int8))),
        }
        pacsv.write_csv(pa.table(columns), folder / f"{number}.csv")
    return sorted(map(str, folder.glob("*.csv")))


def test_the_command_makes_the_same_bytes_on_ray(
    cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command(
        tuple(row(day, second, user) for day in range(9) for second in range(9) for user in "ab")
    )
    prepared(made(tmp_path / "one"), command, None)
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(MAPPING))
    options = ["--raw=log.csv", "--mapping=map.yaml", "--out=other"]  # Ray was started in another folder

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        start(patch, "jobs.prepare", ["table", *options, "--workers=2"])

    assert content(tmp_path / "other") == content(tmp_path / "one")
    assert "clicked" not in capsys.readouterr().err  # no warning, no traceback


def test_what_is_wrong_is_said_as_in_one_process(cluster: None, tmp_path: Path) -> None:
    first, other = Command((row(0), row(1))), Command((row(0, item="j"), row(1), row(2)))
    for folder in (made(tmp_path / "one"), made(tmp_path / "other")):
        prepared(folder, first, None)

    said = prepared(tmp_path / "one", other, None)

    assert on_ray(2, lambda work: prepared(tmp_path / "other", other, work)) == said
    assert "feed 1970-01-01 has 1 rows, and these make 1 others" in said
    (tmp_path / "log.jsonl").write_text('{"at": 1')
    mapping, store = from_dict(MAPPING, "map.yaml"), SampleStore(str(tmp_path / "none"))
    with pytest.raises(CtnetError, match="none of the 1 rows read can be a sample"):
        on_ray(
            2,
            lambda work: write_table(
                [f"{tmp_path}/log.jsonl"], mapping, store, Progress(disable=True), work=work
            ),
        )


@pytest.mark.slow
@pytest.mark.parametrize("is_lost", [False, True])
def test_nodes_make_the_same_bytes_though_one_is_lost(tmp_path: Path, is_lost: bool) -> None:
    paths = write_log(made(tmp_path / "logs"))
    store = SampleStore(str(tmp_path / "one"))
    write_table(paths, from_dict(MAPPING), store, Progress(disable=True))
    working, out = made(tmp_path / "working"), SampleStore(str(tmp_path / "many"))
    (working / "map.yaml").write_text(yaml.safe_dump(MAPPING))
    command = [sys.executable, "-m", "jobs.prepare", "table", f"--raw={tmp_path}/logs/*.csv"]
    command += ["--mapping=map.yaml", f"--out={out.root}", "--workers=3"]
    with ExitStack() as stack:
        head = stack.enter_context(head_node(cpus=1))
        node = stack.enter_context(worker_node(head, cpus=2))

        def take_it_away() -> None:
            wait_for(lambda: bool(out.days("feed")))
            end(node)

        taker = threading.Thread(target=take_it_away)
        if is_lost:
            taker.start()
        done = submit_when_ready(head, working, command)
        if is_lost:
            taker.join()

    assert done.returncode == 0, done.stdout
    assert content(tmp_path / "many") == content(tmp_path / "one")
    assert len(out.days("feed")) == STEPS
