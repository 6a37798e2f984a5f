"""Fuzz one parser: python -m tests.faults.fuzz TARGET [--minutes N] [--seed S] [--output FOLDER]

Guided by the coverage of ctnet_ray, with atheris (pip install '.[fuzz]'). What breaks the rule (`judging`) is
written, each kind once, to a file in the output folder; the run goes on. Prints a table, and JSON; ends with
status 1 where something was found. A file that was found: python -m tests.faults.fuzz TARGET --replay FILE
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

try:
    import atheris  # pyright: ignore[reportMissingImports]
except ImportError:
    sys.exit("error: atheris is not there: pip install '.[fuzz]' (Linux, CPython 3.11 to 3.13)")

with atheris.instrument_imports(include=["ctnet_ray", "jobs"]):
    from tests.faults.judging import BrokenRuleError
    from tests.faults.target import Target
    from tests.faults.targets import TARGETS, make_target

SAY_SECONDS = 60.0


@dataclass
class Findings:
    """What came of the inputs so far."""

    target: Target
    output: Path
    outcomes: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    """The first message of each kind."""
    started: float = field(default_factory=time.monotonic)

    def try_input(self, content: bytes) -> None:
        """Judge an input; what broke the rule is kept, the first of its kind."""
        try:
            self.outcomes[self.target.judge(content)] += 1
        except BrokenRuleError as error:
            kind = f"{error.rule} {_place(error)}"
            self.outcomes["broken"] += 1
            if kind not in self.said:
                self.said[kind] = str(error)
                self.output.mkdir(parents=True, exist_ok=True)
                path = self.output / f"{self.target.name}-{len(self.said):02}"
                path.write_bytes(content)
                print(f"{path}: {kind}: {error}", flush=True)

    def to_dict(self) -> dict[str, object]:
        """Return what is said at the end."""
        seconds = round(time.monotonic() - self.started)
        return {"target": self.target.name, "seconds": seconds, **self.outcomes, "kinds": self.said}


def _place(error: BaseException) -> str:
    """Return the line of the package that raised, so that an input a thousand times found is one finding."""
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    ours = [frame for frame in frames if "ctnet_ray/" in frame.filename]
    return f"{ours[-1].filename.rpartition('ctnet_ray/')[2]}:{ours[-1].lineno}" if ours else ""


def fuzz(target: Target, minutes: float, seed: int, output: Path) -> None:
    """Try inputs until the time is over, and end the process."""
    findings, until, say = Findings(target, output), time.monotonic() + 60 * minutes, [0.0]

    def one_input(content: bytes) -> None:
        findings.try_input(content)
        now = time.monotonic()
        if now > say[0]:
            say[0] = now + SAY_SECONDS
            print(f"{round((until - now) / 60)} minutes left: {dict(findings.outcomes)}", flush=True)
        if now > until:
            print(json.dumps(findings.to_dict()), flush=True)
            os._exit(bool(findings.said))

    def mutate(content: bytes, largest: int, seed: int) -> bytes:
        random = Random(seed)  # noqa: S311
        if random.random() < 0.5:
            return atheris.Mutate(content, largest)
        return (target.mutated(content, random) if content else target.chosen(random))[:largest]

    seeds = output / f"{target.name}-seeds"
    seeds.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.seeds()):
        (seeds / str(number)).write_bytes(content)
    options = [
        f"-seed={seed + 1}",
        f"-max_len={1 << 16}",
        "-timeout=120",
        "-rss_limit_mb=6000",
        "-verbosity=0",
    ]
    artifacts = f"-artifact_prefix={output}/{target.name}-"
    atheris.Setup([sys.argv[0], *options, artifacts, str(seeds)], one_input, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("found"))
    parser.add_argument("--replay", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        target = make_target(asked.target, Path(folder))
        if asked.replay:
            print(target.judge(asked.replay.read_bytes()))
        else:
            fuzz(target, asked.minutes, asked.seed, asked.output)


if __name__ == "__main__":
    main()
