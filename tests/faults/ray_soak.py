"""Kills of Ray's processes: python -m tests.faults.ray_soak [--faults N] [--seed S] [--kinds KIND ...]

A run under Ray, by the command that people type, is disturbed up to three times: a process of its Ray is
killed at a random moment, and the command is typed again where it did not survive that. Then the run has to
be the one that nobody disturbed, without Ray: the same bytes, each step registered once, nothing half-made,
one line where it ended, no process left. Prints each fault, a table and JSON; ends with status 1 where
something was not so. Only processes that the command, or the nodes of a fault, started are ended.
"""

import argparse
import itertools
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import psutil

from tests.faults.kinds import is_said_well
from tests.faults.ray_trial import Launch, RayTrial
from tests.faults.soak import METHODS, difference, undisturbed
from tests.faults.trial import Ended, prepare
from tests.integration.nodes import end, head_node, trains, worker_node

#: What is killed, by words of its command line; a node is all of its processes.
KINDS = {
    "driver": (),
    "worker": ("ray::RayTrainWorker",),
    "reading task": ("ray::Read_Units", "ray::_map_task"),
    "controller": ("ray::TrainController",),
    "board": ("ray::Queue",),
    "raylet": ("/raylet/raylet ",),
    "GCS": ("/gcs/gcs_server ",),
}
NODE = "node"
FAULTS_OF_A_RUN = 3
TRIES = 3  #: how often the command is typed again before it counts as lost
LINE_OF_CPP = re.compile(r"\.(cc|h):\d+|\*\*\* SIG|Stack trace|@ +0x[0-9a-f]{6}")


@dataclass(frozen=True)
class Outcome:
    """What came of one kill."""

    number: int
    kind: str
    method: str
    survived: bool
    """Whether the command went on."""
    ended: float | None
    """Seconds from the kill to the command's end, where it did not; None: it did."""
    again: float
    """Seconds of the command that ended the run well, from its start or, where it survived, from the kill."""
    wrong: str
    """What was not as it has to be; empty: nothing."""


def disturbed_run(trial: RayTrial, kinds: Sequence[str], number: int, seed: str, state: str) -> list[Outcome]:
    """Kill one thing after another, type the command until it ends well, and look."""
    random = Random(seed)  # noqa: S311
    trial.begin()
    launch, outcomes, wrong, killed = trial.launch(), [], [], time.monotonic()
    for index, kind in enumerate(kinds):
        if not strike(launch, trial, kind, random):
            break
        killed = time.monotonic()
        ended = _ended_soon(launch)
        outcomes.append(Outcome(number + index, kind, trial.method, not ended, None, 0.0, ""))
        if ended:
            outcomes[-1] = replace(outcomes[-1], ended=round(time.monotonic() - killed, 1))
            wrong += faults_of(ended, launch)
            killed, launch = time.monotonic(), trial.launch()
    for _ in range(TRIES):
        ended = launch.wait()
        wrong += faults_of(ended, launch)
        if ended.status == 0:
            break
        killed, launch = time.monotonic(), trial.launch()
    again = round(time.monotonic() - killed, 1)
    if ended.status:
        wrong.append(f"does not go on: {ended.said[-1500:]}")
    elif (found := trial.state()) != state:
        wrong.append(f"another state: {difference(state, found)}")
    elif left := trial.left_over():
        wrong.append(f"left over: {left}")
    return [replace(outcome, again=again, wrong="; ".join(wrong)) for outcome in outcomes]


def strike(launch: Launch, trial: RayTrial, kind: str, random: Random) -> bool:
    """Kill something at a random moment: soon after it appears, or after so many versions more.

    Returns:
        Whether there was something to kill before the command ended.
    """
    versions = trial.versions() + random.choice((0, 0, 1, 2))
    is_begun, pause = False, random.uniform(0, 15) if random.random() < 0.5 else random.uniform(0, 1)
    while launch.runs():
        processes = launch.processes(*KINDS[kind]) if KINDS[kind] else [launch.driver]
        is_time = bool(processes) and trial.versions() >= versions
        if is_time and is_begun:
            for process in processes[:1]:
                _kill(process)
            return True
        if is_time:
            is_begun = True
            time.sleep(pause)
        time.sleep(0.1)
    return False


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        return


def _ended_soon(launch: Launch) -> Ended | None:
    """Wait until a command has ended, or seems to go on: until it works again, for Ray notices late."""
    until = time.monotonic() + 8
    while time.monotonic() < until:
        if not launch.runs():
            return launch.wait()
        time.sleep(0.2)
    return None


def faults_of(ended: Ended, launch: Launch) -> list[str]:
    """Say what is wrong with how a command ended."""
    wrong = []
    if not is_said_well(ended) or (ended.status and LINE_OF_CPP.search(ended.said)):
        wrong.append(f"said {ended.status}: {ended.said[-2500:]}")
    if left := launch.lingering():
        wrong.append(f"processes left: {left}")
    return wrong


def node_lost(trial: RayTrial, number: int, seed: str, state: str) -> list[Outcome]:
    """Kill a node of a cluster, all of its processes, while it trains."""
    random = Random(seed)  # noqa: S311
    with head_node(cpus=1) as head, worker_node(head, cpus=2) as first, worker_node(head, cpus=2) as second:
        joined = replace(trial, address=head.nodes_address)
        joined.begin()
        launch, versions = joined.launch(), random.randrange(4)
        while launch.runs() and not (
            joined.versions() >= versions and any(trains(node) for node in (first, second))
        ):
            time.sleep(0.1)
        time.sleep(random.uniform(0, 2))
        with_worker = [node for node in (first, second) if trains(node)]
        for node in with_worker:
            end(node)
        killed = time.monotonic()
        ended = launch.wait()
        wrong = faults_of(ended, launch)
    again = round(time.monotonic() - killed, 1)
    if ended.status:
        wrong.append(f"did not survive: {ended.said[-1500:]}")
    elif (found := trial.state()) != state:
        wrong.append(f"another state: {difference(state, found)}")
    if not with_worker:
        return []
    return [Outcome(number, NODE, trial.method, not ended.status, None, again, "; ".join(wrong))]


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a line a kind."""
    lines = ["kind          tried survived wrong  s to the command's end, s to the run's end (median, most)"]
    for kind in (*KINDS, NODE):
        of_kind = [outcome for outcome in outcomes if outcome.kind == kind]
        if of_kind:
            survived = sum(outcome.survived for outcome in of_kind)
            wrong = sum(bool(outcome.wrong) for outcome in of_kind)
            ended = [outcome.ended for outcome in of_kind if outcome.ended is not None]
            again = [outcome.again for outcome in of_kind]
            lines.append(
                f"{kind:14}{len(of_kind):5} {survived:8} {wrong:5}  {_spread(ended)}; {_spread(again)}"
            )
    return "\n".join(lines)


def _spread(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2]:.1f}, {ordered[-1]:.1f}" if ordered else "-"


def soak(folder: Path, faults: int, seed: int, kinds: Sequence[str]) -> list[Outcome]:
    """Try so many kills below a folder."""
    prepare(folder)
    trials = [RayTrial(folder, method) for method in METHODS]
    states = {trial.method: undisturbed(trial)[0] for trial in trials}
    random = Random(seed)  # noqa: S311
    left = [kinds[index % len(kinds)] for index in range(faults)]
    random.shuffle(left)
    outcomes: list[Outcome] = []
    # Of a run that ended before its first kill nothing is learned: the next one draws other moments.
    attempts = itertools.count()
    while len(outcomes) < faults:
        attempt = next(attempts)
        trial = trials[attempt % len(trials)]
        state, number = states[trial.method], len(outcomes)
        if left[0] == NODE:
            new = node_lost(trial, number, f"{seed} {attempt}", state)
        else:
            chosen = [kind for kind in left[:FAULTS_OF_A_RUN] if kind != NODE]
            new = disturbed_run(trial, chosen, number, f"{seed} {attempt}", state)
        for outcome in new:
            left.remove(outcome.kind)
        left.sort(key=lambda _: random.random())
        outcomes += new
        kills = ", ".join(outcome.kind for outcome in new)
        wrong = new[0].wrong if new else ""
        print(f"{len(outcomes)}/{faults} {kills}; {trial.method}: {wrong or 'as it has to be'}", flush=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=(*KINDS, NODE), default=(*KINDS, NODE))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        outcomes = soak(Path(folder), asked.faults, asked.seed, asked.kinds)
    print(table(outcomes))
    wrong = [asdict(outcome) for outcome in outcomes if outcome.wrong]
    print(json.dumps({"faults": len(outcomes), "seed": asked.seed, "wrong": wrong}))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
