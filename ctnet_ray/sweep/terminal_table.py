"""A sweep's trials in a terminal."""

from rich import box
from rich.table import Table
from rich.text import Text

from ctnet_ray.metrics import METRICS
from ctnet_ray.report.blocks import number
from ctnet_ray.sweep.answer_page import Answer, with_error
from ctnet_ray.sweep.naming import short_names, shown


def table(answer: Answer) -> Table:
    """Return the trials as a table, best first; the winner in bold, one that failed with its reason.

    Args:
        answer: The sweep's outcome.
    """
    name = METRICS[answer.metric].title
    title = f"{len(answer.trials)} trials by {name} on warm-up days, ± standard error over days"
    shown_table = Table(title=title, title_justify="left", box=box.HORIZONTALS, padding=(0, 1))
    for column in ("trial", "status"):
        shown_table.add_column(column, overflow="fold")
    for column in ("days", *(METRICS[metric].title for metric in answer.metrics), f"{name} over default"):
        shown_table.add_column(column, justify="right")
    shown_table.add_column("settings, or why it failed", overflow="fold")
    settings = answer.settings
    short = short_names(settings)
    for index, standing in enumerate(answer.standings):
        trial = standing.trial
        role = answer.role(trial)
        values = ", ".join(f"{short[key]}={shown(column[index])}" for key, column in settings.items())
        shown_table.add_row(
            trial.label,
            f"{trial.status}, {role}" if role else trial.status,
            str(len(trial.days)),
            *(number(trial.mean(metric)) for metric in answer.metrics),
            with_error(standing.gain),
            # Settings and reasons are somebody's text: never read as rich's markup.
            Text(trial.reason if trial.status == "failed" and trial.reason else values),
            style="bold" if trial.number == answer.winner.number else "",
        )
    return shown_table
