"""The base model: one tower."""

import torch
from torch import nn

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import ModelConfig
from ctnet_ray.models.tower import Tower
from ctnet_ray.schema import Role, Schema


class BaseModel(nn.Module):
    """One tower and its logit.

    Args:
        schema: The tower's features.
        config: The tower's widths.
        reads: Which of a batch's inputs it reads: a source model reads "source".
        device: As for `Tower`.
    """

    def __init__(
        self, schema: Schema, config: ModelConfig, reads: Role, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        self.reads: Role = reads
        self.tower = Tower(schema, config, device)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        return self.tower(batch.inputs[self.reads]).logit_B
