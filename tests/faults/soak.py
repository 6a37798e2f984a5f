"""Random faults: python -m tests.faults.soak [--faults N] [--seed S] [--output FILE.json]

A run of several days is disturbed at a random moment, and the same command is typed again until it ends
well. Then the run has to be the one that nobody disturbed: nothing lost, nothing twice, no half version, the
same bytes. Prints each fault, a table and JSON; ends with status 1 where something was not so. A seed decides
which faults happen, and when; processes are killed, never the machine, so nothing is synced to the disk.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from tests.faults.kinds import FAULTS, is_said_well
from tests.faults.trial import Trial, prepare

METHODS = ("base", "ctnet")
TRIES = 3  #: how often the command is typed again before it counts as lost


@dataclass(frozen=True)
class Outcome:
    """What came of one fault."""

    number: int
    kind: str
    method: str
    seconds: float
    """Time of the commands that were typed again."""
    wrong: str
    """What was not as it has to be; empty: nothing."""


def disturb(trial: Trial, number: int, seed: int, expected: tuple[str, float]) -> Outcome:
    """Let a fault happen to a run, type its command again, and look."""
    random = Random(f"{seed} {number}")  # noqa: S311
    state, seconds = expected
    kind = random.choice(sorted(FAULTS))
    trial.begin()
    ended = [*FAULTS[kind](trial, seconds, random)]
    again = time.monotonic()
    for _ in range(TRIES):
        ended.append(trial.run())
        if ended[-1].status == 0:
            break
    recovered = time.monotonic() - again
    wrong = [f"said {entry.status}: {entry.said[-1500:]}" for entry in ended if not is_said_well(entry)]
    if ended[-1].status:
        wrong.append(f"does not go on: {ended[-1].said[-1500:]}")
    if not wrong and (found := trial.state()) != state:
        wrong.append(f"another state: {difference(state, found)}")
    if not wrong and (left := trial.left_over()):
        wrong.append(f"left over: {left}")
    return Outcome(number, kind, trial.method, round(recovered, 2), "; ".join(wrong))


def difference(expected: str, found: str) -> str:
    """Return where two states begin to differ."""
    place = next(
        (place for place, (one, other) in enumerate(zip(expected, found, strict=False)) if one != other), 0
    )
    return f"...{found[max(0, place - 200) : place + 200]!r} for ...{expected[place : place + 200]!r}"


def undisturbed(trial: Trial) -> tuple[str, float]:
    """Return what a run leaves that nobody disturbs, and how long it takes, s."""
    trial.begin()
    ended = trial.run()
    if ended.status:
        sys.exit(ended.said)
    return trial.state(), ended.seconds


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a line a kind: how often, what was wrong, how long it took to recover."""
    lines = ["kind            tried wrong recovered s (median, most)"]
    for kind in FAULTS:
        own = [outcome for outcome in outcomes if outcome.kind == kind]
        seconds = sorted(outcome.seconds for outcome in own)
        if own:
            wrong = sum(bool(outcome.wrong) for outcome in own)
            lines.append(f"{kind:15} {len(own):5} {wrong:5} {seconds[len(own) // 2]:.1f}, {seconds[-1]:.1f}")
    return "\n".join(lines)


def soak(folder: Path, faults: int, seed: int) -> list[Outcome]:
    """Try so many faults below a folder."""
    prepare(folder)
    trials = [Trial(folder, method) for method in METHODS]
    expected = {trial.method: undisturbed(trial) for trial in trials}
    outcomes = []
    for number in range(faults):
        trial = trials[number % len(trials)]
        outcomes.append(disturb(trial, number, seed, expected[trial.method]))
        last = outcomes[-1]
        print(
            f"{number + 1}/{faults} {last.kind}, {last.method}: {last.wrong or 'as it has to be'}", flush=True
        )
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    os.fsync = lambda _: None
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        outcomes = soak(Path(folder), asked.faults, asked.seed)
    print(table(outcomes))
    wrong = [asdict(outcome) for outcome in outcomes if outcome.wrong]
    said = json.dumps({"faults": len(outcomes), "seed": asked.seed, "wrong": wrong})
    print(said)
    if asked.output:
        asked.output.write_text(said)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
