"""Versions stand in several files: ranges in pyproject.toml, pins in requirements/, the Makefile."""

import ast
import csv
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def _pins(file: str) -> dict[str, str]:
    """Return the versions that a file in requirements/ pins, by normalised name."""
    pairs = (line.split("==") for line in (ROOT / "requirements" / file).read_text().split())
    return {canonicalize_name(name): number for name, number in pairs}


def _imported_packages(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in plain | named}


CONSTRAINTS = _pins("constraints.txt")
TORCH_CPU = _pins("torch-cpu.txt")


def test_the_lock_holds_the_pins_with_checksums() -> None:
    lines = (ROOT / "requirements/lock.txt").read_text().splitlines()[1:]
    found = [re.fullmatch(r"([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
    locked = {canonicalize_name(match[1]): match[2] for match in found if match}
    assert len(locked) == len(lines)
    assert (CONSTRAINTS | TORCH_CPU).items() <= locked.items()
    with (ROOT / "requirements/licences.csv").open() as file:
        assert [canonicalize_name(row["package"]) for row in csv.DictReader(file)] == [*locked]


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *EXTRAS["dev"]])
def test_the_pin_lies_in_the_range(text: str) -> None:
    requirement = Requirement(text)
    torch = re.search(r"torch==(\S+)", (ROOT / "Makefile").read_text())
    assert torch
    pinned = {**CONSTRAINTS, "torch": torch[1]}
    assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def test_whatever_is_imported_is_declared() -> None:
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    declared |= set(TORCH_CPU)
    distributions = packages_distributions()
    undeclared = {
        module
        for folder in ("ctnet_ray", "jobs")
        for path in (ROOT / folder).rglob("*.py")
        for module in _imported_packages(path) - set(sys.stdlib_module_names) - {"ctnet_ray", "jobs"}
        if declared.isdisjoint(map(canonicalize_name, distributions[module]))
    }
    assert undeclared == set()


def test_constraints_allow_what_torchrec_asks_for() -> None:
    """Or `pip install -c requirements/constraints.txt '.[gpu]'` has no solution."""
    asked = [Requirement(text) for text in requires("torchrec") or []]
    pinned = [(requirement, CONSTRAINTS.get(canonicalize_name(requirement.name))) for requirement in asked]
    assert [str(requirement) for requirement, pin in pinned if pin and pin not in requirement.specifier] == []


def test_a_gpu_machine_gets_the_versions_of_a_cpu_machine() -> None:
    assert EXTRAS["gpu"] == [
        f"torchrec=={TORCH_CPU['torchrec']}",
        f"fbgemm-gpu=={TORCH_CPU['fbgemm-gpu-cpu']}",
    ]


def test_constraints_name_no_build_and_no_cuda() -> None:
    assert [pin for pin in CONSTRAINTS.values() if "+" in pin] == []
    assert [name for name in CONSTRAINTS if name.startswith(("nvidia-", "cuda-", "triton"))] == []
