"""Several versions score the rows of one day, in one pass over its samples."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.batching import batches
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.errors import CtnetError, DivergedError
from ctnet_ray.samples.checksums import changed_files
from ctnet_ray.samples.encoding import MISSING
from ctnet_ray.samples.folding import Folding, whole
from ctnet_ray.samples.manifest import Manifest
from ctnet_ray.samples.reading import Reading, plan_reading, read_local
from ctnet_ray.schema import GROUP
from ctnet_ray.training.batch_loader import EVALUATION_BATCH_SIZE
from ctnet_ray.training.paired import PairedCollector, SideBySide
from ctnet_ray.training.versions import OpenVersion

_Array = NDArray[Any]


@dataclass(frozen=True)
class ScoredRows:
    """B rows, as V versions scored them."""

    label_B: _Array
    logit_VB: tuple[_Array, ...]
    """float32."""
    group_B: _Array
    cluster_B: _Array
    """int64: what errors are clustered by."""


def compare_on(
    opened: Sequence[OpenVersion], day: Manifest, cluster: str, done: Callable[[int], None]
) -> SideBySide:
    """Score a day with several versions and compare them.

    Args:
        opened: The versions.
        day: The sample day.
        cluster: Column whose values' rows are alike: a user's, or a group's.
        done: Told of the rows that are scored, batch by batch.

    Raises:
        CtnetError: A file of the day was changed, a column is not there, or scores are not finite.
    """
    with PairedCollector(len(opened)) as collector:
        scored = 0
        for rows in score_rows(opened, day, cluster):
            collector.add(rows.label_B, rows.logit_VB, rows.group_B, rows.cluster_B)
            scored += len(rows.label_B)
            done(scored)
        return collector.compare()


def score_rows(opened: Sequence[OpenVersion], day: Manifest, cluster: str = GROUP) -> Iterator[ScoredRows]:
    """Score a day, batch by batch; versions that read alike share what is read and encoded.

    Args:
        opened: The versions.
        day: The sample day.
        cluster: As for `compare_on`.

    Raises:
        CtnetError: As `compare_on`.
    """
    check_cluster(day, cluster)
    for problem in changed_files((day,)):
        raise CtnetError(problem)
    encoders = [version.encoder(day.domain) for version in opened]
    labels = sorted({encoder.folding.label for encoder in encoders})
    if len(labels) > 1:
        raise CtnetError(f"the versions predict {' and '.join(labels)}: compare those of one label")
    distinct = {_reads(encoder): encoder for encoder in encoders}
    columns = dict.fromkeys(name for encoder in distinct.values() for name in encoder.folding.columns)
    reading = plan_reading(day, rank=0, world_size=1, batch_size=EVALUATION_BATCH_SIZE)
    # Consumed in step, so that no more than a unit and a batch are held.
    tables, *copies = tee(read_local([reading], tuple(dict.fromkeys((*columns, cluster)))), len(distinct) + 1)
    streams = [
        batches(reading, _folded(copy, encoder.folding, day), encoder)
        for copy, encoder in zip(copies, distinct.values(), strict=True)
    ]
    clusters = _cut(tables, cluster, reading)
    for cluster_B, *read in zip(clusters, *streams, strict=True):
        batch_of = dict(zip(distinct, read, strict=True))
        logits = [
            _logits(version, batch_of[_reads(encoder)])
            for version, encoder in zip(opened, encoders, strict=True)
        ]
        yield ScoredRows(read[0].label_B.numpy(), tuple(logits), read[0].group_B.numpy(), cluster_B)


def check_cluster(day: Manifest, cluster: str) -> None:
    """See that a day has a column of ids to cluster by.

    Raises:
        CtnetError: It has not.
    """
    column_type = day.columns.get(cluster)
    if column_type != "int64":
        ids = ", ".join(sorted(name for name, kind in day.columns.items() if kind == "int64"))
        fault = f"column {cluster!r} is {column_type}" if column_type else f"no column {cluster!r}"
        raise CtnetError(
            f"{day.domain} {day.day}: {fault}, errors can't be clustered by it: name one of {ids}"
        )


def _reads(encoder: Encoder) -> Hashable:
    """Return what makes the batches of two versions the same."""
    return encoder.folding, tuple(encoder.towers.items()), tuple(encoder.dense.items())


def _logits(opened: OpenVersion, batch: Batch) -> _Array:
    logit_B = opened.score(batch).cpu().numpy()
    bad = len(logit_B) - int(np.count_nonzero(np.isfinite(logit_B)))
    if bad:
        raise DivergedError(
            f"{opened.record.version.id}: {bad} of {len(logit_B)} scores of a batch are not finite: "
            "take another version"
        )
    return logit_B


def _folded(tables: Iterable[pa.Table], folding: Folding, day: Manifest) -> Iterator[pa.Table]:
    for table in tables:
        try:
            yield folding.fold(table)
        except CtnetError as error:  # what is wrong with a value doesn't say on which day
            raise CtnetError(f"{day.domain} {day.day}: {error}") from error


def _cut(tables: Iterator[pa.Table], column: str, reading: Reading) -> Iterator[_Array]:
    """Cut a column of ids as `batches` cuts rows."""
    pending = np.empty(0, np.int64)
    for step in range(reading.steps):
        while len(pending) < reading.own_rows(step):
            ids = whole(next(tables)[column].fill_null(MISSING)).to_numpy()
            pending = np.concatenate([pending, ids])
        yield pending[: reading.own_rows(step)]
        pending = pending[reading.own_rows(step) :]
