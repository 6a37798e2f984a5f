"""The sections of the report on one domain, main result first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctnet_ray.methods.table import METHODS
from ctnet_ray.metrics import COMPARED, LEADING, METRICS
from ctnet_ray.report import figures, figures_cost, figures_days, figures_gain, figures_windows, references
from ctnet_ray.report.blocks import (
    Cell,
    Chapter,
    Grid,
    Plot,
    Section,
    Tone,
    amount,
    grid,
    number,
)
from ctnet_ray.report.checklist import Check
from ctnet_ray.report.costs import Cost
from ctnet_ray.report.differences import Line, daily, fullest, pairs
from ctnet_ray.report.inference import LEVEL, critical
from ctnet_ray.report.references import Gap
from ctnet_ray.report.rows import Failure, Row, Run
from ctnet_ray.report.selection import featured
from ctnet_ray.report.settings import differing, settings
from ctnet_ray.report.windows import windows

_BESIDE = tuple(name for name, metric in METRICS.items() if metric.shown == "beside")
_TONES: Mapping[str, Tone] = {"better": "good", "worse": "bad"}


@dataclass(frozen=True)
class DomainData:
    """All that is known of one domain."""

    domain: str
    baseline: str
    runs: Sequence[Run]
    failures: Sequence[Failure]
    lines: Sequence[Line]
    costs: Sequence[Cost]
    checks: Sequence[Check]
    gaps: Sequence[Gap] = ()

    @property
    def rows(self) -> list[Row]:
        """Scored days."""
        return [row for run in self.runs for row in run.rows]

    def by_metric(self, label: str) -> dict[str, Line]:
        """Return one label's lines by metric."""
        return {line.metric: line for line in self.lines if line.label == label}

    @property
    def ranked(self) -> list[str]:
        """Labels: the baseline, then by AUC gain, best first; last those without one."""
        gains = {line.label: line.gain for line in self.lines if line.metric == LEADING}
        labels = list(dict.fromkeys(line.label for line in self.lines))

        def place(label: str) -> tuple[bool, float]:
            gain = gains.get(label)
            return label != self.baseline, float("inf") if gain is None else -gain

        return sorted(labels, key=place)

    @property
    def warnings(self) -> list[str]:
        """Why differences to the baseline may not be what they seem."""
        seeds = {run.record.seed for run in self.runs if run.label == self.baseline}
        return references.warnings(self.gaps, len(seeds), self.baseline)

    def marked(self, label: str) -> str:
        """Return a label, marked where some of its runs failed."""
        return f"{label} †" if any(failure.label == label for failure in self.failures) else label


def chapter(data: DomainData) -> Chapter:
    """Return the report on one domain."""
    with figures.style():
        sections = (
            _main(data),
            references.section(data.gaps, data.baseline),
            _forest(data),
            _days(data),
            _pairs(data),
            _windows(data),
            _cost(data),
            _checklist(data),
            _settings(data),
        )
    lead = " ".join([_lead(data), *data.warnings])
    return Chapter(f"Target domain {data.domain}", lead, tuple(section for section in sections if section))


def _lead(data: DomainData) -> str:
    tested = [line for line in data.lines if line.metric == LEADING and line.gain is not None]
    if not tested:
        return f"Nothing shares a scored day and seed with {data.baseline}: there are no differences to show."
    best = max(tested, key=lambda line: line.gain or 0.0)
    verdicts = [line.verdict for line in tested]
    better, worse = verdicts.count("better"), verdicts.count("worse")
    ctnet = next((line for line in tested if line.label == "ctnet" and line is not best), None)
    published = f"; {_named_gain(ctnet)}" if ctnet else ""
    return (
        f"highest AUC: {_named_gain(best)} over {data.baseline}{published}. AUC of {len(tested)} "
        f"methods against {data.baseline}: {better} better, {worse} worse, "
        f"{len(tested) - better - worse} not told apart."
    )


def _named_gain(line: Line) -> str:
    return f"{line.label} {number(line.gain, '+.4f')} ± {number(line.clustered_error, '.4f', '?')}"


def _main(data: DomainData) -> Section:
    rows = [_main_row(data, label) for label in data.ranked]
    reading = (
        f"Δ: mean difference to {data.baseline}, paired by seed and day, ± its standard error clustered by "
        "seed and day (the simple error over seeds beneath). Two stars and colour: told apart from "
        f"{data.baseline} at p < {LEVEL:g}, corrected for the number of methods (Holm){_demand(data)}; one "
        f"star: only if it were the sole comparison. {_directions()}."
    )
    if data.failures:
        reading += " † Some seeds failed; what is shown are the others."
    columns = ["method", "verdict on AUC"]
    columns += [name for metric in COMPARED for name in (METRICS[metric].title, _delta(metric))]
    columns += [METRICS[metric].title for metric in _BESIDE]
    return Section("Main result", reading, (grid(columns, rows, words=2),))


def _directions() -> str:
    """Say of which metrics not the higher values are better."""
    named = [metric for metric in METRICS.values() if metric.shown != "files" and metric.better != "higher"]
    return "; ".join(f"{metric.title} is better {metric.better}" for metric in named if metric.better)


def _delta(metric: str) -> str:
    return f"Δ {METRICS[metric].title}"


def _main_row(data: DomainData, label: str) -> list[Cell]:
    lines = data.by_metric(label)
    auc, counts = lines.get(LEADING), fullest(lines.values()).counts
    failed = len({failure.seed for failure in data.failures if failure.label == label})
    note = counts + (f", {failed} failed" if failed else "")
    verdict = auc.verdict if auc else ""
    p = f"p {_p(auc.p_corrected)}, alone {_p(auc.p)}" if auc and auc.p is not None else ""
    return [
        Cell(data.marked(label), note),
        Cell(verdict, p, _TONES.get(verdict, "quiet")),
        *(cell for metric in COMPARED for cell in _metric_cells(lines.get(metric), counts)),
        *(_mean_cell(lines.get(metric), counts) for metric in _BESIDE),
    ]


def _demand(data: DomainData) -> str:
    """Say what the correction asks of the method that is furthest away."""
    tested = [line for line in data.lines if line.metric == LEADING and line.p is not None]
    if not tested:
        return ""
    degrees = max(line.degrees for line in tested)
    errors = critical(degrees, len(tested))
    return f"; the furthest of {len(tested)}, with {degrees} degrees of freedom, needs {errors:.1f} errors"


def _metric_cells(line: Line | None, counts: str) -> list[Cell]:
    """Return mean and difference; seeds and days beneath, where they are not those of the row."""
    if line is None:
        return [Cell(""), Cell("")]
    digits = METRICS[line.metric].digits
    mean = Cell(f"{line.mean:.{digits}f}", "" if line.counts == counts else line.counts)
    if line.gain is None:
        return [mean, Cell("")]
    simple = (
        f"{line.error_over} ± {line.gain_error:.{digits}f}" if line.gain_error is not None else "no error"
    )
    text = _difference(line) + _stars(line.p, line.p_corrected)
    return [mean, Cell(text, simple, _TONES.get(line.verdict, ""))]


def _mean_cell(line: Line | None, counts: str) -> Cell:
    if line is None:
        return Cell("")
    mean = f"{line.mean:.{METRICS[line.metric].digits}f}"
    notes = [] if line.gain is None else [f"Δ {_difference(line)}"]
    return Cell(mean, ", ".join([*notes, *([] if line.counts == counts else [line.counts])]))


def _difference(line: Line) -> str:
    """Return the difference to the baseline ± its clustered standard error."""
    digits = METRICS[line.metric].digits
    error = f" ± {line.clustered_error:.{digits}f}" if line.clustered_error is not None else ""
    return f"{line.gain:+.{digits}f}{error}"


def _forest(data: DomainData) -> Section | None:
    lines = [line for line in data.lines if line.gain is not None]
    if not any(line.metric in COMPARED for line in lines):
        return None
    figure = figures_gain.forest(lines, data.baseline)
    plot = Plot(f"gains_{data.domain}", f"Gain over {data.baseline} of every method on {data.domain}", figure)
    reading = (
        f"Difference to {data.baseline} ± clustered standard error: green better, orange worse, grey not "
        "told apart (corrected); what lies far outside is written at the edge."
    )
    return Section("Every method's gain", reading, (plot,))


def _days(data: DomainData) -> Section:
    labels = featured(data.runs, data.lines, data.domain, data.baseline)
    curves = {}
    for metric in COMPARED:
        by_label = daily(data.rows, data.domain, metric, data.baseline)
        curves[metric] = {label: by_label[label] for label in labels if label in by_label}
    plot = Plot(
        f"days_{data.domain}",
        f"Metrics and gain over {data.baseline} by day on {data.domain}",
        figures_days.by_day(data.baseline, curves),
    )
    rows = []
    for label in labels:
        line, gains = data.by_metric(label).get(LEADING), curves[LEADING].get(label, ([], []))[1]
        if line and gains:
            slope = (
                f"{number(line.slope, '+.5f')} ± {number(line.slope_error, '.5f', '?')}" if line.slope else ""
            )
            rows.append([label, f"{gains[0].mean:+.4f}", f"{gains[-1].mean:+.4f}", slope])
    reading = (
        "Does a transfer's gain last? A negative slope says that it decays (mean over seeds, ± standard "
        "error). Where methods are many, one stands for each way to transfer: the unmodified one, and of "
        "fine-tuning and of joint training the one with the best AUC on these very days."
    )
    columns = ("method", "AUC gain, first day", "last day", "slope a day")
    return Section("Gain by day", reading, (plot, *([grid(columns, rows)] if rows else [])))


def _pairs(data: DomainData) -> Section | None:
    every_pair = pairs(data.rows, data.domain, LEADING)
    if len(every_pair) < 2:
        return None
    figure = figures_gain.matrix(every_pair, _by_level(data), LEADING)
    plot = Plot(f"pairs_{data.domain}", f"AUC difference of every two methods on {data.domain}", figure)
    reading = (
        "The row's AUC minus the column's, paired by seed and day, in thousandths: green, the row is better. "
        f"Bold with two stars: p < {LEVEL:g} after Holm's correction for {len(every_pair)} pairs; one star: "
        "only if it were the sole comparison."
    )
    return Section("Every two methods", reading, (plot,))


def _by_level(data: DomainData) -> list[str]:
    """Return the labels by mean AUC, best first."""
    means = {line.label: line.mean for line in data.lines if line.metric == LEADING}
    return sorted(means, key=lambda label: -means[label])


def _windows(data: DomainData) -> Section | None:
    fine_tuned = windows(data.runs, data.lines, data.costs, data.domain)
    if not any(LEADING in window.lines for window in fine_tuned):
        return None
    continual = (name for name, method in METHODS.items() if method.continual)
    others = {name: lines for name in continual if (lines := data.by_metric(name))}
    figure = figures_windows.by_window(fine_tuned, others, data.baseline)
    plot = Plot(
        f"windows_{data.domain}", f"Gain and rows a step against fine-tuning days on {data.domain}", figure
    )
    rows = [
        [
            window.label,
            window.method,
            number(window.days, ".3g") + (" (all)" if window.all_days else ""),
            *(_metric_cells(window.lines.get(metric), "")[1] for metric in COMPARED),
            amount(window.cost.target_rows),
            number(window.cost.seconds, ".2f"),
        ]
        for window in fine_tuned
    ]
    reading = (
        f"How many of the target's days does fine-tuning need to reach {data.baseline} (zero line) and the "
        "methods that see each day once (dashed, band ± clustered standard error), and how many rows does it "
        "train on for that?"
    )
    columns = ("label", "method", "days", *map(_delta, COMPARED), "rows a step", "seconds a step")
    return Section("Quality against fine-tuning days", reading, (plot, grid(columns, rows, words=2)))


def _cost(data: DomainData) -> Section:
    auc = {line.label: line for line in data.lines if line.metric == LEADING}
    trained = any(cost.label == data.baseline and cost.seconds for cost in data.costs)
    named = featured(data.runs, data.lines, data.domain, data.baseline)
    blocks: list[Grid | Plot] = []
    if trained and auc:
        figure = figures_cost.quality_against_cost(auc, data.costs, named, data.baseline)
        blocks.append(Plot(f"cost_{data.domain}", f"AUC gain against training time on {data.domain}", figure))
    order = data.ranked
    rows = [_cost_row(cost) for cost in sorted(data.costs, key=lambda cost: order.index(cost.label))]
    columns = ("method", "target rows a step", "source rows a step", "seconds a step", "rows/s")
    columns += ("scoring s a day", "scored rows/s", "parameters trained", "held", "peak MiB")
    reading = (
        "What one day's step costs, as a mean over the steps behind the scored days: up is better, left is "
        "cheaper. Rows count epochs; what trains nothing has no place in the plot; the source series, which "
        "the methods share, is not counted."
    )
    return Section("Cost", reading, (*blocks, grid(columns, rows)))


def _cost_row(cost: Cost) -> list[str]:
    return [
        cost.label,
        amount(cost.target_rows),
        amount(cost.source_rows),
        number(cost.seconds, ".2f"),
        amount(cost.rows_per_second),
        number(cost.evaluation_seconds, ".2f"),
        amount(cost.evaluation_rows_per_second),
        amount(cost.parameters_trained),
        amount(cost.parameters_held),
        amount(cost.peak_memory_mib),
    ]


def _checklist(data: DomainData) -> Section:
    order = data.ranked
    rows = []
    for check in sorted(data.checks, key=lambda check: order.index(check.label)):
        share = f"{check.source_row_share:.0%} of rows"
        rows.append(
            [
                check.label,
                _tick(not check.needs_source_samples, share),
                _tick(not check.source_objective, share),
                _tick(check.increments_only, _reads(check)),
                Cell("yes" if check.needs_source_model else "no"),
                Cell("yes" if check.needs_source_statistics else "no"),
            ]
        )
    columns = (
        "method",
        "no source samples",
        "not disturbed by the source's objective",
        "increments only",
        "needs a source model",
        "needs the source's statistics",
    )
    reading = (
        "Filled in from the samples that each step's record names, ✓ being what one wants. Source samples "
        "are those of a domain other than the target, and a loss on them updates what serves; increments "
        "only means that each step reads its own day, and no sample day is read by two steps. The source's "
        "statistics are counts that it can publish without a sample; its model has read them too."
    )
    return Section("The paper's checklist", reading, (grid(columns, rows, words=6),))


def _tick(holds: bool, figures_behind: str) -> Cell:
    return Cell(f"{'✓' if holds else '✗'} {figures_behind}", tone="good" if holds else "bad")


def _reads(check: Check) -> str:
    if not check.reads_of_a_day:
        return "trains on nothing"
    days = "1 sample day" if check.days_a_step == 1 else f"{check.days_a_step:.3g} sample days"
    epochs = "1 epoch" if check.epochs == 1 else f"{check.epochs} epochs"
    steps = "1 step" if check.reads_of_a_day == 1 else f"up to {check.reads_of_a_day} steps"
    return f"{days} a step, {epochs}; each read by {steps}"


def _settings(data: DomainData) -> Section:
    by_label = settings(data.runs, data.domain)
    base = by_label.get(data.baseline, {})
    rows = []
    for label, of_label in by_label.items():
        listed = differing(of_label, base)
        if label == data.baseline:
            listed = {key: value for key, value in base.items() if not key.startswith("transfer.")}
        text = "; ".join(f"{key.removeprefix('training.')} = {value}" for key, value in listed.items())
        rows.append([label, text or f"as {data.baseline}"])
    reading = f"How {data.baseline} was trained, and what differs for every other method."
    return Section("Settings", reading, (grid(("method", "settings"), rows, words=2),))


def _stars(p: float | None, p_corrected: float | None) -> str:
    if p_corrected is not None and p_corrected < LEVEL:
        return " **"
    return " *" if p is not None and p < LEVEL else ""


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"
