"""Logs and a mapping to try keys of a mapping on, and what comes out of them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.accounts import Report
from ctnet_ray.writers.files.csv_text import BLOCK_BYTES
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.table import write_table

MAPPING = {
    "time": {"column": "at", "unit": "s"},
    "domain": {"constant": "shop"},
    "user": "who",
    "item": "what",
    "label": "clicked",
}
COLUMNS = {"at": [1, 2, 3], "who": ["a", "b", "a"], "what": ["i", "j", "k"], "clicked": [1, 0, 0]}


def convert(
    tmp_path: Path, *raw: str, block_bytes: int = BLOCK_BYTES, **keys
) -> tuple[dict[str, list[dict]], Report]:
    """Return the samples by domain, by day in the order of their items' ids; keys are the mapping's."""
    store = SampleStore(str(tmp_path / "out"))
    mapping = from_dict({**MAPPING, **keys}, "map.yaml")
    paths = [str(tmp_path / path) for path in raw]
    report = write_table(
        paths, mapping, store, Progress(disable=True), existing="replace", block_bytes=block_bytes
    )
    rows = {
        domain: [
            row
            for day in store.days(domain)
            for row in pq.read_table(store.manifest(domain, day).uri).sort_by("item").to_pylist()
        ]
        for domain in store.domains()
    }
    return rows, report


def parquet(path: Path, **columns) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**COLUMNS, **columns}), path)


def ids(*raw) -> list[int]:
    return hash_ids(pa.array(raw)).to_pylist()


def log(path: Path, rows: list[str]) -> None:
    path.write_text("\n".join(["at,who,what,clicked,scene", *rows]) + "\n")
