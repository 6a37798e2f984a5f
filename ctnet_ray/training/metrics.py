"""Exact ranking and probability metrics over all rows of all workers.

Every row counts once, ties count a half, and the result is the same to the last bit for any number of
workers: what is counted is counted in integers, and what is summed is summed in fixed point, so that no
order of addition shows. No worker ever holds all rows: beyond `ROWS_HELD` they are sorted into temporary
files, and what follows is done for one part of them after another.

*AUC* is the share of (positive, negative) pairs in which the positive scores higher. The scores' range is
cut into as many parts for each worker, equal scores in the same part, and rows travel to their part. Two
workers and the scores (positives marked +)

    worker 0:  0.1  0.4+ 0.9+        cut at 0.4       part 0:  0.1  0.2
    worker 1:  0.2  0.4  0.7        ------------>     part 1:  0.4+ 0.4  0.7  0.9+

Inside part 1, 0.4+ ties one negative (1/2) and 0.9+ beats two (2): 2.5 pairs. Both positives beat the two
negatives of the lower part without a look at them: 4 pairs. AUC = (2.5 + 4) / (2 positives x 4 negatives).

*GAUC* = sum n_g AUC_g / sum n_g over the groups g with both classes, n_g the rows of g. Rows travel to
the worker that a hash of their group names, so each group is whole on one worker, in one part.

Shapes: N rows of this worker, M rows after they travelled, P positives, G groups, W workers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from scipy.special import entr, expit

from ctnet_ray.training.ranking import aucs_by_group, group_cuts, mixed, ordered, twice_won
from ctnet_ray.training.spill import SortedPortions

_FRACTION_BITS = 40  #: sums are of whole multiples of 2^-40, about 1e-12
_SPLIT_BITS = 20  #: ... kept as two int64, so that 2^31 rows do not overflow
MAX_LOSS = 1024.0  #: a row's loss above it counts as this much
_SAMPLED_SCORES = 512  #: scores that a portion offers for the choice of the cuts
_ROWS_AT_ONCE = 1 << 16  #: rows that probability metrics are computed of at once
ROWS_HELD = 1 << 20  #: rows that a worker keeps in memory

_Array = NDArray[Any]


@dataclass(frozen=True)
class Totals:
    """Exact sums over all rows of all workers; there is at least one row."""

    rows: int
    clicks: int
    loss: Fraction
    """Of -log(predicted probability of what happened), in nats."""
    probability: Fraction
    """Of the predicted probability of a click."""


_OfTotals = TypeVar("_OfTotals", bound=Callable[[Totals], float | None])
_OF_TOTALS: dict[str, Callable[[Totals], float | None]] = {}


def of_totals(metric: _OfTotals) -> _OfTotals:
    """Have a metric computed of every scored day, under the function's name; None: it does not exist."""
    _OF_TOTALS[metric.__name__] = metric
    return metric


@of_totals
def ctr(totals: Totals) -> float:
    """Return the share of clicks in the rows."""
    return totals.clicks / totals.rows


@of_totals
def logloss(totals: Totals) -> float:
    """Return the mean loss in nats."""
    return float(totals.loss / totals.rows)


@of_totals
def calibration(totals: Totals) -> float | None:
    """Return the mean predicted probability over the share of clicks; None without a click."""
    return float(totals.probability / totals.clicks) if totals.clicks else None


@of_totals
def normalised_entropy(totals: Totals) -> float | None:
    """Return NE, the logloss over that of always predicting the share of clicks; None without both classes.

    He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, section 3. Unlike
    logloss it can be compared between days and domains of different click rates; 1 is a model of no use.
    """
    entropy = float(entr(ctr(totals)) + entr(1.0 - ctr(totals)))
    return logloss(totals) / entropy if entropy else None


@of_totals
def relative_information_gain(totals: Totals) -> float | None:
    """Return RIG, 1 - NE: the share of the clicks' entropy that the model explains (He et al., as above)."""
    entropy_share = normalised_entropy(totals)
    return None if entropy_share is None else 1.0 - entropy_share


@dataclass(frozen=True)
class Scores:
    """What one worker collected; every row of the day is with exactly one worker."""

    label_N: _Array
    """1 (or True) is a click, 0 none; any numeric type."""
    score_N: _Array
    """Logits, float32."""
    group_N: _Array
    """Group ids, int64."""


def evaluate(scores: Scores, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
    """Compute all metrics of rows that are in memory. Collective, like `Collector.metrics`.

    Args:
        scores: This worker's rows; none is fine.
        process_group: Workers that take part; default: all, or this process alone without torch.distributed.

    Raises:
        CtnetError: Temporary files can't be written.
        FloatingPointError: Scores are NaN or infinite, on any worker.
        ValueError: The arrays differ in length.
    """
    with Collector() as collector:
        collector.add(scores)
        return collector.metrics(process_group)


class Collector:
    """Takes one worker's rows as they are scored, and computes all metrics of them.

    It holds a bounded number of rows, the others in temporary files (17 bytes a row, in the folder that
    TMPDIR names). Only a group that has more rows by itself, or a score, is still held as a whole.

    Args:
        rows_held: Most rows in memory.
    """

    def __init__(self, rows_held: int = ROWS_HELD) -> None:
        self._rows_held = rows_held
        self._pending: list[tuple[_Array, _Array, _Array]] = []
        self._pending_rows = 0
        self._sums = [0] * 7  # rows, those that are not finite, clicks, and two sums of two parts each
        self._offered: list[int] = []
        self._portions = 0
        self._positives, self._negatives = SortedPortions(np.int32), SortedPortions(np.int32)
        self._grouped = SortedPortions(np.int64, np.int32, np.bool_)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for portions in (self._positives, self._negatives, self._grouped):
            portions.close()

    def add(self, scores: Scores) -> None:
        """Take rows.

        Raises:
            CtnetError: Temporary files can't be written.
            ValueError: The arrays differ in length.
        """
        label_N, score_N, group_N = scores.label_N, scores.score_N, scores.group_N
        if not len(label_N) == len(score_N) == len(group_N):
            raise ValueError(f"{len(label_N)} labels, {len(score_N)} scores, {len(group_N)} groups")
        step = min(_ROWS_AT_ONCE, self._rows_held)
        for start in range(0, len(label_N), step):
            rows = slice(start, start + step)
            self._add(
                label_N[rows] == 1,
                score_N[rows].astype(np.float32, copy=False),
                group_N[rows].astype(np.int64, copy=False),
            )

    def metrics(self, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
        """Compute all metrics, once. Collective: every worker calls it, and gets the same result.

        Args:
            process_group: Workers that take part; default: all, or this process alone.

        Returns:
            rows; and, where there are rows, groups, group_coverage (share of groups with both classes); auc
            where there are both classes; gauc where a group has both; and those of `Totals`. A metric that
            does not exist is absent, never NaN.

        Raises:
            CtnetError: Temporary files can't be written.
            FloatingPointError: Scores are NaN or infinite, on any worker.
        """
        workers = _Workers.of(process_group)
        rows, bad, clicks, *parts = workers.sums(*self._sums)
        if bad:
            raise FloatingPointError(f"{bad} of {rows} scores are not finite")
        if not rows:
            return {"rows": 0.0}
        # A worker's one portion stays in memory, so that a day that fits never touches a disk.
        self._flush(spill=self._portions > 0)
        rounds = int(workers.gather([self._portions]).max())
        cuts = _score_cuts(self._offered, rounds, workers)
        totals = Totals(rows, clicks, _from_fixed_point(*parts[:2]), _from_fixed_point(*parts[2:]))
        values = {name: metric(totals) for name, metric in _OF_TOTALS.items()}
        return {
            "rows": float(rows),
            **{name: value for name, value in values.items() if value is not None},
            **_auc(self._positives, self._negatives, cuts, workers),
            **_gauc(self._grouped, group_cuts(rounds * workers.size), workers),
        }

    def _add(
        self, label_N: NDArray[np.bool_], score_N: NDArray[np.float32], group_N: NDArray[np.int64]
    ) -> None:
        bad = len(score_N) - int(np.count_nonzero(np.isfinite(score_N)))
        sums = [0] * 5 if bad else _probability_sums(label_N, score_N)
        self._sums = [old + new for old, new in zip(self._sums, [len(score_N), bad, *sums], strict=True)]
        if self._pending_rows + len(score_N) > self._rows_held:
            self._flush(spill=True)
        self._pending.append((label_N, ordered(score_N), group_N))
        self._pending_rows += len(score_N)

    def _flush(self, *, spill: bool) -> None:
        """Make the pending rows a portion."""
        nothing = np.empty(0, np.bool_), np.empty(0, np.int32), np.empty(0, np.int64)
        label_N, key_N, group_N = map(np.concatenate, zip(nothing, *self._pending, strict=True))
        self._pending, self._pending_rows = [], 0
        self._offered += key_N[:: max(1, -(-len(key_N) // _SAMPLED_SCORES))].tolist()
        self._positives.add([np.sort(key_N[label_N])], spill=spill)
        self._negatives.add([np.sort(key_N[~label_N])], spill=spill)
        mixed_N = mixed(group_N)
        order_N = np.argsort(mixed_N)
        self._grouped.add([column[order_N] for column in (mixed_N, key_N, label_N)], spill=spill)
        self._portions += 1


@dataclass(frozen=True)
class _Workers:
    """The collectives that metrics need; one worker needs none."""

    size: int
    rank: int
    group: dist.ProcessGroup | None
    device: torch.device

    @classmethod
    def of(cls, group: dist.ProcessGroup | None) -> "_Workers":
        if not dist.is_initialized():
            return cls(1, 0, None, torch.device("cpu"))
        nccl = dist.get_backend(group) == "nccl"
        device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
        return cls(dist.get_world_size(group), dist.get_rank(group), group, device)

    def gather(self, values: Sequence[int]) -> NDArray[np.int64]:
        """Return every worker's integers, as many from each, [W, len(values)]."""
        if self.size == 1:
            return np.array([values], np.int64)
        sent = torch.tensor(values, dtype=torch.int64, device=self.device)
        gathered = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(gathered, sent, group=self.group)
        return torch.stack(gathered).cpu().numpy()

    def sums(self, *values: int) -> list[int]:
        """Return the sums over all workers; Python integers, which don't overflow."""
        return [sum(column) for column in zip(*self.gather(values).tolist(), strict=True)]

    def exchange(self, sent: Sequence[Sequence[_Array]]) -> list[_Array]:
        """Send each worker its rows' columns, and return those of the rows received, each column [M]."""
        if self.size == 1:
            return list(sent[0])
        sent_W = [len(columns[0]) for columns in sent]
        received_W = self.gather(sent_W)[:, self.rank].tolist()
        results = []
        for parts in zip(*sent, strict=True):
            outgoing = torch.from_numpy(np.concatenate(parts)).to(self.device)
            incoming = outgoing.new_empty(sum(received_W))
            dist.all_to_all_single(incoming, outgoing, received_W, sent_W, group=self.group)
            results.append(incoming.cpu().numpy())
        return results


def _probability_sums(label_N: NDArray[np.bool_], score_N: NDArray[np.float32]) -> list[int]:
    """Return clicks, the summed loss and the summed probability; sums in two parts (`_fixed_point`)."""
    logit_N = score_N.astype(np.float64)
    # -log(sigmoid(x)) = log(1 + exp(-x)) of a click, and of -x where there was none.
    loss_N = np.logaddexp(0.0, np.where(label_N, -logit_N, logit_N))
    return [
        int(np.count_nonzero(label_N)),
        *_fixed_point(np.minimum(loss_N, MAX_LOSS)),
        *_fixed_point(expit(logit_N)),
    ]


def _fixed_point(value_N: NDArray[np.float64], weight_N: NDArray[np.int64] | None = None) -> tuple[int, int]:
    """Return sum(weight * value) in multiples of 2^-40, as a high and a low part that can be added up."""
    fixed_N = np.rint(np.ldexp(value_N, _FRACTION_BITS)).astype(np.int64)
    weight_N = np.ones_like(fixed_N) if weight_N is None else weight_N
    low_N = fixed_N & ((1 << _SPLIT_BITS) - 1)
    return int(np.dot(fixed_N >> _SPLIT_BITS, weight_N)), int(np.dot(low_N, weight_N))


def _from_fixed_point(high: int, low: int) -> Fraction:
    return Fraction((high << _SPLIT_BITS) + low, 1 << _FRACTION_BITS)


def _travel(portions: SortedPortions, cuts: _Array, workers: _Workers) -> Iterator[list[_Array]]:
    """Let each part of the keys' range travel to a worker, one part a worker at a time.

    Yields:
        The columns of this worker's part, each [M]; parts of one round in the order of ranks.
    """
    bounds = portions.bounds(cuts)
    for first in range(0, len(cuts) + 1, workers.size):
        yield workers.exchange(
            [
                portions.read(bounds[:, part], bounds[:, part + 1])
                for part in range(first, first + workers.size)
            ]
        )


def _auc(
    positives: SortedPortions, negatives: SortedPortions, cuts: _Array, workers: _Workers
) -> dict[str, float]:
    parts: list[list[int]] = []
    travelled = (_travel(portions, cuts, workers) for portions in (positives, negatives))
    for (positive_P,), (negative_M,) in zip(*travelled, strict=True):
        positive_P.sort(kind="stable")  # quick where portions are in order
        negative_M.sort(kind="stable")
        inside = int(twice_won(positive_P, negative_M).sum())
        parts += workers.gather([len(positive_P), len(negative_M), inside]).tolist()
    won = below_positives = below_negatives = 0
    for part_positives, part_negatives, part_won in parts:
        won += part_won + 2 * part_positives * below_negatives
        below_positives += part_positives
        below_negatives += part_negatives
    pairs = below_positives * below_negatives
    return {"auc": won / (2 * pairs)} if pairs else {}


def _score_cuts(offered: Sequence[int], rounds: int, workers: _Workers) -> NDArray[np.int32]:
    """Return the keys that cut the scores' range into a part for each round and worker, [parts - 1].

    They decide how even the parts are, never the result.
    """
    parts = rounds * workers.size
    if parts == 1:
        return np.empty(0, np.int32)
    absent = 1 << 31  # no int32
    sampled = workers.gather([*offered, *[absent] * (rounds * _SAMPLED_SCORES - len(offered))])
    sampled = np.sort(sampled[sampled != absent])
    return sampled[len(sampled) * np.arange(1, parts) // parts].astype(np.int32)


def _gauc(grouped: SortedPortions, cuts: _Array, workers: _Workers) -> dict[str, float]:
    totals = [0] * 5
    for group_M, key_M, label_M in _travel(grouped, cuts, workers):
        totals = [a + b for a, b in zip(totals, _group_sums(group_M, key_M, label_M), strict=True)]
    groups, counted, counted_rows, high, low = workers.sums(*totals)
    metrics = {"groups": float(groups), "group_coverage": counted / groups}
    if counted:
        metrics["gauc"] = float(_from_fixed_point(high, low) / counted_rows)
    return metrics


def _group_sums(
    group_M: NDArray[np.int64], key_M: NDArray[np.int32], label_M: NDArray[np.bool_]
) -> list[int]:
    """Return groups, those with both classes, the rows of these, and sum n_g AUC_g in two parts."""
    if not len(group_M):
        return [0] * 5
    order_M = np.argsort(group_M, kind="stable")  # quick where portions are in order
    rows_G, auc_G = aucs_by_group(group_M[order_M], key_M[order_M], label_M[order_M])
    both_G = ~np.isnan(auc_G)
    return [
        len(rows_G),
        int(both_G.sum()),
        int(rows_G[both_G].sum()),
        *_fixed_point(auc_G[both_G], rows_G[both_G]),
    ]
