"""One walk over all days in their order: what each day's rows are beside what earlier days counted.

Shapes: N rows, F inputs of a logistic regression.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ctnet_ray.inspection.columns import DayRows
from ctnet_ray.inspection.facts import Overlap
from ctnet_ray.inspection.rates import EarlierCounts
from ctnet_ray.samples.encoding import MISSING

TRAINED_ROWS = 200_000  #: the newest, that a regression is trained on


@dataclass(frozen=True)
class Inputs:
    """What the probe's regressions read of a target's day."""

    day: date
    label_N: NDArray[np.int8]
    target_NF: NDArray[np.float32]
    """Click rates and counts of earlier days of the target."""
    source_NF: NDArray[np.float32]
    """Of the source."""


@dataclass
class Walked:
    """What the walk found."""

    usable_groups: dict[tuple[str, date], float] = field(default_factory=dict)
    aucs: dict[tuple[str, str], dict[date, float]] = field(default_factory=lambda: defaultdict(dict))
    """By domain and feature, and day."""
    inputs: dict[str, list[Inputs]] = field(default_factory=lambda: defaultdict(list))
    """By target."""
    overlaps: list[Overlap] = field(default_factory=list)


def walk(
    days: Iterable[Sequence[DayRows]],
    source: str,
    targets: Sequence[str],
    identities: Sequence[str],
    scored_days: int,
) -> Walked:
    """Walk over days.

    Args:
        days: Rows of each day, a domain each; ascending.
        source: Source domain.
        targets: Target domains.
        identities: Features whose overlap is counted: user, item.
        scored_days: Last days that are to be scored: before them, `TRAINED_ROWS` are kept.
    """
    walked, counts = Walked(), EarlierCounts()
    met = {(target, name): np.zeros(4) for target in targets for name in identities}
    for number, domains in enumerate(days):
        for rows in domains:
            walked.usable_groups[rows.domain, rows.day] = _usable_groups(rows)
            if not number:
                continue  # nothing is earlier
            _rank(walked, counts, rows)
            if rows.domain in targets:
                inputs = walked.inputs[rows.domain]
                inputs.append(_inputs(counts, rows, source))
                while sum(len(day.label_N) for day in inputs[1:-scored_days]) >= TRAINED_ROWS:
                    inputs.pop(0)
                for name in set(identities) & rows.cells.keys():
                    met[rows.domain, name] += _met(counts, rows, source, name)
        for rows in domains:
            counts.add(rows)
    walked.overlaps = [
        Overlap(target, source, name, known / rows, known_of_new / new if new else None, new / rows)
        for (target, name), counted in met.items()
        for rows, known, new, known_of_new in [counted.tolist()]
        if rows
    ]
    return walked


def _usable_groups(rows: DayRows) -> float:
    _, group_N = np.unique(rows.group_N, return_inverse=True)
    count_G, click_G = np.bincount(group_N), np.bincount(group_N, rows.label_N)
    return float(np.mean((click_G > 0) & (click_G < count_G)))


def _rank(walked: Walked, counts: EarlierCounts, rows: DayRows) -> None:
    """Rank a day's rows by each feature alone."""
    if not 0 < rows.label_N.sum() < len(rows.label_N):
        return
    for feature, cells_N in rows.cells.items():
        if counts.values(rows.domain, feature) > 1:
            odds_N = counts.inputs(rows.domain, feature, cells_N)[:, 0]
            walked.aucs[rows.domain, feature][rows.day] = float(roc_auc_score(rows.label_N, odds_N))


def _inputs(counts: EarlierCounts, rows: DayRows, source: str) -> Inputs:
    target_NF, source_NF = (
        np.column_stack(
            [counts.inputs(domain, feature, cells_N) for feature, cells_N in sorted(rows.cells.items())]
        )
        for domain in (rows.domain, source)
    )
    return Inputs(rows.day, rows.label_N, target_NF, source_NF)


def _met(counts: EarlierCounts, rows: DayRows, source: str, name: str) -> NDArray[np.float64]:
    """Return rows with an id, those the source has met, those new to the target, and both."""
    cells_N = rows.cells[name][rows.cells[name] != MISSING]
    met_N = counts.rows(source, name, cells_N) > 0
    new_N = counts.rows(rows.domain, name, cells_N) == 0
    return np.array([len(cells_N), met_N.sum(), new_N.sum(), (met_N & new_N).sum()], float)
