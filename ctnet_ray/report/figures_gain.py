"""Every method's gain with its error, and every method against every other."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ctnet_ray.metrics import COMPARED, METRICS
from ctnet_ray.report.differences import Line, Pair
from ctnet_ray.report.figures import INK, panels, visible_range
from ctnet_ray.report.inference import LEVEL

BLACK = "#000000"  #: unlike ink the same on a dark page, for what stands on a colour
_FEW = 12  # labels whose differences have room for a decimal
TONES = {"better": "#009E73", "worse": "#D55E00"}  #: colours of a verdict


def forest(lines: Sequence[Line], baseline: str) -> Figure:
    """Draw every method's difference to the baseline, best on top, one panel a metric.

    Args:
        lines: Lines of one domain with a difference; the order is that of the first metric.
        baseline: Method that the differences are to.
    """
    metrics = [metric for metric in COMPARED if any(line.metric == metric for line in lines)]
    first = sorted((line for line in lines if line.metric == metrics[0]), key=lambda line: line.gain or 0)
    labels = [line.label for line in first]
    figure, (axes,) = panels(1, len(metrics), 11, 0.9 + 0.21 * len(labels), sharey=True)
    for axis, metric in zip(axes, metrics, strict=True):
        shown = [line for line in lines if line.metric == metric and line.label in labels]
        ends = [[_gain(line) - _error(line), _gain(line) + _error(line)] for line in shown]
        left, right = visible_range(ends) or (-1.0, 1.0)
        left, right = min(left, 0.0), max(right, 0.0)
        for line in shown:
            at, colour = labels.index(line.label), TONES.get(line.verdict, "#888888")
            if left <= _gain(line) <= right:
                axis.errorbar(_gain(line), at, xerr=_error(line), fmt="o", color=colour, markersize=4)
            else:
                low = _gain(line) < left
                text = f"◂ {_gain(line):+.3f}" if low else f"{_gain(line):+.3f} ▸"
                axis.text(
                    left if low else right, at, text, ha="left" if low else "right", va="center", color=colour
                )
        axis.axvline(0, color=INK, linewidth=1)
        axis.set_xlim(left, right)
        axis.set_title(f"{METRICS[metric].title}: difference to {baseline}")
        axis.grid(axis="x")
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(-0.7, len(labels) - 0.3)
    return figure


def matrix(pairs: Sequence[Pair], labels: Sequence[str], metric: str) -> Figure:
    """Draw every method (row) minus every other (column) in thousandths, as a heat map with numbers.

    Args:
        pairs: Pairs of one domain and metric.
        labels: Labels in the order of rows and columns.
        metric: Metric, for the title.
    """
    gains, pair_at = _square(pairs, labels)
    figure, ((axes,),) = panels(1, 1, 2.6 + 0.42 * len(labels), 2.0 + 0.3 * len(labels))
    digits = 0 if len(labels) > _FEW else 1
    for (row, column), pair in pair_at.items():
        certain = pair.p_corrected is not None and pair.p_corrected < LEVEL
        mark = "**" if certain else "*" if pair.p is not None and pair.p < LEVEL else ""
        # Adding 0 makes minus zero plain zero.
        text = f"{round(gains[row, column], digits) + 0:.{digits}f}{mark}"
        weight = "bold" if certain else "normal"
        number = axes.text(
            column, row, text, ha="center", va="center", fontsize=7, weight=weight, color=BLACK
        )
        number.set_in_layout(False)
    # A method that is far from all others must not take all the colour.
    reach = float(np.nanpercentile(np.abs(gains), 90)) or 1.0
    # Softened, so that black numbers are readable on every colour.
    axes.imshow(
        np.clip(gains, -reach, reach), cmap="PiYG", vmin=-1.6 * reach, vmax=1.6 * reach, aspect="auto"
    )
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"{METRICS[metric].title} of the row's method minus the column's, in thousandths")
    return figure


def _square(pairs: Sequence[Pair], labels: Sequence[str]) -> tuple[np.ndarray, dict[tuple[int, int], Pair]]:
    """Return the differences of row minus column in thousandths (NaN: unknown), and the pair of each."""
    place = {label: index for index, label in enumerate(labels)}
    gains = np.full((len(labels), len(labels)), np.nan)
    pair_at = {}
    for pair in pairs:
        row, column = place[pair.first], place[pair.second]
        gains[row, column], gains[column, row] = 1000 * pair.gain, -1000 * pair.gain
        pair_at |= {(row, column): pair, (column, row): pair}
    return gains, pair_at


def _gain(line: Line) -> float:
    return line.gain or 0.0


def _error(line: Line) -> float:
    return line.clustered_error or 0.0
