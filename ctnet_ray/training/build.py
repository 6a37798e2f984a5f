"""From a plan to a torch module: the one place that knows every model."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from ctnet_ray.models.base import BaseModel
from ctnet_ray.models.ctnet import CTNet, ResidualModel
from ctnet_ray.models.joint.dasl import Dasl
from ctnet_ray.models.joint.ddtcdr import Ddtcdr
from ctnet_ray.models.joint.minet import MiNet
from ctnet_ray.models.joint.mlp_pp import MlpPP
from ctnet_ray.models.joint.ple import Ple
from ctnet_ray.models.tower import layer_widths
from ctnet_ray.runs.plan import ModelKind, ModelPlan
from ctnet_ray.schema import Role

Device = torch.device | str


def build_model(plan: ModelPlan, device: Device = "cpu") -> nn.Module:
    """Build the plan's model, unsharded.

    Args:
        plan: The model.
        device: Where embeddings are made; "meta" where they are to be sharded.

    Raises:
        CtnetError: The plan's options do not fit its towers.
    """
    return _BUILDERS[plan.kind](plan, device)


def given_layers(plan: ModelPlan) -> dict[str, int]:
    """Return the source tower's layers that come with the samples, with their widths."""
    if not (plan.layers_given and plan.source):
        return {}
    model = build_model(plan, "meta")
    assert isinstance(model, CTNet)  # noqa: S101
    widths = layer_widths(*plan.source)
    return {layer: widths[layer] for layer in model.adapters.reads}


def source_prefix(plan: ModelPlan) -> str | None:
    """Return what stands before the names of the source tower's parameters; None where it is not held."""
    if plan.layers_given:
        return None
    return "source_tower." if plan.source else "tower."


def learning_rates(plan: ModelPlan) -> tuple[dict[str, float], dict[str, float]]:
    """Return how the rates of some parameters differ from `training`'s.

    Returns:
        Multiples of the dense rate and of the embedding rate, each by prefix of the parameters' names.
    """
    adapters, residual = plan.transfer.adapters, plan.transfer.residual
    dense = {"adapters.": adapters.learning_rate, "residual.": residual.dense_learning_rate}
    return dense, {"residual.": residual.embedding_learning_rate}


def input_of(plan: ModelPlan, tables: str, domain: str) -> Role | None:
    """Return which of a batch's inputs a module of trained tables looks up.

    Args:
        plan: The model.
        tables: Name of the module.
        domain: The batch's domain.

    Returns:
        None: it looks nothing up in a batch of that domain.
    """
    if tables.startswith("residual."):
        return "source"
    own = f"embedders.{plan.domains.index(domain)}." if plan.kind == "ddtcdr" else ""
    return plan.reads if tables.startswith(own) else None


def _tower(plan: ModelPlan, device: Device) -> nn.Module:
    return BaseModel(plan.schema, plan.config, plan.reads, device)


def _ctnet(plan: ModelPlan, device: Device) -> nn.Module:
    assert plan.source  # noqa: S101
    target, transfer = (plan.schema, plan.config), plan.transfer
    residual = transfer.residual if plan.kind == "ctnet_residual" else None
    return CTNet(target, plan.source, transfer.adapters, residual, plan.shared, device, plan.layers_given)


def _residual(plan: ModelPlan, device: Device) -> nn.Module:
    assert plan.source  # noqa: S101
    return ResidualModel(plan.source, plan.transfer.residual, device)


def _joint(make: Callable[..., nn.Module]) -> Callable[[ModelPlan, Device], nn.Module]:
    def build(plan: ModelPlan, device: Device) -> nn.Module:
        return make(plan.schema, plan.config, plan.transfer.joint, plan.domains, device)

    return build


_BUILDERS: Mapping[ModelKind, Callable[[ModelPlan, Device], nn.Module]] = {
    "tower": _tower,
    "ctnet": _ctnet,
    "ctnet_residual": _ctnet,
    "residual": _residual,
    "mlp_pp": _joint(MlpPP),
    "ple": _joint(Ple),
    "minet": _joint(MiNet),
    "ddtcdr": _joint(Ddtcdr),
    "dasl": _joint(Dasl),
}
