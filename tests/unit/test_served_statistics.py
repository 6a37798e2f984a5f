"""Raw ids are enough: what is looked up has the bits that preparation gives rows of the next day."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.progress import Progress

import ctnet_ray as ct
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples import running_state
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import load
from ctnet_ray.serving.fields import InputError
from ctnet_ray.serving.folder import read_manifest
from ctnet_ray.storage import DIGEST
from ctnet_ray.writers.mapping.mapping import from_dict
from ctnet_ray.writers.publication import publish
from ctnet_ray.writers.table import write_table
from tests.unit.loop_world import DAYS, World, walk
from tests.unit.test_kuairand_writer import convert, real_download

RAW = ("user", "item", "shop", "tags")
STATISTICS = {
    "of": ["user", "item", "shop", "tags", ["user", "shop"], ["item", "tags"]],
    "windows": ["2d", "all"],
    "prior": 3,
    "by_domain": True,
}
MAPPING = {
    "time": {"column": "at"},
    "domain": {"column": "scene", "names": ["feed", "channel"]},
    "user": "user",
    "item": "item",
    "group": "request",
    "label": "clicked",
    "features": {
        "user": {"rows": 20},
        "item": {"rows": 30},
        "shop": {"rows": 9, "optional": True},
        "tags": {"kind": "sequence", "separator": "|", "max_length": 3, "rows": 9},
    },
    "max_dropped": 1,
}


def log() -> pa.Table:
    """Six days of two domains; some shops are missing, some lists empty, and each day has new ids."""
    rng, rows = np.random.default_rng(5), 60
    parts = []
    for number, day in enumerate(DAYS):
        for scene in ("feed", "channel"):
            user = rng.integers(0, 9 + number, rows)
            parts.append(
                pa.table(
                    {
                        "at": [f"{day}T12:00:{place:02}" for place in range(rows)],
                        "request": [f"{scene}{number}.{place}" for place in range(rows)],
                        "scene": [scene] * rows,
                        "user": [f"u{one}" for one in user],
                        "item": rng.integers(0, 20 + 3 * number, rows),
                        "shop": [None if one == 0 else f"s{one}" for one in rng.integers(0, 6, rows)],
                        "tags": ["|".join(f"t{one}" for one in rng.integers(0, 6, n)) for n in user % 5],
                        "clicked": (rng.random(rows) < 0.2 + 0.5 * (user % 2)).astype(int),
                    }
                )
            )
    return pa.concat_tables(parts)


def prepare(folder: Path, rows: pa.Table, names: list[str], statistics: dict[str, Any]) -> SampleStore:
    folder.mkdir(parents=True)
    pq.write_table(rows, folder / "log.parquet")
    content = {**MAPPING, "domain": {"column": "scene", "names": names}, "statistics": statistics}
    store = SampleStore(str(folder / "samples"))
    write_table([str(folder / "log.parquet")], from_dict(content, "map.yaml"), store, Progress(disable=True))
    return store


@dataclass(frozen=True)
class Served:
    """A version, and the rows of the day after it."""

    store: SampleStore
    folder: str
    raw: dict[str, list[Any]]
    """As the log has them."""
    samples: pa.Table
    """As they were prepared, in the same order."""

    def open(self, **options: Any) -> ct.ModelVersion:
        return ct.open_version(self.folder, **options)


def served(root: Path, store: SampleStore, without: tuple[str, ...] = (), **settings: Any) -> Served:
    """Train on two days, without some features, and look at the third's rows."""
    schema = load(f"{store.root}/schema.yaml").without(without)
    (root / "schema.yaml").write_text(yaml.safe_dump(schema.to_dict()))
    world = World(root)
    run = walk(world.plan(world.config(first=2, last=3, **settings)))
    rows = log().filter(pa.compute.starts_with(log()["request"], "channel4."))
    raw = {name: rows[name].to_pylist() for name in RAW}
    raw["tags"] = [text.split("|") if text else [] for text in raw["tags"]]
    prepared = pq.read_table(store.manifest("channel", DAYS[4]).uri)
    order = pa.compute.index_in(hash_ids(rows["request"]), prepared["group"])
    return Served(store, run.version(DAYS[3]).uri, raw, prepared.take(order))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> dict[str, Served]:
    """Versions by where the counts of the source domain lie, or whether domains are counted together."""
    root, rows = tmp_path_factory.mktemp("served_statistics"), log()
    of_scene = {scene: rows.filter(pa.compute.equal(rows["scene"], scene)) for scene in ("feed", "channel")}
    both = {"transfer__source_statistics": ("feed",)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running_state, "SNAPSHOT_DAYS", 2)
        beside = prepare(root / "beside", rows, ["feed", "channel"], STATISTICS)
        source = prepare(root / "source", of_scene["feed"], ["feed"], STATISTICS)
        publish(source, "feed", str(root / "public"))
        published = {**STATISTICS, "published": {"feed": str(root / "public")}}
        apart = prepare(root / "apart", of_scene["channel"], ["channel"], published)
        together = {**STATISTICS, "by_domain": False}
        summed = prepare(root / "together", rows, ["feed", "channel"], together)
        decayed = prepare(root / "decayed", rows, ["feed", "channel"], {**STATISTICS, "decay": "1d"})
        return {
            "beside": served(root / "beside", beside, **both),
            "apart": served(root / "apart", apart, **both),
            "own": served(root / "beside", beside, ("shop",), tracking__name="own"),
            "together": served(root / "together", summed),
            "decayed": served(root / "decayed", decayed, **both),
        }


KINDS = ("beside", "apart", "own", "together", "decayed")


@pytest.mark.parametrize("kind", KINDS)
def test_looked_up_statistics_have_the_bits_of_prepared_ones(
    worlds: dict[str, Served], tmp_path: Path, kind: str
) -> None:
    world = worlds[kind]
    version = world.open()
    looked_up = [field.name for field in version.fields if field.looked_up]
    domains = {"beside": 2, "apart": 2, "decayed": 2}.get(kind, 1)
    assert len(looked_up) == domains * 2 * 2 * len(STATISTICS["of"])
    scores = version.scorer.score_samples(world.samples)
    assert scores.std() > 0.001
    version.export(str(tmp_path / "exported"))
    for scorer in (version.scorer, ct.open_export(str(tmp_path / "exported"))):
        completed = scorer.samples_of(world.raw)
        for name in looked_up:
            expected = world.samples[name].to_numpy()
            np.testing.assert_array_equal(completed[name].to_numpy(), expected, strict=True, err_msg=name)
            assert len(set(expected)) > 2, name
        np.testing.assert_array_equal(scorer.score(world.raw), scores)


@pytest.mark.parametrize("of_candidates", [{"item", "shop", "tags"}, {"item"}, {"shop", "user"}, set(RAW)])
def test_a_request_of_one_user_and_many_candidates(
    worlds: dict[str, Served], of_candidates: set[str]
) -> None:
    scorer, raw = worlds["beside"].open().scorer, worlds["beside"].raw
    candidates = {name: values for name, values in raw.items() if name in of_candidates}
    for place in range(3):
        user = {name: values[place] for name, values in raw.items() if name not in of_candidates}
        rows = {**candidates, **{name: [value] * len(raw["item"]) for name, value in user.items()}}
        np.testing.assert_allclose(scorer.score_request(user, candidates), scorer.score(rows), atol=1e-6)


def test_a_number_that_is_given_wins_and_null_is_looked_up(worlds: dict[str, Served]) -> None:
    scorer, raw = worlds["own"].open().scorer, worlds["own"].raw
    name = "item_log_odds_all_in_channel"
    given = [2.5, None, float("nan")] + [None] * (len(raw["item"]) - 3)
    column, prepared = scorer.samples_of({**raw, name: given})[name], worlds["own"].samples[name]
    assert column.to_pylist() == [2.5, *prepared.to_pylist()[1:]]
    user, candidates = {"user": raw["user"][0]}, {key: raw[key] for key in RAW if key != "user"}
    alike = {**raw, "user": [user["user"]] * len(given), name: [0.5] * len(given)}
    np.testing.assert_allclose(
        scorer.score_request({**user, name: 0.5}, candidates), scorer.score(alike), atol=1e-6
    )
    np.testing.assert_array_equal(
        scorer.score_request({**user, name: None}, candidates), scorer.score_request(user, candidates)
    )
    np.testing.assert_array_equal(scorer.score_request({name: None}, raw), scorer.score(raw))


def test_statistics_are_fields_again_where_nobody_wants_them_looked_up(
    worlds: dict[str, Served], tmp_path: Path
) -> None:
    world = worlds["own"]
    version = world.open(statistics=False)
    version.export(str(tmp_path / "exported"))
    with pytest.raises(
        InputError, match=r"^field 'item_log_impressions_2d_in_channel': it is missing: give a number"
    ):
        version.score(world.raw)
    assert all(field.required and not field.looked_up for field in version.fields)
    card = next((tmp_path / "exported").rglob("README.md")).read_text()
    assert "Statistics among these fields are given by whoever scores, as of the day before" in card
    assert read_manifest(str(tmp_path / "exported"))[0].statistics is None


def test_an_export_says_of_which_day_its_statistics_are_and_stands_alone(
    worlds: dict[str, Served], tmp_path: Path
) -> None:
    world = worlds["beside"]
    world.open().export(str(tmp_path / "exported"))
    manifest, folder = read_manifest(str(tmp_path / "exported"))
    assert manifest.statistics
    assert manifest.statistics.day == f"{DAYS[3]}"
    assert manifest.statistics.newest == {"channel": f"{DAYS[3]}", "feed": f"{DAYS[3]}"}
    assert sorted(manifest.tensors) == ["statistics/channel", "statistics/feed"]
    assert set(manifest.tensors.values()) < manifest.files.keys()
    card = Path(folder, "README.md").read_text()
    assert f"up to {DAYS[3]}" in card
    assert "| user_log_odds_all_in_feed | a number, looked up |" in card
    scoring = f"""
        import json, sys

        for name in ("ray", "mlflow", "torchrec", "fbgemm_gpu", "sklearn"):
            sys.modules[name] = None
        from ctnet_ray.serving.folder import open_export
        assert "pandas" not in sys.modules
        print(json.dumps(open_export({str(tmp_path / "exported")!r}).score({world.raw!r}).tolist()))
    """
    done = subprocess.run([sys.executable, "-c", dedent(scoring)], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), world.open().score(world.raw), atol=1e-6)


def test_an_id_by_which_alone_statistics_are_looked_up_is_named_where_it_is_missing(
    worlds: dict[str, Served],
) -> None:
    version, raw = worlds["own"].open(), worlds["own"].raw
    assert next(field for field in version.fields if field.name == "shop").required is False
    without = {name: values for name, values in raw.items() if name != "shop"}
    with pytest.raises(
        InputError, match=r"^field 'shop': it is missing: shop_log_odds_2d_in_channel is"
    ) as caught:
        version.score(without)
    assert caught.value.field == "shop"
    of_shop = {name: worlds["own"].samples[name] for name in statistics_of(version) if "shop" in name}
    np.testing.assert_array_equal(version.score({**without, **of_shop}), version.score(raw))


def statistics_of(version: ct.ModelVersion) -> list[str]:
    return [field.name for field in version.fields if field.kind == "number"]


def forget_record(store: SampleStore, _: Path) -> None:
    """As an older release wrote days."""
    path = Path(store.uri("channel", DAYS[3]), "_manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["statistics"], manifest[DIGEST]
    path.write_text(json.dumps(manifest))


def count_within_the_day(store: SampleStore, _: Path) -> None:
    path = Path(store.uri("channel", DAYS[3]), "_manifest.json")
    manifest = json.loads(path.read_text())
    manifest["statistics"]["as_of"] = "time"
    del manifest[DIGEST]
    path.write_text(json.dumps(manifest))


def remove_day(store: SampleStore, aside: Path) -> None:
    Path(store.uri("channel", DAYS[3])).rename(aside)


def harm_state(store: SampleStore, _: Path) -> None:
    path = Path(store.uri("feed", DAYS[3]), "_counts.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def remove_first_days(store: SampleStore, aside: Path) -> None:
    aside.mkdir()
    for domain in ("feed", "channel"):
        for day in DAYS[:2]:
            Path(store.uri(domain, day)).rename(aside / f"{domain}{day}")


FAULTS = {
    "does not say how its statistics were computed: prepare it again": forget_record,
    "so that counts of a day are not enough: whoever asks gives them": count_within_the_day,
    "no samples of channel on 2022-05-04": remove_day,
    "has another checksum": harm_state,
    "the running state of the days before 2022-05-03 is gone": remove_first_days,
}


@pytest.mark.parametrize("message", FAULTS)
def test_counts_that_are_not_there_leave_fields_as_they_are_and_say_why(
    tmp_path: Path, process_group: None, message: str
) -> None:
    store = prepare(tmp_path / "world", log(), ["feed", "channel"], STATISTICS)
    world = served(tmp_path / "world", store)
    FAULTS[message](store, tmp_path / "aside")
    version = world.open()
    assert message in version.notice
    assert "\n" not in version.notice
    assert not any(field.looked_up for field in version.fields)
    np.testing.assert_array_equal(
        version.score({**world.raw, **{name: world.samples[name] for name in statistics_of(version)}}),
        version.scorer.score_samples(world.samples),
    )
    with pytest.raises(CtnetError, match=message):
        _ = world.open(samples=store.root).scorer


def test_days_that_are_prepared_again_get_the_record(tmp_path: Path) -> None:
    store = prepare(tmp_path / "world", log(), ["feed", "channel"], STATISTICS)
    before = store.manifest("channel", DAYS[3])
    forget_record(store, tmp_path)
    assert store.manifest("channel", DAYS[3]).statistics is None
    content = {**MAPPING, "statistics": STATISTICS}
    report = write_table(
        [str(tmp_path / "world" / "log.parquet")],
        from_dict(content, "map.yaml"),
        store,
        Progress(disable=True),
    )
    assert {day.outcome for day in report.days} == {"same"}
    assert replace(store.manifest("channel", DAYS[3]), uri=before.uri) == before


@pytest.mark.slow
@pytest.mark.real_data
def test_all_rows_of_a_day_of_kuairand(tmp_path: Path, process_group: None) -> None:
    store, _ = convert(real_download(), tmp_path / "samples")
    (tmp_path / "schema.yaml").write_text(Path(store.root, "schema.yaml").read_text())
    world = World(tmp_path)
    for domain in ("tab0", "tab4"):
        settings = {"transfer__source_statistics": ("tab1",), "model__first_order": True}
        run = walk(world.plan(world.config(domain, 4, 4, **settings)))
        scorer = ct.open_version(run.version(DAYS[4]).uri).scorer
        assert scorer.statistics
        assert len(scorer.statistics.columns) == 2 * 2 * 5
        samples = pq.read_table(store.manifest(domain, DAYS[5]).uri)
        (completed,) = scorer.statistics.complete([samples.drop_columns([*scorer.statistics.columns])])
        for name in scorer.statistics.columns:
            np.testing.assert_array_equal(completed[name].to_numpy(), samples[name].to_numpy(), err_msg=name)
        np.testing.assert_array_equal(scorer.score_samples(completed), scorer.score_samples(samples))
