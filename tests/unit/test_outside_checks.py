"""Outside checks: trained on the days before alone, on the columns that they say, as scikit-learn has it."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

from benchmarks import outside_checks
from benchmarks.outside_checks import checks, read_rows, score
from ctnet_ray.errors import CtnetError
from ctnet_ray.report.references import read_references
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import from_dict

DAYS = [date(2022, 5, 1) + timedelta(days=index) for index in range(4)]
ROWS = 400
CONTENT = {
    "embedding_dim": 4,
    "tables": {"item": {"rows": 60}, "kind": {"rows": 10}},
    "features": {
        "item": {"kind": "categorical"},
        "kind": {"kind": "categorical"},
        "item_log_odds_in_channel": {"kind": "dense", "counts_in": "channel"},
        "item_log_odds_in_feed": {"kind": "dense", "counts_in": "feed"},
    },
}
SCHEMA = from_dict(CONTENT)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    """Rows whose clicks follow the feed's statistic strongly and the channel's weakly."""
    store, rng = SampleStore(str(tmp_path_factory.mktemp("store"))), np.random.default_rng(0)
    for domain in ("feed", "channel"):
        for day in DAYS:
            weak, strong = rng.normal(size=(2, ROWS))
            clicked = rng.random(ROWS) < 1 / (1 + np.exp(1 - 0.5 * weak - 2 * strong))
            with store.write_day(domain, day) as writer:
                writer.write(
                    pa.table(
                        {
                            "label": pa.array(clicked.astype(np.int8)),
                            "group": pa.array(rng.integers(20, size=ROWS)),
                            "item": pa.array(rng.integers(1000, size=ROWS)),
                            "kind": pa.array(rng.integers(5, size=ROWS)),
                            "item_log_odds_in_channel": pa.array(weak.astype(np.float32)),
                            "item_log_odds_in_feed": pa.array(strong.astype(np.float32)),
                        }
                    )
                )
    Path(store.root, "schema.yaml").write_text(yaml.safe_dump(CONTENT))
    return store


def rows_of(store: SampleStore) -> dict[str, pd.DataFrame]:
    return {domain: read_rows(store, domain, SCHEMA) for domain in ("feed", "channel")}


def test_past_ctr_has_the_logloss_of_a_constant(store: SampleStore) -> None:
    rows = rows_of(store)
    channel = rows["channel"]
    metrics = score(checks(SCHEMA, "feed", "channel")["past_ctr"], rows["feed"], channel, DAYS[2])
    past, today = channel[channel.day < DAYS[2]], channel[channel.day == DAYS[2]]
    constant = np.full(len(today), past.label.mean())
    assert metrics["logloss"] == pytest.approx(log_loss(today.label, constant), rel=1e-6)
    assert metrics["auc"] == 0.5


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("lr_target", ["item_log_odds_in_channel"]),
        ("lr_source", ["item_log_odds_in_channel", "item_log_odds_in_feed"]),
    ],
)
def test_logistic_regression_reads_the_statistics_it_names(
    store: SampleStore, name: str, columns: list[str]
) -> None:
    rows = rows_of(store)
    channel = rows["channel"]
    metrics = score(checks(SCHEMA, "feed", "channel")[name], rows["feed"], channel, DAYS[3])
    past, today = channel[channel.day < DAYS[3]], channel[channel.day == DAYS[3]]
    scaler = StandardScaler().fit(past[columns])
    model = LogisticRegression().fit(scaler.transform(past[columns]), past.label)
    expected = model.predict_proba(scaler.transform(today[columns]))[:, 1]
    assert metrics["auc"] == pytest.approx(roc_auc_score(today.label, expected), abs=1e-3)
    assert metrics["logloss"] == pytest.approx(log_loss(today.label, expected), abs=1e-3)


@pytest.mark.parametrize("name", ["lr_source", "lightgbm_target", "lightgbm_source", "lightgbm_all_rows"])
def test_nothing_of_the_scored_day_or_later_is_trained_on(store: SampleStore, name: str) -> None:
    check = checks(SCHEMA, "feed", "channel")[name]
    rows = rows_of(store)
    expected = score(check, rows["feed"], rows["channel"], DAYS[2])
    for domain, first in (("feed", DAYS[2]), ("channel", DAYS[3])):
        later = rows[domain].day >= first
        rows[domain].loc[later, "label"] = 1 - rows[domain].loc[later, "label"]
    assert score(check, rows["feed"], rows["channel"], DAYS[2]) == expected


def test_more_knowledge_scores_better_and_ids_are_left_out(store: SampleStore) -> None:
    rows = rows_of(store)
    every = checks(SCHEMA, "feed", "channel")
    auc = {
        name: score(every[name], rows["feed"], rows["channel"], DAYS[3])["auc"]
        for name in ("lightgbm_target", "lightgbm_source", "lightgbm_all_rows")
    }
    assert 0.5 < auc["lightgbm_target"] < 0.7 < 0.8 < auc["lightgbm_source"]
    assert auc["lightgbm_all_rows"] > 0.8
    # A thousand ids are no small category: their shuffle changes nothing.
    shuffled = rows["channel"].assign(item=np.random.default_rng(1).permutation(rows["channel"].item))
    again = score(every["lightgbm_target"], rows["feed"], shuffled, DAYS[3])["auc"]
    assert again == auc["lightgbm_target"]


def test_a_table_is_printed_and_a_file_written(
    store: SampleStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checks.csv"
    outside_checks.main(store.root, "feed", ("channel",), DAYS[2], DAYS[3], output=str(file))
    written = pd.read_csv(file)
    assert list(written.check.unique()) == list(checks(SCHEMA, "feed", "channel"))
    assert len(written) == 2 * written.check.nunique()
    assert "mean of 2 days" in capsys.readouterr().out
    references = read_references(str(file))
    assert [entry.name for entry in references] == list(checks(SCHEMA, "feed", "channel"))
    assert [entry.name for entry in references if entry.reads_source] == [
        "lr_source",
        "lightgbm_source",
        "lightgbm_all_rows",
    ]
    assert all(entry.domain == "channel" and list(entry.days) == DAYS[2:] for entry in references)


def test_worlds_of_a_seed_each_are_told_apart(store: SampleStore, tmp_path: Path) -> None:
    for seed in (3, 5):
        (tmp_path / f"world-{seed}").symlink_to(store.root)
    file, worlds = tmp_path / "checks.csv", str(tmp_path / "world-{seed}")
    days = DAYS[3], DAYS[3]
    outside_checks.main(worlds, "feed", ("channel",), *days, output=str(file), seeds=(3, 5))
    references = read_references(str(file))
    assert [entry.seed for entry in references if entry.name == "lr_target"] == [3, 5]
    for wrong, seeds in ((worlds, ()), (store.root, (3,))):
        with pytest.raises(CtnetError, match=r"give both a \{seed\} in --store and --seeds"):
            outside_checks.main(wrong, "feed", ("channel",), *days, seeds=seeds)


def test_days_without_samples_are_said(store: SampleStore) -> None:
    with pytest.raises(CtnetError, match="no samples of channel from 2023-01-01 to 2023-01-02"):
        outside_checks.main(store.root, "feed", ("channel",), date(2023, 1, 1), date(2023, 1, 2))
