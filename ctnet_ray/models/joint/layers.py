"""What several joint networks are made of.

Shapes: B examples, H width of a layer.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from ctnet_ray.batch import Batch


class Mlp(nn.Module):
    """Hidden layers with ReLU, and a logit.

    Args:
        inputs: Width of the input.
        hidden: Widths of the hidden layers; none: the logit is linear in the input.

    Shapes:
        [B, inputs] -> [B].
    """

    def __init__(self, inputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        self.layers = nn.ModuleList(nn.Linear(narrow, wide) for narrow, wide in pairwise(widths))
        self.output = nn.Linear(widths[-1], 1)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        for layer in self.layers:
            state = torch.relu(layer(state))
        return self.output(state).squeeze(1)


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


def index_of(batch: Batch, domains: tuple[str, str]) -> int:
    """Return 0 for a batch of the first domain, 1 for one of the second."""
    assert batch.domain in domains, f"a batch of {batch.domain!r} for a model of {domains}"  # noqa: S101
    return domains.index(batch.domain)
