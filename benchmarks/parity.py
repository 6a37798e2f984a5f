"""How near a scorer's probabilities are to the training path's, and how fast it is beside it.

python -m benchmarks.parity --models runs/models --store data/kuairand --domain tab0 --rows 100000

Of each method that has runs of the domain below `--models` one version is taken, of the newest day. Its rows
are those of the domain's newest days, as they are and once more as raw values would be missing (every third
value is null), so that unseen ids, empty histories and missing numbers are among them.
"""

from collections.abc import Callable, Iterator
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from ctnet_ray import storage
from ctnet_ray.export.opening import traced
from ctnet_ray.runs.records import RunRecord, read_steps, version_folder
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.training.versions import OpenVersion, open_version
from jobs.command import run

_BATCH = 8192  #: rows that both score at once


def main(store: str, domain: str, models: str = "runs/models", rows: int = 100_000, repeats: int = 3) -> None:
    """Compare scores of one version a method, on one thread.

    Args:
        store: Sample store.
        domain: Target domain.
        models: Root of the versions.
        rows: Rows that are compared.
        repeats: Turns, of which the fastest counts.
    """
    torch.set_num_threads(1)
    samples = _samples(store, domain, rows)
    table = Table(
        "method", "run", "largest difference", "rows/s", "of the training path's", "seconds to trace"
    )
    for method, uri in _versions(models, domain):
        opened = open_version(uri)
        start = perf_counter()
        scorer = traced(opened).scorer
        seconds = perf_counter() - start
        expected, path_rate = _fastest(repeats, lambda opened=opened: _training_path(opened, samples), rows)
        scores, rate = _fastest(repeats, lambda scorer=scorer: scorer.score_samples(samples), rows)
        largest = float(np.abs(scores - expected).max())
        name = opened.record.run.run
        table.add_row(
            method, name, f"{largest:.1e}", f"{rate:,.0f}", f"{rate / path_rate:.2f}", f"{seconds:.1f}"
        )
    Console(width=160).print(table)


def _versions(models: str, domain: str) -> Iterator[tuple[str, str]]:
    """Give a version of each method."""
    methods = set()
    for name in storage.list_folders(models):
        record = RunRecord.read(folder := storage.join(storage.absolute(models), name))
        steps = read_steps(folder) if record and record.domain == domain else ()
        if record and steps and record.method not in methods:
            methods.add(record.method)
            yield record.method, version_folder(folder, steps[-1].day)


def _samples(store: str, domain: str, rows: int) -> pa.Table:
    """Return rows of the newest days: half of them as they are, half with values that lack."""
    samples = SampleStore(store)
    tables, half = [], -(-rows // 2)
    for day in reversed(samples.days(domain)):
        manifest = samples.manifest(domain, day)
        tables += [pq.read_table(storage.join(manifest.uri, file.name)) for file in manifest.files]
        if sum(map(len, tables)) >= half:
            break
    whole = pa.concat_tables(tables)
    whole = pa.concat_tables([whole] * -(-half // len(whole))).slice(0, half).combine_chunks()
    return pa.concat_tables([whole, _with_nulls(whole)]).slice(0, rows).combine_chunks()


def _with_nulls(table: pa.Table) -> pa.Table:
    """Return a table with every third value of each feature missing, another third for each column."""
    for index, name in enumerate(table.column_names):
        if name not in ("label", "group"):
            lacks = np.arange(len(table)) % 3 == index % 3
            column = table[name].combine_chunks().take(pa.array(np.arange(len(table)), mask=lacks))
            table = table.set_column(index, table.schema.field(name), column)
    return table


def _training_path(opened: OpenVersion, samples: pa.Table) -> np.ndarray:
    """Score as the loop scores a day."""
    encoder = opened.encoder(opened.record.run.domain)
    scores = []
    for start in range(0, len(samples), _BATCH):
        part = samples.slice(start, _BATCH)
        batch = encoder.batch([(encoder.encode(part), 0, len(part))], len(part), len(part))
        scores.append(torch.sigmoid(opened.score(batch)))
    return torch.cat(scores).numpy()


def _fastest(repeats: int, score: Callable[[], np.ndarray], rows: int) -> tuple[np.ndarray, float]:
    """Return scores, and the rows a second of the fastest turn."""
    seconds: list[float] = []
    scores = np.zeros(0)
    for _ in range(repeats):
        start = perf_counter()
        scores = score()
        seconds.append(perf_counter() - start)
    return scores, rows / min(seconds)


if __name__ == "__main__":
    run(main, __doc__ or "")
