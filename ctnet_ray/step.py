"""How long a step is: a calendar day, or any whole number of them; or a part of a log without times.

The samples of a step lie in the folder of its first day, and its version is of that day: a day stands for the
step that begins on it. Of a log without times the days only number the steps; a step then says how many there
are, 1/10, in all records that are made of it.
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from ctnet_ray.errors import CtnetError

_TEXT = re.compile(r"([1-9]\d{0,3})d|1/([1-9]\d{0,3})")


@dataclass(frozen=True)
class Step:
    """The length of all steps of a domain, and the arithmetic of their first days."""

    days: int = 1
    parts: int = 0
    """Equal parts that a log without times was cut into, of which a step is one; 0: rows have times."""

    def __str__(self) -> str:
        """Return it as people write it: 7d."""
        return f"1/{self.parts}" if self.parts else f"{self.days}d"

    @property
    def length(self) -> timedelta:
        """From one step to the next."""
        return timedelta(days=self.days)

    def next(self, day: date) -> date:
        """Return the first day of the step after that of `day`."""
        return day + self.length

    def previous(self, day: date) -> date:
        """Return the first day of the step before that of `day`."""
        return day - self.length

    def last(self, day: date) -> date:
        """Return the last day of the step that begins on `day`."""
        return self.next(day) - timedelta(days=1)

    def between(self, first: date, last: date) -> list[date]:
        """Return the first days of steps from `first` on, up to the last that begins by `last`."""
        return [first + index * self.length for index in range(self.count(first, last) + 1)]

    def count(self, first: date, last: date) -> int:
        """Return the whole steps from a day to another."""
        return (last - first) // self.length

    def meets(self, one: date, other: date) -> bool:
        """Whether steps that begin on one day and on another begin on the same days."""
        return not (one - other) % self.length

    def start(self, day: date, begun: date) -> date:
        """Return the first day of the step that a day lies in, where one step begins on `begun`."""
        return day - (day - begun) % self.length


ONE_DAY = Step()  #: what a step is where nobody says otherwise


def parse(text: Any, where: str) -> Step:
    """Return the step that a text says.

    Args:
        text: A whole number of days: 7d.
        where: What says it, for the message.

    Raises:
        CtnetError: It says none.
    """
    try:
        return _parse(text)
    except ValueError as error:
        raise CtnetError(f"{where}: {error}") from error


def _parse(text: Any) -> Step:
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"a step is a whole number of days such as 7d, not {text!r}")
    return Step(int(match[1])) if match[1] else Step(parts=int(match[2]))


StepText = Annotated[
    Step,
    PlainValidator(lambda value: value if isinstance(value, Step) else _parse(value)),
    PlainSerializer(str, return_type=str),
]
"""A step in a record, where it is a text."""
