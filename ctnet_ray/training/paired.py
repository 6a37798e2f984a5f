"""Several versions' scores of the same rows: metrics, differences with errors, correlations, calibration.

Rows of one user are alike, so errors are clustered. With psi_i the influence of row i on a metric (how much
the metric moves with a little more of that row), the clustered delta method has, over clusters b,

    V = B / (B - 1) * sum_b (sum_{i in b} psi_i)^2

and for a paired difference psi of one version less psi of the other, which brings their covariance in. Of N
rows with labels y_i, scores s_i, probabilities p_i, losses l_i, P clicks and the click rate r = P / N:

    logloss L        (l_i - L) / N
    NE = L / H(r)    (l_i - L) / (N H) - L ln((1 - r) / r) (y_i - r) / (N H^2)
    RIG = 1 - NE     its negative
    calibration C    (p_i - C y_i) / P
    AUC A            (F_misses(s_i) - A) / P of a click, (1 - F_clicks(s_i) - A) / (N - P) of a miss
    GAUC             (A_g - GAUC) / (rows of groups with both classes), of the rows of such a group g

AUC's is that of Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 1997, and of
DeLong, DeLong & Clarke-Pearson 1988 where each row is a cluster. A bootstrap over clusters would pass over
the scores some hundred times, and differ with its seed; a test compares the two.

Memory is bounded. Scored rows beyond `ROWS_HELD` lie in temporary files, by group, and are passed over once
more when all are there. Clusters are gathered into 2^16 by their hash: to merge clusters that have nothing to
do with each other leaves V without bias. F and ranks are read from 2^20 classes of scores (a float's upper 20
bits); metrics themselves are exact (`ctnet_ray.training.metrics`).

Shapes: V versions; N rows, or M of a part; B gathered clusters; K classes of scores; Q quantiles.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, expit

from ctnet_ray.training.metrics import MAX_LOSS, ROWS_HELD, Collector, Scores
from ctnet_ray.training.ranking import aucs_by_group, group_cuts, mixed, ordered
from ctnet_ray.training.spill import SortedPortions

QUANTILES = 20  #: of a calibration curve
_CLUSTER_BITS = 16
_CLASS_BITS = 20

_Array = NDArray[Any]


@dataclass(frozen=True)
class Measured:
    """A metric of one version."""

    value: float
    error: float | None
    """Standard error of the value; None of one cluster."""
    difference: float
    """To the first version's."""
    difference_error: float | None
    """Standard error of the difference; None of one cluster."""


@dataclass(frozen=True)
class Quantile:
    """Rows whose scores lie between two quantiles of a version's scores."""

    rows: int
    predicted: float
    """Mean probability."""
    observed: float
    """Share of clicks."""

    @property
    def error(self) -> float:
        """Binomial standard error of the share; too small where clicks of a user are alike."""
        return math.sqrt(self.observed * (1 - self.observed) / self.rows)


@dataclass(frozen=True)
class SideBySide:
    """Versions on the same rows, in the order in which they were given."""

    rows: int
    clicks: int
    clusters: int
    """Those that errors are of, at most 2^16."""
    metrics: Mapping[str, tuple[Measured, ...]]
    """By metric; one that a version has not, such as AUC of one class, is absent."""
    pearson: tuple[tuple[float | None, ...], ...]
    """Correlation of logits, V x V; None where a version scores all rows alike."""
    spearman: tuple[tuple[float | None, ...], ...]
    """Correlation of ranks, as above."""
    calibration: tuple[tuple[Quantile, ...], ...]
    """By version, ascending; equal scores are in one quantile, an empty one is absent."""

    def calibration_error(self, version: int) -> float:
        """Return the mean of |predicted - observed| over a version's quantiles, by rows."""
        parts = self.calibration[version]
        return sum(part.rows * abs(part.predicted - part.observed) for part in parts) / self.rows


class PairedCollector:
    """Takes rows as several versions score them, and compares the versions.

    It holds a bounded number of rows, the others in temporary files (11 + 21 V bytes a row, in the folder
    that TMPDIR names).

    Args:
        versions: How many versions score.
        rows_held: Most rows in memory, of each version's metrics and of the comparison.
    """

    def __init__(self, versions: int, rows_held: int = ROWS_HELD) -> None:
        self._rows_held = rows_held
        self._stack = ExitStack()
        self._metrics = [self._stack.enter_context(Collector(rows_held)) for _ in range(versions)]
        self._rows = SortedPortions(np.int64, np.uint16, np.bool_, *[np.float32] * versions)
        self._stack.callback(self._rows.close)
        self._pending: list[list[_Array]] = []
        self._pending_rows = self._portions = 0
        self._classes_V2K = np.zeros((versions, 2, 1 << _CLASS_BITS), np.int64)
        self._sum_V = np.zeros(versions)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, label_N: _Array, logit_VN: Sequence[_Array], group_N: _Array, cluster_N: _Array) -> None:
        """Take rows.

        Args:
            label_N: 1 is a click.
            logit_VN: Of each version, float32.
            group_N: Groups of GAUC, int64.
            cluster_N: What rows are clustered by, int64.

        Raises:
            CtnetError: Temporary files can't be written.
        """
        for collector, logit_N in zip(self._metrics, logit_VN, strict=True):
            collector.add(Scores(label_N, logit_N, group_N))
        if self._pending_rows + len(label_N) > self._rows_held and self._pending:
            self._flush(spill=True)
        bucket_N = (mixed(cluster_N).view(np.uint64) >> np.uint64(64 - _CLUSTER_BITS)).astype(np.uint16)
        self._pending.append([mixed(group_N), bucket_N, label_N == 1, *logit_VN])
        self._pending_rows += len(label_N)

    def compare(self, quantiles: int = QUANTILES) -> SideBySide:
        """Compare the versions on all rows, once; there is at least one.

        Args:
            quantiles: Of calibration curves.

        Raises:
            CtnetError: Temporary files can't be written.
            FloatingPointError: Scores are NaN or infinite.
        """
        metrics = [collector.metrics() for collector in self._metrics]
        self._flush(spill=self._portions > 0)
        sums = _Sums(metrics, self._classes_V2K, self._sum_V, quantiles)
        for part in self._parts():
            sums.add(*part)
        return sums.result()

    def _flush(self, *, spill: bool) -> None:
        columns = [np.concatenate(parts) for parts in zip(*self._pending, strict=True)]
        self._pending, self._pending_rows = [], 0
        label_N, logit_VN = columns[2], columns[3:]
        for version, logit_N in enumerate(logit_VN):
            self._sum_V[version] += logit_N.sum(dtype=np.float64)
            for label in (0, 1):
                counts = np.bincount(_classes(logit_N[label_N == label]), minlength=1 << _CLASS_BITS)
                self._classes_V2K[version, label] += counts
        order_N = np.argsort(columns[0], kind="stable")
        self._rows.add([column[order_N] for column in columns], spill=spill)
        self._portions += 1

    def _parts(self) -> Iterator[tuple[_Array, _Array, _Array, list[_Array]]]:
        """Read all rows back, whole groups side by side, a part at a time."""
        cuts = group_cuts(self._portions)
        bounds = self._rows.bounds(cuts)
        for part in range(self._portions):
            columns = self._rows.read(bounds[:, part], bounds[:, part + 1])
            order_M = np.argsort(columns[0], kind="stable")
            group_M, bucket_M, label_M, *logit_VM = (column[order_M] for column in columns)
            if len(group_M):
                yield group_M, bucket_M, label_M, logit_VM


def _classes(logit_N: _Array) -> NDArray[np.int64]:
    return (ordered(logit_N).astype(np.int64) + (1 << 31)) >> (32 - _CLASS_BITS)


def _shares_below(count_K: _Array) -> NDArray[np.float64]:
    """Return the share of rows below each class of scores, those in it at half."""
    return (np.cumsum(count_K) - count_K / 2) / max(1, int(count_K.sum()))


class _Sums:
    """What a comparison adds up over the parts of the rows; totals are known before."""

    def __init__(
        self, metrics: Sequence[Mapping[str, float]], classes_V2K: _Array, sum_V: _Array, quantiles: int
    ) -> None:
        self._values, self._versions, self._quantiles = metrics, len(metrics), quantiles
        self._misses, self._clicks = (int(count) for count in classes_V2K[0].sum(axis=-1))
        self._count = self._misses + self._clicks
        self._mean_V = sum_V / self._count
        self._below_V2K = [[_shares_below(count_K) for count_K in count_2K] for count_2K in classes_V2K]
        self._rank_VK = [_shares_below(count_2K.sum(axis=0)) for count_2K in classes_V2K]
        self._buckets = 1 << _CLUSTER_BITS
        self._rows_B = np.zeros(self._buckets, np.int64)
        self._grouped = 0
        self._influence_VB: dict[str, _Array] = {}
        self._covariance = np.zeros((2, self._versions, self._versions))
        self._quantiles_V3Q = np.zeros((self._versions, 3, quantiles))

    def add(self, group_M: _Array, bucket_M: _Array, label_M: _Array, logit_VM: list[_Array]) -> None:
        """Take a part of whole groups."""
        self._rows_B += np.bincount(bucket_M, minlength=self._buckets)
        class_VM = [_classes(logit_M) for logit_M in logit_VM]
        for version, (logit_M, class_M) in enumerate(zip(logit_VM, class_VM, strict=True)):
            for name, psi_M in self._influences(version, group_M, label_M, logit_M, class_M).items():
                sums_VB = self._influence_VB.setdefault(name, np.zeros((self._versions, self._buckets)))
                sums_VB[version] += np.bincount(bucket_M, psi_M, self._buckets)
        centred_VM = np.stack(logit_VM).astype(np.float64) - self._mean_V[:, None]
        rank_VM = np.stack([self._rank_VK[version][class_M] for version, class_M in enumerate(class_VM)])
        for index, value_VM in enumerate((centred_VM, rank_VM - 0.5)):
            self._covariance[index] += value_VM @ value_VM.T
        for version in range(self._versions):
            part_M = np.minimum((rank_VM[version] * self._quantiles).astype(np.int64), self._quantiles - 1)
            for index, weight_M in enumerate((None, expit(logit_VM[version], dtype=np.float64), label_M)):
                self._quantiles_V3Q[version, index] += np.bincount(part_M, weight_M, self._quantiles)

    def _influences(
        self, version: int, group_M: _Array, label_M: _Array, logit_M: _Array, class_M: _Array
    ) -> dict[str, _Array]:
        """Return the influence of rows on a version's metrics; on GAUC not yet divided (`result`)."""
        value, rate = self._values[version], self._clicks / self._count
        logit_M = logit_M.astype(np.float64)
        loss_M = np.minimum(np.logaddexp(0.0, np.where(label_M, -logit_M, logit_M)), MAX_LOSS)
        influences = {"logloss": (loss_M - value["logloss"]) / self._count}
        if "calibration" in value:
            influences["calibration"] = (expit(logit_M) - value["calibration"] * label_M) / self._clicks
        if "auc" not in value:
            return influences
        entropy = float(entr(rate) + entr(1 - rate))
        slope = value["logloss"] * math.log((1 - rate) / rate) / entropy**2
        entropy_M = influences["logloss"] / entropy - slope * (label_M - rate) / self._count
        influences |= {"normalised_entropy": entropy_M, "relative_information_gain": -entropy_M}
        misses_K, clicks_K = self._below_V2K[version]
        influences["auc"] = np.where(
            label_M,
            (misses_K[class_M] - value["auc"]) / self._clicks,
            (1 - clicks_K[class_M] - value["auc"]) / self._misses,
        )
        rows_G, auc_G = aucs_by_group(group_M, ordered(logit_M.astype(np.float32)), label_M)
        if version == 0:
            self._grouped += int(rows_G[~np.isnan(auc_G)].sum())
        if "gauc" in value:
            influences["gauc"] = np.repeat(np.nan_to_num(auc_G - value["gauc"]), rows_G)
        return influences

    def result(self) -> SideBySide:
        """Return what came out."""
        clusters = int(np.count_nonzero(self._rows_B))
        if "gauc" in self._influence_VB:
            self._influence_VB["gauc"] /= self._grouped
        return SideBySide(
            self._count,
            self._clicks,
            clusters,
            {name: self._measured(name, psi_VB, clusters) for name, psi_VB in self._influence_VB.items()},
            _correlation(self._covariance[0]),
            _correlation(self._covariance[1]),
            tuple(map(_curve, self._quantiles_V3Q)),
        )

    def _measured(self, name: str, psi_VB: _Array, clusters: int) -> tuple[Measured, ...]:
        values = [metrics[name] for metrics in self._values]
        return tuple(
            Measured(value, _error(psi_B, clusters), value - values[0], _error(psi_B - psi_VB[0], clusters))
            for value, psi_B in zip(values, psi_VB, strict=True)
        )


def _error(psi_B: _Array, clusters: int) -> float | None:
    return math.sqrt(clusters / (clusters - 1) * float(psi_B @ psi_B)) if clusters > 1 else None


def _correlation(covariance_VV: _Array) -> tuple[tuple[float | None, ...], ...]:
    deviation_V = np.sqrt(np.diag(covariance_VV))
    scale_VV = np.outer(deviation_V, deviation_V)
    found_VV = np.divide(covariance_VV, scale_VV, out=np.full_like(scale_VV, np.nan), where=scale_VV > 0)
    return tuple(tuple(None if math.isnan(one) else one for one in row) for row in found_VV.tolist())


def _curve(sums_3Q: _Array) -> tuple[Quantile, ...]:
    return tuple(
        Quantile(int(rows), predicted / rows, clicks / rows)
        for rows, predicted, clicks in sums_3Q.T.tolist()
        if rows
    )
