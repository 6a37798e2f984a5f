"""When does each method win, and why: finished runs by slices of the scored samples.

Every method's daily versions score the next day once more, and rows are told apart by what earlier days of
the store show: in which domain the item and the user were seen, for how long, how often, and how many
samples the group has. Written and printed: AUC, logloss and GAUC by slice with paired differences to base,
what GAUC hides (the rankings inside groups), and how far the two domains are from each other. The true
probability of synthetic samples stands beside the methods as the ceiling.

    python -m benchmarks.slices --store data/kuairand --models runs/models --experiment kuairand \
        --domain tab0 --source tab1 --methods [base,ctnet,residual] --seeds [0,1,2,3] \
        --first_scored_day 2022-05-02 --last_scored_day 2022-05-08 --output runs/slices
"""

# pandas ships no types: what its methods return is guessed, and guessed too wide.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import torch.distributed as dist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.slice_measures import domain_distance, group_profile, measure
from benchmarks.slice_rows import CEILING, FAMILIES, SOURCE, Runs, scored_rows
from ctnet_ray.errors import CtnetError
from ctnet_ray.report.figures import INK, line_style, panels, style, write_png
from jobs.command import run

_FEW = 30  # slices with fewer clicks, or others, than this stand in the tables but not in the plot
_SHOWN = ("auc", "logloss", "gauc")


def main(
    store: str,
    models: str,
    experiment: str,
    domain: str,
    source: str,
    first_scored_day: date,
    last_scored_day: date,
    output: str,
    methods: tuple[str, ...] = ("base", "ctnet", "residual", "ctnet_residual"),
    seeds: tuple[int, ...] = (0,),
    baseline: str = "base",
    item: str = "item",
    user: str = "user",
) -> None:
    """Score, measure, print and write.

    Args:
        store: Root of the sample store; {seed} in it becomes the seed.
        models: Root of the model versions (tracking.models of the comparison).
        experiment: Prefix of the registered models (tracking.experiment).
        domain: Target domain.
        source: Source domain.
        first_scored_day: First day that counts (YYYY-MM-DD).
        last_scored_day: Last day that counts (YYYY-MM-DD).
        output: Folder for rows.parquet, slices.csv, groups.csv, distance.csv and auc_gains.png.
        methods: Labels of the runs.
        seeds: Seeds of the runs.
        baseline: Label that differences are to.
        item: Sample column of the item's id.
        user: Sample column of the user's id.
    """
    if baseline not in methods:
        raise CtnetError(f"--baseline {baseline} is none of --methods: add it")
    if last_scored_day < first_scored_day:
        raise CtnetError("--last_scored_day lies before --first_scored_day")
    days = [
        first_scored_day + timedelta(days=index)
        for index in range((last_scored_day - first_scored_day).days + 1)
    ]
    with _one_worker():
        rows = scored_rows(Runs(store, models, experiment, domain, source, methods, item, user), days, seeds)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(folder / "rows.parquet")
    write(rows, baseline, folder, Console(width=180))


@contextmanager
def _one_worker() -> Iterator[None]:
    """Be the only worker of a process group, which sharded models need."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # TorchRec calls what torch deprecates, at every version that is loaded.
        warnings.simplefilter("ignore", FutureWarning)
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def write(rows: pd.DataFrame, baseline: str, folder: Path, console: Console) -> None:
    """Print the tables of scored rows, and write them and the plot.

    Args:
        rows: As `slice_rows.scored_rows` makes them.
        baseline: Method that differences are to.
        folder: Where files go.
        console: Where tables go.
    """
    measures = measure(rows, baseline)
    profile = group_profile(rows, baseline)
    distance = domain_distance(rows, measures, baseline)
    for name, frame in (("slices", measures), ("groups", profile), ("distance", distance)):
        frame.to_csv(folder / f"{name}.csv", index=False)
    for family in FAMILIES:
        console.print(family_table(measures[measures["family"] == family], baseline))
    console.print(_plain_table(profile, "rankings inside groups (a group is one of one day and seed)"))
    console.print(_plain_table(distance, "distance of the domains"))
    with style():
        figure = gains_plot(measures, baseline)
    write_png(figure, folder / "auc_gains.png")


def family_table(measures: pd.DataFrame, baseline: str) -> Table:
    """Return one family's slices side by side: sizes, then each metric's level and differences to it."""
    slices = list(measures["slice"].unique())
    sizes = measures.drop_duplicates("slice").set_index("slice")
    table = Table("", *slices, title=f"{measures['family'].iloc[0]}: differences to {baseline} ± error")
    for name in ("rows", "clicks", "groups"):
        table.add_row(name, *(f"{sizes.loc[slice_, name]:,.0f}" for slice_ in slices))
    table.add_row("CTR", *(f"{sizes.loc[each, 'clicks'] / sizes.loc[each, 'rows']:.4f}" for each in slices))
    for metric in _SHOWN:
        table.add_section()
        own = measures[measures["metric"] == metric].set_index(["method", "slice"])
        for method in own.index.unique("method"):
            cells = [_cell(own, method, each, method == baseline) for each in slices]
            table.add_row(f"{metric} {method}", *cells)
    return table


def _cell(measures: pd.DataFrame, method: str, slice_: str, level: bool) -> str:
    if (method, slice_) not in measures.index:
        return ""
    line = measures.loc[method, slice_]
    if level:
        return f"{line['value']:.4f}"
    error = "" if np.isnan(line["error"]) else f" ± {line['error']:.4f}"
    return f"{line['gain']:+.4f}{error}"


def _plain_table(frame: pd.DataFrame, title: str) -> Table:
    table = Table(*frame.columns, title=title)
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row))
    return table


def gains_plot(measures: pd.DataFrame, baseline: str) -> Figure:
    """Draw every method's AUC gain on every slice with its error, one panel a family.

    The source's own model and the ceiling are left out: they lie so far off that nothing else could be told
    apart.
    """
    few = measures[["clicks", "rows"]].eval("clicks < @_FEW or rows - clicks < @_FEW")
    kept = (measures["metric"] == "auc") & ~measures["method"].isin([baseline, SOURCE, CEILING])
    shown = measures[kept & ~few]
    methods = list(shown["method"].unique())
    figure, axes = panels(-(-len(FAMILIES) // 2), 2, 11, 11, sharex=True)
    for axis, family in zip([axis for row in axes for axis in row], FAMILIES, strict=True):
        own = shown[shown["family"] == family]
        _draw(axis, own, methods)
        axis.set_title(family)
    axes[-1][0].set_xlabel(f"AUC: difference to {baseline}")
    axes[-1][1].set_xlabel(f"AUC: difference to {baseline}")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(methods))
    return figure


def _draw(axis: Axes, measures: pd.DataFrame, methods: Sequence[str]) -> None:
    slices = list(measures["slice"].unique())
    for index, method in enumerate(methods, start=1):
        own = measures[measures["method"] == method]
        offset = 0.6 * ((index - 0.5) / len(methods) - 0.5)
        at = [slices.index(each) + offset for each in own["slice"]]
        axis.errorbar(
            own["gain"], at, xerr=own["error"].fillna(0), fmt="none", ecolor=line_style(index)["color"]
        )
        axis.plot(own["gain"], at, linestyle="", markersize=5, label=method, **line_style(index))
    axis.axvline(0, color=INK, linewidth=1)
    clicks = measures.drop_duplicates("slice").set_index("slice")["clicks"]
    axis.set_yticks(range(len(slices)), [f"{each}\n{clicks[each]:,.0f} clicks" for each in slices])
    axis.set_ylim(len(slices) - 0.5, -0.5)
    axis.grid(axis="x")


if __name__ == "__main__":
    run(main, __doc__ or "")
