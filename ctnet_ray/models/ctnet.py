"""CTNet: the frozen source tower beside the target tower, adapters between their layers.

Liu et al., "Continual Transfer Learning for Cross-Domain Click-Through Rate Prediction at Taobao",
arXiv 2208.05728, section 3: h_t^l + GLU_l(h_s^l) for every placed layer l. The source tower is fixed in
back-propagation and replaced by a newer version of itself between days. With a residual
(`ctnet_ray.models.source`) the source tower is read at embeddings that the target has moved.

The target's own terms beside its MLP (`ctnet_ray.models.terms`) are added to h at the logit, on its own
vectors as they were looked up; the source's are in its logit, which an adapter may map.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from ctnet_ray.batches.batch import Batch
from ctnet_ray.models.adapters import FUSIONS
from ctnet_ray.models.base import Device, Model, part, reading
from ctnet_ray.models.embedding import Tables, Vectors, concatenate, vector_names
from ctnet_ray.models.source import Residual, frozen_output, frozen_vectors
from ctnet_ray.models.tower import Tower
from ctnet_ray.runs.layers import common_features, widths
from ctnet_ray.runs.specs import CTNetSpec
from ctnet_ray.schema import Role


class CTNet(Model):
    """Two towers and the adapters between them.

    Args:
        spec: Towers, adapters, residual.
        device: As for `Tower`.

    Raises:
        CtnetError: The placement names a layer that one of the towers has not.
    """

    def __init__(self, spec: CTNetSpec, device: Device = "cpu") -> None:
        super().__init__()
        self.shared = spec.shared
        dims = widths(spec.source.schema)
        self._source_dims = {name: dims[name] for name in vector_names(spec.source.schema)}
        given = self.shared.given_to("source")
        with part("tower"):
            self.tower = Tower(*spec.target.tower, device, self.shared.given_to("target"))
        with part("source_tower"):
            source_tower = None if spec.layers_given else Tower(*spec.source.frozen, device, given)
            self.source_tower = source_tower.requires_grad_(False) if source_tower else None
        self.residual = Residual(spec.source, spec.residual, device, given) if spec.residual else None
        with part("adapters"):
            self.adapters = FUSIONS[spec.adapters.fusion](
                spec.adapters,
                spec.source.layers,
                spec.target.layers,
                common_features(spec.target.schema, spec.source.schema),
            )

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        if not self._transfers():
            return self.tower(batch.inputs["target"], batch.dense.get("target")).logit_B
        target, source = self._vectors(batch)
        if not self.adapters:
            return self.tower.run(target).logit_B
        fuse, h_source = self.adapters, self._source_layers(batch, source)
        h = fuse("embedding", concatenate(fuse.adapt(target, source)), h_source)
        for layer, linear in self.tower.mlp.by_layer():
            h = fuse(layer, linear(h), h_source)
        return self.tower.terms.added_to(h.squeeze(1), target)

    def _transfers(self) -> bool:
        """Whether anything comes from the source tower."""
        return bool(self.adapters or self.shared.features)

    def _vectors(self, batch: Batch) -> tuple[Vectors, Vectors]:
        """Return the target's and the source's feature vectors, the owner of shared attention first."""
        features, dense_BF = batch.inputs["target"], batch.dense.get("target")
        if self.source_tower is None:
            return self.tower.embedder(features, dense_BF=dense_BF), self._given_vectors(batch)
        if self.shared.owner == "source":
            source = frozen_vectors(self.source_tower, self.residual, batch)
            given = {name: source[name] for name in self.shared.features}
            return self.tower.embedder(features, given, dense_BF), source
        target = self.tower.embedder(features, dense_BF=dense_BF)
        given = {name: target[name].detach() for name in self.shared.features}
        return target, frozen_vectors(self.source_tower, self.residual, batch, given)

    def _given_vectors(self, batch: Batch) -> Vectors:
        """Return the source's feature vectors, where its embedding layer came with the batch."""
        if "embedding" not in batch.frozen_layers:
            return {}
        parts = batch.frozen_layers["embedding"].split(list(self._source_dims.values()), dim=1)
        return dict(zip(self._source_dims, parts, strict=True))

    def _source_layers(self, batch: Batch, vectors: Vectors) -> Mapping[str, torch.Tensor]:
        """Return the source tower's layers by name, [B, width] each."""
        if self.source_tower is None:
            return batch.frozen_layers
        return frozen_output(self.source_tower, self.residual, vectors).layers()

    def lookups(self, domain: str) -> list[tuple[Tables, Role]]:
        """Return the towers' tables and the residual's, in a batch of any domain."""
        looked_up = reading(self.tower.embedder.tables(), "target")
        if self.source_tower is not None and self._transfers():
            looked_up += reading(self.source_tower.embedder.tables(), "source")
            if self.residual is not None:
                looked_up += reading(self.residual.tables(), "source")
        return looked_up

    def frozen(self) -> Tower | None:
        """Return the source tower, unless its layers come with the batch."""
        return self.source_tower

    def beyond_base(self) -> tuple[nn.Module, ...]:
        """Return adapters and residual."""
        return (self.adapters, *([self.residual] if self.residual else []))

    def input_layers(self) -> dict[nn.Linear, bool]:
        """Return the target tower's."""
        return self.tower.input_layers()

    def parts_of(self, features: Iterable[str]) -> list[nn.Module]:
        """Return the target tower's."""
        return self.tower.embedder.attention_of(features)

    def added_tables(self) -> Mapping[Tables, Tables]:
        """Return the residual's."""
        if self.residual is None or self.source_tower is None:
            return {}
        return {self.residual.embeddings: self.source_tower.embedder.embeddings}

    def learning_rates(self) -> Mapping[nn.Module, float]:
        """Return the adapters', and the residual's."""
        residual = self.residual.learning_rates() if self.residual else {}
        return {self.adapters: self.adapters.config.learning_rate, **residual}
