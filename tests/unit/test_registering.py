"""Days that another tool wrote become sample days where they lie."""

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.progress import Progress

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.step import ONE_DAY, Step
from ctnet_ray.storage import MANIFEST
from ctnet_ray.writers.registering import register
from jobs import prepare
from tests.unit.loop_world import DAYS, World, results, walk

DAY = date(2022, 5, 1)


def rows(**columns: Any) -> pa.Table:
    """Return three rows, of which one is clicked."""
    return pa.table(
        {
            "label": pa.array([0, 1, 0], pa.int8()),
            "group": pa.array([7, 7, 8], pa.int64()),
            "item": pa.array([1, 2, 3], pa.int64()),
            **columns,
        }
    )


def write(root: Path, table: pa.Table, name: str = "part-0.parquet", **options: Any) -> Path:
    """Write a file of the channel's day as another tool would."""
    folder = root / f"channel/day={DAY}"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name, **options)
    return folder / name


def registered(root: Path, **options: Any) -> list[tuple[str, int, int]]:
    with Progress(disable=True) as progress:
        days = register(SampleStore(str(root)), (), progress, **options)
    return [(day.outcome, day.rows, day.positives) for day in days]


def test_a_day_is_counted_and_stays_where_it_lies(tmp_path: Path) -> None:
    first, second = write(tmp_path, rows(), row_group_size=2), write(tmp_path, rows(), "part-1.parquet")
    (first.parent / "_SUCCESS").touch()
    before = [path.read_bytes() for path in (first, second)]
    assert registered(tmp_path) == [("new", 6, 2)]
    manifest = SampleStore(str(tmp_path)).manifest("channel", DAY)
    assert [(file.name, file.row_groups) for file in manifest.files] == [
        ("part-0.parquet", (2, 1)),
        ("part-1.parquet", (3,)),
    ]
    assert manifest.columns == {"label": "int8", "group": "int64", "item": "int64"}
    assert [path.read_bytes() for path in (first, second)] == before
    assert sorted(path.name for path in first.parent.iterdir()) == sorted(
        ["_SUCCESS", MANIFEST, first.name, second.name]
    )
    assert registered(tmp_path) == [("same", 6, 2)]


def test_files_that_changed_are_taken_when_that_is_said(tmp_path: Path) -> None:
    write(tmp_path, rows())
    registered(tmp_path)
    write(tmp_path, rows(label=pa.array([1, 1, 0], pa.int8())))
    with pytest.raises(CtnetError, match=r"^channel 2022-05-01: its files were changed .*--replace true"):
        registered(tmp_path)
    assert registered(tmp_path, replace=True) == [("replaced", 3, 2)]


def test_a_run_on_registered_days_is_the_run_on_prepared_ones(job_world: World, tmp_path: Path) -> None:
    world = job_world.copied_to(tmp_path / "world")
    expected = walk(world.plan(world.config(first=0, last=1, models="prepared")))
    for manifest in (world.root / "samples/channel").glob(f"*/{MANIFEST}"):
        manifest.unlink()
    with Progress(disable=True) as progress:
        days = register(SampleStore(str(world.root / "samples")), ["channel"], progress)
    assert [day.day for day in days] == DAYS
    assert {day.outcome for day in days} == {"new"}
    assert results(walk(world.plan(world.config(first=0, last=1, models="registered")))) == results(expected)


def test_days_of_this_package_are_left_alone(job_world: World, tmp_path: Path) -> None:
    world = job_world.copied_to(tmp_path / "world")
    manifests = {path: path.read_bytes() for path in (world.root / "samples").rglob(MANIFEST)}
    assert {outcome for outcome, *_ in registered(world.root / "samples")} == {"same"}
    assert {path: path.read_bytes() for path in manifests} == manifests


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"label": pa.array([0, 1, 2], pa.int8())}, "a label is neither 0 nor 1"),
        ({"label": pa.array([0, 1, None], pa.int8())}, "column 'label' is missing in 1 rows"),
        ({"label": [0.0, 1.0, 0.0]}, "column 'label' is double, not int8: write it so"),
        ({"group": pa.array([7, None, 8], pa.int64())}, "column 'group' is missing in 1 rows"),
        ({"group": ["a", "b", "c"]}, "column 'group' is string, not int64"),
        (
            {"photo": pa.array([[1, 2]] * 3, pa.list_(pa.float32(), 2))},
            "column 'photo' is fixed_size_list.*any length",
        ),
    ],
)
def test_what_can_be_no_sample_is_one_line(tmp_path: Path, columns: dict[str, Any], reason: str) -> None:
    path = write(tmp_path, rows(**columns))
    with pytest.raises(CtnetError, match=rf"^{path}: {reason}"):
        registered(tmp_path)
    assert not (path.parent / MANIFEST).exists()


def test_folders_that_are_no_days(tmp_path: Path) -> None:
    with pytest.raises(CtnetError, match=r"^no days to register: folders .*DOMAIN/day=YYYY-MM-DD"):
        registered(tmp_path)
    path = write(tmp_path, rows().drop_columns("group"))
    with pytest.raises(CtnetError, match=r"no column 'group' \(int64\)"):
        registered(tmp_path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(CtnetError, match=rf"^{path} can't be read .*: write it anew$"):
        registered(tmp_path)
    path.rename(path.with_suffix(".csv"))
    with pytest.raises(CtnetError, match=r"day=2022-05-01 holds part-0.csv: move it"):
        registered(tmp_path)
    path.with_suffix(".csv").unlink()
    with pytest.raises(CtnetError, match=r"day=2022-05-01 holds no \*\.parquet"):
        registered(tmp_path)
    write(tmp_path, rows().slice(0, 0))
    with pytest.raises(CtnetError, match=r"day=2022-05-01 has no rows"):
        registered(tmp_path)


def test_files_of_a_day_have_the_same_columns(tmp_path: Path) -> None:
    write(tmp_path, rows())
    second = write(tmp_path, rows(item=[1.0, 2.0, 3.0]), "part-1.parquet")
    with pytest.raises(CtnetError, match=rf"^{second}: column 'item' is another than"):
        registered(tmp_path)


def test_the_command_prints_its_days(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, rows())
    prepare.register(str(tmp_path), json=True)
    (day,) = json.loads(capsys.readouterr().out)
    assert day == {"domain": "channel", "day": "2022-05-01", "rows": 3, "positives": 1, "outcome": "new"}
    prepare.register(str(tmp_path), ["channel"])
    assert "0.3333" in capsys.readouterr().out


def test_days_that_cover_some_days(tmp_path: Path) -> None:
    week = write(tmp_path, rows()).parent
    shutil.copytree(week, week.parent / "day=2022-05-08")
    assert registered(tmp_path, step=Step(7)) == [("new", 3, 1)] * 2
    store = SampleStore(str(tmp_path))
    assert {store.manifest("channel", day).step for day in store.days("channel")} == {Step(7)}

    # The next one is as those that are there.
    shutil.copytree(week, week.parent / "day=2022-05-15", ignore=lambda *_: [MANIFEST])
    assert [outcome for outcome, *_ in registered(tmp_path)] == ["same", "same", "new"]
    assert store.manifest("channel", date(2022, 5, 15)).step == Step(7)
    with pytest.raises(CtnetError, match=r"^--step 1d: days of channel that are there are steps of 7d: "):
        registered(tmp_path, step=ONE_DAY)
    shutil.copytree(week, week.parent / "day=2022-05-16", ignore=lambda *_: [MANIFEST])
    with pytest.raises(CtnetError, match=r"^channel 2022-05-16: of steps of 7d from 2022-05-01 on none "):
        registered(tmp_path)
