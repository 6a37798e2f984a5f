"""Parsers of what people and programs write: logs, schemas, mappings, configurations, requests."""

import gzip
import io
import itertools
import json
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import yaml
from rich.progress import Progress

from ctnet_ray import schema
from ctnet_ray.config import (
    ComputeConfig,
    DataConfig,
    GuardConfig,
    JobConfig,
    ModelConfig,
    TrackingConfig,
    TrainingConfig,
    TransferConfig,
)
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.serving.http.request import ARROW, JSON, Limits, media_type, read_request
from ctnet_ray.serving.scorer import Scorer
from ctnet_ray.storage import remove
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.files.csv_text import Dialect, csv_blocks
from ctnet_ray.writers.mapping import mapping as table_mapping
from ctnet_ray.writers.table import write_table
from jobs.command import run
from tests.faults.judging import DEFECT
from tests.faults.target import Part, Target

CONFIGS = Path(__file__).parents[2] / "configs"
ROWS = (
    b'at,who,what,clicked\n100,"a, b",i1,1\n200,a,"say ""hi""\nthere",0\n90,,\\N,1\n',
    b"at,who,what,clicked\r\n2022-05-01 08:00:00,u,i,1\r\n\r\n,,,\r\n5,v,j,0",
    "at;who;what;clicked\n1;\u00e9\u4e2d;i;true\n2;\u2028;j;false\n".encode(),
    b"at::who::what::clicked\n1::u::i::1\n2::\\,v::j::0\n",
    b"1,u,i,1\n2,v,j,0\n",
)
DIALECTS = (
    Dialect(),
    Dialect(quote=""),
    Dialect(escape="\\", encoding="latin-1"),
    Dialect(escape="\\", quote=""),
    Dialect(delimiter="::", quote="'", encoding="utf-16"),
    Dialect(delimiter=";", escape="\\", quote="'"),
    Dialect(delimiter="::", encoding="gb18030"),
    Dialect(header=("at", "who", "what", "clicked")),
)
_BLOCKS = (16, 100, 1 << 16)  #: bytes; some files are longer than a block
MAPPING = {
    "time": {"column": "at", "unit": "s"},
    "domain": {"constant": "shop"},
    "user": "who",
    "item": "what",
    "label": "clicked",
}
_DATA = DataConfig("samples", "schema.yaml", "shop", date(2022, 5, 1), date(2022, 5, 2))
EVERYTHING = JobConfig(_DATA).to_dict()  #: a value under every key


def csv(folder: Path) -> Target:
    """Blocks of a CSV file in several dialects: each line is a row or counted as dropped."""

    def part(dialect: Dialect, size: int) -> Part:
        def read(content: bytes) -> None:
            path = folder / "log"
            account = FileAccount(str(path))
            path.write_bytes(content)
            rows = sum(block.num_rows for block in csv_blocks(path, dialect, account, block_bytes=size))
            if rows + account.dropped.total() != account.read:
                raise CtnetError(f"{rows} rows of {account.read}: {DEFECT}")

        text = [seed.decode() for seed in ROWS]
        encoded = [seed.encode(dialect.encoding, "replace") for seed in text]
        return Part(f"{dialect} {size}", "csv", (*encoded, gzip.compress(encoded[0])), read)

    pairs = itertools.product(DIALECTS, _BLOCKS)
    return Target("csv", tuple(part(dialect, size) for dialect, size in pairs), folder)


def log(folder: Path) -> Target:
    """A log of which sample days are made."""

    def part(**keys: object) -> Part:
        mapping = table_mapping.from_dict({**MAPPING, "max_dropped": 1, **keys})
        mapping = replace(mapping, csv=Dialect())

        def read(content: bytes) -> None:
            path = folder / "log"
            path.write_bytes(content)
            try:
                write_table([str(path)], mapping, SampleStore(f"{folder}/out"), Progress(disable=True))
            finally:
                remove(f"{folder}/out")

        return Part(str(keys), "csv", ROWS[:2], read)

    more = {"features": {"price": {"column": "at", "kind": "numeric", "boundaries": [1]}}}
    lists = {"words": {"column": "who", "kind": "sequence", "separator": ",", "max_length": 2}}
    parts = (
        part(),
        part(time={"column": "at"}, label="clicked > 0", histories={"of": ["item"]}, **more),
        part(domain={"column": "what"}, features=lists),
    )
    return Target("log", parts, folder)


def yaml_file(name: str, folder: Path, seeds: tuple[bytes, ...], read: Callable[[str], object]) -> Target:
    """A YAML file that a function reads."""

    def read_file(content: bytes) -> None:
        path = folder / "file.yaml"
        path.write_bytes(content)
        read(str(path))

    return Target(name, (Part(name, "yaml", seeds, read_file),), folder)


def schemas(folder: Path) -> Target:
    """A schema file."""
    photo = {"kind": "dense", "width": 3, "mean": [0, 1, 2], "std": 2.0, "transform": "log1p", "clip": 4}
    tables = {"item": {"rows": 9, "eviction": "lfu"}}
    small = {"tables": tables, "features": {"item": {"kind": "categorical"}, "photo": photo}}
    seeds = (CONFIGS / "synthetic_schema.yaml").read_bytes(), yaml.safe_dump(small).encode()
    return yaml_file("schema", folder, seeds, lambda path: schema.load(path).digest)


def mappings(folder: Path) -> Target:
    """A mapping file, and the schema that comes of it."""

    def read(path: str) -> None:
        mapping = table_mapping.load(path)
        assert mapping.columns()
        table_mapping.schema_of(mapping, ["feed", "channel"])

    seeds = (CONFIGS / "table_mapping_example.yaml").read_bytes(), yaml.safe_dump(MAPPING).encode()
    return yaml_file("mapping", folder, seeds, read)


def configurations(folder: Path) -> Target:
    """A configuration file, as a command reads it: one line on standard error, and status 1 or 2."""

    def command(
        data: DataConfig,
        model: ModelConfig = ModelConfig(),  # noqa: B008
        training: TrainingConfig = TrainingConfig(),  # noqa: B008
        transfer: TransferConfig = TransferConfig(),  # noqa: B008
        compute: ComputeConfig = ComputeConfig(),  # noqa: B008
        tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
        guard: GuardConfig = GuardConfig(),  # noqa: B008
    ) -> None:
        assert JobConfig(data, model, training, transfer, compute, tracking, guard).to_dict()

    def read(path: str) -> None:
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                run(command, "What it does.", ["--config", path])
        except SystemExit as ended:
            if ended.code:
                raise CtnetError(said.getvalue().removesuffix("\n")) from None

    seeds = ((CONFIGS / "target.yaml").read_bytes(), yaml.safe_dump(EVERYTHING).encode())
    return yaml_file("configuration", folder, seeds, read)


def requests(folder: Path, scorer: Scorer) -> Target:
    """Bodies of requests, JSON and Arrow, which are scored where they can be."""

    def part(kind: str, media: str, seed: bytes) -> Part:
        def read(content: bytes) -> None:
            request = read_request(content, media_type(media), scorer.fields, Limits(candidates=1000))
            assert len(scorer.score_request(request.user, request.candidates)) == request.rows

        return Part(media, kind, (seed,), read)  # type: ignore[arg-type]

    user = {"user": "u", "clicks": [1, 2], "tags": ["a"]}
    candidates = {"item": [3, 4], "tag": [1, None]}
    stream = io.BytesIO()
    table = pa.table(candidates).replace_schema_metadata({"user": json.dumps(user)})
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    as_json = json.dumps({"user": user, "candidates": candidates}).encode()
    return Target("request", (part("json", JSON, as_json), part("bytes", ARROW, stream.getvalue())), folder)
