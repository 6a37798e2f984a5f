"""What a sweep's answer says, as the page that HTML and Markdown are made of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ctnet_ray.metrics import COMPARED, METRICS
from ctnet_ray.report import figures
from ctnet_ray.report.blocks import (
    Cell,
    Chapter,
    Page,
    Plot,
    Section,
    amount,
    grid,
    number,
)
from ctnet_ray.report.inference import Estimate
from ctnet_ray.sweep.figures import gain_against_cost, importance_bars, metric_by_day
from ctnet_ray.sweep.importance import FEWEST, columns, importance
from ctnet_ray.sweep.naming import described, short_names, shown
from ctnet_ray.sweep.standing import Standing, by_day, filled, gain_over, standings
from ctnet_ray.sweep.trials import Trial
from ctnet_ray.terminal import duration


@dataclass(frozen=True)
class Answer:
    """A sweep's outcome on its warm-up days."""

    trials: Sequence[Trial]
    """All trials, the default among them where there is one."""
    metric: str
    """Metric that decides."""
    default: Trial | None
    """Trial of the unchanged configuration."""
    winner: Trial
    """Best trial."""
    standings: Sequence[Standing]
    """How the trials stand, best first."""
    shares: Mapping[str, float]
    """How much each setting matters."""
    command: str = ""
    """What the sweep was started with."""
    wall_seconds: float = 0.0
    """How long it took."""

    @property
    def metrics(self) -> list[str]:
        """Metrics of the tables."""
        return list(dict.fromkeys((*COMPARED, self.metric)))

    @property
    def settings(self) -> dict[str, list[Any]]:
        """Values of the settings that differ between trials, in the order of the standings."""
        return columns([standing.trial for standing in self.standings])

    def is_default(self, trial: Trial) -> bool:
        """Whether a trial is the default."""
        return self.default is not None and trial.number == self.default.number

    def role(self, trial: Trial) -> str:
        """Return "winner", "default", both or nothing."""
        roles = ("winner", trial.number == self.winner.number), ("default", self.is_default(trial))
        return ", ".join(name for name, holds in roles if holds)


def sum_up(
    trials: Sequence[Trial],
    metric: str,
    default: Trial | None,
    winner: Trial,
    *,
    command: str = "",
    wall_seconds: float = 0.0,
    unset: Mapping[str, Any] | None = None,
) -> Answer:
    """Return a sweep's outcome.

    Args:
        trials: All trials, whatever became of them.
        metric: Metric that decides.
        default: Trial of the unchanged configuration, counted among the trials if it is not there; None
            where there is none.
        winner: Best trial.
        command: What the sweep was started with.
        wall_seconds: How long it took.
        unset: Values by dotted name of settings that a trial leaves alone; without: "default".
    """
    known = {trial.number for trial in trials}
    every = filled([*trials, *([default] if default and default.number not in known else [])], unset or {})
    ranked, shares = standings(every, metric, default), importance(every, metric)
    return Answer(every, metric, default, winner, ranked, shares, command, wall_seconds)


def page(answer: Answer) -> Page:
    """Return the answer as a page."""
    with figures.style():
        sections = (
            _gain(answer),
            _table(answer),
            _importance(answer),
            _cost(answer),
            _days(answer),
            _failed(answer),
        )
    shown_sections = tuple(section for section in sections if section)
    chapter = Chapter("What won", verdict(answer), shown_sections)
    return Page(f"Answer of a sweep: {METRICS[answer.metric].title}", _facts(answer), (chapter,))


def verdict(answer: Answer) -> str:
    """Return in a sentence or two what won, and by how much over the default."""
    winner, default, name = answer.winner, answer.default, METRICS[answer.metric].title
    if not by_day(winner, answer.metric):
        return f"no trial has a {name}: there is no winner."
    if answer.is_default(winner):
        return f"the default ({winner.label}) won over {len(answer.trials) - 1} other trials on warm-up days."
    won = f"{winner.label} ({described(winner.settings)}) won among {len(answer.trials)} trials"
    gain, days = gain_over(winner, default, answer.metric)
    if gain is None or default is None:
        return f"{won}; there is no default with a {name} on the same days to compare it with."
    over = f"{days} warm-up {'day' if days == 1 else 'days'}{_error_words(gain)}"
    return (
        f"{won}: {name} {with_error(gain)} over the default ({default.label}), a mean paired difference over "
        f"{over}. It was chosen for these days, so expect less of it on others: the scored days decide."
    )


def with_error(gain: Estimate | None) -> str:
    """Return a difference, positive where better, and its standard error."""
    if gain is None:
        return ""
    mean = signed(gain.mean)
    return mean if gain.error is None else f"{mean} ± {gain.error:.4f}"


def signed(value: float | None) -> str:
    """Format a difference that may be absent."""
    # Adding 0 makes minus zero plain zero.
    return "" if value is None else f"{round(value, 4) + 0.0:+.4f}"


def _error_words(gain: Estimate) -> str:
    return ", ± its standard error over days" if gain.error is not None else ", too few for a standard error"


def _facts(answer: Answer) -> tuple[tuple[str, str], ...]:
    counts = Counter(trial.status for trial in answer.trials)
    days = sorted({day for trial in answer.trials for day in trial.days})
    facts = [("trials", ", ".join(f"{count} {status}" for status, count in counts.items()))]
    if days:
        facts.append(("warm-up days", f"{days[0]} to {days[-1]}"))
    spent = sum(trial.costs.get("seconds", 0.0) for trial in answer.trials)
    facts += [("training of all trials", duration(spent)), ("the sweep took", duration(answer.wall_seconds))]
    if answer.command:
        facts.append(("command", answer.command))
    return tuple(facts)


def _gain(answer: Answer) -> Section | None:
    default, winner = answer.default, answer.winner
    if default is None or answer.is_default(winner):
        return None
    rows = []
    for metric in answer.metrics:
        gain, days = gain_over(winner, default, metric)
        if gain is None:
            continue
        of_winner, of_default = by_day(winner, metric), by_day(default, metric)
        means = [
            number(fmean(values[day] for day in of_winner.keys() & of_default.keys()))
            for values in (of_winner, of_default)
        ]
        rows.append([METRICS[metric].title, *means, with_error(gain), str(days)])
    if not rows:
        return None
    return Section(
        "The winner and the default",
        "Means over the warm-up days that both have. The improvement is positive where the winner is better, "
        "of every metric; ± is the standard error of the mean of the days' differences. The winner was "
        "chosen on these days, which flatters it.",
        (grid(("metric", winner.label, default.label, "improvement", "days"), rows),),
    )


def _table(answer: Answer) -> Section:
    settings = answer.settings
    names = ("trial", "status", *short_names(settings).values())
    name = METRICS[answer.metric].title
    measures = (
        *(METRICS[metric].title for metric in answer.metrics),
        f"{name} over the median",
        f"{name} over the default",
    )
    rows = [
        [
            Cell(standing.trial.label, answer.role(standing.trial)),
            Cell(standing.trial.status, standing.trial.reason if standing.trial.status == "stopped" else ""),
            *(shown(values[index]) for values in settings.values()),
            str(len(standing.trial.days)),
            *(number(standing.trial.mean(metric)) for metric in answer.metrics),
            signed(standing.relative),
            with_error(standing.gain),
            amount(standing.trial.costs.get("parameters_trained")),
            amount(standing.trial.costs.get("rows")),
            amount(standing.trial.costs.get("seconds")),
        ]
        for index, standing in enumerate(answer.standings)
    ]
    return Section(
        "Trials, best first",
        "Finished trials, then those that the scheduler stopped, then the rest. Metrics are means over a "
        "trial's own days: compare them between trials with the same days only. Over the median: mean over "
        "a trial's days of the difference to that day's median over the trials that have every day. Over the "
        "default: mean of the paired differences on the days of both, ± its standard error. Both are "
        "positive where the trial is better, whatever the metric. Only settings that differ between "
        "trials are shown.",
        (grid((*names, "days", *measures, "parameters trained", "rows", "seconds"), rows, len(names)),),
    )


def _importance(answer: Answer) -> Section:
    reading = (
        f"Share of each setting in the variation of {METRICS[answer.metric].title} between trials "
        "(functional ANOVA on a random forest; what settings do only together is left out; shares sum to 1). "
        "With few trials it is a rough guide."
    )
    if not answer.shares:
        reading = f"Unknown: it takes {FEWEST} finished or stopped trials that differ."
        return Section("How much each choice matters", reading, ())
    rows = [[name, f"{share:.1%}"] for name, share in answer.shares.items()]
    plot = Plot("importance", "Share of each setting in the variation", importance_bars(answer.shares))
    return Section("How much each choice matters", reading, (plot, grid(("setting", "share"), rows)))


def _cost(answer: Answer) -> Section | None:
    figure = gain_against_cost(answer.standings, answer.metric, answer.default, answer.winner)
    if figure is None:
        return None
    return Section(
        "Gain and cost",
        "Each point is a trial with its number; hollow: stopped early; coloured: the winner; black: the "
        "default. Bars are standard errors over days.",
        (Plot("gain_cost", "Improvement against parameters trained and seconds", figure),),
    )


def _days(answer: Answer) -> Section | None:
    figure = metric_by_day(answer.trials, answer.metric, answer.default, answer.winner)
    if figure is None:
        return None
    return Section(
        "Day by day",
        "Each line is a trial; a hollow end: stopped early.",
        (Plot("days", f"{METRICS[answer.metric].title} by day of each trial", figure),),
    )


def _failed(answer: Answer) -> Section | None:
    failed = [trial for trial in answer.trials if trial.status == "failed"]
    if not failed:
        return None
    rows = [
        [trial.label, described(trial.settings), trial.reason or "unknown", str(len(trial.days))]
        for trial in failed
    ]
    return Section(
        "What failed, and why",
        "The other trials went on. A failed trial's days count nowhere.",
        (grid(("trial", "settings", "reason", "days"), rows, words=3),),
    )
