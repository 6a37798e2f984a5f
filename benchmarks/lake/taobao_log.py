"""A made-up log in the layout of Taobao's display advertising (Tianchi data set 56), of its true size.

raw_sample.csv    user,time_stamp,adgroup_id,pid,nonclk,clk               26.6 million impressions, 8 days
ad_feature.csv    adgroup_id,cate_id,campaign_id,customer,brand,price     846,811 ads
user_profile.csv  userid,cms_segid,... (nine columns)                     1,061,768 users of 1.14 million
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

ROWS, ADS, USERS, PROFILES = 26_557_961, 846_811, 1_141_729, 1_061_768
DAYS = 8
#: What the scripts beside ours count, as the mapping that ships does, and with which prior.
STATISTICS_OF = (["user"], ["adgroup_id"], ["cate_id"], ["brand"], ["customer"], ["user", "cate_id"])
PRIOR = 10.0
NO_IDS = ("time_stamp", "pid", "clk", "nonclk", "price", "day")  #: columns of the scripts' rows
_FIRST = 1_494_000_000  # 2017-05-06, midnight in Shanghai
_PIDS = pa.array(["430548_1007", "430539_1007"])
_BLOCK = 1 << 20  # rows made at a time
_CLICK_RATE = 0.0515


def write_log(folder: Path, rows: int = ROWS, seed: int = 0) -> None:
    """Write the three files.

    Args:
        folder: An empty folder.
        rows: Impressions; how often a user or an ad is in them falls with its rank.
        seed: Of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    _write_side_tables(folder, rng)
    with pacsv.CSVWriter(
        str(folder / "raw_sample.csv"), _impressions(rng, 0).schema, write_options=_plain()
    ) as writer:
        for start in range(0, rows, _BLOCK):
            writer.write_table(_impressions(rng, min(_BLOCK, rows - start)))


def _plain() -> pacsv.WriteOptions:
    return pacsv.WriteOptions(quoting_style="none")


def _impressions(rng: np.random.Generator, rows: int) -> pa.Table:
    clicked = (rng.random(rows) < _CLICK_RATE).astype(np.int8)
    return pa.table(
        {
            "user": 1 + (USERS * rng.random(rows) ** 2).astype(np.int64),
            "time_stamp": _FIRST + rng.integers(0, DAYS * 86_400, rows),
            "adgroup_id": 1 + (ADS * rng.random(rows) ** 3).astype(np.int64),
            "pid": _PIDS.take(pa.array((rng.random(rows) < 0.4).astype(np.int8))),
            "nonclk": 1 - clicked,
            "clk": clicked,
        }
    )


def _write_side_tables(folder: Path, rng: np.random.Generator) -> None:
    category = rng.integers(1, 12_968, ADS)
    ads = {
        "adgroup_id": np.arange(1, ADS + 1),
        "cate_id": category,
        "campaign_id": rng.integers(1, 423_436, ADS),
        "customer": rng.integers(1, 255_877, ADS),
        "brand": pa.array(rng.integers(1, 461_497, ADS).astype(str), mask=rng.random(ADS) < 0.29),
        "price": np.round(rng.lognormal(5, 1.3, ADS), 2),
    }
    levels = {
        "cms_segid": 97,
        "cms_group_id": 13,
        "final_gender_code": 3,
        "age_level": 7,
        "pvalue_level": 4,
        "shopping_level": 4,
        "occupation": 2,
        "new_user_class_level ": 5,
    }
    users = {
        "userid": 1 + rng.permutation(USERS)[:PROFILES],
        **{name: rng.integers(0, count, PROFILES) for name, count in levels.items()},
    }
    # The brand of ads without one is the text NULL there.
    ads["brand"] = ads["brand"].fill_null("NULL")
    for name, columns in (("ad_feature", ads), ("user_profile", users)):
        pacsv.write_csv(pa.table(columns), folder / f"{name}.csv", _plain())
