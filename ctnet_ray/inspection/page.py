"""What an inspection found, as a page: its answer first, then the days, the features, and what was met."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from pydantic_core import to_json

from ctnet_ray.inspection.advising import DRIFT, LEAK
from ctnet_ray.inspection.facts import Advice, DayFacts, Inspection, Probe
from ctnet_ray.report import figures
from ctnet_ray.report.blocks import Cell, Chapter, Page, Plot, Section, amount, grid, number
from ctnet_ray.report.writing import write_pages
from ctnet_ray.terminal import open_console


def write(inspection: Inspection, folder: Path, command: str = "") -> None:
    """Write index.html, report.md with its plots, and inspection.json.

    Args:
        inspection: What was found.
        folder: Where the files go; made if it is not there.
        command: What it was found with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "inspection.json").write_bytes(to_json(asdict(inspection), indent=2) + b"\n")
    write_pages(page(inspection, command), folder)


def show(inspection: Inspection, folder: str, command: str = "") -> None:
    """Print the answers and what to mend, and write the page (`write`)."""
    console = open_console()
    for advice in inspection.advice:
        said = f"transfer from {advice.source} to {advice.target}: {advice.verdict}: {advice.reason}"
        console.print(said, soft_wrap=True, markup=False, highlight=False)
    for place, line in enumerate(inspection.mend, 1):
        console.print(f"mend {place}: {line}", soft_wrap=True, markup=False, highlight=False)
    write(inspection, Path(folder), command)
    console.print(f"{folder}/index.html", soft_wrap=True, markup=False, highlight=False)


def page(inspection: Inspection, command: str = "") -> Page:
    """Return the page."""
    facts = (
        ("store", inspection.store),
        ("days", f"{min(day.day for day in inspection.days)} to {max(day.day for day in inspection.days)}"),
        ("source", inspection.source),
        ("targets", ", ".join(inspection.targets) or "none"),
        ("user, item", ", ".join(name or "none" for name in (inspection.user, inspection.item))),
        *((("command", command),) if command else ()),
    )
    with figures.style():
        chapters = (
            *(_target(inspection, advice) for advice in inspection.advice),
            _mend(inspection),
            *(_domain(inspection, domain) for domain in dict.fromkeys(day.domain for day in inspection.days)),
        )
    return Page("A look at the samples", facts, chapters)


def _target(inspection: Inspection, advice: Advice) -> Chapter:
    sections = [_probe(entry) for entry in inspection.probes if entry.target == advice.target]
    overlaps = [entry for entry in inspection.overlaps if entry.target == advice.target]
    rows = [
        [
            entry.feature,
            number(entry.known, ".1%"),
            number(entry.new, ".1%"),
            number(entry.known_of_new, ".1%", "none are new"),
        ]
        for entry in overlaps
    ]
    columns = (
        "",
        f"{advice.source} has met it",
        f"new to {advice.target}",
        f"of these {advice.source} has met",
    )
    sections.append(
        Section(
            f"What {advice.source} knows of its rows",
            "Shares of the rows that were read and have an id. Met: it has rows on an earlier day.",
            (grid(columns, rows),),
        )
    )
    lead = f"Transfer from {advice.source}: {advice.verdict}. {advice.reason[:1].upper()}{advice.reason[1:]}."
    return Chapter(f"{advice.source} to {advice.target}", lead, tuple(sections))


def _probe(probe: Probe) -> Section:
    rows = [
        [
            str(day.day),
            amount(day.rows),
            number(day.auc_target),
            number(day.auc_source),
            Cell(
                number(day.auc_source - day.auc_target, "+.4f"),
                tone="good" if day.auc_source > day.auc_target else "bad",
            ),
            number(day.logloss_target),
            number(day.logloss_source),
        ]
        for day in probe.days
    ]
    columns = ("day", "rows", "AUC", "AUC, source", "gain", "logloss", "logloss, source")
    error, detectable = (number(value, missing="unknown") for value in (probe.error, probe.detectable))
    return Section(
        f"Do click rates of {probe.source} help?",
        "Two logistic regressions, trained on all days before the scored one. One reads how often each "
        f"value was clicked on earlier days of {probe.target}, the other that of {probe.source} besides. A "
        f"model of embeddings may gain more or less. Gain {probe.gain:+.4f} ± {error} over days; as many "
        f"days tell {detectable} from none in four of five cases.",
        (Plot(f"probe_{probe.target}", "Gain in AUC by day", _gains(probe)), grid(columns, rows)),
    )


def _gains(probe: Probe) -> Figure:
    figure, ((axes,),) = figures.panels(1, 1, 7, 2.6)
    days: Any = [day.day for day in probe.days]
    gains = [day.auc_source - day.auc_target for day in probe.days]
    axes.plot(days, gains, linestyle="none", label="a day", **figures.line_style(1))
    axes.axhline(0, color=figures.INK, linewidth=0.8, linestyle=":")
    if probe.low is not None and probe.high is not None:
        axes.axhspan(probe.low, probe.high, alpha=0.15, label="mean, 95 % confidence interval")
    figures.finish_days(axes, "Gain in AUC by day", {}, [gains, [0.0]])
    axes.legend()
    return figure


def _mend(inspection: Inspection) -> Chapter:
    if not inspection.mend:
        return Chapter("What to mend", "nothing stood out.", ())
    rows = [[line] for line in inspection.mend]
    section = Section("In this order", "Leaks first, then days, ids, features.", (grid(("",), rows),))
    return Chapter("What to mend", f"{len(rows)} things stood out.", (section,))


def _domain(inspection: Inspection, domain: str) -> Chapter:
    days = [day for day in inspection.days if day.domain == domain]
    rows, clicks = sum(day.rows for day in days), sum(day.clicks for day in days)
    lead = f"{amount(rows)} rows on {len(days)} days, CTR {clicks / max(rows, 1):.4f}."
    return Chapter(domain, lead, (_days(domain, days), _features(inspection, domain)))


def _days(domain: str, days: Sequence[DayFacts]) -> Section:
    rows = [
        [
            str(day.day),
            amount(day.rows),
            number(day.ctr),
            number(day.new_users, ".1%"),
            number(day.new_items, ".1%"),
            number(day.usable_groups, ".1%"),
            Cell("; ".join(day.unlike), tone="bad"),
        ]
        for day in days
    ]
    columns = ("day", "rows", "CTR", "new users", "new items", "groups for GAUC", "unlike the days before")
    return Section(
        "Days",
        "New: share of rows whose id none of the days before has, estimated. Groups for GAUC: those with a "
        "click and a row without one. Unlike: what a run's guard would refuse the day for.",
        (
            Plot(f"days_{domain}", f"Rows, CTR and new ids of {domain} by day", _curves(days)),
            grid(columns, rows),
        ),
    )


def _curves(days: Sequence[DayFacts]) -> Figure:
    panels: tuple[tuple[str, dict[str, list[float | None]]], ...] = (
        ("rows", {"rows": [float(day.rows) for day in days]}),
        ("CTR", {"CTR": [day.ctr for day in days]}),
        (
            "share of rows",
            {"new items": [day.new_items for day in days], "new users": [day.new_users for day in days]},
        ),
    )
    figure, (row,) = figures.panels(1, len(panels), 10, 2.6)
    for axes, (title, curves) in zip(row, panels, strict=True):
        drawn = []
        for index, (name, curve) in enumerate(curves.items()):
            points = [(day.day, value) for day, value in zip(days, curve, strict=True) if value is not None]
            at: Any = [day for day, _ in points]
            drawn.append([value for _, value in points])
            axes.plot(at, drawn[-1], markersize=3, label=name, **figures.line_style(index))
        figures.finish_days(axes, title, {}, [*filter(None, drawn), [0.0]])
        if len(curves) > 1:
            axes.legend()
    return figure


def _features(inspection: Inspection, domain: str) -> Section:
    features = sorted(
        (entry for entry in inspection.features if entry.domain == domain),
        key=lambda entry: -(entry.auc or 0),
    )
    rows = [
        [
            entry.feature,
            Cell(number(entry.auc, ".3f"), tone="bad" if (entry.auc or 0) >= LEAK else ""),
            number(entry.missing, ".1%"),
            Cell(number(entry.drift, ".2f"), note=str(entry.drift_day or "")),
        ]
        for entry in features
    ]
    return Section(
        "Features",
        "AUC: of click rates that each value had on earlier days, of this feature alone; above "
        f"{LEAK:g} it probably knows the label. Drift: largest population stability index from one day to "
        f"the next, less what chance makes of it; {DRIFT:g} is large by custom.",
        (grid(("feature", "AUC alone", "missing", "drift"), rows),),
    )
