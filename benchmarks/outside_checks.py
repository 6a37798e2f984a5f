"""What logistic regression and LightGBM make of the samples that the base model reads, day by day.

Each is trained on all of the target's days before a scored day and scores that day, with settings of a first
guess that no day has chosen. A base model, and what is transferred onto it, should not lie below them:

    past_ctr                     the click rate of the days before, for every row
    lr_target                    logistic regression on the target's statistics
    lr_source                    on the source's besides
    lightgbm_target              LightGBM on statistics, numbers and small categories of the target's rows
    lightgbm_source              with the source's statistics besides
    lightgbm_all_rows            the same, trained on both domains' rows

`jobs.compare --outside_checks FILE` holds a comparison's base model against what `--output FILE` wrote.
Statistics are the dense features that say `counts_in`.

    python -m benchmarks.outside_checks --store data/kuairand --source tab1 --targets [tab0,tab4] \
        --first_scored_day 2022-05-02 --last_scored_day 2022-05-08

Where each seed of a comparison has a store of its own, `--store data/world-{seed} --seeds [0,1]` checks all.
"""

# pandas ships no types: what its methods return is guessed, and guessed too wide.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ctnet_ray import schema as schemas
from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.reading import plan_reading, read_local
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import GROUP, LABEL, Schema
from ctnet_ray.training.metrics import Scores, evaluate
from jobs.command import run

SMALL_CATEGORY = 256  #: values of a categorical feature that LightGBM is given; more are ids
_DAY, _DOMAIN = "day", "domain of the row"
_SHOWN = ("auc", "gauc", "logloss")

Predict = Callable[[pd.DataFrame], np.ndarray]  #: rows -> probabilities of a click, [N]


@dataclass(frozen=True)
class Check:
    """A model of another library, and what it reads."""

    fit: Callable[[pd.DataFrame, Sequence[str]], Predict]
    """Trains on rows, given the names of their inputs."""
    inputs: tuple[str, ...]
    reads_source: bool = False
    """Whether anything of it comes from the source."""
    all_rows: bool = False
    """Whether it is trained on the source's rows too."""


def main(
    store: str,
    source: str,
    targets: tuple[str, ...],
    first_scored_day: date,
    last_scored_day: date,
    schema: str | None = None,
    output: str | None = None,
    seeds: tuple[int, ...] = (),
) -> None:
    """Train, score, print, and write a CSV file.

    Args:
        store: Root of the sample store; {seed} in it becomes each of the seeds.
        source: Source domain.
        targets: Target domains.
        first_scored_day: First day that is scored (YYYY-MM-DD).
        last_scored_day: Last one.
        schema: Schema file, {seed} in it too; not set: STORE/schema.yaml.
        output: CSV file of each check's metrics by seed and day; not set: none.
        seeds: Seeds of a comparison that have a store each, named by {seed}; not set: all share the store.
    """
    if ("{seed}" in store) != bool(seeds):
        raise CtnetError(
            f"--store {store} and --seeds {[*seeds]}: give both a {{seed}} in --store and --seeds"
        )
    parts = []
    for target in targets:
        for seed in seeds or (None,):
            samples = SampleStore(store.replace("{seed}", str(seed)))
            file = schema or storage.join(samples.root, "schema.yaml")
            features = schemas.load(file.replace("{seed}", str(seed)))
            days = [day for day in samples.days(target) if first_scored_day <= day <= last_scored_day]
            if not days:
                raise CtnetError(
                    f"no samples of {target} from {first_scored_day} to {last_scored_day} in {samples.root}"
                )
            parts.append(_measure(samples, features, source, target, days).assign(seed=seed))
        _print(target, pd.concat(parts[-max(len(seeds), 1) :]))
    if output:
        pd.concat(parts).to_csv(Path(output), index=False)


def _print(target: str, metrics: pd.DataFrame) -> None:
    table = Table(
        "check", *_SHOWN, title=f"{target}, mean of {metrics[_DAY].nunique()} days ± error over days"
    )
    by_day = metrics.groupby(["check", _DAY], sort=False)[[*_SHOWN]].mean()
    for name, group in by_day.groupby("check", sort=False):
        table.add_row(str(name), *(_mean_and_error(group[metric]) for metric in _SHOWN))
    Console().print(table)


def _measure(
    samples: SampleStore, schema: Schema, source: str, target: str, days: Sequence[date]
) -> pd.DataFrame:
    """Return each check's metrics by day."""
    rows = {domain: read_rows(samples, domain, schema) for domain in (source, target)}
    every = checks(schema, source, target)
    return pd.DataFrame(
        [
            {
                **{"check": name, "reads_source": check.reads_source, "domain": target, "day": day},
                **score(check, rows[source], rows[target], day),
            }
            for name, check in track(every.items(), target, console=Console(stderr=True))
            for day in days
        ]
    )


def read_rows(samples: SampleStore, domain: str, schema: Schema) -> pd.DataFrame:
    """Return all rows of a domain with label, group, day, and what the checks may read of the schema."""
    dense = [feature.name for feature in schema.dense if feature.width == 1 and feature.present_in(domain)]
    others = [
        feature.name
        for feature in schema.features
        if feature.kind in ("categorical", "numeric") and feature.present_in(domain)
    ]
    parts = []
    for day in samples.days(domain):
        reading = plan_reading(samples.manifest(domain, day), rank=0, world_size=1, batch_size=1)
        part = pa.concat_tables(read_local([reading], [LABEL, GROUP, *dense, *others])).to_pandas()
        parts.append(part.assign(**{_DAY: day, _DOMAIN: domain}))
    return pd.concat(parts, ignore_index=True)


def checks(schema: Schema, source: str, target: str) -> Mapping[str, Check]:
    """Return the checks by name."""

    def statistics(domain: str) -> tuple[str, ...]:
        return tuple(feature.name for feature in schema.dense if feature.counts_in == domain)

    both = (*statistics(target), *statistics(source))
    target_schema = schema.for_tower("target")
    others = tuple(
        feature.name for feature in target_schema.features if feature.kind in ("categorical", "numeric")
    )
    others += tuple(feature.name for feature in target_schema.dense if feature.counts_in is None)
    return {
        "past_ctr": Check(_fit_past_ctr, ()),
        **({"lr_target": Check(_fit_logistic_regression, statistics(target))} if statistics(target) else {}),
        **(
            {"lr_source": Check(_fit_logistic_regression, both, reads_source=True)}
            if statistics(source)
            else {}
        ),
        "lightgbm_target": Check(_fit_lightgbm, (*statistics(target), *others)),
        "lightgbm_source": Check(_fit_lightgbm, (*both, *others), reads_source=True),
        "lightgbm_all_rows": Check(
            _fit_lightgbm, (*both, *others, _DOMAIN), reads_source=True, all_rows=True
        ),
    }


def score(check: Check, source: pd.DataFrame, target: pd.DataFrame, day: date) -> dict[str, float]:
    """Return the metrics of one day, scored by a check that was trained on the days before."""
    past = target.loc[target[_DAY] < day]
    if check.all_rows:
        past = pd.concat([past, source.loc[source[_DAY] < day]], ignore_index=True)
    inputs = [name for name in check.inputs if name in past.columns]
    today = target.loc[target[_DAY] == day]
    probability = np.clip(check.fit(past, inputs)(today), 1e-6, 1 - 1e-6)
    logit = np.log(probability / (1 - probability)).astype(np.float32)
    metrics = evaluate(Scores(today[LABEL].to_numpy(), logit, today[GROUP].to_numpy()))
    return {name: metrics[name] for name in _SHOWN if name in metrics}


def _fit_past_ctr(past: pd.DataFrame, inputs: Sequence[str]) -> Predict:
    ctr = float(past[LABEL].to_numpy().mean())
    return lambda rows: np.full(len(rows), ctr)


def _fit_logistic_regression(past: pd.DataFrame, inputs: Sequence[str]) -> Predict:
    def columns(rows: pd.DataFrame) -> np.ndarray:
        return np.nan_to_num(rows[list(inputs)].to_numpy(np.float64))

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(columns(past), past[LABEL].to_numpy())
    return lambda rows: model.predict_proba(columns(rows))[:, 1]


def _fit_lightgbm(past: pd.DataFrame, inputs: Sequence[str]) -> Predict:
    categories = {
        name: pd.CategoricalDtype(past[name].unique())
        for name in inputs
        if not pd.api.types.is_float_dtype(past[name].dtype) and past[name].nunique() <= SMALL_CATEGORY
    }
    read = [name for name in inputs if name in categories or pd.api.types.is_float_dtype(past[name].dtype)]
    model = lightgbm.LGBMClassifier(
        n_estimators=200,
        learning_rate=0.05,
        num_leaves=31,
        min_child_samples=50,
        random_state=0,
        verbose=-1,
        n_jobs=1,
    )
    model.fit(past[read].astype(categories), past[LABEL].to_numpy())
    return lambda rows: np.asarray(model.predict_proba(rows[read].astype(categories)))[:, 1]


def _mean_and_error(values: pd.Series) -> str:
    return f"{values.mean():.4f} ± {values.sem():.4f}"


if __name__ == "__main__":
    run(main, __doc__ or "")
