"""Where people read."""

from rich.console import Console

LOG_WIDTH = 160  #: columns of a table in a log, which has no width of its own


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
