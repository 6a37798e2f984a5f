"""What a plan is going to do and roughly how long it takes, for people."""

from collections.abc import Sequence
from itertools import chain

from rich.table import Table

from ctnet_ray.runs.plan import RunPlan, StepLeft, rows_to_read
from ctnet_ray.runs.records import EvaluationRecord, StepRecord

_RECENT = 7  #: steps whose recorded seconds count


def plan_table(plan: RunPlan, left: Sequence[StepLeft], done: Sequence[StepRecord]) -> Table:
    """Return what is left of a plan, a row a step.

    Args:
        plan: The run.
        left: What of it is to be made (`steps_left`).
        done: The records of its steps, ascending.
    """
    seconds = seconds_expected(plan, left, done)
    took = f"{seconds:,.0f} s of reading and training" if seconds else "no step tells yet how long"
    rows = rows_to_read(left, plan.training)
    table = Table(
        *("day", "trains on", "rows", "source version", "scored on", "rows scored"),
        title=f"{plan.record.run}: {len(left)} of {len(plan.steps)} steps, {rows:,} rows to read, {took}",
        title_justify="left",
    )
    for step, record in ((entry.step, entry.record) for entry in left):
        read = [*step.train, *step.beside]
        trains = ", ".join(f"{day.domain} {day.day}" for day in read) or "nothing"
        source = record.source if record else step.source
        scored = step.evaluate
        table.add_row(
            f"{step.day}",
            "is there" if record else trains,
            "" if record else f"{sum(day.rows for day in read):,}",
            source.id if source else "",
            f"{scored.day}" if scored else "",
            f"{scored.rows:,}" if scored else "",
        )
    return table


def seconds_expected(plan: RunPlan, left: Sequence[StepLeft], done: Sequence[StepRecord]) -> float | None:
    """Return the seconds that the rows of steps take at the speed of the newest ones; None: there are none.

    Starting workers, loading and publishing are not in it.
    """
    recent = done[-_RECENT:]
    evaluations = filter(None, (EvaluationRecord.read(plan.folder, step.day) for step in recent))
    metrics = [step.metrics for step in recent]
    trained = [(entry["rows"], entry["seconds"]) for entry in metrics if "seconds" in entry]
    scored = [(float(record.samples.rows), record.seconds) for record in evaluations]
    rows, seconds = (sum(column) for column in zip((0.0, 0.0), *chain(trained, scored), strict=True))
    return rows_to_read(left, plan.training) * seconds / rows if rows else None
