"""Where people read, and what those who wait are shown."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

LOG_WIDTH = 160  #: columns of a table in a log, which has no width of its own
LOG_SECONDS = 60.0  #: time between two lines of a log


def open_console(stderr: bool = False) -> Console:
    """Return a console on standard output, or on standard error for what is not the result."""
    console = Console(stderr=stderr, log_path=False)
    return console if console.is_terminal else Console(stderr=stderr, log_path=False, width=LOG_WIDTH)


def duration(seconds: float) -> str:
    """Return a time as people say it: "12 s", "14 min", "2 h 5 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class RowsColumn(ProgressColumn):
    """The rows that are done, and the speed of the last half minute."""

    def render(self, task: Task) -> Text:
        """Return such as "1,000 of 5,000 rows, 200 rows/s"."""
        if task.total is None:
            return Text("")
        speed = f", {task.speed:,.0f} rows/s" if task.speed else ""
        return Text(f"{task.completed:,.0f} of {task.total:,.0f} rows{speed}")


@contextmanager
def rows_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show on standard error how far a pass over rows is: a bar on a terminal, a line now and then in a log.

    Args:
        title: What is done.
        total: Rows of the pass.

    Yields:
        To be called with the rows that are done, as often as one likes.
    """
    console = open_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), RowsColumn())
    logged = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(title, total=total)

        def show(rows: int) -> None:
            nonlocal logged
            bars.update(bar, completed=rows)
            if not console.is_terminal and time.monotonic() - logged > LOG_SECONDS:
                logged = time.monotonic()
                console.log(f"{title}: {rows:,} of {total:,} rows")

        yield show
