"""How an attribute's click rate in one domain ranks another domain's samples inside their groups.

No model is trained. For each scored day the click rate of every value of an attribute (an item, a tag, a
bucket of durations) is taken from all days before, shrunk to the mean by `prior` impressions, and is the
score of the target's rows. Its GAUC says whether what a domain prefers inside a user is what the target
prefers: below 0.5 for the source and above for the target, knowledge of that attribute hurts.

    python -m benchmarks.attribute_rates --store data/kuairand --schema data/kuairand/schema.yaml \
        --source tab1 --target tab0 --first_scored_day 2022-05-02 --last_scored_day 2022-05-08
"""

from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from ctnet_ray import schema as schemas
from ctnet_ray.samples.reading import plan_reading, read_local
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.schema import GROUP, LABEL, Feature
from ctnet_ray.training.metrics import Scores, evaluate
from jobs.command import run


def main(
    store: str,
    schema: str,
    source: str,
    target: str,
    first_scored_day: date,
    last_scored_day: date,
    features: tuple[str, ...] = (),
    prior: float = 20.0,
) -> None:
    """Print the GAUC on the target of each attribute's rate in the source and in the target.

    Args:
        store: Root of the sample store.
        schema: Schema file; boundaries of numeric features come from it.
        source: Source domain.
        target: Target domain.
        first_scored_day: First day whose rows are ranked.
        last_scored_day: Last one.
        features: Attributes; empty: all categorical and numeric features of the schema but the group's own.
        prior: Impressions at the mean rate that each value is given beforehand.
    """
    known = {feature.name: feature for feature in schemas.load(schema).features}
    wanted = features or tuple(n for n, own in known.items() if own.kind in ("categorical", "numeric"))
    chosen = [known[name] for name in wanted]
    rows = {domain: read_rows(SampleStore(store), domain, chosen) for domain in (source, target)}
    table = Table("attribute", f"rate in {source}", f"rate in {target}", title=f"GAUC on {target}")
    days = [day for day in sorted(set(rows[target].day)) if first_scored_day <= day <= last_scored_day]
    for name in wanted:
        found = [daily_gauc(rows[domain], rows[target], name, days, prior) for domain in (source, target)]
        table.add_row(name, *(f"{np.mean(own):.3f} ± {_error(own):.3f}" for own in found))
    Console().print(table)


def read_rows(store: SampleStore, domain: str, features: list[Feature]) -> pd.DataFrame:
    """Return all rows of a domain: label, group, day, and each attribute, numbers as their bucket."""
    names = [LABEL, GROUP, *(feature.name for feature in features)]
    parts = []
    for day in store.days(domain):
        reading = plan_reading(store.manifest(domain, day), rank=0, world_size=1, batch_size=1)
        rows = pa.concat_tables(read_local([reading], names)).to_pandas()
        parts.append(rows.assign(day=day))
    found = pd.concat(parts, ignore_index=True)
    for feature in features:
        if feature.kind == "numeric":
            found[feature.name] = np.digitize(found[feature.name], feature.boundaries)
    return found


def daily_gauc(
    rates: pd.DataFrame, ranked: pd.DataFrame, name: str, days: list[date], prior: float
) -> list[float]:
    """Return the GAUC of each day's rows, ranked by the rates of the days before."""
    found = []
    for day in days:
        past, rows = rates.loc[rates.day < day], ranked.loc[ranked.day == day]
        counts = past.groupby(name)[LABEL].agg(["sum", "size"])
        mean = past[LABEL].mean()
        rate = (counts["sum"] + prior * mean) / (counts["size"] + prior)
        score = rows[name].map(rate).fillna(mean).to_numpy(np.float32)
        metrics = evaluate(Scores(rows[LABEL].to_numpy(), score, rows[GROUP].to_numpy()))
        if "gauc" in metrics:
            found.append(metrics["gauc"])
    return found


def _error(values: list[float]) -> float:
    """Return the standard error of the mean over days."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


if __name__ == "__main__":
    run(main, __doc__ or "")
