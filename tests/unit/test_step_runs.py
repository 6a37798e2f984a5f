"""Runs whose steps are weeks: prepared from a log, planned and walked as jobs do."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow import csv
from rich.progress import Progress

import ctnet_ray as ct
from ctnet_ray import storage
from ctnet_ray.config import (
    ComparisonConfig,
    ComputeConfig,
    DataConfig,
    Existing,
    JobConfig,
    ModelConfig,
    RetentionConfig,
    TrackingConfig,
    TrainingConfig,
)
from ctnet_ray.errors import CtnetError
from ctnet_ray.inspection.inspecting import Inspected, inspect
from ctnet_ray.orchestration.comparison import Comparison, step_of, warm_up_of
from ctnet_ray.orchestration.daily import Ready, look
from ctnet_ray.orchestration.planning import plan_job
from ctnet_ray.orchestration.retention import decide
from ctnet_ray.orchestration.rewinding import plan_rewind
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.records import EvaluationRecord, read_steps
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import Role, load
from ctnet_ray.section import override
from ctnet_ray.step import Step
from ctnet_ray.tracking.projection import version_tags
from ctnet_ray.training.versions import read_record
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.table import write_table
from tests.unit.loop_world import walk

FIRST = date(2019, 1, 1)
WEEKS = [FIRST + timedelta(days=7 * index) for index in range(6)]
WEEK = Step(7)
SECONDS = 86_400
AT_FIRST = 17_897 * SECONDS  #: 2019-01-01
SERIES, BASE = "ctnet.feed.source", "ctnet.channel.base"
CTNET: dict[str, Any] = {"transfer__method": "ctnet", "transfer__source_series": SERIES}
MAPPING = {
    "time": {"column": "at", "unit": "s"},
    "domain": {"column": "scene"},
    "user": "who",
    "item": "what",
    "label": "clicked",
    "features": {"user": {"column": "who", "rows": 20}, "item": {"column": "what", "rows": 30}},
    "histories": {"of": ["item"], "length": 5},
    "embedding_dim": 4,
    "step": "7d",
    "first_step": "2019-01-01",
}


def write_log(path: Path, days: int, scenes: Sequence[str] = ("feed", "channel")) -> None:
    """Two clicked or unclicked rows a scene and day, more on the first of a week."""
    rng = np.random.default_rng(1)
    lines = ["at,who,what,clicked,scene"]
    for day in range(days):
        for scene in scenes:
            for number in range(40 if day % 7 == 0 else 2):
                at = AT_FIRST + day * SECONDS + 60 * number
                who, what = rng.integers(1, 10), rng.integers(1, 20)
                lines.append(f"{at},{who},{what},{int(rng.random() < 0.3 + 0.3 * (what % 2))},{scene}")
    path.write_text("\n".join(lines) + "\n")


def prepare(
    root: Path,
    days: int = 42,
    scenes: Sequence[str] = ("feed", "channel"),
    existing: Existing = "refuse",
    **keys: Any,
) -> None:
    raw, store = root / f"log-{days}.csv", SampleStore(str(root / "samples"))
    write_log(raw, days, scenes)
    mapping = from_dict({**MAPPING, **keys}, "map.yaml")
    write_table([str(raw)], mapping, store, Progress(disable=True), existing=existing)


@dataclass(frozen=True)
class Weeks:
    """A store of weeks and the runs over it."""

    root: Path

    def config(
        self, domain: str = "channel", first: date = FIRST, last: Any = WEEKS[4], **settings: Any
    ) -> JobConfig:
        samples = self.root / "samples"
        config = JobConfig(
            DataConfig(str(samples), str(samples / "schema.yaml"), domain, first, last),
            ModelConfig(hidden=(6, 4), attention_hidden=3),
            TrainingConfig(batch_size=32),
            tracking=TrackingConfig(models=str(self.root / "models")),
        )
        return override(config, {name.replace("__", "."): value for name, value in settings.items()})

    def plan(self, config: JobConfig, role: Role = "target") -> RunPlan:
        return plan_job(config, self.registered, role)

    @property
    def registered(self) -> RunFolders:
        return RunFolders(str(self.root / "models"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> Weeks:
    """Six weeks of two domains; a source series and a base model over the first five."""
    weeks = Weeks(tmp_path_factory.mktemp("weeks"))
    prepare(weeks.root)
    walk(weeks.plan(weeks.config("feed"), "source"))
    walk(weeks.plan(weeks.config()))
    return weeks


@pytest.fixture
def weeks(made: Weeks, tmp_path: Path) -> Weeks:
    """A copy of it."""
    shutil.copytree(made.root, tmp_path / "weeks")
    return Weeks(tmp_path / "weeks")


def scored(plan: RunPlan) -> dict[date, date]:
    records = {step.day: EvaluationRecord.read(plan.folder, step.day) for step in plan.steps}
    return {day: record.samples.day for day, record in records.items() if record}


def test_a_run_steps_from_week_to_week(weeks: Weeks) -> None:
    assert [path.name for path in sorted((weeks.root / "samples/channel").iterdir())] == [
        f"day={day}" for day in WEEKS
    ]
    base = weeks.plan(weeks.config())
    steps = read_steps(base.folder)
    assert [step.day for step in steps] == WEEKS[:5]
    assert [[ref.day for ref in step.samples] for step in steps] == [[day] for day in WEEKS[:5]]
    # 40 rows on the first day of a week, two on each of the six others, once for each epoch.
    assert [step.rows_seen for step in steps] == [52 * number for number in range(1, 6)]
    assert [step.parent and step.parent.day for step in steps] == [None, *WEEKS[:4]]
    assert {step.length for step in steps} == {WEEK}
    assert scored(base) == dict(pairwise(WEEKS))
    manifest = json.loads(Path(base.version(FIRST).uri, "_manifest.json").read_text())
    assert manifest["step"]["length"] == "7d"
    assert version_tags(base.record, steps[0], "/v", None, {})["step"] == "7d"


def test_ctnet_takes_each_weeks_source_version(weeks: Weeks) -> None:
    ctnet = walk(weeks.plan(weeks.config(first=WEEKS[1], transfer__hot_start=BASE, **CTNET)))
    steps = read_steps(ctnet.folder)
    assert [step.day for step in steps] == WEEKS[1:5]
    assert [step.source.day for step in steps] == WEEKS[1:5]
    assert steps[0].parent.day == WEEKS[0]
    assert scored(ctnet) == dict(pairwise(WEEKS[1:]))


def test_settings_that_count_days_count_steps(weeks: Weeks) -> None:
    every_other = weeks.plan(weeks.config(transfer__refresh_days=2, **CTNET))
    assert [step.source.day for step in every_other.steps] == [
        WEEKS[0],
        WEEKS[0],
        WEEKS[2],
        WEEKS[2],
        WEEKS[4],
    ]
    tuned = weeks.config(transfer__method="base_retrained", transfer__window=2)
    assert [[day.day for day in step.train] for step in weeks.plan(tuned).steps] == [
        [WEEKS[0]],
        *map(list, pairwise(WEEKS[:5])),
    ]
    # The series ends with the fifth week: a week late is one step late.
    assert [step.source.day for step in weeks.plan(weeks.config(last=WEEKS[5], **CTNET)).steps][-1] == WEEKS[
        4
    ]
    with pytest.raises(CtnetError, match=r"is of 2019-01-29, which is too old for 2019-02-05 by .* 0: run"):
        weeks.plan(weeks.config(last=WEEKS[5], transfer__max_source_age_days=0, **CTNET))
    versions = [
        replace(one, tags={"step": "7d", "evaluated_day": "x"}) for one in weeks.registered.series(BASE)
    ]
    stays = [decision.stays_for for decision in decide(versions, RetentionConfig(1, 2), {}, ())]
    assert stays == ["every 2 steps", "", "every 2 steps", "", "newest"]


def test_the_daily_job_waits_for_the_next_week(weeks: Weeks) -> None:
    config = weeks.config(last="newest")
    waits = "samples of channel on 2019-02-12"
    assert look(config, weeks.registered, "target") == Ready(WEEKS[5], 1, waits)
    ctnet = weeks.config(last="newest", **CTNET)
    waits_for_source = f"a version of {SERIES} of {WEEKS[5]}"
    assert look(ctnet, weeks.registered, "target") == Ready(WEEKS[4], 5, waits_for_source)
    assert look(ctnet, weeks.registered, "target", 1) == Ready(WEEKS[5], 6, waits)
    assert weeks.plan(config).steps[-1].day == WEEKS[5]


def test_days_on_which_no_step_begins(weeks: Weeks) -> None:
    # Up to the step that begins on it or before it.
    assert weeks.plan(weeks.config(last=date(2019, 1, 28))).steps[-1].day == WEEKS[3]
    there = r"\(there are 2019-01-01 to 2019-02-05, in steps of 7d\)"
    with pytest.raises(CtnetError, match=rf"^no samples of channel on 2019-01-02 {there}"):
        weeks.plan(weeks.config(first=date(2019, 1, 2)))


def test_a_missing_week(weeks: Weeks) -> None:
    shutil.rmtree(weeks.root / "samples/channel" / f"day={WEEKS[2]}")
    # Under another name, for a run that is done reads no day.
    other = {"tracking__name": "other", **CTNET}
    with pytest.raises(CtnetError, match=r"^no samples of channel on 2019-01-15 .*; 1 of 5 days are missing"):
        weeks.plan(weeks.config(**other))
    skipping = walk(weeks.plan(weeks.config(data__missing_days="skip", **other)))
    steps = read_steps(skipping.folder)
    assert [len(step.samples) for step in steps] == [1, 1, 0, 1, 1]
    assert [step.source.day for step in steps] == WEEKS[:5]


def test_a_run_goes_on_when_its_samples_are_gone(weeks: Weeks) -> None:
    done = weeks.plan(weeks.config())
    shutil.rmtree(weeks.root / "samples/channel")
    again = weeks.plan(weeks.config())
    assert (again.record.run, [step.day for step in again.steps]) == (done.record.run, WEEKS[:5])


def test_rewound_and_stale_from_a_week_on(weeks: Weeks) -> None:
    base = weeks.plan(weeks.config())
    entry = plan_rewind(base.folder, WEEKS[3])
    assert (entry.days, entry.scored) == (tuple(WEEKS[3:5]), tuple(WEEKS[2:5]))
    prepare(weeks.root, 40, existing="replace")
    with pytest.raises(CtnetError, match=rf"since {WEEKS[4]} was scored on them: .*--rewind_to {WEEKS[5]} "):
        weeks.plan(weeks.config())


def test_domains_of_two_steps_are_in_no_run(weeks: Weeks) -> None:
    prepare(weeks.root, 21, ("shop",), step="1d", domain={"constant": "shop"})
    together = weeks.config(transfer__method="ple", data__beside=("shop",))
    with pytest.raises(
        CtnetError, match=r"^samples of channel .* are steps of 7d, those of shop .* of 1d: prepare both"
    ):
        weeks.plan(together)
    with pytest.raises(CtnetError, match=r"trained on a step of 7d, and samples of shop are steps of 1d: "):
        weeks.plan(weeks.config("shop", last=date(2019, 1, 20), **CTNET))
    schema = load(str(weeks.root / "samples/schema.yaml"))
    with pytest.raises(CtnetError, match=r"^samples of .* are steps of "):
        inspect(Inspected(str(weeks.root / "samples"), schema))
    # A week that ends on a day that is trained on has seen it.
    with pytest.raises(CtnetError, match=r"was trained on 2019-01-07, which is not before .*2019-01-05: its"):
        weeks.plan(weeks.config("shop", date(2019, 1, 5), date(2019, 1, 9), transfer__hot_start=f"{BASE}/1"))


def test_days_of_another_step_among_a_domains(weeks: Weeks) -> None:
    folder = weeks.root / "samples/channel" / f"day={WEEKS[1]}"
    content = storage.read_json(str(folder / "_manifest.json"))
    del content["step"]
    storage.write_json(str(folder / "_manifest.json"), content)
    with pytest.raises(CtnetError, match=r"\(2019-01-08\) are steps of 1d, .* \(2019-02-05\) of 7d: prepare"):
        weeks.plan(weeks.config(tracking__name="other"))


def test_a_store_of_weeks_is_inspected(weeks: Weeks) -> None:
    schema = load(str(weeks.root / "samples/schema.yaml"))
    shutil.rmtree(weeks.root / "samples/channel" / f"day={WEEKS[2]}")
    inspection = inspect(Inspected(str(weeks.root / "samples"), schema, "feed"))
    assert [line for line in inspection.mend if "no samples" in line] == [
        "channel: no samples on 2019-01-15: prepare them"
    ]


def test_warm_up_of_a_comparison_is_whole_weeks(weeks: Weeks) -> None:
    samples = str(weeks.root / "samples")
    config = ComparisonConfig(
        store=samples,
        schema=f"{samples}/schema.yaml",
        source="feed",
        targets=("channel",),
        first_day=FIRST,
        transfer_day=WEEKS[1],
        first_scored_day=WEEKS[4],
        last_scored_day=WEEKS[5],
    )
    whole = Comparison(
        config, ModelConfig(), TrainingConfig(), TrainingConfig(), ComputeConfig(), TrackingConfig()
    )
    assert step_of(config) == WEEK
    warm_up = warm_up_of(whole).config
    assert (warm_up.first_scored_day, warm_up.last_scored_day) == (WEEKS[2], WEEKS[3])
    with pytest.raises(CtnetError, match="leaves no warm-up day"):
        warm_up_of(replace(whole, config=replace(config, first_scored_day=WEEKS[2])))


def test_old_records_say_nothing_of_steps(job_world: Any) -> None:
    (folder,) = (job_world.root / "models").glob(f"{BASE}-*")
    record = read_record(str(next(iter(sorted(folder.glob("day=*"))))))
    assert "length" not in record.step.to_dict()


def test_statistics_are_looked_up_as_of_the_week(tmp_path: Path, process_group: None) -> None:
    weeks = Weeks(tmp_path)
    counted = {"of": ["user", "item"], "windows": ["7d", "14d", "all"]}
    prepare(weeks.root, statistics=counted, histories={})
    run = walk(weeks.plan(weeks.config(last=WEEKS[3])))
    scorer = ct.open_version(run.version(WEEKS[3]).uri).scorer
    log = csv.read_csv(weeks.root / "log-42.csv").filter(pc.field("scene") == "channel")
    begins = AT_FIRST + 28 * SECONDS
    week = log.filter((pc.field("at") >= begins) & (pc.field("at") < begins + 7 * SECONDS))
    prepared = pq.read_table(SampleStore(str(weeks.root / "samples")).manifest("channel", WEEKS[4]).uri)

    completed = scorer.samples_of({"user": week["who"].to_pylist(), "item": week["what"].to_pylist()})

    names = [name for name in prepared.column_names if "_log_" in name]
    assert len(names) == 2 * 2 * 3
    for name in names:
        assert sorted(completed[name].to_pylist()) == sorted(prepared[name].to_pylist())
        assert len(set(prepared[name].to_pylist())) > 2
