"""The work of `jobs.prepare table` as a Polars script would do it: all in memory, a day after the other."""

# Polars is no dependency of this project: it is installed where this is run.
# pyright: reportMissingImports=false
import sys
from pathlib import Path

import polars as pl

from benchmarks.lake.taobao_log import NO_IDS, PRIOR, STATISTICS_OF


def main(raw: Path, out: Path) -> None:
    """Write a Parquet file for each domain and day.

    Args:
        raw: Folder of the log.
        out: Where they go.
    """
    rows = pl.read_csv(raw / "raw_sample.csv").unique(maintain_order=True)
    ads = pl.read_csv(raw / "ad_feature.csv", null_values="NULL")
    profiles = pl.read_csv(raw / "user_profile.csv").rename({"userid": "user"})
    rows = rows.join(ads, on="adgroup_id", how="left").join(profiles, on="user", how="left")
    time = pl.from_epoch("time_stamp", time_unit="s").dt.convert_time_zone("Asia/Shanghai")
    rows = rows.with_columns(time.dt.date().alias("day"))
    ids = [name for name in rows.columns if name not in NO_IDS]
    rows = rows.with_columns(pl.col(name).hash() for name in ids)
    pids = sorted(rows["pid"].unique())
    counts: dict[tuple, pl.DataFrame] = {}
    totals = {pid: (0, 0) for pid in pids}
    for (day,), today in sorted(rows.partition_by("day", as_dict=True).items()):
        whole = today
        for pid in pids:
            whole = _with_statistics(whole, pid, totals[pid], counts)
        for pid in pids:
            part = whole.filter(pl.col("pid") == pid)
            folder = out / pid
            folder.mkdir(parents=True, exist_ok=True)
            shuffled = part.sample(fraction=1.0, shuffle=True, seed=0).drop("day", "nonclk", "time_stamp")
            shuffled.write_parquet(folder / f"{day}.parquet", compression="zstd")
            _count(today.filter(pl.col("pid") == pid), pid, counts)
            totals[pid] = totals[pid][0] + int(part["clk"].sum()), totals[pid][1] + len(part)


def _with_statistics(today: pl.DataFrame, pid: str, total: tuple[int, int], counts: dict) -> pl.DataFrame:
    clicks, shown = total
    rate = clicks / shown if shown else 0.0
    for of in STATISTICS_OF:
        name, before = f"{'_'.join(of)}_{pid}", counts.get((pid, tuple(of)))
        names = [f"{name}_log_odds", f"{name}_log_impressions"]
        if before is None or not 0 < rate < 1:
            today = today.with_columns(pl.lit(0.0, pl.Float32).alias(one) for one in names)
            continue
        c, n = pl.col("c").fill_null(0), pl.col("n").fill_null(0)
        odds = ((c + PRIOR * rate) / (n - c + PRIOR * (1 - rate))).log() - pl.lit(rate / (1 - rate)).log()
        values = [odds.cast(pl.Float32).alias(names[0]), n.log1p().cast(pl.Float32).alias(names[1])]
        today = (
            today.join(before, on=of, how="left", maintain_order="left").with_columns(values).drop("c", "n")
        )
    return today


def _count(part: pl.DataFrame, pid: str, counts: dict) -> None:
    for of in STATISTICS_OF:
        new = part.group_by(of).agg(pl.col("clk").sum().alias("c"), pl.len().cast(pl.Int64).alias("n"))
        before = counts.get((pid, tuple(of)))
        both = new if before is None else pl.concat([before, new])
        counts[pid, tuple(of)] = both.group_by(of).agg(pl.col("c").sum(), pl.col("n").sum())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
