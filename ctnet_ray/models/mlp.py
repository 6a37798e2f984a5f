"""Hidden layers with ReLU, and a logit.

Shapes: B examples, I width of the input, H width of a layer.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn


class Mlp(nn.Module):
    """A multilayer perceptron.

    Args:
        inputs: Width I.
        hidden: Widths of the hidden layers; none: the logit is linear in the input.
        dropout: Share of a hidden layer's units that the next layer does not see in training.

    Shapes:
        [B, I] -> [B].
    """

    def __init__(self, inputs: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        self.hidden = nn.ModuleList(nn.Linear(narrow, wide) for narrow, wide in pairwise(widths))
        self.output = nn.Linear(widths[-1], 1)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    @property
    def first(self) -> nn.Linear:
        """The layer that reads the input."""
        layer = self.hidden[0] if self.hidden else self.output
        assert isinstance(layer, nn.Linear)  # noqa: S101  (for the type checker)
        return layer

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        for linear in self.hidden:
            state = self.dropout(torch.relu(linear(state)))
        return self.output(state).squeeze(1)

    def by_layer(self) -> Iterator[tuple[str, Callable[[torch.Tensor], torch.Tensor]]]:
        """Give each layer's map of the layer below, by the layer's name: hidden_1 .. hidden_L, logit."""
        first, *others = self.hidden
        yield "hidden_1", first
        for index, linear in enumerate(others, start=2):
            yield f"hidden_{index}", self._after_dropout(linear)
        yield "logit", self._after_dropout(self.output)

    def _after_dropout(self, linear: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda state: linear(self.dropout(state))
