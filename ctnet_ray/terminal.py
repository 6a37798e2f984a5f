"""Where people read."""

from rich.console import Console

LOG_WIDTH = 160  #: columns of a table in a log, which has no width of its own


def open_console(stderr: bool = False) -> Console:
    """Return a console on standard output, or on standard error for what is not the result."""
    console = Console(stderr=stderr, log_path=False)
    return console if console.is_terminal else Console(stderr=stderr, log_path=False, width=LOG_WIDTH)
