"""Rules of the project that no linter knows."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ctnet_ray import schema
from ctnet_ray.errors import CtnetError

ROOT = Path(__file__).parents[2]
CODE_FOLDERS = ("ctnet_ray", "jobs", "tuning", "benchmarks")
CODE = sorted(path for folder in CODE_FOLDERS for path in ROOT.glob(f"{folder}/**/*.py"))
TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "*.toml",
        "*.yaml",
        "Makefile",
        "docs/**/*.md",
        "configs/**/*.yaml",
        "tests/**/*.py",
    )
    for path in ROOT.glob(pattern)
)
MACHINE_PATH = re.compile(r"(?<![\w.~/\-}])/(work|root|tmp|mnt|Users|home/(?!ray\b)\w+)(/|\b)")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def _imports(path: Path) -> Iterator[str]:
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _importers(module: str) -> set[str]:
    """Files that import `module` or something in it."""
    return {
        _name(path) for path in CODE if any(f"{name}.".startswith(f"{module}.") for name in _imports(path))
    }


def test_one_file_reads_with_ray_data_and_two_compute() -> None:
    peers = {"benchmarks/peers/peer_fuxictr.py"}  # FuxiCTR's own loader
    assert _importers("ray.data") - peers == {
        "ctnet_ray/samples/stream.py",
        "ctnet_ray/cluster/scoring.py",
        "ctnet_ray/sweep/frozen_layers.py",
    }


def test_only_tracking_knows_mlflow() -> None:
    known = {
        f"ctnet_ray/tracking/{name}.py"
        for name in (
            "connection",
            "logged_models",
            "projection",
            "publisher",
            "queries",
            "set_aside",
            "tracker",
        )
    }
    known.add("ctnet_ray/sweep/showing.py")
    found = _importers("mlflow")
    assert "ctnet_ray/tracking/tracker.py" in found
    # The recovery benchmark looks at MLflow from outside, to compare what two runs left there.
    assert found <= known | {"benchmarks/recovery.py"}


@pytest.mark.parametrize("module", ["pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"])
def test_nothing_is_pickled(module: str) -> None:
    assert _importers(module) == set()


def test_nothing_that_is_loaded_is_executed() -> None:
    """No torch.load, eval or exec, and YAML only by a SafeLoader: files from elsewhere are read as data."""
    forbidden = {("yaml", "load"), ("yaml", "unsafe_load"), ("torch", "load"), ("", "eval"), ("", "exec")}
    # It gives yaml.load a loader of its own, which the next test looks at.
    allowed = {("ctnet_ray/schema.py", "yaml", "load")}
    found = set()
    for path in CODE:
        for node in _nodes(path):
            if not isinstance(node, ast.Call):
                continue
            match node.func:
                case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                    called = owner, attribute
                case ast.Name(id=function):
                    called = "", function
                case _:
                    continue
            if called in forbidden:
                found.add((_name(path), *called))
    assert found <= allowed


def test_the_schema_s_loader_makes_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text("features: !!python/object/apply:os.getcwd []")
    with pytest.raises(CtnetError, match="could not determine a constructor"):
        schema.load(str(path))


@pytest.mark.parametrize("path", [*CODE, *TEXTS], ids=_name)
def test_no_path_of_somebody_s_machine(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert [line for line in lines if MACHINE_PATH.search(line) and "MACHINE_PATH" not in line] == []


def test_relative_links_lead_somewhere() -> None:
    broken = [
        f"{_name(page)}: {link}"
        for page in TEXTS
        if page.suffix == ".md"
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert broken == []


def test_the_licence_is_there() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_hooks_download_nothing() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {entry["repo"] for entry in hooks["repos"]} == {"local"}
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


@pytest.mark.parametrize("job", ["lineage", "prepare table"])
def test_a_job_explains_its_options_with_defaults(job: str) -> None:
    """Two of them, for each costs seconds; test_command.py tests what all have in common."""
    command = [sys.executable, "-m", *f"jobs.{job} --help".split()]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "default: " in " ".join(result.stdout.split())
    assert "Traceback" not in result.stderr


def test_every_job_says_how_it_is_run() -> None:
    for path in ROOT.glob("jobs/*.py"):
        if path.stem in ("__init__", "__main__", "command"):
            continue
        module = ast.parse(path.read_text())
        documentation = ast.get_docstring(module) or ""
        assert "python -m jobs." in documentation or "make " in documentation, path.name
        assert 'if __name__ == "__main__":' in path.read_text(), path.name
