"""What a report consists of, whatever it is written as."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure

Tone = Literal["", "good", "bad", "quiet"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    note: str = ""
    """Smaller, beneath the text."""
    tone: Tone = ""
    """Colour."""


@dataclass(frozen=True)
class Grid:
    """A table."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1
    """Number of leading columns that hold words, not numbers."""


@dataclass(frozen=True)
class Plot:
    """A picture."""

    name: str
    """Name of its PNG file, without the ending."""
    title: str
    """What it shows, for those who do not see it."""
    figure: Figure


@dataclass(frozen=True)
class Section:
    """A heading, how to read what is beneath it, and that."""

    title: str
    reading: str
    blocks: tuple[Grid | Plot, ...]


@dataclass(frozen=True)
class Chapter:
    """All sections on one domain, or those on none."""

    title: str
    lead: str
    """Its main result in a sentence or two."""
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """What it is about: names and values."""
    chapters: tuple[Chapter, ...]


def number(value: float | None, form: str = ".4f", missing: str = "") -> str:
    """Format a number that may be absent."""
    return missing if value is None else format(value, form)


def amount(value: float | None) -> str:
    """Format a large number for people: 1,234 or 12.3 M."""
    if value is None:
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def grid(columns: Sequence[str], rows: Sequence[Sequence[Cell | str]], words: int = 1) -> Grid:
    """Return a table; a string stands for a plain cell."""
    cells = tuple(tuple(Cell(cell) if isinstance(cell, str) else cell for cell in row) for row in rows)
    return Grid(tuple(columns), cells, words)
