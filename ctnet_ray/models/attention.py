"""Target attention over behaviour: DIN's (Zhou et al., KDD 2018, section 4.3).

Each item of a sequence is scored against the candidate by a small network on (q, k, q - k, q * k), and the
sequence becomes the sum of its items by these weights. The weights are normalised by softmax here, so that
short and long histories have one scale.

Shapes: B examples, L longest sequence of the batch, D width of one embedding.
"""

import torch
from torch import nn
from torch.nn import functional


class AttentionUnit(nn.Module):
    """DIN's activation unit with softmax weights.

    Args:
        dim: Width D of the query and of the sequence's items.
        hidden: Width of the scoring network's hidden layer.

    Shapes:
        query_BD, sequence_BLD, mask_BL (True where there is an item) -> [B, D]; zero for an empty sequence.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(4 * dim, hidden), nn.PReLU(), nn.Linear(hidden, 1))

    def forward(
        self, query_BD: torch.Tensor, sequence_BLD: torch.Tensor, mask_BL: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted sum of the sequence's items."""
        weight_BL = masked_softmax(self._scores(query_BD, sequence_BLD), mask_BL)
        return torch.einsum("bl,bld->bd", weight_BL, sequence_BLD)

    def _scores(self, query_BD: torch.Tensor, sequence_BLD: torch.Tensor) -> torch.Tensor:
        """Return the score of each item: the network on (q, k, q - k, q * k), without building that.

        W [q, k, q - k, q * k] = (W_1 + W_3) q + (W_2 - W_3) k + W_4 (q * k): the first term is computed once
        an example, and the others are half as wide as the whole.
        """
        first, *others = self.score
        assert isinstance(first, nn.Linear)  # noqa: S101  (for the type checker)
        query_HD, item_HD, difference_HD, product_HD = first.weight.chunk(4, dim=1)
        pair_BLD = torch.cat((sequence_BLD, query_BD.unsqueeze(1) * sequence_BLD), dim=-1)
        hidden_BLH = functional.linear(pair_BLD, torch.cat((item_HD - difference_HD, product_HD), dim=1))
        hidden_BH = functional.linear(query_BD, query_HD + difference_HD, first.bias)
        scores_BL1 = hidden_BLH + hidden_BH.unsqueeze(1)
        for layer in others:
            scores_BL1 = layer(scores_BL1)
        return scores_BL1.squeeze(-1)


def masked_softmax(score_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """Return the softmax of scores where the mask is true, [B, L]; zero elsewhere, and for an empty row."""
    return score_BL.masked_fill(~mask_BL, torch.finfo(score_BL.dtype).min).softmax(dim=1) * mask_BL
