"""Measures of scored rows by slice, and what is behind a difference in GAUC.

Every metric of a slice is a weighted mean of its values on single days, so that no score is ever compared
with one of another day's model, and days with few rows count for little:

    m = sum_d w_d m_d / sum_d w_d,    w_d = clicks x others for AUC, rows for logloss, clicks for calibration,
                                            rows of the groups with both classes for GAUC

The error of a paired difference to base comes from the days' jackknife pseudo-values D m - (D - 1) m_(-d),
m_(-d) being the mean without day d (Tukey 1958), which stand for the days' values in the report's own
inference over seeds and days (`report.inference`).
"""

# pandas ships no types: what its methods return is guessed, and guessed too wide.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportCallIssue=false
from collections.abc import Iterator, Mapping
from datetime import date

import numpy as np
import pandas as pd

from benchmarks.slice_rows import CEILING, FAMILIES, LOGIT, SOURCE
from ctnet_ray.report.inference import estimate
from ctnet_ray.schema import GROUP, LABEL
from ctnet_ray.training.metrics import Scores, evaluate

METRICS = ("auc", "logloss", "gauc", "calibration")
_CELL = ["family", "slice", "seed", "day"]
_USER_DAY = ["seed", "day", GROUP]


def methods_of(rows: pd.DataFrame) -> list[str]:
    """Return the names of the scores that rows have, the ceiling last."""
    names = [column.removeprefix(LOGIT) for column in rows if column.startswith(LOGIT)]
    return sorted(names, key=lambda name: name == CEILING)


def measure(rows: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Measure every method on every slice.

    Args:
        rows: As `slice_rows.scored_rows` makes them.
        baseline: Method that differences are to.

    Returns:
        A row for each family, slice, metric and method: rows, clicks, groups (with both classes; all three
        sums over days, means over seeds), days, seeds, value, gain and error (NaN where there is none).
    """
    cells = pd.DataFrame(_cells(rows))
    found = []
    for (family, name), part in cells.groupby(["family", "slice"], sort=False):
        counts = part.drop_duplicates(["seed", "day"]).groupby("seed")[["rows", "clicks", "groups"]]
        sizes = {"family": family, "slice": name, **counts.sum().mean()}
        for metric in METRICS:
            own = part[part["metric"] == metric]
            values = {method: of_method for method, of_method in own.groupby("method", sort=False)}
            found += [
                {**sizes, "metric": metric, "method": method, **_line(cell, values.get(baseline))}
                for method, cell in values.items()
            ]
    return pd.DataFrame(found)


def _cells(rows: pd.DataFrame) -> Iterator[dict]:
    """Measure every method on each day's part of each slice."""
    methods = methods_of(rows)
    for family in FAMILIES:
        for (name, seed, day), part in rows.groupby([family, "seed", "day"], observed=True):
            label_N, group_N = part[LABEL].to_numpy(), part[GROUP].to_numpy()
            clicks, both = int(label_N.sum()), _in_mixed_groups(part, [GROUP])
            weights = {
                "auc": clicks * (len(part) - clicks),
                "logloss": len(part),
                "gauc": int(both.sum()),
                "calibration": clicks,
            }
            where = dict(zip(_CELL, (family, name, seed, day), strict=True))
            sizes = {"rows": len(part), "clicks": clicks, "groups": part.loc[both, GROUP].nunique()}
            for method in methods:
                metrics = evaluate(Scores(label_N, part[f"{LOGIT}{method}"].to_numpy(), group_N))
                for metric in METRICS:
                    if metric in metrics:
                        value = {"value": metrics[metric], "weight": weights[metric]}
                        yield {**where, **sizes, "method": method, "metric": metric, **value}


def _in_mixed_groups(rows: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Return whether each row is of a group with both classes."""
    return rows.groupby(keys)[LABEL].transform("nunique") == 2


def _line(cell: pd.DataFrame, base: pd.DataFrame | None) -> dict[str, float]:
    """Return the value of one method, and its difference to the baseline with its error."""
    own = cell.set_index(["seed", "day"])
    line = {"days": cell["day"].nunique(), "seeds": cell["seed"].nunique()}
    line["value"] = np.mean([_mean(part) for _, part in own.groupby("seed")])
    if base is None or base is cell:
        return {**line, "gain": np.nan, "error": np.nan}
    gains = own.assign(value=own["value"] - base.set_index(["seed", "day"])["value"])
    by_seed = [part.droplevel("seed") for _, part in gains.groupby("seed")]
    error = estimate({seed: _pseudo_values(days) for seed, days in enumerate(by_seed)}).error
    gain = np.mean([_mean(days) for days in by_seed])
    return {**line, "gain": gain, "error": np.nan if error is None else error}


def _mean(days: pd.DataFrame) -> float:
    return float(np.average(days["value"], weights=days["weight"]))


def _pseudo_values(days: pd.DataFrame) -> Mapping[date, float]:
    """Return each day's jackknife pseudo-value; a single day's is its value."""
    whole, count = _mean(days), len(days)
    if count == 1:
        return {days.index[0]: whole}
    return {day: count * whole - (count - 1) * _mean(days.drop(index=day)) for day in days.index}


def group_profile(rows: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Describe each method's ranking inside groups, a group being one of one day and seed.

    Args:
        rows: As `slice_rows.scored_rows` makes them.
        baseline: Method that groups are won or lost against.

    Returns:
        A row for each method, over all days and seeds:

        groups, counted: Groups, and the share of them with both classes; the AUC figures are of those.
        gauc, mean_auc: Means of the groups' AUC, by rows and plain.
        p10, p50, p90: Quantiles of the groups' AUC.
        better, worse: Share of groups whose AUC is above, and below, the baseline's.
        tied: Share of rows, in counted groups, whose score another row of the group has as well.
        between: Variance of the groups' mean scores over that of scores, by rows, in groups of two rows or
            more. Of n rows pure noise has 1/n: compare it between methods, not with zero.
        corr_within: Correlation of score and label, each less its mean in the group, in counted groups.
        corr_between: Correlation of the groups' mean score and click rate, by rows.
    """
    rows = rows.reset_index(drop=True)
    counted = _in_mixed_groups(rows, _USER_DAY)
    base_auc = _group_auc(rows[counted], baseline)
    sizes = rows[counted].groupby(_USER_DAY).size()
    share = {"groups": rows.groupby(_USER_DAY).ngroups}
    share["counted"] = len(sizes) / share["groups"]
    found = []
    for method in methods_of(rows):
        auc = _group_auc(rows[counted], method)
        won = auc - base_auc
        found.append(
            {
                "method": method,
                **share,
                "gauc": np.average(auc, weights=sizes.loc[auc.index]),
                "mean_auc": auc.mean(),
                **auc.quantile([0.1, 0.5, 0.9]).set_axis(["p10", "p50", "p90"]),
                "better": (won > 0).mean(),
                "worse": (won < 0).mean(),
                "tied": rows[counted].duplicated([*_USER_DAY, f"{LOGIT}{method}"], keep=False).mean(),
                **_spread(rows, counted, f"{LOGIT}{method}"),
            }
        )
    return pd.DataFrame(found)


def _group_auc(rows: pd.DataFrame, method: str) -> pd.Series:
    """Return the AUC of each group of rows, all with both classes: ties at half, by mean ranks."""
    ranks = rows.groupby(_USER_DAY)[f"{LOGIT}{method}"].rank()
    groups = rows.assign(won=ranks * rows[LABEL]).groupby(_USER_DAY)
    positives, won = groups[LABEL].sum().astype(float), groups["won"].sum()
    return (won - positives * (positives + 1) / 2) / (positives * (groups.size() - positives))


def _spread(rows: pd.DataFrame, counted: pd.Series, score: str) -> dict[str, float]:
    """Return between, corr_within and corr_between of `group_profile`."""
    # Less the day's mean: how the level moves from day to day, or from seed to seed, is not users' doing.
    scores = rows[score].astype(float)
    scores = scores - scores.groupby([rows["seed"], rows["day"]]).transform("mean")
    keys = [rows[key] for key in _USER_DAY]
    mean_score = scores.groupby(keys).transform("mean")
    mean_label = rows[LABEL].groupby(keys).transform("mean")
    several = rows.groupby(_USER_DAY)[LABEL].transform("size") > 1
    within = (scores - mean_score)[counted], (rows[LABEL] - mean_label)[counted]
    variance = scores[several].var()
    return {
        "between": mean_score[several].var() / variance if variance else np.nan,
        "corr_within": within[0].corr(within[1]),
        "corr_between": mean_score.corr(mean_label),
    }


def domain_distance(rows: pd.DataFrame, measures: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Say how far the target is from the source: what the source's model is worth there, as it is.

    Returns:
        Name and value: metrics of the source's model and of the baseline on the target's rows, correlation
        of their logits over all rows and inside groups, and shares of rows with known items and users.
    """
    whole = measures[measures["family"] == "all"].set_index(["method", "metric"])["value"]
    found = {
        f"{metric} of {name}": whole.get((name, metric), np.nan)
        for metric in METRICS
        for name in (SOURCE, baseline)
    }
    scores = rows[[f"{LOGIT}{SOURCE}", f"{LOGIT}{baseline}"]].astype(float)
    keys = [rows[key] for key in _USER_DAY]
    inside = scores - scores.groupby(keys).transform("mean")
    several = rows.groupby(_USER_DAY)[LABEL].transform("size") > 1
    found["correlation of logits"] = _first_with_second(scores)
    found["correlation of logits inside groups"] = _first_with_second(inside[several])
    for family in ("item_seen_in", "user_seen_in"):
        shares = rows[family].value_counts(normalize=True, sort=False)
        found |= {f"share of rows, {family} {name}": share for name, share in shares.items()}
    return pd.DataFrame({"measure": list(found), "value": list(found.values())})


def _first_with_second(scores: pd.DataFrame) -> float:
    return float(scores.iloc[:, 0].corr(scores.iloc[:, 1]))
