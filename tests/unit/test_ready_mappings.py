"""The mappings that ship, each on rows written by hand in the layout of the public download."""

import gzip
import json
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.progress import Progress

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.accounts import Report
from ctnet_ray.writers.mapping.mapping import load
from ctnet_ray.writers.table import write_table
from tests.unit.mapping_world import ids

MAPPINGS = Path(__file__).parents[2] / "configs/mappings"


def write(folder: Path, files: dict[str, str | bytes | dict]) -> None:
    """Write files: texts, bytes, or columns of a Parquet file."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def prepare(
    tmp_path: Path, name: str, files: dict, raw: str = "raw", steps: int | None = None
) -> tuple[dict[str, list[dict]], Report]:
    """Return the samples by domain, in the order of days and items' ids, and what was read."""
    write(tmp_path / "raw", files)
    store = SampleStore(str(tmp_path / "out"))
    mapping = load(str(MAPPINGS / f"{name}.yaml"), steps)
    report = write_table([str(tmp_path / raw)], mapping, store, Progress(disable=True))
    rows = {
        domain: [
            {"day": day, **row}
            for day in store.days(domain)
            for row in pq.read_table(store.manifest(domain, day).uri).sort_by("item").to_pylist()
        ]
        for domain in store.domains()
    }
    return rows, report


def of_item(rows: list[dict], item: str | int) -> dict:
    (row,) = (row for row in rows if row["item"] == ids(item)[0])
    return row


def lines(*rows: str) -> str:
    return "\n".join(rows) + "\n"


def test_kuairand(tmp_path):
    header = (
        "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
        "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
    )
    log = "{},{},20220421,2300,{},{},0,0,0,0,0,0,100,5000,0,0,0,0,{}"
    late = "{},{},20220422,100,{},{},0,0,0,0,0,0,100,5000,0,0,0,0,{}"
    users = "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,"
    users += "follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,"
    users += "friend_user_num_range,register_days"
    videos = (
        "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,"
        "server_height,music_id,music_type,tag"
    )
    rows, report = prepare(
        tmp_path,
        "kuairand",
        {
            "log_standard_4_08_to_4_21_27k_part1.csv": lines(header, log.format(7, 100, 1650553200000, 1, 1)),
            "log_standard_4_22_to_5_08_27k_part1.csv": lines(
                header, late.format(7, 101, 1650560400000, 0, 4), late.format(8, 100, 1650560400000, 1, 12)
            ),
            "user_features_27k.csv": lines(users, '7,full_active,0,0,1,5,"(0,10]",3,"[1,10)",2,"[1,5)",100'),
            "video_features_basic_27k.csv": lines(
                videos, '100,9,NORMAL,2022-04-01,Web,0,5000.0,720,1280,3,9.0,"12,65"', "101,,AD,,,0,,,,,,"
            ),
        },
    )

    assert rows.keys() == {"tab1", "tab4"}
    (first,), (second,) = rows["tab1"], rows["tab4"]
    assert (first["day"], first["label"], first["author"]) == (date(2022, 4, 21), 1, ids(9)[0])
    assert first["tags"] == ids(12, 65)
    assert (first["active_degree"], first["follow_count"]) == (ids("full_active")[0], 5.0)
    assert (first["like"], first["follow"], first["long_view"]) == (0, 0, 0)
    assert (second["day"], second["label"], second["author"]) == (date(2022, 4, 22), 0, 0)
    assert second["clicked_item"] == ids(100)
    assert report.dropped == {"other domain": 1}


def test_kuaisar(tmp_path):
    users = "user_id,search_active_level,rec_active_level,onehot_feat1,onehot_feat2"
    items = (
        "item_id,caption,author_id,item_type,upload_time,upload_type,first_level_category_id,"
        "first_level_category_name,first_level_category_name_en,second_level_category_id"
    )
    rows, report = prepare(
        tmp_path,
        "kuaisar",
        {
            "rec_inter.csv": lines(
                "user_id,item_id,playing_time,duration_ms,time,timestamp,click,forward,like,follow,search,"
                "search_item_related",
                "14,100,6.0,4.0,2023-05-22 15:53:20,1684742000000.0,1,0,0,0,0,0",
            ),
            "src_inter.csv": lines(
                "user_id,search_session_id,search_session_time,search_session_timestamp,keyword,search_source,"
                "item_id,click_cnt,item_type",
                '14,1,2023-05-22 21:58:52,1684763932919,"[20, 34, 3]",USER_INPUT,200,2,VIDEO',
                '14,1,2023-05-22 21:58:52,1684763932919,"[20, 34, 3]",USER_INPUT,201,0,LIVE',
            ),
            "user_features.csv": lines(users, "14,1,2,0,3"),
            "item_features.csv": lines(
                items,
                '100,"[1, 213]",10,NORMAL,2023-04-22,LongImport,9,搞笑,Funny,136',
                "200,[],0,AD,,,8,x,y,7",
            ),
        },
    )

    (rec,) = rows["rec"]
    assert (rec["day"], rec["label"], rec["category"]) == (date(2023, 5, 22), 1, ids(9)[0])
    assert (rec["caption"], rec["query"]) == (ids(1, 213), [])
    clicked, other = of_item(rows["search"], 200), of_item(rows["search"], 201)
    assert (clicked["label"], other["label"]) == (1, 0)
    assert clicked["query"] == other["query"] == ids(20, 34, 3)
    # The click in the feed is history in the search; that of the same moment is not.
    assert clicked["clicked_item"] == other["clicked_item_in_rec"] == ids(100)
    assert clicked["group"] == other["group"] == ids(1)[0]
    assert clicked["rec_active_level"] == ids(2)[0]
    assert len(report.notices) == 1  # item 201 has no features


def test_taobao_ads(tmp_path):
    rows, report = prepare(
        tmp_path,
        "taobao_ads",
        {
            "raw_sample.csv": lines(
                "user,time_stamp,adgroup_id,pid,nonclk,clk",
                "581738,1494137644,1,430548_1007,0,1",
                "581738,1494138644,2,430539_1007,1,0",
            ),
            "ad_feature.csv": lines(
                "adgroup_id,cate_id,campaign_id,customer,brand,price",
                "1,6406,83237,1,95471,170.0",
                "2,392,9,8,NULL,9.0",
            ),
            "user_profile.csv": lines(
                "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation,"
                "new_user_class_level ",
                "581738,0,5,2,5,,3,0,3",
            ),
        },
    )

    (first,), (second,) = rows["pid_430548"], rows["pid_430539"]
    # 14:14 on 7 May in China is the day's sample.
    assert first["day"] == second["day"] == date(2017, 5, 7)
    assert (first["label"], first["category"], first["price"]) == (1, ids(6406)[0], 170.0)
    assert (first["spending"], first["city_level"]) == (0, ids(3)[0])
    assert (second["label"], second["brand"], second["clicked_category"]) == (0, 0, ids(6406))
    assert not report.notices


def test_eb_nerd(tmp_path):
    def behaviours(day: int) -> dict:
        return {
            "impression_id": pa.array([day, 50 + day], pa.uint32()),
            "article_id": pa.array([None, 300], pa.int32()),
            "impression_time": [datetime(2023, 5, day, 23, 30), datetime(2023, 5, day, 8)],
            "read_time": pa.array([21.0, 3.0], pa.float32()),
            "device_type": pa.array([2, 1], pa.int8()),
            "article_ids_inview": pa.array([[100, 200], [100]], pa.list_(pa.int32())),
            "article_ids_clicked": pa.array([[200], []], pa.list_(pa.int32())),
            "user_id": pa.array([7, 7], pa.uint32()),
            "is_subscriber": [False, False],
        }

    articles = {
        "article_id": pa.array([100, 200], pa.int32()),
        "title": ["A", "B"],
        "published_time": [datetime(2023, 5, 20), datetime(2023, 5, 21, 20)],
        "premium": [False, True],
        "article_type": ["article_default"] * 2,
        "topics": [["Sport"], []],
        "category_str": ["sport", "nyheder"],
        "subcategory": pa.array([[1, 2], []], pa.list_(pa.int16())),
        "sentiment_label": ["Neutral", "Negative"],
    }

    rows, report = prepare(
        tmp_path,
        "eb_nerd",
        {
            "articles.parquet": articles,
            "train/behaviors.parquet": behaviours(21),
            "validation/behaviors.parquet": behaviours(22),
        },
    )

    assert (report.read, report.rows) == (4, 6)
    front, page = rows["front_page"], rows["article_page"]
    assert [row["day"].day for row in front] == [21, 21, 22, 22]
    shown, clicked = of_item(front[:2], 100), of_item(front[:2], 200)
    assert (shown["label"], clicked["label"]) == (0, 1)
    assert shown["group"] == clicked["group"] == ids(21)[0]
    assert (shown["hours_old"], clicked["hours_old"]) == (47.0, 3.0)
    assert (shown["topics"], shown["subcategory"], clicked["topics"]) == (ids("Sport"), ids(1, 2), [])
    assert [row["from_article"] for row in page] == ids(300, 300)
    assert [row["clicked_item"] for row in page] == [[], ids(200)]


def test_mind(tmp_path):
    news = '{}\t{}\t{}\tThe "title\t\thttps://x\t[]\t[]'
    files = {
        "MINDsmall_train/behaviors.tsv": lines(
            "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN1-1 N2-0",
            "2\tU91836\t11/12/2019 6:11:30 PM\t\tN2-0 N1-0",
        ),
        "MINDsmall_dev/behaviors.tsv": lines("1\tU13740\t11/15/2019 8:55:22 AM\tN55189 N42782 N1\tN3-1"),
        "MINDsmall_train/news.tsv": lines(
            news.format("N1", "news", "newsus"), news.format("N2", "sports", "golf")
        ),
        "MINDsmall_dev/news.tsv": lines(
            news.format("N2", "sports", "golf"), news.format("N3", "news", "newsworld")
        ),
    }

    rows, report = prepare(tmp_path, "mind", files)

    assert (report.read, report.rows, report.dropped, report.notices) == (3, 5, {}, [])
    assert [(row["day"].day, row["label"]) for row in rows["news"]] == [(11, 1), (12, 0), (15, 1)]
    assert [(row["day"].day, row["label"]) for row in rows["sports"]] == [(11, 0), (12, 0)]
    assert rows["news"][2]["clicked_item"] == ids("N1")
    assert rows["news"][2]["subcategory"] == ids("newsworld")[0]


def test_amazon_reviews_2023(tmp_path):
    def review(**fields) -> str:
        return json.dumps(
            {"title": "Nice", "text": "x", "images": [], "asin": "B0", "helpful_vote": 0} | fields
        )

    books = [
        review(rating=5.0, parent_asin="B1", user_id="U1", timestamp=1588687728923, verified_purchase=True),
        review(rating=3.0, parent_asin="B2", user_id="U1", timestamp=1588687728924, verified_purchase=False),
    ]
    magazine = review(
        rating=4.0, parent_asin="M1", user_id="U1", timestamp=1588774128923, verified_purchase=True
    )
    about = {"main_category": "Books", "average_rating": 4.5, "rating_number": 9, "details": {"Pages": "9"}}
    meta = [
        json.dumps(
            about | {"parent_asin": "B1", "store": "Ann", "categories": ["Books", "Art, Music"], "price": 9.5}
        ),
        json.dumps(about | {"parent_asin": "B2", "store": None, "categories": [], "price": "None"}),
    ]
    rows, report = prepare(
        tmp_path,
        "amazon_reviews_2023",
        {
            "Books.jsonl.gz": gzip.compress(lines(*books).encode()),
            "Magazine_Subscriptions.jsonl": lines(magazine),
            "meta_Books.jsonl": lines(*meta),
            "meta_Magazine_Subscriptions.jsonl": lines(json.dumps({"parent_asin": "M1", "store": "Time"})),
        },
    )

    first, second = of_item(rows["books"], "B1"), of_item(rows["books"], "B2")
    assert (first["day"], first["label"], second["label"]) == (date(2020, 5, 5), 1, 0)
    assert (first["categories"], second["categories"]) == (ids("Books", "Art, Music"), [])
    assert first["price"] == 9.5
    assert second["price"] != second["price"]
    assert second["store"] == 0
    (third,) = rows["magazines"]
    assert (third["store"], third["clicked_item"]) == (ids("Time")[0], ids("B1"))
    assert third["verified"] == ids("true")[0]
    assert report.read == 3


@pytest.mark.parametrize(
    ("name", "domain", "encoding", "good", "bad"),
    [("movielens", "movielens", "latin-1", 4, 3), ("movietweetings", "tweets", "utf-8", 8, 7)],
)
def test_movies(tmp_path, name, domain, encoding, good, bad):
    movies = lines("1193::Café (1975)::Drama|War", "661::B (1996)::Animation")
    ratings = lines(f"1::1193::{good}::978300760", f"1::661::{bad}::978302109")
    files = {"ratings.dat": ratings, "movies.dat": movies.encode(encoding)}

    rows, report = prepare(tmp_path, name, files)

    first, second = of_item(rows[domain], 1193), of_item(rows[domain], 661)
    assert (first["label"], second["label"]) == (1, 0)
    assert (first["genres"], second["genres"]) == (ids("Drama", "War"), ids("Animation"))
    assert first["day"] == date(2000, 12, 31)
    assert second["clicked_item"] == ids(1193)
    assert not report.dropped
    if name == "movielens":
        assert first["year"] == ids(1975)[0]


def test_criteo_attribution(tmp_path):
    header = (
        "timestamp uid campaign conversion conversion_timestamp conversion_id attribution click click_pos "
    )
    header += "click_nb cost cpo time_since_last_click cat1 cat2 cat3 cat4 cat5 cat6 cat7 cat8 cat9"
    row = "{} 20073966 22589171 0 -1 -1 0 {} -1 -1 1.0e-05 0.31 {} 5824233 9312274 3490278 29196072 11409686 "
    row += "1973606 25162884 29196072 29196072"
    text = lines(header, row.format(0, 1, -1), row.format(90000, 0, 90000)).replace(" ", "\t")

    rows, _ = prepare(
        tmp_path, "criteo_attribution", {"criteo_attribution_dataset.tsv.gz": gzip.compress(text.encode())}
    )

    first, second = rows["display"]
    assert (first["day"], second["day"]) == (date(1970, 1, 1), date(1970, 1, 2))
    assert (first["label"], second["label"]) == (1, 0)
    assert (first["since_last_click"], second["since_last_click"]) == (-1.0, 90000.0)
    assert (second["cat7"], second["converted"]) == (ids(25162884)[0], 0)
    assert second["clicked_item"] == ids(22589171)


def test_avazu(tmp_path):
    header = "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,"
    header += "device_id,device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
    row = "{},{},14102100,1005,0,{},f3845767,28905ebd,{},7801e8d9,07d7df22,{},ddd2926e,44956a24,1,2,"
    row += "15706,320,50,1722,0,35,-1,79"

    rows, report = prepare(
        tmp_path,
        "avazu",
        {
            "train.csv": lines(
                header,
                row.format("1000009418151094273", 0, "1fbe01fe", "ecad2386", "a99f214a"),
                row.format("10000169349117863715", 1, "85f751fd", "92f5800b", "c4b18dd6"),
            )
        },
    )

    (site,), (app,) = rows["site"], rows["app"]
    assert site["day"] == app["day"] == date(2014, 10, 21)
    assert (site["label"], app["label"]) == (0, 1)
    assert (site["user"], app["user"]) == tuple(ids("ddd2926e-44956a24", "c4b18dd6"))
    assert site["item"] == app["item"] == ids(15706)[0]
    assert (site["c20"], site["width"]) == tuple(ids(-1, 320))
    assert not report.dropped


def test_vk_lsvd(tmp_path):
    def week(timespent: int) -> dict:
        return {
            "user_id": pa.array([7, 7], pa.uint32()),
            "item_id": pa.array([100, 101], pa.uint32()),
            "place": pa.array([0, 3], pa.uint8()),
            "platform": pa.array([1, 1], pa.uint8()),
            "agent": pa.array([2, 2], pa.uint8()),
            "timespent": pa.array([timespent, 3], pa.uint8()),
            "like": [False, False],
        }

    rows, report = prepare(
        tmp_path,
        "vk_lsvd",
        {
            "subsamples/ur0.01/train/week_00.parquet": week(10),
            "subsamples/ur0.01/validation/week_25.parquet": week(9),
            "metadata/users_metadata.parquet": {"user_id": [7], "age": [30], "gender": [1], "geo": [5]},
            "metadata/items_metadata.parquet": {
                "item_id": [100, 101],
                "author_id": [1, 2],
                "duration": [12, 60],
            },
        },
    )

    first, second = rows["place_0"]
    assert (first["day"], second["day"]) == (date(2025, 1, 1), date(2025, 6, 25))
    assert (first["label"], second["label"]) == (1, 0)
    assert second["clicked_item"] == ids(100)
    assert (first["age"], first["duration"], first["author"], first["liked"]) == (30.0, 12.0, ids(1)[0], 0)
    assert not report.dropped


def test_each_mapping_is_tested_and_says_what_it_is():
    tests = Path(__file__).read_text()
    for path in MAPPINGS.glob("*.yaml"):
        assert f'"{path.stem}"' in tests
        assert path.read_text().startswith("# ")


def test_tenrec(tmp_path):
    header = "user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age,"
    header += ",".join(f"hist_{place}" for place in range(1, 11))
    files = {
        "QK-video.csv": lines(
            header,
            "1,467,1,0,1,0,0,1,1,4,9,8,7,0,0,0,0,0,0,0",
            "1,778,0,0,0,0,1,0,1,4,9,8,7,0,0,0,0,0,0,0",
            "2,467,0,0,0,0,0,0,2,3,5,0,0,0,0,0,0,0,0,0",
            "2,12,1,1,0,0,1,2,2,3,5,0,0,0,0,0,0,0,0,0",
        ),
        "QB-video.csv": lines(
            header,
            "7,467,0,0,0,0,0,0,1,2,1,2,3,4,5,6,7,8,9,10",
            "7,31,1,0,0,0,1,1,1,2,1,2,3,4,5,6,7,8,9,10",
        ),
    }

    rows, report = prepare(tmp_path, "tenrec", files, steps=2)

    first, second = date(1970, 1, 1), date(1970, 1, 2)
    assert [row["day"] for row in rows["qk"]] == [first, first, second, second]
    assert [row["day"] for row in rows["qb"]] == [first, second]
    shown = of_item(rows["qb"], 31)
    assert (shown["label"], shown["follow"], shown["history"]) == (1, 0, ids(*range(1, 11)))
    # One impression of item 467 in the first step of qk, clicked, where one of two was: (1 + 5) / (0 + 5).
    (late,) = (row for row in rows["qk"] if row["day"] == second and row["item"] == ids(467)[0])
    assert late["item_log_impressions_all_in_qk"] == pytest.approx(0.6931, abs=1e-4)
    assert late["item_log_odds_all_in_qk"] == pytest.approx(0.1823, abs=1e-4)
    assert any(
        "have no times: their rows, as they stand, were cut into 2 steps" in one for one in report.notices
    )
    assert str(SampleStore(str(tmp_path / "out")).manifest("qk", first).step) == "1/2"


def test_ali_ccp(tmp_path):
    def fields(**values: str) -> str:
        return "\x01".join(f"{name[1:]}\x02{value}\x031.0" for name, value in values.items())

    files = {
        "sample_skeleton_train.csv": lines(
            f"1,0,0,bacff91692951881,9,{fields(f205='4237648', f206='8', f301='9351665')}",
            f"2,1,0,bacff91692951881,9,{fields(f301='9351665', f205='55', f216='7')}",
            f"3,1,1,aacff91692951881,9,{fields(f205='55', f206='8', f207='1205', f301='9351666')}",
        )
    }

    rows, report = prepare(tmp_path, "ali_ccp", files, "raw/sample_skeleton_train.csv", steps=3)

    assert {name: len(of) for name, of in rows.items()} == {"place_9351665": 2, "place_9351666": 1}
    (bought,) = rows["place_9351666"]
    assert (bought["day"], bought["label"], bought["bought"]) == (date(1970, 1, 3), 1, 1)
    assert [bought[name] for name in ("item", "category", "shop")] == ids("55", "8", "1205")
    assert of_item(rows["place_9351665"], "4237648")["brand"] == 0
    assert not report.dropped


@pytest.mark.parametrize("name", ["tenrec", "ali_ccp"])
def test_logs_without_times_are_refused_unless_steps_are_asked_for(name):
    with pytest.raises(CtnetError, match=r"time: missing: .* steps: 10 \(--steps 10\) cuts a log"):
        load(str(MAPPINGS / f"{name}.yaml"))
