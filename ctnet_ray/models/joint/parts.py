"""What several joint networks are made of.

Shapes: B examples, H width of a layer, U width of a user's vector.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal

from ctnet_ray.batches.batch import Batch
from ctnet_ray.models.base import Device, Model, reading
from ctnet_ray.models.embedding import Tables, Vectors
from ctnet_ray.models.joint.interests import all_clicks
from ctnet_ray.models.terms import Terms
from ctnet_ray.runs.specs import JointSpec
from ctnet_ray.schema import Role, Schema


class JointModel(Model):
    """A network that is trained on the samples of two domains.

    A subclass names itself where it is defined, `class Ple(JointModel, network="ple")`, and is found by that
    name (`JointSpec.network`).

    Args:
        spec: Features, widths, domains.
        device: As for `Embedder`.
    """

    by_name: ClassVar[dict[str, Callable[[Any, Device], Model]]] = {}

    def __init_subclass__(cls, network: str) -> None:
        super().__init_subclass__()
        JointModel.by_name[network] = cls

    def __init__(self, spec: JointSpec, device: Device = "cpu") -> None:
        super().__init__()
        self.domains = spec.domains
        pooled = spec.schema.without(all_clicks(spec.schema))
        self.terms = ByDomain(spec.domains, lambda: Terms(pooled, spec.config))

    def with_terms(self, logit_B: torch.Tensor, vectors: Vectors, batch: Batch) -> torch.Tensor:
        """Return a logit with the terms that the base model has beside its MLP (`ctnet_ray.models.terms`).

        Each domain has its own linear path and cross layers; weights of ids are shared as embeddings are.
        """
        terms = self.terms.of(batch)
        assert isinstance(terms, Terms)  # noqa: S101  (for the type checker)
        return terms.added_to(logit_B, vectors)

    def lookups(self, domain: str) -> list[tuple[Tables, Role]]:
        """Return all tables, in a batch of either domain."""
        return reading(self.tables(), "target")


class ByDomain(nn.ModuleList):
    """One module for each of two domains, picked by a batch's domain.

    Args:
        domains: Source and target; which one comes first names the parameters, not the domains' names.
        make: Makes one of them.
    """

    def __init__(self, domains: tuple[str, str], make: Callable[[], nn.Module]) -> None:
        super().__init__(make() for _ in domains)
        self._domains = domains

    def of(self, batch: Batch) -> nn.Module:
        """Return the module of the batch's domain."""
        return self[index_of(batch, self._domains)]

    def of_other(self, batch: Batch) -> nn.Module:
        """Return the module of the domain that the batch is not of."""
        return self[1 - index_of(batch, self._domains)]


class OrthogonalMap(nn.Module):
    """A square matrix X with X^T X = 1, whatever an optimiser does.

    X = Q (1 - A / 2)^-1 (1 + A / 2), A skew-symmetric and trained: Cayley's map, from a random orthogonal Q
    where it starts (`torch.nn.utils.parametrizations.orthogonal`).

    Args:
        width: Width U.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # Cayley's map: for U in the hundreds, the matrix exponential takes longer than the rest of a step.
        self.linear = nn.Linear(width, width, bias=False)
        if self.linear.weight.is_meta:  # a model that is made to be measured: Q has no values there
            return
        orthogonal(self.linear, orthogonal_map="cayley")
        # Q is left as a transposed view, which safetensors refuses.
        start: Any = self.linear.get_submodule("parametrizations.weight.0")
        start.base = start.base.contiguous()

    def forward(self, state_BU: torch.Tensor) -> torch.Tensor:
        """Return X u for each row u."""
        return state_BU @ self.matrix().T

    def back(self, state_BU: torch.Tensor) -> torch.Tensor:
        """Return X^T u for each row u."""
        return state_BU @ self.matrix()

    def matrix(self) -> torch.Tensor:
        """Return X, [U, U]."""
        device = next(self.parameters()).device.type
        if not torch.is_autocast_enabled(device):
            return self.linear.weight
        with torch.autocast(device, enabled=False):  # in bfloat16 it would not be orthogonal
            return self.linear.weight


def candidate_features(schema: Schema) -> tuple[str, ...]:
    """Return the features of the item that is scored: those that a sequence attends to.

    A schema does not say whose a feature is. What a history is compared with is the item's for certain; all
    else (the user's profile and history, the context, further features of the item) counts as the user's.
    """
    attended = {feature.attends_to for feature in schema.features}
    return tuple(feature.name for feature in schema.features if feature.name in attended)


def index_of(batch: Batch, domains: tuple[str, str]) -> int:
    """Return 0 for a batch of the first domain, 1 for one of the second."""
    assert batch.domain in domains, f"a batch of {batch.domain!r} for a model of {domains}"  # noqa: S101
    return domains.index(batch.domain)
