"""Hidden layers with ReLU, and a logit.

Shapes: B examples, I width of the input, H width of a layer.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn


class Mlp(nn.Module):
    """A multilayer perceptron.

    Args:
        inputs: Width I.
        hidden: Widths of the hidden layers; none: the logit is linear in the input.

    Shapes:
        [B, I] -> [B].
    """

    def __init__(self, inputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        self.hidden = nn.ModuleList(nn.Linear(narrow, wide) for narrow, wide in pairwise(widths))
        self.output = nn.Linear(widths[-1], 1)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        for linear in self.hidden:
            state = torch.relu(linear(state))
        return self.output(state).squeeze(1)

    def by_layer(self) -> Iterator[tuple[str, nn.Module]]:
        """Give each layer's linear map, by the layer's name: hidden_1 .. hidden_L, logit."""
        for index, linear in enumerate(self.hidden, start=1):
            yield f"hidden_{index}", linear
        yield "logit", self.output
