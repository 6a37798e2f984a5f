"""What the runs of peers come to: a table, and losses that look wrong."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

TOLERANCE = 0.05
"""By which part of it a peer's mean loss may be off the others'. Labels are drawn for themselves, so no model
can do better than their entropy; one that learns nothing at all is 9 % above it."""

REFERENCE = "job"  #: the peer that each is compared with


@dataclass(frozen=True)
class Measured:
    """One run of a peer."""

    train: float
    """Rows per second from the first batch's end to the last one's."""
    whole: float
    """Rows per second of the whole command, from its start to its exit."""
    trainer_mib: float
    """Peak resident memory of the process that trains."""
    all_mib: float
    """Peak of all its processes, shared pages counted once."""
    loss: float
    """Mean training loss of the epoch; not a number where nothing is trained."""


Found = Mapping[str, Sequence[Measured]]  #: each peer's runs, one a round


def make_table(found: Found, labels: Mapping[str, str], what: str) -> Table:
    """Return medians of each peer's runs, and of the rounds' ratios to the whole job.

    Args:
        found: Runs.
        labels: Each peer in words.
        what: What was trained on, in words.
    """
    table = Table(
        "",
        "rows/s, training",
        "job against it",
        "rows/s, whole command",
        "job against it",
        "peak MiB, trainer",
        "peak MiB, all",
        "mean loss",
        title=f"{what}; medians; ratios are medians of the rounds' ratios",
    )
    for name, runs in found.items():
        rates = " ".join(f"{own.train / 1000:.1f}" for own in runs)
        loss = _median(runs, "loss")
        table.add_row(
            labels[name],
            f"{_median(runs, 'train'):,.0f} ({rates} k)",
            _ratio(found, name, "train"),
            f"{_median(runs, 'whole'):,.0f}",
            _ratio(found, name, "whole"),
            f"{_median(runs, 'trainer_mib'):,.0f}",
            f"{_median(runs, 'all_mib'):,.0f}",
            "" if math.isnan(loss) else f"{loss:.4f}",
        )
    return table


def doubtful_losses(found: Found, labels: Mapping[str, str]) -> list[str]:
    """Return a line for each peer whose mean loss is off the others' median by more than `TOLERANCE`."""
    losses = {name: _median(runs, "loss") for name, runs in found.items()}
    lines = []
    for name, loss in losses.items():
        others = [other for key, other in losses.items() if key != name and not math.isnan(other)]
        if not others:
            continue
        usual = statistics.median(others)
        # "not <=": a loss that is not a number is doubtful too.
        if not abs(loss / usual - 1) <= TOLERANCE:
            lines.append(
                f"{labels[name]}: mean loss {loss:.4f}, {loss / usual - 1:+.1%} of the others' median: "
                "is it the same task?"
            )
    return lines


def _median(runs: Sequence[Measured], key: str) -> float:
    return statistics.median(getattr(own, key) for own in runs)


def _ratio(found: Found, name: str, key: str) -> str:
    if REFERENCE not in found:
        return ""
    pairs = zip(found[REFERENCE], found[name], strict=True)
    return f"{statistics.median(getattr(a, key) / getattr(b, key) for a, b in pairs):.2f}"
