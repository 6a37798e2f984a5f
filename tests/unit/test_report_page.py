"""A whole report of thirty methods, two domains, four seeds and seven days, from real run folders."""

import csv
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from html.parser import HTMLParser
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from statsmodels.stats.multitest import multipletests

from ctnet_ray import storage
from ctnet_ray.report import Failure, Report, read_runs, write
from ctnet_ray.runs.records import (
    EvaluationRecord,
    RunRecord,
    SampleRef,
    StepRecord,
    Version,
    version_folder,
)

FIRST = date(2022, 5, 10)
DAYS = [FIRST + timedelta(days=index) for index in range(8)]
DOMAINS = {"b": 1.0, "c": 0.6}
SEEDS = range(4)
EVIL = 'ctnet <b>"x"</b> | $5 & [red]'


@dataclass(frozen=True)
class Kind:
    """What a made-up label does."""

    method: str
    gain: float
    slope: float = 0.0
    window: int = 1
    source: bool = True
    joint: bool = False
    seconds: float = 1.5
    held: float = 2.0
    adapters: dict[str, Any] = field(default_factory=dict)


KINDS = {
    "base": Kind("base", 0.0, source=False, seconds=1.0, held=1.0),
    "source_direct": Kind("source_direct", -0.149, seconds=0.0),
    **{
        f"finetune_{part}_{days or 'all'}": Kind(f"finetune_{part}", gain, window=days, seconds=days or 13)
        for part, bonus in (("all", 0.0), ("embeddings", -0.002))
        for days, gain in ((1, -0.022 + bonus), (3, 0.004 + bonus), (7, 0.022 + bonus), (0, 0.028 + bonus))
    },
    **{
        name: Kind(name, gain, joint=True, seconds=9.0)
        for name, gain in (
            ("mlp_pp", 0.008),
            ("ple", 0.011),
            ("minet", 0.014),
            ("ddtcdr", 0.002),
            ("dasl", 0.009),
        )
    },
    "ctnet": Kind("ctnet", 0.0185, slope=0.002),
    "ctnet_one_time": Kind("ctnet_one_time", 0.004, slope=-0.0025),
    **{
        f"ctnet_{name}": Kind("ctnet", gain, slope=0.002, adapters={name.split("_")[0]: name})
        for name, gain in (
            ("first", 0.011),
            ("last", 0.012),
            ("deep", 0.016),
            ("none", 0.001),
            ("linear", 0.0195),
            ("before_activation", 0.0183),
            ("random_start", 0.017),
            ("concatenation", 0.015),
            ("shared_attention", 0.0181),
        )
    },
    EVIL: Kind("ctnet", 0.018),
    "base_twice_the_epochs": Kind("base", 0.005, source=False, seconds=2.0, held=1.0),
    "residual": Kind("residual", 0.036, slope=0.001, seconds=0.9),
    "ctnet_residual": Kind("ctnet_residual", 0.035, slope=0.001, seconds=2.3, held=2.2),
}

#: What runs on domain c.
FEW = ("base", "finetune_all_7", "mlp_pp", "ctnet", "ctnet_one_time", "residual")


def _write_run(folder: str, kind: Kind, domain: str, seed: int, noise: random.Random) -> None:
    run = f"m.{domain}.{kind.method}.s{seed}"
    config = {
        "data": {"domain": domain, "first_day": "2022-05-01"},
        "training": {"dense_learning_rate": 0.003 if kind.window == 1 else 0.001, "epochs": 1},
        "transfer": {"method": kind.method, "window": kind.window, "adapters": kind.adapters},
        "tracking": {"name": folder},
    }
    RunRecord(run, run, kind.method, kind.method, domain, seed, config, "d", {}, "0123abc").write(folder)
    own = noise.gauss(0, 0.003)
    for index, (day, after) in enumerate(pairwise(DAYS)):
        step = _step(run, kind, domain, day, index)
        with storage.new_folder(version_folder(folder, day)) as (_, publish):
            publish({"step": step.to_dict(), "files": []})
        gain = DOMAINS[domain] * (kind.gain + kind.slope * (index - 3)) + own + noise.gauss(0, 0.002)
        # What the seed and the day do to every method alike.
        auc = (
            0.75
            + 0.004 * seed
            + 0.01 * math.sin(index)
            + (gain if kind.method != "base" else own + kind.gain)
        )
        metrics = {
            "auc": auc,
            "gauc": auc - 0.05 + noise.gauss(0, 0.002),
            "logloss": 1.1 - auc,
            "rows": 8000.0,
        }
        metrics |= {"calibration": 1 + noise.gauss(0, 0.02), "group_coverage": 0.4}
        EvaluationRecord(run, day, SampleRef(domain, after, 8000, "x", "u"), metrics, 0.4).write(folder)


def _step(run: str, kind: Kind, domain: str, day: date, index: int) -> StepRecord:
    window = kind.window or 9 + index
    days = [] if kind.method == "source_direct" else [day - timedelta(days=back) for back in range(window)]
    samples = [SampleRef(domain, each, 8000, "x", "u") for each in days]
    if kind.joint:
        samples.append(SampleRef("a", day, 80000, "x", "u"))
    rows = float(sum(sample.rows for sample in samples))
    metrics = {}
    if rows:
        metrics = {
            "train_loss": 0.4,
            "rows": rows,
            "source_rows": 80000.0 if kind.joint else 0.0,
            "seconds": kind.seconds,
            "rows_per_second": rows / kind.seconds,
            "parameters_trained": 1.2e6,
            "parameters_held": 1.2e6 * kind.held,
            "peak_memory_mib": 700.0 + 100 * kind.held,
        }
    source = Version("m.a.source-1", day, "u") if kind.source and not kind.joint else None
    return StepRecord(run, day, None, source, tuple(samples), int(rows), metrics, {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's folder."""
    root, noise, labels = tmp_path_factory.mktemp("runs"), random.Random(1), {}  # noqa: S311
    for domain in DOMAINS:
        for index, (label, kind) in enumerate(KINDS.items()):
            for seed in SEEDS:
                if (label, domain, seed) == ("dasl", "b", 3) or (domain == "c" and label not in FEW):
                    continue
                path = str(root / f"{domain}-{index}-{seed}")
                _write_run(path, kind, domain, seed, noise)
                labels[path] = label
    failures = [
        Failure("dasl", "b", 3, "the loss of 2022-05-12 is not finite: <lower> the | learning rate"),
        Failure("ple_wide", "b", 0, "out of memory"),
    ]
    report = Report(
        read_runs(labels, DAYS[1], DAYS[-1]),
        failures,
        "Transfer to b and c",
        "python -m jobs.compare --config configs/demo.yaml --methods all",
        wall_seconds=754.0,
    )
    target = tmp_path_factory.mktemp("report")
    write(report, target, Console(file=StringIO(), width=160))
    return target


class _Parser(HTMLParser):
    """Collects what a page would load, its ids, its links and its tables."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.tables: list[list[list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "xlink:href") and (value or "").startswith("#"):
                self.links.append((value or "")[1:])
            elif name in ("src", "href", "xlink:href", "data", "srcset", "action"):
                self.loaded.append(value or "")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th", "small"):
            self.tables[-1][-1][-1] += f" {data}" if self.open[-1] == "small" else data
        elif self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)


@pytest.fixture(scope="module")
def page(folder: Path) -> _Parser:
    """The HTML page, read."""
    parser = _Parser()
    parser.feed((folder / "index.html").read_text())
    parser.close()
    return parser


def test_page_is_whole_and_loads_nothing(page: _Parser, folder: Path) -> None:
    assert page.open == []
    # The heat map is a picture inside the page.
    assert all(address.startswith("data:image/png;base64,") for address in page.loaded)
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.links) <= set(page.ids)
    text = (folder / "index.html").read_text()
    assert "@import" not in text
    assert "<script" not in text
    # Addresses name the vocabularies of SVG, which nothing loads.
    addresses = set(re.findall(r"https?://[^\s\"']+", text))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "prefers-color-scheme: dark" in text
    assert text.count("<svg") == 5 + 5


def test_sections_stand_in_order(page: _Parser) -> None:
    sections = [
        "Main result",
        "Every method's gain",
        "Gain by day",
        "Every two methods",
        "Quality against fine-tuning days",
        "Cost",
        "The paper's checklist",
        "Settings",
    ]
    assert page.headings == [
        "Target domain b",
        *sections,
        "Target domain c",
        *sections,
        "Failed runs",
        "What failed, and why",
    ]


def test_text_from_outside_is_text(page: _Parser, folder: Path) -> None:
    (row,) = [row for row in page.tables[0] if "$5" in row[0]]
    assert row[0] == f"{EVIL} 4 seeds x 7 days"
    text = (folder / "index.html").read_text()
    assert "<b>" not in text
    assert "<lower>" not in text
    markdown = (folder / "report.md").read_text()
    assert 'ctnet \\<b\\>"x"\\</b\\> \\| $5 & \\[red\\]' in markdown
    assert "<b>" not in markdown


def _summary(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as stream:
        return {(row["domain"], row["label"], row["metric"]): row for row in csv.DictReader(stream)}


def test_main_table_says_what_the_summary_says(page: _Parser, folder: Path) -> None:
    summary = _summary(folder)
    header, first, *rest = page.tables[0]
    assert header[:4] == ["method", "verdict on AUC", "AUC", "Δ AUC"]
    assert first[0] == "base 4 seeds x 7 days"
    gains = []
    for row in rest:
        label = row[0].rsplit(" 4 seeds", 1)[0].split(" †")[0]
        found = summary["b", label, "auc"]
        gain, error, simple = (float(found[key]) for key in ("gain", "clustered_error", "gain_error"))
        assert row[1].startswith(found["verdict"])
        stars = "**" if float(found["p_corrected"]) < 0.05 else "*" if float(found["p"]) < 0.05 else ""
        assert row[3] == f"{gain:+.4f} ± {error:.4f} {stars}".strip() + f" seeds ± {simple:.4f}"
        gains.append(gain)
    assert len(gains) == len(KINDS) - 1
    assert gains == sorted(gains, reverse=True)
    assert rest[0][0].startswith("residual")
    assert rest[0][1].startswith("better")


def test_corrected_p_values_are_those_of_statsmodels(folder: Path) -> None:
    lines = [row for key, row in _summary(folder).items() if key[0] == "b" and key[2] == "gauc" and row["p"]]
    expected = multipletests([float(row["p"]) for row in lines], method="holm")[1]
    assert [float(row["p_corrected"]) for row in lines] == pytest.approx(list(expected))  # type: ignore[arg-type]


def test_a_method_with_a_failed_seed_is_shown_with_the_others(page: _Parser, folder: Path) -> None:
    (row,) = [row for row in page.tables[0] if row[0].startswith("dasl")]
    assert row[0] == "dasl † 3 seeds x 7 days, 1 failed"
    assert _summary(folder)["b", "dasl", "auc"]["degrees"] == "2"
    assert page.tables[-1] == [
        ["method", "domain", "seed", "reason"],
        ["dasl", "b", "3", "the loss of 2022-05-12 is not finite: <lower> the | learning rate"],
        ["ple_wide", "b", "0", "out of memory"],
    ]


def _tables(text: str) -> Iterator[list[str]]:
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("|"):
            yield lines


def test_markdown_tables_have_as_many_cells_in_each_row(page: _Parser, folder: Path) -> None:
    tables = list(_tables((folder / "report.md").read_text()))
    assert len(tables) == len(page.tables)
    for lines, table in zip(tables, page.tables, strict=True):
        counts = {len(re.findall(r"(?<!\\)\|", line)) - 1 for line in lines}
        assert counts == {len(table[0])}
        assert len(lines) == len(table) + 1


def test_markdown_shows_plots_that_are_there(folder: Path) -> None:
    plots = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (folder / "report.md").read_text())
    assert sorted(plots) == sorted(path.name for path in folder.glob("*.png"))
    assert len(plots) == 10
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in plots)


def test_facts_say_what_ran(folder: Path) -> None:
    markdown = (folder / "report.md").read_text()
    assert f"- runs: {4 * len(KINDS) - 1 + 4 * len(FEW)} scored, 2 failed" in markdown
    assert "- scored days: 2022-05-11 to 2022-05-17" in markdown
    assert "- the command took: 13 min" in markdown
    assert "--methods all" in markdown


def test_cost_and_checklist_as_csv(folder: Path) -> None:
    with (folder / "cost.csv").open(newline="") as stream:
        cost = {(row["domain"], row["label"]): row for row in csv.DictReader(stream)}
    with (folder / "checklist.csv").open(newline="") as stream:
        checks = {(row["domain"], row["label"]): row for row in csv.DictReader(stream)}
    assert cost.keys() == checks.keys()
    assert (cost["b", "ple"]["target_rows"], cost["b", "ple"]["source_rows"]) == ("8000.0", "80000.0")
    assert checks["b", "ple"]["needs_source_samples"] == "True"
    assert checks["b", "finetune_all_7"]["increments_only"] == "False"
    assert cost["b", "finetune_all_all"]["target_days"] == "12.0"
