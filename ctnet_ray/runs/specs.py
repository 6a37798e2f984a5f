"""Which model is built, as plain data: a specification for each kind of network.

Each says, without torch:

    network       the network's name in `ctnet_ray.models.registry`, which builds it
    inputs        the features of each input that its batches have
    source        the frozen source tower that it stands on, if any
    tower         features and widths of the tower that is trained
    domains       the domains that it tells apart, if it does
    given_layers  the layers of the source tower that come with the samples, with their widths

A version's manifest holds the specification of its model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from ctnet_ray import schema as schemas
from ctnet_ray.config import AdapterConfig, JointConfig, ModelConfig, ResidualConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.layers import FEATURES, layer_widths, placed_layers, source_layers
from ctnet_ray.schema import Role, Schema

#: In a manifest as in a schema file.
_Schema = Annotated[
    Schema,
    PlainValidator(lambda value: value if isinstance(value, Schema) else schemas.from_dict(value)),
    PlainSerializer(Schema.to_dict),
]


@dataclass(frozen=True)
class SharedAttention:
    """Attention that is computed once for both towers."""

    features: tuple[str, ...] = ()
    """Sequences that share it."""
    owner: Role = "source"
    """Tower whose attention, and embeddings under it, serve both."""

    def given_to(self, role: Role) -> tuple[str, ...]:
        """Return the sequences whose vectors a tower gets from the other one."""
        return () if role == self.owner else self.features


NOTHING_SHARED = SharedAttention()


@dataclass(frozen=True)
class TowerSpec:
    """One tower."""

    schema: _Schema
    """Its features."""
    config: ModelConfig
    """Its widths."""
    role: Role
    """Input that it reads."""
    kind: Literal["tower"] = "tower"

    network: ClassVar[str] = "tower"
    source: ClassVar[None] = None
    domains: ClassVar[tuple[str, ...]] = ()
    given_layers: ClassVar[Mapping[str, int]] = {}

    @property
    def inputs(self) -> dict[Role, Schema]:
        """Features by input."""
        return {self.role: self.schema}

    @property
    def tower(self) -> tuple[Schema, ModelConfig]:
        """Features and widths."""
        return self.schema, self.config

    @property
    def frozen(self) -> tuple[Schema, ModelConfig]:
        """Features and widths of the tower where it is frozen: it drops no unit, for nothing trains it."""
        return self.schema, replace(self.config, dropout=0.0)

    @property
    def layers(self) -> dict[str, int]:
        """Layers with their widths."""
        return layer_widths(self.schema, self.config)


@dataclass(frozen=True)
class CTNetSpec:
    """The target's tower, adapters, and the frozen source tower, which may have a residual."""

    target: TowerSpec
    source: TowerSpec
    adapters: AdapterConfig
    residual: ResidualConfig | None = None
    """What the target adds to the source tower; None: nothing."""
    shared: SharedAttention = NOTHING_SHARED
    """Attention that both towers share."""
    layers_given: Annotated[bool, Field(exclude=True)] = False
    """Whether the source tower's layers come with the samples; a version is the same with and without."""
    kind: Literal["ctnet"] = "ctnet"

    network: ClassVar[str] = "ctnet"
    domains: ClassVar[tuple[str, ...]] = ()

    @property
    def inputs(self) -> dict[Role, Schema]:
        """Features by input; of sequences that share attention, its owner's alone."""
        towers = (self.target,) if self.layers_given else (self.target, self.source)
        return {tower.role: tower.schema.without(self.shared.given_to(tower.role)) for tower in towers}

    @property
    def tower(self) -> tuple[Schema, ModelConfig]:
        """Features and widths of the target's tower."""
        return self.target.tower

    @property
    def source_layers(self) -> dict[str, str]:
        """Layers of the target with an adapter, `FEATURES` among them, and the source layer that it maps.

        Raises:
            CtnetError: One of the towers has not such a layer.
        """
        placed = placed_layers(self.adapters, (FEATURES, *self.target.layers))
        return source_layers(self.adapters, placed, self.source.layers)

    @property
    def given_layers(self) -> dict[str, int]:
        """Layers that come with the samples: those that adapters map, where they do."""
        read = dict.fromkeys(self.source_layers.values()) if self.layers_given else ()
        return {layer: self.source.layers[layer] for layer in read}


@dataclass(frozen=True)
class ResidualSpec:
    """The frozen source tower with a residual, alone."""

    source: TowerSpec
    residual: ResidualConfig
    kind: Literal["residual"] = "residual"

    network: ClassVar[str] = "residual"
    domains: ClassVar[tuple[str, ...]] = ()
    given_layers: ClassVar[Mapping[str, int]] = {}

    @property
    def inputs(self) -> dict[Role, Schema]:
        """Features by input."""
        return self.source.inputs

    @property
    def tower(self) -> tuple[Schema, ModelConfig]:
        """Features and widths of the source tower, which the residual's are."""
        return self.source.tower


@dataclass(frozen=True)
class JointSpec:
    """A network that is trained on the samples of two domains together."""

    network: str
    schema: _Schema
    """Features of both domains (`Schema.joint`)."""
    config: ModelConfig
    joint: JointConfig
    """What the network has of it."""
    domains: tuple[str, str]
    """Source and target."""
    kind: Literal["joint"] = "joint"

    source: ClassVar[None] = None
    given_layers: ClassVar[Mapping[str, int]] = {}

    @property
    def inputs(self) -> dict[Role, Schema]:
        """Features by input: one for both domains."""
        return {"target": self.schema}

    @property
    def tower(self) -> tuple[Schema, ModelConfig]:
        """Features and widths of the whole network."""
        return self.schema, self.config


ModelSpec = TowerSpec | CTNetSpec | ResidualSpec | JointSpec
_PLAIN: TypeAdapter[ModelSpec] = TypeAdapter(Annotated[ModelSpec, Field(discriminator="kind")])


def to_dict(spec: ModelSpec) -> dict[str, Any]:
    """Return plain data, for a version's manifest."""
    return _PLAIN.dump_python(spec, mode="json")


def from_dict(values: Any) -> ModelSpec:
    """Read plain data, which may be anything.

    Raises:
        CtnetError: The schema in it is not valid, or another release wrote it.
    """
    try:
        return _PLAIN.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"][1:])) or "kind"  # behind the kind
        absent = first["type"] in ("missing", "union_tag_not_found")
        fault = f"no {path!r}" if absent else f"a {path!r} that is wrong ({first['msg']})"
        raise CtnetError(
            f"a version's model has {fault}: another release wrote it: train it again"
        ) from error
