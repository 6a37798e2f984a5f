"""The one exception that people are meant to read."""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import ValidationError


class CtnetError(Exception):
    """Something outside the program is wrong; the message is one line and says the way out.

    Commands print the message and end with exit status 1; any other exception is a defect of ours. Line ends
    in what a message quotes, such as a file's name, become spaces.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(map(str.strip, str(message).splitlines())))


class DivergedError(CtnetError):
    """Training diverged. All workers of a run raise it at the same place, so their group can go on."""


class LostRayError(CtnetError):
    """Ray is gone. A process that ends for it must not wait for Ray's own end, which may never come."""


class HeldBackError(CtnetError):
    """A run does not go on, for a version of it is held back. Raised as `DivergedError` is."""


def first_problem(error: ValidationError) -> str:
    """Say the first thing that is wrong of plain data: that it lacks a field, or can't have a value."""
    problem = error.errors()[0]
    name = ".".join(map(str, problem["loc"]))
    if not name:
        return f"can't be this: {problem['msg']}"
    return (
        f"lacks {name!r}" if problem["type"] == "missing" else f"can't have this {name!r}: {problem['msg']}"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" where one of the known names is near to a misspelt one, else nothing."""
    matches = get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
