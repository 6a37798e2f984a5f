"""What a sample day is like: figures small enough to be kept, and comparable with those of other days.

One pass over the day's Parquet files, in bounded memory:

- of each column how many rows are empty (no id, no number, no list) or infinite, and counts by bin;
- of a column of ids a sample of them: those whose hash lies below a bound, so that two days have the same
  ones as far as both have them. How many rows have new ids is estimated from the rows of those.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import date
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from ctnet_ray import storage
from ctnet_ray.dense import DenseFeature
from ctnet_ray.samples.encoding import MISSING
from ctnet_ray.samples.folding import Folding
from ctnet_ray.samples.manifest import Manifest
from ctnet_ray.schema import LABEL
from ctnet_ray.storage import Count, Sha256

EMPTY_BIN = "empty"
_ROWS = 1 << 17  #: rows read at a time
_SAMPLED_IDS = 1024  #: of a column; at most twice as many are kept
_HASH = np.uint64(0x9E3779B97F4A7C15)  #: odd, so that different ids have different hashes (Fibonacci hashing)
_ID_BINS = 16
_FARTHEST = 8.0  #: standard deviations; what is farther from the mean counts there
_TINY = 1e-12
_ALL = 1 << 64
_Array = NDArray[Any]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ColumnMeasures:
    """One column of a day."""

    empty: Count
    """Rows without an id, a number, or anything in the list."""
    infinite: Count
    """Rows with an infinite number."""
    bins: dict[str, Count]
    """Rows by bin: of ids by hash, of numbers by bucket or standard deviations, of lists by length in powers
    of two; the empty ones are one too. Of vectors none else."""
    below: int = 0
    """Bound of the hashes of sampled ids; 0: no ids."""
    ids: str = ""
    """Hashes of the sampled ids, ascending, unsigned 64 bits, base64."""
    new: float | None = None
    """Estimated share of the rows whose id none of the days before had; None: there were too few of them."""

    @property
    def hashes(self) -> _Array:
        """Hashes of the sampled ids, ascending, uint64."""
        return np.frombuffer(base64.b64decode(self.ids), np.uint64)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DayMeasures:
    """One sample day."""

    domain: str
    day: date
    digest: Sha256
    """Digest of its manifest."""
    rows: Count
    positives: Count
    columns: dict[str, ColumnMeasures] = field(default_factory=dict)


def measure(manifest: Manifest, folding: Folding, before: Sequence[DayMeasures] = ()) -> DayMeasures:
    """Measure a sample day.

    Args:
        manifest: The day.
        folding: What is read of it.
        before: Measures of the days that new ids are new to; none: new ids are not counted.

    Raises:
        OSError: A file can't be read.
    """
    tallies = _tallies(folding)
    names = [name for name in tallies if name in manifest.columns]
    for file in manifest.files if names else ():
        filesystem, path = storage.resolve(storage.join(manifest.uri, file.name))
        with filesystem.open_input_file(path) as source, pq.ParquetFile(source) as parquet:
            for batch in parquet.iter_batches(_ROWS, columns=names):
                for name in names:
                    tallies[name].add(batch.column(name))
    columns = {
        name: tallies[name].result([day.columns[name] for day in before if name in day.columns])
        for name in names
    }
    positives = _positives(manifest, folding.label)
    return DayMeasures(manifest.domain, manifest.day, manifest.digest, manifest.rows, positives, columns)


def _positives(manifest: Manifest, label: str) -> int:
    if label == LABEL:
        return manifest.positives
    filesystem, path = storage.resolve(manifest.uri)
    files = (f"{path}/{file.name}" for file in manifest.files)
    return sum(
        pc.sum(pq.read_table(file, columns=[label], filesystem=filesystem)[label]).as_py() or 0
        for file in files
    )


def _tallies(folding: Folding) -> dict[str, "_Tally"]:
    """Return what counts each column that is read."""
    tallies: dict[str, _Tally] = {}
    for feature in (key.feature for key in folding.keys):
        if feature.present_in(folding.domain):
            tallies[feature.name] = {
                "categorical": _Ids,
                "numeric": lambda edges=feature.boundaries: _Buckets(edges),
                "sequence": _Lists,
            }[feature.kind]()
    for feature in chain.from_iterable(folding.dense):
        if feature.present_in(folding.domain):
            tallies[feature.name] = _Vectors() if feature.width > 1 else _Standardised(feature)
    return tallies


def stability(bins: Mapping[str, int], before: Mapping[str, int]) -> float:
    """Return the population stability index of counts by bin, less what chance alone makes of it.

    PSI = sum over bins of (p - q) ln(p / q), p and q being a bin's shares now and before. Of two samples of n
    and m rows of one population it is about (bins - 1) (1 / n + 1 / m) (Yurdakul and Naranjo, 2020).
    """
    names = sorted({*bins, *before})
    now_B, before_B = (np.array([counts.get(name, 0) for name in names], float) for counts in (bins, before))
    if not now_B.sum() or not before_B.sum():
        return 0.0
    p_B, q_B = ((counts_B + 0.5) / (counts_B + 0.5).sum() for counts_B in (now_B, before_B))
    by_chance = (len(names) - 1) * (1 / now_B.sum() + 1 / before_B.sum())
    return max(0.0, float(((p_B - q_B) * np.log(p_B / q_B)).sum()) - by_chance)


class _Tally:
    """Counts of one column while a day is read."""

    def __init__(self) -> None:
        self.empty = self.infinite = 0
        self.bins: Counter[str] = Counter()

    def add(self, column: Any) -> None:
        """Count some rows, an Arrow array."""
        raise NotImplementedError

    def result(self, before: Sequence[ColumnMeasures]) -> ColumnMeasures:
        """Return the measures; `before` are those of days that ids may be new to."""
        del before
        bins = {name: round(count) for name, count in self.bins.items()}
        return ColumnMeasures(self.empty, self.infinite, {**bins, EMPTY_BIN: self.empty})

    def count(self, bins: _Array, weights: _Array | None = None) -> None:
        """Count rows in bins, each as one, or as its weight."""
        names, index = np.unique(bins, return_inverse=True)
        for name, count in zip(names, np.bincount(index, weights, len(names)), strict=True):
            self.bins[str(int(name))] += count

    def numbers(self, column: Any) -> _Array:
        """Count rows without a number, or with an infinite one, and return the others'."""
        numbers = column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
        self.empty += int(np.isnan(numbers).sum())
        self.infinite += int(np.isinf(numbers).sum())
        return numbers[np.isfinite(numbers)]


class _Buckets(_Tally):
    """Numbers, by the buckets that a tower reads."""

    def __init__(self, edges: Sequence[float]) -> None:
        super().__init__()
        self._edges = edges

    def add(self, column: Any) -> None:
        self.count(np.searchsorted(self._edges, self.numbers(column), side="right"))


class _Standardised(_Tally):
    """Numbers in standard deviations, as a tower reads them.

    Each counts in three bins, as far as it is near (a quadratic B-spline): a value that half of the rows
    have, as a prior, may move a little from day to day without leaving its bins.
    """

    def __init__(self, feature: DenseFeature) -> None:
        super().__init__()
        self._feature = feature

    def add(self, column: Any) -> None:
        numbers = self.numbers(column)
        if self._feature.transform == "log1p":
            numbers = np.log1p(np.maximum(numbers, -1 + _TINY))
        mean, std = (np.mean(value) for value in (self._feature.mean, self._feature.std))
        place = np.clip((numbers - mean) / std, -_FARTHEST, _FARTHEST)
        middle = np.rint(place)
        off = place - middle
        for step, weight in ((-1, (0.5 - off) ** 2 / 2), (0, 0.75 - off**2), (1, (0.5 + off) ** 2 / 2)):
            self.count(middle + step, weight)


class _Lists(_Tally):
    """Lists of ids, by length in powers of two."""

    def add(self, column: Any) -> None:
        lengths = _lengths(column)
        self.empty += int((lengths == 0).sum())
        self.count(np.frexp(lengths[lengths > 0])[1])


class _Vectors(_Tally):
    """Lists of numbers, of one length."""

    def add(self, column: Any) -> None:
        lengths = _lengths(column)
        self.empty += int((lengths == 0).sum())
        infinite = pc.is_inf(column.flatten().cast(pa.float64())).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        self.infinite += len(np.unique(rows[infinite]))


class _Ids(_Tally):
    """Ids, by hash, and a sample of them."""

    def __init__(self) -> None:
        super().__init__()
        self._below = _ALL
        self._hashes, self._rows = np.array([], np.uint64), np.array([], np.int64)

    def add(self, column: Any) -> None:
        ids = column.fill_null(MISSING).to_numpy(zero_copy_only=False)
        there = ids[ids != MISSING].view(np.uint64) * _HASH
        self.empty += len(ids) - len(there)
        self.count(there // np.uint64(_ALL // _ID_BINS))
        sampled = there[there <= np.uint64(self._below - 1)]
        hashes, index = np.unique(np.concatenate([self._hashes, sampled]), return_inverse=True)
        weights = np.concatenate([self._rows, np.ones(len(sampled), np.int64)])
        rows = np.bincount(index, weights, len(hashes)).astype(np.int64)
        while len(hashes) > 2 * _SAMPLED_IDS:
            self._below //= 2
            is_sampled = hashes <= np.uint64(self._below - 1)
            hashes, rows = hashes[is_sampled], rows[is_sampled]
        self._hashes, self._rows = hashes, rows

    def result(self, before: Sequence[ColumnMeasures]) -> ColumnMeasures:
        ids = base64.b64encode(self._hashes.tobytes()).decode()
        new = self._new(before) if before else None
        return replace(super().result(before), below=self._below, ids=ids, new=new)

    def _new(self, before: Sequence[ColumnMeasures]) -> float:
        below = min(self._below, *(day.below for day in before))
        sampled = self._hashes <= np.uint64(below - 1)
        hashes, rows = self._hashes[sampled], self._rows[sampled]
        known = np.concatenate([day.hashes for day in before])
        return float(rows[~np.isin(hashes, known)].sum() / max(rows.sum(), 1))


def _lengths(column: Any) -> _Array:
    return pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
