"""What is fuzzed: parsers, each with valid files to begin with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from tests.faults.judging import judge
from tests.faults.mutation import Kind, mutated


@dataclass(frozen=True)
class Part:
    """One way of a parser, or one file of those that it reads."""

    name: str
    kind: Kind
    seeds: tuple[bytes, ...]
    """Valid files."""
    read: Callable[[bytes], object]
    """Puts the file in its place, and reads."""


@dataclass(frozen=True)
class Target:
    """A parser. Its input is a byte that says which part is meant, and a file."""

    name: str
    parts: tuple[Part, ...]
    folder: Path
    """Where it, or the folder that it reads, may be written to."""

    def seeds(self) -> list[bytes]:
        """Return valid inputs."""
        return [bytes([number]) + seed for number, part in enumerate(self.parts) for seed in part.seeds]

    def part(self, content: bytes) -> Part:
        """Return the part that an input is for."""
        return self.parts[content[0] % len(self.parts) if content else 0]

    def mutated(self, content: bytes, random: Random) -> bytes:
        """Return an input changed a little."""
        part = self.part(content)
        return content[:1] + mutated(content[1:], part.kind, random, part.seeds)

    def chosen(self, random: Random) -> bytes:
        """Return a valid input changed a little."""
        return self.mutated(random.choice(self.seeds()), random)

    def judge(self, content: bytes) -> Literal["value", "refused"]:
        """Read an input.

        Raises:
            BrokenRuleError: The parser did what none may do.
        """
        return judge(self.part(content).read, content[1:], self.folder)
