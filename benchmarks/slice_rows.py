"""Scored rows of finished runs, each joined with what the store's earlier days say of its item and user.

Every method's version of a day scores the next day's samples once more, in this process. A row is one sample
of one seed, with a column of logits for each method.
"""

# pandas ships no types: what its methods return is guessed, and guessed too wide.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import logit

from ctnet_ray.batches.batching import batches
from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.run_folders import RunFolders
from ctnet_ray.samples.reading import plan_reading, read_local
from ctnet_ray.samples.store import Manifest, SampleStore
from ctnet_ray.schema import GROUP, LABEL, TRUE_PROBABILITY
from ctnet_ray.training.batch_loader import EVALUATION_BATCH_SIZE
from ctnet_ray.training.versions import OpenVersion, open_version

SOURCE = "source"  #: the source series' own model on the target's samples
CEILING = "true_probability"  #: what no model can beat, where samples are synthetic
LOGIT = "logit."  #: prefix of the columns of logits

#: Ways to cut rows into slices, and the lower edges of those that are ranges of numbers.
FAMILIES: dict[str, tuple[int, ...]] = {
    "all": (),
    "item_seen_in": (),
    "item_age_days": (0, 1, 3, 7),
    "item_target_rows": (0, 1, 10, 100),
    "user_seen_in": (),
    "user_target_rows": (0, 1, 5, 20),
    "user_source_rows": (0, 1, 5, 20),
    "group_rows": (1, 2, 5, 10),
}


@dataclass(frozen=True)
class Runs:
    """Which runs are scored, on what."""

    store: str
    """Root of the sample store; {seed} in it becomes the seed."""
    models: str
    """Root of the model versions."""
    experiment: str
    """Prefix of the registered models."""
    target: str
    """Domain whose samples are scored."""
    source: str
    """Domain of the source series."""
    methods: tuple[str, ...]
    """Labels of the runs."""
    item: str = "item"
    """Sample column of the item's id."""
    user: str = "user"
    """Sample column of the user's id."""

    def samples(self, seed: int) -> SampleStore:
        """Return a seed's sample store."""
        return SampleStore(self.store.replace("{seed}", str(seed)))

    def series(self, name: str, seed: int) -> "Series":
        """Return the versions of a method, or of the source series."""
        domain = self.source if name == SOURCE else self.target
        # As orchestration.planning.model_name makes it.
        return Series(self.models, f"{self.experiment}.{domain}.{name}" + (f".s{seed}" if seed else ""))


def scored_rows(runs: Runs, days: Sequence[date], seeds: Sequence[int]) -> pd.DataFrame:
    """Score days with every method and the source's own model, and join what is known of each row.

    Args:
        runs: Runs that are finished for these days.
        days: Days to score, each by the versions of the day before it.
        seeds: Seeds.

    Returns:
        A row for each sample and seed: seed, day, label, group, a column for each of `FAMILIES`, and float32
        logits called `LOGIT` + method, among them `SOURCE` and, where samples have it, `CEILING`.

    Raises:
        CtnetError: A day's samples or a method's version are not there.
    """
    parts = []
    for seed in seeds:
        store = runs.samples(seed)
        history = History(store, runs, days[-1])
        series = {name: runs.series(name, seed) for name in (*runs.methods, SOURCE)}
        for day in days:
            manifest = store.manifest(runs.target, day)
            known = history.describe(manifest).assign(seed=seed, day=day)
            for name, versions in series.items():
                known[f"{LOGIT}{name}"] = versions.score(manifest)
            parts.append(known)
    return pd.concat(parts, ignore_index=True)


class Series:
    """The versions of one model by day.

    Args:
        root: Root of the model versions.
        model: Registered model.

    Raises:
        CtnetError: Several runs made versions of the same day.
    """

    def __init__(self, root: str, model: str) -> None:
        found = RunFolders(root).versions(model)
        self._uris = {version.day: version.uri for version in found}
        self._what = f"{model} below {root}"
        if len(self._uris) < len(found):
            raise CtnetError(f"several runs made {self._what}: move the folders of those not meant elsewhere")

    def score(self, samples: Manifest) -> NDArray[np.float32]:
        """Return the logits of a day's samples by the version of the day before, float32 [N], as stored.

        Raises:
            CtnetError: There is no such version.
        """
        day = samples.day - timedelta(days=1)
        if day not in self._uris:
            raise CtnetError(f"no version of {day} of {self._what}: finish its run, or take it off --methods")
        return _score(open_version(self._uris[day]), samples)


def _score(opened: OpenVersion, samples: Manifest) -> NDArray[np.float32]:
    encoder = opened.encoder(samples.domain)
    reading = plan_reading(samples, rank=0, world_size=1, batch_size=EVALUATION_BATCH_SIZE)
    tables = read_local([reading], encoder.folding.columns, encoder.folding.fold)
    return np.concatenate(
        [opened.score(batch)[batch.weight_B > 0].numpy() for batch in batches(reading, tables, encoder)]
    )


class History:
    """How often, and since when, the store's days have each item and user.

    Args:
        store: The sample store.
        runs: Names of domains and columns.
        until: Last day that is described.
    """

    def __init__(self, store: SampleStore, runs: Runs, until: date) -> None:
        self._runs = runs
        self._counts = {
            (domain, column): _daily_counts(store, domain, column, until)
            for domain in (runs.target, runs.source)
            for column in (runs.item, runs.user)
        }

    def describe(self, samples: Manifest) -> pd.DataFrame:
        """Return label, group and the slice in each of `FAMILIES` of a day's samples, as stored.

        Seen and counted is what the days before it hold; an item's age counts from the first day on which
        either domain shows it, the day itself included (0).
        """
        item, user = self._runs.item, self._runs.user
        truth = [TRUE_PROBABILITY] if TRUE_PROBABILITY in samples.columns else []
        table = _read(samples, [LABEL, GROUP, item, user, *truth])
        in_target, in_source = (
            {column: self._before(domain, column, samples.day, table[column]) for column in (item, user)}
            for domain in (self._runs.target, self._runs.source)
        )
        numbers = {
            "item_age_days": self._age(samples.day, table[item]),
            "item_target_rows": in_target[item],
            "user_target_rows": in_target[user],
            "user_source_rows": in_source[user],
            "group_rows": table.groupby(GROUP)[GROUP].transform("size").to_numpy(),
        }
        slices = {
            "all": "all",
            "item_seen_in": _seen_in(in_target[item], in_source[item]),
            "user_seen_in": _seen_in(in_target[user], in_source[user]),
            **{family: _ranges(values, FAMILIES[family]) for family, values in numbers.items()},
        }
        if truth:
            probability = table[TRUE_PROBABILITY].to_numpy(np.float64).clip(1e-7, 1 - 1e-7)
            slices[f"{LOGIT}{CEILING}"] = logit(probability).astype(np.float32)
        return table[[LABEL, GROUP]].assign(**slices)

    def _before(self, domain: str, column: str, day: date, ids: pd.Series) -> NDArray[np.int64]:
        counts = self._counts[domain, column]
        earlier = counts[counts["day"] < day].groupby("id")["rows"].sum()
        return earlier.reindex(ids).fillna(0).to_numpy(np.int64)

    def _age(self, day: date, ids: pd.Series) -> NDArray[np.int64]:
        domains = (self._runs.target, self._runs.source)
        both = pd.concat(self._counts[domain, self._runs.item] for domain in domains)
        first = both.groupby("id")["day"].min().map(date.toordinal)
        return day.toordinal() - first.reindex(ids).to_numpy(np.int64)


def _daily_counts(store: SampleStore, domain: str, column: str, until: date) -> pd.DataFrame:
    """Return how many samples each id has on each day: id, day, rows."""
    days = [day for day in store.days(domain) if day <= until]
    parts = [
        _read(store.manifest(domain, day), [column])[column].value_counts().rename_axis("id").rename("rows")
        for day in days
    ]
    return pd.concat([part.reset_index().assign(day=day) for day, part in zip(days, parts, strict=True)])


def _read(samples: Manifest, columns: Iterable[str]) -> pd.DataFrame:
    reading = plan_reading(samples, rank=0, world_size=1, batch_size=EVALUATION_BATCH_SIZE)
    return pa.concat_tables(read_local([reading], list(columns))).to_pandas()


def _seen_in(target_rows: NDArray[np.int64], source_rows: NDArray[np.int64]) -> pd.Categorical:
    names = ["neither", "source only", "target only", "both"]
    return pd.Categorical.from_codes(2 * (target_rows > 0) + (source_rows > 0), names, ordered=True)


def _ranges(values: NDArray[np.int64], edges: Sequence[int]) -> pd.Categorical:
    """Return the range that each value is in: edges 0, 1, 5 make 0, 1-4 and 5+."""
    tops = [following - 1 for following in edges[1:]]
    names = [str(low) if low == top else f"{low}-{top}" for low, top in zip(edges, tops, strict=False)]
    codes = np.searchsorted(edges, values, side="right") - 1
    return pd.Categorical.from_codes(codes, [*names, f"{edges[-1]}+"], ordered=True)
