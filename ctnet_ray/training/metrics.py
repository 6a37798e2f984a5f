"""Exact ranking and probability metrics over all rows of all workers.

Every row counts once, ties count a half, and the result is the same to the last bit for any number of
workers: what is counted is counted in integers, and what is summed is summed in fixed point, so that no
order of addition shows. No worker ever holds all rows.

*AUC* is the share of (positive, negative) pairs in which the positive scores higher. The scores' range is
cut into one part a worker, equal scores in the same part, and rows travel to their part. Two workers and
the scores (positives marked +)

    worker 0:  0.1  0.4+ 0.9+        cut at 0.4       part 0:  0.1  0.2
    worker 1:  0.2  0.4  0.7        ------------>     part 1:  0.4+ 0.4  0.7  0.9+

Inside part 1, 0.4+ ties one negative (1/2) and 0.9+ beats two (2): 2.5 pairs. Both positives beat the two
negatives of the lower part without a look at them: 4 pairs. AUC = (2.5 + 4) / (2 positives x 4 negatives).

*GAUC* = sum n_g AUC_g / sum n_g over the groups g with both classes, n_g the rows of g. Rows travel to
the worker that a hash of their group names, so each group is whole on one worker.

Shapes: N rows of this worker, M rows after they travelled, P positives, G groups, W workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from scipy.special import expit

_FRACTION_BITS = 40  #: sums are of whole multiples of 2^-40, about 1e-12
_SPLIT_BITS = 20  #: ... kept as two int64, so that 2^31 rows do not overflow
_MAX_LOSS = 1024.0  #: a row's loss above it counts as this much
_SAMPLED_SCORES = 512  #: scores a worker offers for the choice of the cuts

_Array = NDArray[Any]


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
    """Compute all metrics. Collective: every worker of the group calls it, and gets the same result.

    Args:
        scores: This worker's rows; none is fine.
        process_group: Workers that take part; default: all, or this process alone without torch.distributed.

    Returns:
        rows; and, where there are rows, ctr (clicks / rows), logloss (mean, in nats), groups,
        group_coverage (share of groups with both classes); auc where there are both classes; gauc where a
        group has both; calibration (mean predicted probability / ctr) where there is a click. A metric
        that does not exist is absent, never NaN.

    Raises:
        FloatingPointError: Scores are NaN or infinite, on any worker.
        ValueError: The arrays differ in length.
    """
    label_N, score_N = scores.label_N == 1, scores.score_N.astype(np.float32, copy=False)
    if not len(label_N) == len(score_N) == len(scores.group_N):
        raise ValueError(f"{len(label_N)} labels, {len(score_N)} scores, {len(scores.group_N)} groups")
    workers = _Workers.of(process_group)
    finite_N = np.isfinite(score_N)
    rows, bad = workers.sums(len(score_N), len(score_N) - int(np.count_nonzero(finite_N)))
    if bad:
        raise FloatingPointError(f"{bad} of {rows} scores are not finite")
    if not rows:
        return {"rows": 0.0}
    key_N = _ordered(score_N)
    return {
        "rows": float(rows),
        **_probability_metrics(label_N, score_N, rows, workers),
        **_auc(label_N, key_N, workers),
        **_gauc(label_N, key_N, scores.group_N.astype(np.int64, copy=False), workers),
    }


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
        own = torch.tensor(values, dtype=torch.int64, device=self.device)
        gathered = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(gathered, own, group=self.group)
        return torch.stack(gathered).cpu().numpy()

    def sums(self, *values: int) -> list[int]:
        """Return the sums over all workers; Python integers, which don't overflow."""
        return [sum(column) for column in zip(*self.gather(values).tolist(), strict=True)]

    def exchange(self, destination_N: _Array, *columns: _Array) -> list[_Array]:
        """Send each row to a worker, and return the rows received, each column [M]."""
        if self.size == 1:
            return list(columns)
        order_N = np.argsort(destination_N, kind="stable")
        sent_W = np.bincount(destination_N, minlength=self.size).tolist()
        received_W = self.gather(sent_W)[:, self.rank].tolist()
        results = []
        for column in columns:
            outgoing = torch.from_numpy(column[order_N]).to(self.device)
            incoming = outgoing.new_empty(sum(received_W))
            dist.all_to_all_single(incoming, outgoing, received_W, sent_W, group=self.group)
            results.append(incoming.cpu().numpy())
        return results


def _ordered(score_N: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return integers that compare as the scores do; -0.0 and 0.0 are equal."""
    bits_N = (score_N + np.float32(0)).view(np.int32)
    # Floats are sign and magnitude: a negative number's magnitude bits count backwards.
    return np.where(bits_N < 0, bits_N ^ np.int32(0x7FFFFFFF), bits_N)


def _probability_metrics(
    label_N: NDArray[np.bool_], score_N: NDArray[np.float32], rows: int, workers: _Workers
) -> dict[str, float]:
    logit_N = score_N.astype(np.float64)
    # -log(sigmoid(x)) = log(1 + exp(-x)) of a click, and of -x where there was none.
    loss_N = np.logaddexp(0.0, np.where(label_N, -logit_N, logit_N))
    clicks, *parts = workers.sums(
        int(np.count_nonzero(label_N)),
        *_fixed_point(np.minimum(loss_N, _MAX_LOSS)),
        *_fixed_point(expit(logit_N)),
    )
    metrics = {"ctr": clicks / rows, "logloss": _from_fixed_point(parts[0], parts[1], rows)}
    if clicks:
        metrics["calibration"] = _from_fixed_point(parts[2], parts[3], clicks)
    return metrics


def _fixed_point(value_N: NDArray[np.float64], weight_N: NDArray[np.int64] | None = None) -> tuple[int, int]:
    """Return sum(weight * value) in multiples of 2^-40, as a high and a low part that can be added up."""
    fixed_N = np.rint(np.ldexp(value_N, _FRACTION_BITS)).astype(np.int64)
    weight_N = np.ones_like(fixed_N) if weight_N is None else weight_N
    low_N = fixed_N & ((1 << _SPLIT_BITS) - 1)
    return int(np.dot(fixed_N >> _SPLIT_BITS, weight_N)), int(np.dot(low_N, weight_N))


def _from_fixed_point(high: int, low: int, divisor: int) -> float:
    return ((high << _SPLIT_BITS) + low) / (divisor << _FRACTION_BITS)


def _auc(label_N: NDArray[np.bool_], key_N: NDArray[np.int32], workers: _Workers) -> dict[str, float]:
    key_M, label_M = workers.exchange(_part(key_N, workers), key_N, label_N)
    positive_P, negative_M = np.sort(key_M[label_M]), np.sort(key_M[~label_M])
    inside = int(_twice_won(positive_P, negative_M).sum())
    parts = workers.gather([len(positive_P), len(negative_M), inside]).tolist()
    twice_won = positives = negatives = 0
    for part_positives, part_negatives, part_twice_won in parts:
        twice_won += part_twice_won + 2 * part_positives * negatives
        positives += part_positives
        negatives += part_negatives
    return {"auc": twice_won / (2 * positives * negatives)} if positives and negatives else {}


def _part(key_N: NDArray[np.int32], workers: _Workers) -> NDArray[np.int64]:
    """Return the part of the scores' range that each row is in, 0..W-1; equal scores share one."""
    if workers.size == 1:
        return np.zeros(len(key_N), np.int64)
    sample = key_N[:: max(1, -(-len(key_N) // _SAMPLED_SCORES))].tolist()
    absent = 1 << 31  # no int32
    offered = workers.gather(sample + [absent] * (_SAMPLED_SCORES - len(sample)))
    offered = np.sort(offered[offered != absent])
    # The cuts decide how even the parts are, never the result.
    cuts = offered[len(offered) * np.arange(1, workers.size) // workers.size]
    return np.searchsorted(cuts.astype(np.int32), key_N, side="right")


def _twice_won(positive_P: _Array, negative_M: _Array) -> NDArray[np.int64]:
    """Return twice the negatives below each positive, ties at half; both ascending."""
    below_P = np.searchsorted(negative_M, positive_P, side="left")
    return below_P + np.searchsorted(negative_M, positive_P, side="right")


def _gauc(
    label_N: NDArray[np.bool_], key_N: NDArray[np.int32], group_N: NDArray[np.int64], workers: _Workers
) -> dict[str, float]:
    group_M, key_M, label_M = workers.exchange(_owner(group_N, workers.size), group_N, key_N, label_N)
    names_G, group_M = np.unique(group_M, return_inverse=True)
    positives_G = np.bincount(group_M[label_M], minlength=len(names_G))
    rows_G = np.bincount(group_M, minlength=len(names_G))
    negatives_G = rows_G - positives_G
    both_G = (positives_G > 0) & (negatives_G > 0)
    twice_won_G = _twice_won_by_group(label_M, key_M, group_M, positives_G, negatives_G)
    auc_G = twice_won_G[both_G] / (2.0 * positives_G[both_G] * negatives_G[both_G])
    groups, counted, counted_rows, high, low = workers.sums(
        len(names_G),
        int(both_G.sum()),
        int(rows_G[both_G].sum()),
        *_fixed_point(auc_G, rows_G[both_G]),
    )
    metrics = {"groups": float(groups), "group_coverage": counted / groups}
    if counted:
        metrics["gauc"] = _from_fixed_point(high, low, counted_rows)
    return metrics


def _owner(group_N: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the worker of each group: a hash, so that ids with a pattern are spread as well."""
    mixed_N = group_N.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed_N >> np.uint64(32)) % np.uint64(size)).astype(np.int64)


def _twice_won_by_group(
    label_M: NDArray[np.bool_],
    key_M: NDArray[np.int32],
    group_M: NDArray[np.int64],
    positives_G: NDArray[np.int64],
    negatives_G: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return twice the pairs won inside each group, [G]; groups are numbered 0..G-1."""
    # Sorting (group, score) in one integer: all of a group's scores lie beside each other, ascending.
    combined_M = (group_M << 32) + key_M
    positive_P, negative_M = np.sort(combined_M[label_M]), np.sort(combined_M[~label_M])
    before_G = np.cumsum(negatives_G) - negatives_G
    inside_P = _twice_won(positive_P, negative_M) - 2 * np.repeat(before_G, positives_G)
    total = np.concatenate([[0], np.cumsum(inside_P)])
    ends_G = np.cumsum(positives_G)
    return total[ends_G] - total[ends_G - positives_G]
