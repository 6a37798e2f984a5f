"""Writes the report: terminal, HTML, Markdown, CSV, PNG."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from rich.console import Console

from ctnet_ray.errors import CtnetError
from ctnet_ray.metrics import LEADING, METRICS
from ctnet_ray.report import figures
from ctnet_ray.report.blocks import Chapter, Page, Plot, Section, grid
from ctnet_ray.report.checklist import Check, checklist
from ctnet_ray.report.costs import Cost, costs
from ctnet_ray.report.differences import Line, summarise
from ctnet_ray.report.references import Reference, gaps
from ctnet_ray.report.rows import Failure, Row, Run
from ctnet_ray.report.sections import DomainData, chapter
from ctnet_ray.report.terminal_table import table
from ctnet_ray.terminal import duration


@dataclass(frozen=True)
class Report:
    """What is reported."""

    runs: Sequence[Run]
    """Runs on target domains; domains and labels keep their order."""
    failures: Sequence[Failure] = ()
    title: str = "Comparison of methods"
    command: str = ""
    """What the report was made with."""
    baseline: str = "base"
    """Label that the others are compared with."""
    references: Sequence[Reference] = ()
    """What the baseline should not lie below."""
    wall_seconds: float | None = None
    """How long the command took, where that says something."""


def write(report: Report, folder: Path, console: Console) -> list[Line]:
    """Print a table a domain, and write the report.

    The files are index.html, which holds all of it, report.md with its plots beside it as PNG, and
    summary.csv (every difference and its test), days.csv (every scored day), cost.csv, checklist.csv.

    Args:
        report: What is reported.
        folder: Where the files go; made if it is not there.
        console: Where the tables are printed.

    Returns:
        The main table's lines.

    Raises:
        CtnetError: There are no scored days.
    """
    report = _with_silent_runs(report)
    rows = [row for run in report.runs for row in run.rows]
    if not rows:
        raise CtnetError("no run has scored a day in this range: nothing to report")
    folder.mkdir(parents=True, exist_ok=True)
    lines, spent, checks = summarise(rows, report.baseline), costs(report.runs), checklist(report.runs)
    _write_csv(folder / "summary.csv", Line, [{**asdict(line), "verdict": line.verdict} for line in lines])
    _write_csv(folder / "cost.csv", Cost, map(asdict, spent))
    _write_csv(folder / "checklist.csv", Check, map(asdict, checks))
    _write_days(folder / "days.csv", rows)
    domains = [
        _domain_data(report, domain, lines, spent, checks)
        for domain in dict.fromkeys(line.domain for line in lines)
    ]
    for data in domains:
        console.print(table(data.lines, report.baseline))
        for warning in data.warnings:
            console.print(f"{data.domain}: {warning}", markup=False, highlight=False, soft_wrap=True)
    for failure in report.failures:
        text = f"failed: {failure.label} on {failure.domain}, seed {failure.seed}: {failure.reason}"
        console.print(text, markup=False, soft_wrap=True)
    write_pages(_page(report, domains), folder)
    return lines


def _with_silent_runs(report: Report) -> Report:
    """Count a run that has not scored a day among the failures, unless it is there already."""
    known = {(failure.label, failure.domain, failure.seed) for failure in report.failures}
    silent = [
        Failure(*key, "scored no day in the range")
        for run in report.runs
        if not run.steps and (key := (run.label, run.record.domain, run.record.seed)) not in known
    ]
    return replace(
        report,
        runs=[run for run in report.runs if run.steps],
        failures=[*report.failures, *silent],
    )


def _domain_data(
    report: Report, domain: str, lines: list[Line], spent: list[Cost], checks: list[Check]
) -> DomainData:
    """Return the part of a report that is on one domain."""
    runs = [run for run in report.runs if run.record.domain == domain]
    rows = [row for run in runs for row in run.rows]
    return DomainData(
        domain,
        report.baseline,
        runs,
        [failure for failure in report.failures if failure.domain == domain],
        [line for line in lines if line.domain == domain],
        [cost for cost in spent if cost.domain == domain],
        [check for check in checks if check.domain == domain],
        gaps(report.references, rows, domain, report.baseline, _best(lines, domain, report.baseline)),
    )


def _best(lines: Sequence[Line], domain: str, baseline: str) -> str:
    """Return the label of highest AUC."""
    gains = {line.label: line.gain for line in lines if (line.domain, line.metric) == (domain, LEADING)}
    return max(gains, key=lambda label: gains[label] or 0.0, default=baseline)


def _page(report: Report, domains: Sequence[DomainData]) -> Page:
    chapters = [chapter(data) for data in domains]
    if report.failures:
        chapters.append(_failures(report.failures))
    return Page(report.title, _facts(report), tuple(chapters))


def _failures(failures: Sequence[Failure]) -> Chapter:
    rows = [[entry.label, entry.domain, str(entry.seed), entry.reason] for entry in failures]
    section = Section(
        "What failed, and why",
        "Their other seeds count above, marked with †; a label that stands here only has no result at all.",
        (grid(("method", "domain", "seed", "reason"), rows, words=4),),
    )
    return Chapter("Failed runs", f"{len(failures)} runs failed; the others went on.", (section,))


def _facts(report: Report) -> tuple[tuple[str, str], ...]:
    days = [row.day for run in report.runs for row in run.rows]
    steps = [step for run in report.runs for step in run.steps]
    training = sum(step.metrics.get("seconds", 0.0) for step in steps)
    seeds = sorted({run.record.seed for run in report.runs})
    revisions = sorted({run.record.code_revision for run in report.runs})
    facts = [
        ("runs", f"{len(report.runs)} scored, {len(report.failures)} failed; {len(steps)} scored steps"),
        ("seeds", ", ".join(map(str, seeds))),
        ("scored days", f"{min(days)} to {max(days)}"),
        ("training of these steps", duration(training)),
        ("code revision", ", ".join(revisions)),
    ]
    if report.wall_seconds is not None:
        facts.append(("the command took", duration(report.wall_seconds)))
    if report.command:
        facts.append(("command", report.command))
    return tuple(facts)


def write_pages(page: Page, folder: Path, html: str = "index.html", markdown: str = "report.md") -> None:
    """Write a report as one HTML file, and as Markdown with its plots beside it as PNG files."""
    plots = [
        block
        for part in page.chapters
        for section in part.sections
        for block in section.blocks
        if isinstance(block, Plot)
    ]
    for plot in plots:
        figures.write_png(plot.figure, folder / f"{plot.name}.png")
    drawn = {
        # matplotlib escapes the text in it.
        plot.name: Markup(figures.to_svg(plot.figure, f"plot{index}"))  # noqa: S704
        for index, plot in enumerate(plots)
    }
    _render(folder / html, "page.html.j2", page, drawn)
    _render(folder / markdown, "page.md.j2", page, drawn)


def _render(path: Path, template: str, page: Page, drawn: Mapping[str, Markup]) -> None:
    environment = Environment(
        loader=PackageLoader("ctnet_ray.report", "templates"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = _markdown
    path.write_text(environment.get_template(template).render(page=page, drawn=drawn), encoding="utf-8")


def _markdown(text: str) -> str:
    """Escape what Markdown or a Markdown table would read as its own; an underscore inside a word is safe."""
    return re.sub(r"([\\`*|<>\[\]])", r"\\\1", " ".join(text.split()))


def _write_csv(path: Path, kind: type, records: Any) -> None:
    names = [field.name for field in fields(kind)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*names, *(["verdict"] if kind is Line else [])])
        writer.writeheader()
        writer.writerows(records)


def _write_days(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["domain", "label", "seed", "day", *METRICS])
        for row in rows:
            values = [row.metrics.get(metric, "") for metric in METRICS]
            writer.writerow([row.domain, row.label, row.seed, row.day.isoformat(), *values])
