"""The command blocks of README, CONTRIBUTING and docs, read from their pages."""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LOOP = re.compile(r"for (\w+) in (\S+).*; do (.*); done")


@dataclass(frozen=True)
class Block:
    """A fenced block that names no language."""

    page: str
    """Path from the root of the checkout."""
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """Its page and the beginning of its first line."""
        return self.page, self.text.splitlines()[0].partition("  ")[0][:50].strip()

    @property
    def commands(self) -> list[list[str]]:
        """Its lines as the shell splits them, without comments; of a loop the first round."""
        lines = _closed(self.text.replace("\\\n", " ").splitlines())
        return [words for line in lines if (words := shlex.split(_first_round(line), comments=True))]


def read_blocks() -> dict[tuple[str, str], Block]:
    """Return the blocks of all pages by their keys, in order."""
    blocks = [
        Block(page.relative_to(ROOT).as_posix(), text)
        for page in PAGES
        for language, text in _FENCED.findall(page.read_text())
        if not language
    ]
    by_key = {block.key: block for block in blocks}
    assert len(by_key) == len(blocks), "two blocks of a page begin alike"
    return by_key


def read_blocks_of(page: str, language: str) -> list[str]:
    """Return the blocks of a page that are in a language."""
    found = _FENCED.findall((ROOT / page).read_text())
    return [text for named, text in found if named == language]


def _closed(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines, those between two quotes as one."""
    quoted = ""
    for line in lines:
        quoted += line
        if quoted.partition("#")[0].count("'") % 2:
            quoted += "\n"
            continue
        yield quoted
        quoted = ""


def _first_round(line: str) -> str:
    loop = _LOOP.fullmatch(line)
    return loop[3].replace(f"${loop[1]}", loop[2]) if loop else line
