"""CTNet: the frozen source tower beside the target tower, adapters between their layers.

Liu et al., "Continual Transfer Learning for Cross-Domain Click-Through Rate Prediction at Taobao",
arXiv 2208.05728, section 3: h_t^l + GLU_l(h_s^l) for every placed layer l. The source tower is fixed in
back-propagation and replaced by a newer version of itself between days. With a residual
(`ctnet_ray.models.source`) the source tower is read at embeddings that the target has moved.
"""

import torch
from torch import nn

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import AdapterConfig, ModelConfig, ResidualConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.models.adapters import Adapters
from ctnet_ray.models.embedding import Vectors
from ctnet_ray.models.source import Residual, frozen_output, frozen_vectors
from ctnet_ray.models.tower import Tower, layer_widths
from ctnet_ray.runs.specs import NOTHING_SHARED, SharedAttention
from ctnet_ray.schema import Schema


class CTNet(nn.Module):
    """Two towers and the adapters between them.

    Args:
        target: The target tower's features and widths.
        source: The source tower's features and widths.
        adapters: Placement, gate, fusion, initialisation.
        residual: What the target adds to the source tower; None: nothing.
        shared: Attention that both towers share.
        device: As for `Tower`.
        layers_given: Whether the source tower's layers come with the batch; the model has no such tower.

    Raises:
        CtnetError: The placement names a layer that one of the towers has not.
    """

    def __init__(
        self,
        target: tuple[Schema, ModelConfig],
        source: tuple[Schema, ModelConfig],
        adapters: AdapterConfig,
        residual: ResidualConfig | None = None,
        shared: SharedAttention = NOTHING_SHARED,
        device: torch.device | str = "cpu",
        layers_given: bool = False,
    ) -> None:
        super().__init__()
        self.shared = shared
        self.tower = Tower(*target, device, shared.given_to("target"))
        # Made even where it is not kept: adapters start from the same random numbers with and without it.
        source_tower = Tower(*source, device, shared.given_to("source")).requires_grad_(False)
        self.source_tower = None if layers_given else source_tower
        self._source_dims = {
            feature.name: source[0].table(feature.table).dim for feature in source_tower.embedder.features
        }
        self.residual = Residual(*source, residual, device, shared.given_to("source")) if residual else None
        self.adapters = Adapters(
            adapters, layer_widths(*source), layer_widths(*target), common_features(target[0], source[0])
        )

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        if not self.adapters and not self.shared.features:
            return self.tower(batch.inputs["target"]).logit_B
        target, source = self._vectors(batch)
        if not self.adapters:
            return self.tower.run(target).logit_B
        layers = batch.frozen_layers
        if self.source_tower is not None:
            layers = frozen_output(self.source_tower, self.residual, source).layers()
        return self.tower.run(self.adapters.adapt(target, source), *self.adapters.changes(layers)).logit_B

    def _vectors(self, batch: Batch) -> tuple[Vectors, Vectors]:
        """Return the target's and the source's feature vectors, the owner of shared attention first."""
        own = batch.inputs["target"]
        if self.source_tower is None:
            return self.tower.embedder(own), self._given_vectors(batch)
        other = batch.inputs["source"]
        if self.shared.owner == "source":
            source = frozen_vectors(self.source_tower, self.residual, other)
            given = {name: source[name] for name in self.shared.features}
            return self.tower.embedder(own, given), source
        target = self.tower.embedder(own)
        given = {name: target[name].detach() for name in self.shared.features}
        return target, frozen_vectors(self.source_tower, self.residual, other, given)

    def _given_vectors(self, batch: Batch) -> Vectors:
        """Return the source's feature vectors, where its embedding layer came with the batch."""
        if "embedding" not in batch.frozen_layers:
            return {}
        parts = batch.frozen_layers["embedding"].split(list(self._source_dims.values()), dim=1)
        return dict(zip(self._source_dims, parts, strict=True))


class ResidualModel(nn.Module):
    """The source tower with a residual, alone.

    Args:
        source: The source tower's features and widths.
        residual: What the target adds to it.
        device: As for `Tower`.
    """

    def __init__(
        self,
        source: tuple[Schema, ModelConfig],
        residual: ResidualConfig,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.source_tower = Tower(*source, device).requires_grad_(False)
        self.residual = Residual(*source, residual, device)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        vectors = frozen_vectors(self.source_tower, self.residual, batch.inputs["source"])
        return frozen_output(self.source_tower, self.residual, vectors).logit_B


def common_features(target: Schema, source: Schema) -> dict[str, int]:
    """Return the features that both towers have, with the width of their vectors."""
    there = {feature.name for feature in source.features}
    return {
        feature.name: target.table(feature.table).dim for feature in target.features if feature.name in there
    }


def shared_sequences(wanted: tuple[str, ...], target: Schema, source: Schema) -> tuple[str, ...]:
    """Return the sequences whose attention both towers share.

    Args:
        wanted: `transfer.share_attention`.
        target: The target tower's features.
        source: The source tower's features.

    Raises:
        CtnetError: A sequence has no attention in both towers.
    """
    both = common_features(target, source)
    possible = tuple(
        feature.name for feature in target.features if feature.attends_to and feature.name in both
    )
    if wanted == ("all",):
        return possible
    unknown = sorted(set(wanted) - set(possible))
    if unknown:
        raise CtnetError(
            f"transfer.share_attention: {unknown[0]!r} has no attention in both towers; "
            f"{', '.join(possible) or 'no sequence'} has"
        )
    return tuple(name for name in possible if name in wanted)
