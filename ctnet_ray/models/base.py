"""What every network says of itself to those who train it, keep its versions and score with it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ctnet_ray import storage
from ctnet_ray.batches.batch import Batch
from ctnet_ray.models.embedding import Tables
from ctnet_ray.schema import Role

Device = torch.device | str

#: Where a network has the tower that the base model is: by this name a version of one fills the other.
TOWER = "tower"
_DULL = (TOWER, "embedder", "embeddings")  #: parts of a name that tell no tables apart


class Model(nn.Module):
    """A network: `Batch` -> logits, [B].

    It answers in terms of its own modules, whose tensors `prefix` finds among all others.
    """

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        raise NotImplementedError

    def lookups(self, domain: str) -> list[tuple[Tables, Role]]:
        """Return the tables that a batch of a domain looks up, each with the input that it reads."""
        raise NotImplementedError

    def frozen(self) -> nn.Module | None:
        """Return the part that is not trained: its tensors are the source version's, not this model's."""
        return None

    def source_slot(self) -> nn.Module | None:
        """Return the tower that a source version is loaded into, if there is one."""
        return self.frozen()

    def beyond_base(self) -> tuple[nn.Module, ...]:
        """Return the parts that a base model has not: they start anew where a version of one is loaded."""
        return ()

    def input_layers(self) -> Mapping[nn.Linear, bool]:
        """Return the layers that read features' vectors side by side, and whether the dense ones' alone."""
        return {}

    def parts_of(self, features: Iterable[str]) -> list[nn.Module]:
        """Return the parts beside tables that are there for some of the features alone."""
        return []

    def reused_tables(self) -> Tables:
        """Return the tables that fine-tuning of embeddings takes from a source version."""
        raise NotImplementedError

    def learning_rates(self) -> Mapping[nn.Module, float]:
        """Return parts with a rate of their own, as multiples of `TrainingConfig`'s.

        Of `Tables` it is the embedding rate that is multiplied, of all else the dense rate.
        """
        return {}

    def added_tables(self) -> Mapping[Tables, Tables]:
        """Return tables whose rows are only ever added to the same rows of others, and these."""
        return {}

    def prefix(self, part: nn.Module) -> str:
        """Return what the names of a part's tensors begin with."""
        name = next(name for name, module in self.named_modules() if module is part)
        return f"{name}." if name else ""

    def tables(self) -> list[Tables]:
        """Return all embedding tables that are trained."""
        frozen = self.frozen()
        still = set(frozen.modules()) if frozen else set()
        return [module for module in self.modules() if isinstance(module, Tables) and module not in still]

    def label(self, tables: Tables) -> str:
        """Return what metrics call some tables: what of their name tells them from others."""
        return ".".join(part for part in self.prefix(tables).split(".") if part and part not in _DULL)


def reading(tables: Iterable[Tables], role: Role) -> list[tuple[Tables, Role]]:
    """Return tables that all look up the same input, each with it (`Model.lookups`)."""
    return [(module, role) for module in tables]


def derived_seed(*of: Any) -> int:
    """Return a seed that depends on some values, and on nothing else."""
    return int(storage.digest(list(of))[:15], 16)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Let what is made within start from random numbers of its own.

    They depend on torch's seed and the part's name, not on what was made before: adapters start alike with
    and without a source tower beside them.
    """
    seed = derived_seed(torch.initial_seed(), name)
    with torch.random.fork_rng(devices=[]):
        # All dense parameters are made on the CPU; `torch.manual_seed` would set the GPUs' too.
        torch.default_generator.manual_seed(seed)
        yield
