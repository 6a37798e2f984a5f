"""An exported version scores in an environment that has the runtime's distributions and nothing else."""

import json
import re
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path
from textwrap import dedent

from packaging.requirements import Requirement

import ctnet_ray as ct
from ctnet_ray.export.mlflow_files import REQUIREMENTS, RUNTIME
from tests.documented import ROOT

ROWS = {"item": ["3", "x"], "user": ["u", None], "tag": [1, 2], "clicks": [[1, 2], []], "tags": [["a"], None]}
ABSENT = ("ray", "mlflow", "torchrec", "fbgemm_gpu", "pandas", "sklearn", "pip")


def test_an_export_is_scored_with_its_requirements_alone(
    opened_base: ct.ModelVersion, exported: Path, tmp_path: Path
) -> None:
    python = make_environment(tmp_path / "runtime", requirements_of(exported))
    scoring = f"""
        import importlib.util, json

        print(json.dumps([name for name in {ABSENT!r} if importlib.util.find_spec(name)]))
        from ctnet_ray.serving.folder import open_export
        print(json.dumps(open_export({str(exported)!r}).score({ROWS!r}).tolist()))
    """
    found = subprocess.run(
        [str(python), "-I", "-W", "error", "-c", dedent(scoring)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    there, scores = map(json.loads, found.stdout.splitlines())
    assert there == []
    assert scores == opened_base.score(ROWS).tolist()


def requirements_of(folder: Path) -> list[str]:
    """Return the distributions that an exported folder asks for."""
    lines = (folder / REQUIREMENTS).read_text().splitlines()
    return [Requirement(line).name for line in lines if not line.startswith("#")]


def make_environment(folder: Path, names: list[str]) -> Path:
    """Make an environment of distributions and what they need, linked from this one; return its Python."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in with_what_they_need(names):
        files = distribution(name).files or ()
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            (packages / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    (packages / "ctnet_ray").symlink_to(ROOT / "ctnet_ray")
    return folder / "bin" / Path(sys.executable).name


def with_what_they_need(names: list[str]) -> set[str]:
    """Return distributions and all that they require, by their normal names."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name not in found:
            found.add(name)
            asked = map(Requirement, distribution(name).requires or ())
            left += [one.name for one in asked if not one.marker or one.marker.evaluate({"extra": ""})]
    return found


def test_the_requirements_are_those_that_the_docs_name() -> None:
    page = (ROOT / "docs/scoring.md").read_text()
    (sentence,) = re.findall(r"Reading needs ([^.]*)\.", page)
    assert {*re.split(r", | and ", sentence)} == {*RUNTIME}
