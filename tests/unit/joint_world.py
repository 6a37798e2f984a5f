"""Two small domains for the tests of joint networks, and their training as the loop does it."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchrec import KeyedJaggedTensor
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.model_parallel import DefaultDataParallelWrapper
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from ctnet_ray.batches.batch import Batch, keys
from ctnet_ray.config import JointConfig, ModelConfig
from ctnet_ray.models.embedding import Tables
from ctnet_ray.models.joint.parts import JointModel
from ctnet_ray.runs.specs import JointSpec
from ctnet_ray.schema import Schema, from_dict
from ctnet_ray.training import cpu_backward

DOMAINS = ("feed", "search")


def clicks(table: str, domain: str = "", length: int = 5) -> dict[str, object]:
    more = {"clicks_in": domain} if domain else {}
    return {"kind": "sequence", "table": table, "max_length": length, "attends_to": table, **more}


_WHOLE = from_dict(
    {
        "embedding_dim": 4,
        "tables": {"item": {"rows": 12}, "user": {"rows": 10, "dim": 8}, "tag": {"rows": 5}},
        "features": {
            "item": {"kind": "categorical"},
            "tag": {"kind": "categorical"},
            "user": {"kind": "categorical"},
            "price": {"kind": "numeric", "boundaries": [1, 2]},
            "clicks": clicks("item"),
            "items_in_feed": clicks("item", "feed"),
            "tags_in_feed": clicks("tag", "feed", length=3),
            "items_in_search": clicks("item", "search"),
        },
    }
)
PLAIN = _WHOLE.joint(DOMAINS)  #: without the sequences of each domain's clicks
INTERESTS = _WHOLE.joint(DOMAINS, interests=True)
CONFIG = ModelConfig(hidden=(8, 6, 4), attention_hidden=3, embedding_init=0.3)
JOINT = JointConfig()

Row = dict[str, list[int]]
Make = type[JointModel]


def build(
    make: Make,
    schema: Schema,
    config: ModelConfig = CONFIG,
    joint: JointConfig = JOINT,
    device: str = "cpu",
) -> Any:
    return make(JointSpec(make.__name__, schema, config, joint, DOMAINS), device)


def rows(count: int, seed: int = 0) -> list[Row]:
    """Rows with clicks in both, one or neither domain."""
    random = torch.Generator().manual_seed(seed)

    def ids(table: str, number: int) -> list[int]:
        return torch.randint(_WHOLE.table(table).rows, (number,), generator=random).tolist()

    made = []
    for index in range(count):
        feed, search = index % 5, index % 3
        made.append(
            {
                **{name: ids(name, 1) for name in ("item", "tag", "user", "price")},
                "clicks": ids("item", feed),
                "items_in_feed": ids("item", feed),
                "tags_in_feed": ids("tag", min(feed, 3)),
                "items_in_search": ids("item", search),
            }
        )
    return made


def batch_of(
    made: Sequence[Row], schema: Schema, domain: str, labels: Sequence[float] | None = None
) -> Batch:
    names = [feature.name for feature in keys(schema)]
    jagged = KeyedJaggedTensor(
        keys=names,
        values=torch.tensor([id_ for name in names for row in made for id_ in row[name]], dtype=torch.int64),
        lengths=torch.tensor([len(row[name]) for name in names for row in made]),
    )
    ones_B = torch.ones(len(made))
    label_B = torch.tensor(labels) if labels else torch.zeros(len(made))
    return Batch({"target": jagged}, label_B, ones_B, ones_B.long(), float(len(made)), domain)


def learnable(schema: Schema, count: int = 64) -> tuple[Batch, Batch]:
    """A batch of each domain: an item is clicked or not, in one domain the other way round."""
    made = rows(count)
    odd = [float(row["item"][0] % 2) for row in made]
    return (
        batch_of(made, schema, DOMAINS[0], odd),
        batch_of(made, schema, DOMAINS[1], [1 - label for label in odd]),
    )


def shuffled(model: nn.Module, seed: int = 1) -> None:
    """Give every parameter, biases and zeros too, a value that tells it apart."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))


def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(model(batch), batch.label_B)


class Trainer:
    """A joint network under `DistributedModelParallel` and fused optimisers; needs a process group."""

    def __init__(self, make: Make, schema: Schema, seed: int = 0, joint: JointConfig = JOINT) -> None:
        cpu_backward.install()
        torch.manual_seed(seed)
        model = build(make, schema, joint=joint, device="meta")
        for tables in (module for module in model.modules() if isinstance(module, Tables)):
            apply_optimizer_in_backward(RowWiseAdagrad, tables.parameters(), {"lr": 0.1, "eps": 1e-8})
        # Each step leaves the parameters of one domain alone unused.
        wrapper = DefaultDataParallelWrapper(static_graph=False, find_unused_parameters=True)
        self.model = DistributedModelParallel(
            model, device=torch.device("cpu"), data_parallel_wrapper=wrapper
        )
        dense = [p for _, p in in_backward_optimizer_filter(self.model.named_parameters())]
        self.optimizer = torch.optim.AdamW(dense, lr=0.02, weight_decay=0.0, fused=True)

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss(self.model, batch).backward()
        self.optimizer.step()


def check_learns_and_round_trips(make: Make, schema: Schema) -> None:
    """Alternating steps lower both domains' losses; a fresh model with the state dict scores the same."""
    trainer, batches = Trainer(make, schema), learnable(schema)
    before = [loss(trainer.model, batch).item() for batch in batches]
    for _ in range(60):
        for batch in batches:
            trainer.step(batch)
    after = [loss(trainer.model, batch).item() for batch in batches]
    assert all(end < 0.5 * start for start, end in zip(before, after, strict=True)), (before, after)

    fresh = Trainer(make, schema, seed=1)
    assert not torch.equal(fresh.model(batches[0]), trainer.model(batches[0]))
    fresh.model.load_state_dict(OrderedDict(trainer.model.state_dict()))
    for batch in batches:
        torch.testing.assert_close(fresh.model(batch), trainer.model(batch), rtol=0, atol=0)


def check_empty_histories(make: Make, schema: Schema) -> None:
    """Examples without any click have finite logits and gradients, alone and beside others."""
    model = build(make, schema)
    made = rows(6)
    sequences = [feature.name for feature in schema.features if feature.kind == "sequence"]
    empty = [{**row, **{name: [] for name in sequences}} for row in made]
    for domain in DOMAINS:
        alone = model(batch_of(empty, schema, domain))
        beside = model(batch_of([*empty, *made], schema, domain))[: len(empty)]
        torch.testing.assert_close(alone, beside)
        alone.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert all(bool(torch.isfinite(value).all()) for value in (alone, beside))
