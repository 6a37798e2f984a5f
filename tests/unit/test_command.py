"""Every command ends with status 0, or with one line that says what is wrong; --help says the defaults."""

import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

from ctnet_ray.config import DataConfig, JobConfig, TrainingConfig
from ctnet_ray.errors import CtnetError
from jobs import train_target
from jobs.__main__ import commands
from jobs.command import run


@dataclass(frozen=True)
class Inner:
    """Inner options."""

    rate: float = 0.25
    """Rows of a second."""


@dataclass(frozen=True)
class Outer:
    """Outer options."""

    name: str
    """What it is called."""
    first: date = date(2022, 5, 1)
    """First day (YYYY-MM-DD)."""
    widths: tuple[int, ...] = (8, 4)
    """Widths."""
    inner: Inner = field(default_factory=Inner)
    """Inner options."""


def work(outer: Outer, times: int = 3) -> None:
    """Do some work.

    Args:
        outer: Outer options.
        times: How often.
    """
    if times < 0:
        raise CtnetError("times is negative: give 0 or more")
    if times == 99:
        raise KeyboardInterrupt
    if times == 100:
        raise RuntimeError("a defect")
    print(f"{outer} {times}")


def command(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["command", *options])
    with pytest.raises(SystemExit) as caught:
        run(work, "What it does.")
    return int(caught.value.code or 0)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--outer.name", "x", "--outer.first", "2022-06-01", "--outer.widths", "[3,2]", "--times", "2"]
    assert command(monkeypatch, *options, "--outer.inner.rate", "1e-3") == 0
    assert capsys.readouterr().out.strip() == str(Outer("x", date(2022, 6, 1), (3, 2), Inner(0.001))) + " 2"


def test_file_and_overrides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("times: 7\nouter: {name: x, first: 2022-06-01, widths: [5], inner: {rate: 2}}\n")
    assert command(monkeypatch, "--config", str(path), "--outer.name", "y") == 0
    assert capsys.readouterr().out.strip() == str(Outer("y", date(2022, 6, 1), (5,), Inner(2.0))) + " 7"


def test_error_of_the_user(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, "--outer.name", "x", "--times", "-1") == 1
    assert one_line(capsys) == "error: times is negative: give 0 or more"


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["command", "--outer.name", "x", "--times", "-1"])
    monkeypatch.setenv("CTNET_TRACEBACK", "1")
    with pytest.raises(CtnetError):
        run(work, "")


def test_defects_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["command", "--outer.name", "x", "--times", "100"])
    with pytest.raises(RuntimeError, match="a defect"):
        run(work, "")


def test_interruption(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, "--outer.name", "x", "--times", "99") == 130
    assert one_line(capsys).startswith("interrupted: ")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--time", "1"], "--time"),
        (["--outer.nam", "x"], "--outer.nam"),
        (["stray"], "stray"),
        (["--times", "many"], "times"),
        (["--outer.first", "2022-13-01"], "outer.first"),
        (["--outer.first", "yesterday"], "outer.first"),
        (["--outer.inner.rate", "fast"], "outer.inner.rate"),
        (["--outer.widths", "[a]"], "outer.widths"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
    ids=str,
)
def test_wrong_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], named: str
) -> None:
    assert command(monkeypatch, "--outer.name", "x", *options) == 2
    line = one_line(capsys)
    assert line.startswith("error: ")
    assert line.endswith(" (see --help)")
    assert named in line


def test_a_choice_that_is_none_is_told_once_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", "--data.store=a", "--method=ctnett", "--data.domain=b"])
    with pytest.raises(SystemExit):
        run(train_target.main, "")
    line = one_line(capsys)
    assert line.startswith("error: method can't be ctnett (did you mean 'ctnet'?): it is one of base, ")
    assert line.count("minet") == 1


def test_missing_option(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch) == 2
    assert "outer.name" in one_line(capsys)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("tims: 3\nouter: {name: x}\n", "tims"),
        ("outer: {name: x, inner: {rte: 1}}\n", "rte"),
        ("outer: {name: x, widths: 3}\n", "outer.widths"),
        ("outer: [\n", "parsing"),
        ("times: 3\nouter: {name: x}\ntimes: 4\n", "'times' stands twice"),
        ("outer: {name: x, inner: {rate: 1, rate: 2}}\n", "'rate' stands twice"),
        ("- 1\n", ""),
    ],
)
def test_wrong_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: str,
    named: str,
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    assert command(monkeypatch, "--config", str(path)) == 2
    assert named in one_line(capsys)


def test_help_says_every_option_with_its_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert command(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    assert "What it does." in text
    for option, words, default in [
        ("--outer.name", "What it is called.", "required"),
        ("--outer.first", "First day (YYYY-MM-DD).", "default: 2022-05-01"),
        ("--outer.widths", "Widths.", "default: (8, 4)"),
        ("--outer.inner.rate", "Rows of a second.", "default: 0.25"),
        ("--times", "How often.", "default: 3"),
    ]:
        entry = " ".join(text.split(f"\n  {option} ")[1].split("\n  --")[0].split())
        assert words in entry
        assert default in entry


def job(data: DataConfig, training: TrainingConfig = TrainingConfig()) -> None:  # noqa: B008
    """Check a configuration."""
    print(JobConfig(data=data, training=training))


JOB = ["--data.store=s", "--data.schema=x", "--data.domain=d"]
DAYS = ["--data.first_day=2022-05-01", "--data.last_day=2022-05-03"]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 0, ""),
        (["--training.batchsize=3"], 2, "--training.batchsize"),
        (["--training.batch_size=0"], 1, "error: training.batch_size must be above 0, not 0"),
        (["--data.last_day=2022-04-01"], 1, "is before data.first_day 2022-05-01"),
    ],
    ids=str,
)
def test_configuration_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *JOB, *DAYS, *options])
    with pytest.raises(SystemExit) as caught:
        run(job, "")
    assert (caught.value.code or 0) == status
    assert message in capsys.readouterr().err


SUBCOMMANDS = """
from jobs.command import run
def first(x: int = 1) -> None:
    "Do one thing."
    print("first", x)
def second() -> None:
    "Do another."
if __name__ == "__main__":
    run({"first": first, "second": second}, "Two things.")
"""


def test_subcommands_in_a_process_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(SUBCOMMANDS)

    def start(*options: str) -> tuple[int, str, str]:
        result = subprocess.run(
            [sys.executable, "-m", "two", *options],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        return result.returncode, result.stdout.strip(), result.stderr.strip()

    assert start("first", "--x", "4") == (0, "first 4", "")
    status, out, error = start("third")
    assert (status, out) == (2, "")
    assert len(error.splitlines()) == 1
    assert "third" in error
    status, out, _ = start("--help")
    assert status == 0
    assert out.startswith("usage: python -m two")
    assert "Do one thing." in out
    assert "Do another." in out


def test_all_commands_are_listed_without_an_import() -> None:
    assert list(commands()) == [
        *("jobs.compare", "jobs.daily", "jobs.demo", "jobs.evaluate", "jobs.export", "jobs.inspect"),
        *(
            "jobs.lineage",
            "jobs.prepare",
            "jobs.pretrain_source",
            "jobs.promote",
            "jobs.rebuild",
            "jobs.retain",
        ),
        *("jobs.rollback", "jobs.score", "jobs.serve", "jobs.train_target"),
    ]
    assert (
        commands()["jobs.evaluate"]
        == "Score a registered model version on a sample day, or several side by side."
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--json"], (True, False)),
        (["--json", "true", "--dry-run"], (True, True)),
        (["--dry_run", "false", "--json"], (True, False)),
        (["--json=false"], (False, False)),
    ],
)
def test_a_flag_may_stand_alone_or_have_its_value(options: list[str], expected: tuple[bool, bool]) -> None:
    got: list[tuple[bool, bool]] = []

    def job(json: bool = False, dry_run: bool = False) -> None:
        """Note the flags."""
        got.append((json, dry_run))

    with pytest.raises(SystemExit) as ended:
        run(job, "", options, flags=("json", "dry_run"))
    assert ended.value.code == 0
    assert got == [expected]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--models", "a/1", "b@champion", "s3://x/day=2022-05-01", "--more", "2"],
            (["a/1", "b@champion", "s3://x/day=2022-05-01"], 2),
        ),
        (["--more=3", "--models", "a/1"], (["a/1"], 3)),
        (["--models", "[a/1, b/2]"], (["a/1", "b/2"], 1)),
        (["--models=[a/1]"], (["a/1"], 1)),
        (["--models", "--more", "4"], ([], 4)),
    ],
)
def test_an_option_may_take_several_words(options: list[str], expected: tuple[list[str], int]) -> None:
    got: list[tuple[list[str], int]] = []

    def job(models: list[str], more: int = 1) -> None:
        """Note the words."""
        got.append((models, more))

    with pytest.raises(SystemExit) as ended:
        run(job, "", options, several=("models",))
    assert ended.value.code == 0
    assert got == [expected]


HEAVY = {"torch", "torchrec", "ray", "mlflow", "pandas", "sklearn", "matplotlib"}


@pytest.mark.parametrize("command", [*commands(), "tuning.sweep"])
def test_help_loads_nothing_that_takes_seconds(command: str) -> None:
    script = (
        "import runpy, sys\n"
        f"sys.argv = [{command!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_module({command!r}, run_name='__main__')\n"
        "finally:\n"
        f"    print(sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "[]\n")
