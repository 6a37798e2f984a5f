"""The work of `jobs.prepare table` as a pandas script would do it: all in memory, a day after the other."""

# pandas ships no types: what its methods return is guessed, and guessed too wide.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.lake.taobao_log import NO_IDS, PRIOR, STATISTICS_OF


def main(raw: Path, out: Path) -> None:
    """Write a Parquet file for each domain and day.

    Args:
        raw: Folder of the log.
        out: Where they go.
    """
    rows = pd.read_csv(raw / "raw_sample.csv", dtype={"pid": "category"}).drop_duplicates()
    ads = pd.read_csv(raw / "ad_feature.csv")
    profiles = pd.read_csv(raw / "user_profile.csv").rename(columns={"userid": "user"})
    rows = rows.merge(ads, on="adgroup_id", how="left").merge(profiles, on="user", how="left")
    times = pd.to_datetime(rows.time_stamp, unit="s", utc=True).dt.tz_convert("Asia/Shanghai")
    rows["day"] = times.dt.tz_localize(None).dt.floor("D")
    ids = [name for name in rows.columns if name not in NO_IDS]
    for name in ids:
        rows[name] = pd.util.hash_array(rows[name].to_numpy())
    counts: dict[tuple, pd.DataFrame] = {}
    rng = np.random.default_rng(0)
    for day, today in rows.groupby("day", sort=True):
        today = today.copy()
        for pid in rows.pid.cat.categories:
            _add_statistics(today, pid, counts)
        for pid, part in today.groupby("pid", observed=True):
            shuffled = part.iloc[rng.permutation(len(part))].drop(columns=["day", "nonclk", "time_stamp"])
            folder = out / str(pid)
            folder.mkdir(parents=True, exist_ok=True)
            shuffled.to_parquet(folder / f"{day:%Y-%m-%d}.parquet", compression="zstd", index=False)
            _count(part, pid, counts)


def _add_statistics(today: pd.DataFrame, pid: str, counts: dict) -> None:
    clicks, shown = counts.get((pid, ()), (0, 0))
    rate = clicks / shown if shown else 0.0
    for of in STATISTICS_OF:
        name = f"{'_'.join(of)}_{pid}"
        before = counts.get((pid, tuple(of)))
        if before is None or not 0 < rate < 1:
            today[f"{name}_log_odds"] = today[f"{name}_log_impressions"] = np.float32(0)
            continue
        found = today[of].merge(before, left_on=of, right_index=True, how="left")[["clk", "shown"]].fillna(0)
        c, n = found.clk.to_numpy(), found.shown.to_numpy()
        odds = np.log((c + PRIOR * rate) / (n - c + PRIOR * (1 - rate))) - np.log(rate / (1 - rate))
        today[f"{name}_log_odds"] = odds.astype(np.float32)
        today[f"{name}_log_impressions"] = np.log1p(n).astype(np.float32)


def _count(part: pd.DataFrame, pid: str, counts: dict) -> None:
    clicks, shown = counts.get((pid, ()), (0, 0))
    counts[pid, ()] = clicks + int(part.clk.sum()), shown + len(part)
    for of in STATISTICS_OF:
        new = part.groupby(of).clk.agg(clk="sum", shown="size")
        before = counts.get((pid, tuple(of)))
        counts[pid, tuple(of)] = new if before is None else before.add(new, fill_value=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
