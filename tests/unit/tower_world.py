"""A schema with every kind of feature and rows of it, for tests of towers."""

from collections.abc import Sequence

import torch
from torchrec import KeyedJaggedTensor

from ctnet_ray.batches.batch import keys
from ctnet_ray.config import ModelConfig
from ctnet_ray.schema import Schema, from_dict

SCHEMA = from_dict(
    {
        "embedding_dim": 4,
        "tables": {"item": {"rows": 40}, "user": {"rows": 10, "dim": 12}, "tag": {"rows": 8, "dim": 8}},
        "features": {
            "clicks": {"kind": "sequence", "table": "item", "max_length": 50, "attends_to": "item"},
            "item": {"kind": "categorical"},
            "tags": {"kind": "sequence", "table": "tag", "max_length": 4},
            "user": {"kind": "categorical"},
            "price": {"kind": "numeric", "boundaries": [1, 2]},
        },
    }
)
CONFIG = ModelConfig(hidden=(6, 4), attention_hidden=3, embedding_init=1.0)

Row = dict[str, list[int]]
Rows = Sequence[Row]
ROWS: Rows = (
    {"clicks": [4, 9, 4], "item": [9], "tags": [1, 2], "user": [3], "price": [0]},
    {"clicks": [], "item": [1], "tags": [], "user": [0], "price": [3]},
    {"clicks": [7], "item": [7], "tags": [5], "user": [9], "price": [2]},
)


def jagged(rows: Rows, schema: Schema = SCHEMA) -> KeyedJaggedTensor:
    names = [feature.name for feature in keys(schema)]
    values = [value for name in names for row in rows for value in row[name]]
    lengths = [len(row[name]) for name in names for row in rows]
    return KeyedJaggedTensor(
        keys=names, values=torch.tensor(values, dtype=torch.int64), lengths=torch.tensor(lengths)
    )
