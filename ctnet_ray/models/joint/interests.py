"""A user's clicks in one domain, as a sequence of vectors beside the item that is scored.

The sequences of a domain (`Feature.clicks_in`) are columns of the same clicks, such as the items and their
categories: side by side they make one vector a click.

Shapes: B examples, L longest sequence of the batch, D width of a click, all columns together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ctnet_ray.errors import CtnetError
from ctnet_ray.models.embedding import Looked, pad
from ctnet_ray.schema import Schema


@dataclass(frozen=True)
class Clicks:
    """Where the clicks in one domain stand."""

    columns: tuple[str, ...]
    """Sequences of the domain's clicks."""
    attended: tuple[str, ...]
    """The scored item's features that they are compared with, one a column."""
    width: int
    """Width D of a click, and of the attended features side by side."""

    def sequence(self, looked: Looked) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the clicks as clicks_BLD, zero where there is none, and mask_BL."""
        return side_by_side([pad(looked[name]) for name in self.columns])

    def query(self, looked: Looked) -> torch.Tensor:
        """Return the scored item in the place of a click, [B, D]."""
        return torch.cat([looked[name].values() for name in self.attended], dim=1)


def clicks_in(schema: Schema, domain: str) -> Clicks:
    """Find the sequences of a domain's clicks.

    Raises:
        CtnetError: One of them attends to nothing.
    """
    columns = [feature for feature in schema.features if feature.clicks_in == domain]
    for feature in columns:
        if not feature.attends_to:
            raise CtnetError(
                f"schema: features.{feature.name}.attends_to: minet and dasl need it beside clicks_in: "
                "name the feature of the scored item that the clicks are compared with"
            )
    return Clicks(
        tuple(feature.name for feature in columns),
        tuple(feature.attends_to for feature in columns if feature.attends_to),
        sum(schema.table(feature.table).dim for feature in columns),
    )


def all_clicks(schema: Schema) -> tuple[str, ...]:
    """Return the sequences that hold clicks in one domain."""
    return tuple(feature.name for feature in schema.features if feature.clicks_in)


def profile(schema: Schema, item: Sequence[str]) -> tuple[str, ...]:
    """Return the features that are neither of the scored item nor sequences."""
    return tuple(
        feature.name for feature in schema.features if feature.name not in item and feature.kind != "sequence"
    )


def side_by_side(padded: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Join sequences of the same clicks, each as (sequence_BLD, mask_BL) with an L and D of its own.

    The last of all, the most recent, stand side by side: a shorter sequence lacks the oldest clicks.
    """
    if len(padded) == 1:
        return padded[0]
    mask_BL = max((mask for _, mask in padded), key=lambda mask: mask.shape[1])
    lengths = torch.stack([mask.sum(dim=1) for _, mask in padded])
    longest_B = lengths.amax(dim=0)
    place_BL = torch.arange(mask_BL.shape[1], device=mask_BL.device).expand(mask_BL.shape)
    columns = []
    for (sequence_BLD, _), lengths_B in zip(padded, lengths, strict=True):
        column_BL = place_BL - (longest_B - lengths_B).unsqueeze(1)
        index_BL1 = column_BL.clamp(0, sequence_BLD.shape[1] - 1).unsqueeze(2)
        there_BL1 = ((column_BL >= 0) & (column_BL < lengths_B.unsqueeze(1))).unsqueeze(2)
        columns.append(sequence_BLD.gather(1, index_BL1.expand(-1, -1, sequence_BLD.shape[2])) * there_BL1)
    return torch.cat(columns, dim=2), place_BL < longest_B.unsqueeze(1)
