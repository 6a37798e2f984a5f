"""Parsers of the folders that this package writes: sample days, runs, versions, exports, deltas.

A file in them is changed, and checksums and digests are made to fit it, for else all would be refused.
"""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import ctnet_ray as ct
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.config import GuardConfig
from ctnet_ray.export.deltas import write_delta
from ctnet_ray.export.writing import export
from ctnet_ray.runs import day_guard, index
from ctnet_ray.runs.lock import locked
from ctnet_ray.runs.records import (
    EvaluationRecord,
    Rewind,
    RunRecord,
    read_made,
    read_rewinds,
    read_steps,
)
from ctnet_ray.samples.checksums import changed_files
from ctnet_ray.samples.reading import plan_reading
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.serving.deltas import apply_deltas, find_deltas, read_delta
from ctnet_ray.serving.folder import open_folder
from ctnet_ray.storage import DIGEST, MANIFEST
from ctnet_ray.training.touched_rows import FILE as TOUCHED_ROWS
from ctnet_ray.training.touched_rows import read_touched
from ctnet_ray.training.versions import open_version, read_record
from tests.faults.mutation import Kind
from tests.faults.target import Part, Target
from tests.unit import delta_world
from tests.unit.loop_world import BASE, DAYS, World, walk

Fit = Callable[[dict[str, Any], str, bytes], None]  # makes a manifest fit a file's content


def undigested(path: Path) -> bytes:
    """Return a JSON file without its digest, as releases wrote it that had none."""
    return json.dumps(
        {key: value for key, value in json.loads(path.read_text()).items() if key != DIGEST}
    ).encode()


def of_json(path: Path, read: Callable[[], object]) -> Part:
    """Return a part that changes a JSON file."""

    def read_changed(content: bytes) -> None:
        path.write_bytes(content)
        read()

    return Part(path.name, "json", (undigested(path),), _restored([path], read_changed))


def of_file(path: Path, kind: Kind, fit: Fit, read: Callable[[], object]) -> Part:
    """Return a part that changes a file which the manifest beside it names."""
    manifest = path.parent / MANIFEST

    def read_changed(content: bytes) -> None:
        path.write_bytes(content)
        entries = json.loads(undigested(manifest))
        fit(entries, path.name, content)
        manifest.write_text(json.dumps(entries))
        read()

    return Part(path.name, kind, (path.read_bytes(),), _restored([path, manifest], read_changed))


def _restored(paths: list[Path], read: Callable[[bytes], None]) -> Callable[[bytes], None]:
    contents = [path.read_bytes() for path in paths]

    def read_and_restore(content: bytes) -> None:
        try:
            read(content)
        finally:
            for path, before in zip(paths, contents, strict=True):
                path.write_bytes(before)

    return read_and_restore


def _fit_list(manifest: dict[str, Any], name: str, content: bytes) -> None:
    (entry,) = (entry for entry in manifest["files"] if entry["name"] == name)
    entry |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}


def _fit_mapping(manifest: dict[str, Any], name: str, content: bytes) -> None:
    manifest["files"][name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}


def versions(world: World) -> Target:
    """A version's files: its manifest, a file of tensors, the rows that its step touched."""
    run = next((world.root / "models").glob(f"{BASE}-*"))
    plans = [walk(world.plan(world.method(method, last=2))) for method in ("ctnet_residual", "ctnet")]
    others = [next(Path(plan.folder).glob("day=*")) for plan in plans]
    version = run / f"day={DAYS[3]}"
    rows = {"tower.embedder.embeddings.item": 60, "tower.embedder.embeddings.user": 30}

    def reading(version: Path) -> Callable[[], None]:
        def read() -> None:
            index._remembered.clear()
            read_steps(str(version.parent))
            open_version(str(version))

        return read

    read = reading(version)
    parts = (
        *(of_json(place / MANIFEST, reading(place)) for place in (version, *others)),
        of_file(next(version.glob("*.safetensors")), "safetensors", _fit_list, read),
        of_file(version / TOUCHED_ROWS, "safetensors", _fit_list, lambda: read_touched(str(version), rows)),
    )
    return Target("version", parts, world.root)


def records(world: World) -> Target:
    """A run's records, and what else lies in its folder."""
    run = next((world.root / "models").glob(f"{BASE}-*"))
    other = world.root / "many"
    for number in range(1, 32):  # as many as an index is read for
        path = other / f"evaluations/2022-05-{number:02}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((run / f"evaluations/{DAYS[1]}.json").read_bytes())
    Rewind(DAYS[1], datetime(2022, 5, 9, tzinfo=UTC), "me", (DAYS[1],), ()).write(str(run))
    with locked([str(run)], print):
        held = (run / "lock.json").read_bytes()
    (run / "lock.json").write_bytes(held)

    def read_index() -> None:
        index._remembered.clear()
        read_made(str(other))

    (other / index.INDEX).write_text(json.dumps({"records": _index_of(other)}))

    def read_lock() -> None:
        with locked([str(run)], lambda _: None):
            pass

    evaluation = run / f"evaluations/{DAYS[1]}.json"
    measures = run / f"measures/channel/{DAYS[1]}.json"
    parts = (
        of_json(run / "run.json", lambda: RunRecord.read(str(run))),
        of_json(evaluation, lambda: EvaluationRecord.read(str(run), DAYS[1])),
        of_json(next(run.glob("set_aside/*/rewind.json")), lambda: read_rewinds(str(run))),
        of_json(other / index.INDEX, read_index),
        of_json(run / "lock.json", read_lock),
        of_json(measures, lambda: _guard(world, run)),
    )
    return Target("records", parts, world.root)


def _index_of(folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("evaluations/*.json"))
    return {
        f"evaluations/{path.name}": [
            path.stat().st_size,
            path.stat().st_mtime_ns,
            json.loads(undigested(path)),
        ]
        for path in files
    }


def _guard(world: World, run: Path) -> None:
    """Compare a day with those before it, as their measures have them."""
    steps = read_steps(str(run))
    manifest = SampleStore(f"{world.root}/samples").manifest("channel", DAYS[4])
    (last,) = (step for step in steps if step.day == DAYS[4])
    folding = Encoder(read_record(str(run / f"day={DAYS[4]}")).spec.inputs, "channel").folding
    before = [step for step in steps if step != last]
    for line in day_guard.refused(str(run), "run", [(manifest, folding)], before, GuardConfig()):
        assert "\n" not in line


def sample_days(world: World) -> Target:
    """A sample day's manifest, and what is planned by it."""
    store = SampleStore(f"{world.root}/samples")

    def read() -> None:
        manifest = store.manifest("channel", DAYS[1])
        store.check_files(manifest, checksums=True)
        changed_files([manifest])
        plan_reading(manifest, rank=0, world_size=2, batch_size=64, seed=(1,))
        assert manifest.digest
        store.days("channel", date.min)

    path = Path(store.uri("channel", DAYS[1])) / MANIFEST
    return Target("samples", (of_json(path, read),), world.root)


@cache
def exported(world: World) -> str:
    """Export a version, once; return the folder."""
    run, place = next((world.root / "models").glob(f"{BASE}-*")), world.root / "exported"
    ct.open_version(str(run / f"day={DAYS[3]}")).export(str(place))
    return str(place)


def exports(world: World) -> Target:
    """An exported version's files."""
    place = Path(exported(world))
    row = {"item": [3], "user": ["u"], "tag": [1], "clicks": [[1, 2]], "tags": [[]]}

    def read() -> None:
        open_folder(str(place)).scorer.score(row)

    parts = (
        of_json(place / MANIFEST, read),
        of_file(place / "parameters.safetensors", "safetensors", _fit_mapping, read),
        of_file(place / "table_0000.safetensors", "safetensors", _fit_mapping, read),
        of_file(place / "program.pt2", "bytes", _fit_mapping, read),
    )
    return Target("export", parts, world.root)


def deltas(world: World) -> Target:
    """A delta's files, and what comes of it."""
    place, first = world.root / "delta_base", delta_world.first()
    export(first, str(place))
    (step,) = islice(delta_world.steps(first, seed=0, share=0.1), 1)
    delta = place / "deltas/000001"
    write_delta(step.traced, first.scorer.card, step.changes, str(delta))
    base = open_folder(str(place))

    def read() -> None:
        find_deltas(str(place), base.scorer.card)
        apply_deltas(base, [read_delta(str(delta))])

    rows = [path for path in sorted(delta.glob("rows_*")) if path.stat().st_size]
    parts = (
        of_json(delta / MANIFEST, read),
        *(of_file(path, "safetensors", _fit_mapping, read) for path in rows),
    )
    return Target("delta", parts, world.root)
