"""PLE: layers of shared and domain experts, mixed by gates.

Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized
Recommendations", RecSys 2020, sections 4.1 (CGC, one layer) and 4.2 (PLE, N of them). Task k of the paper is
a domain here: both are clicks, on samples of their own. In extraction layer j domain k has m_k experts, which
read g^{k,j-1}; m_s shared experts read g^{s,j-1}; g^{k,0} = g^{s,0} = e(x), the embeddings. Then

    g^{k,j} = softmax(W^{k,j} g^{k,j-1}) S^{k,j}        S^{k,j}: the m_k own and m_s shared experts' outputs
    g^{s,j} = softmax(W^{s,j} g^{s,j-1}) S^{s,j}        S^{s,j}: the outputs of all 2 m_k + m_s experts
    logit   = MLP_k(g^{k,N})                            the tower

The last layer has no shared gate. So a domain's gates never weigh an expert of the other domain, but where
there are several layers they reach it by way of the shared gates below the last.

What differs: an expert is one linear map with ReLU, where the paper leaves its depth open. Extraction layers
have the widths of `hidden` but the last, and towers one hidden layer with the last; a single width makes one
extraction layer with linear towers. A step reads samples of one domain, so that the last layer computes that
domain alone; in the paper a sample has the labels of all tasks.

Shapes: B examples, I width of a layer's input, H width of its experts, N experts that a gate weighs.
"""

from itertools import pairwise

import torch
from torch import nn

from ctnet_ray.batches.batch import Batch
from ctnet_ray.config import JointConfig
from ctnet_ray.models.base import Device
from ctnet_ray.models.embedding import Embedder, concatenate
from ctnet_ray.models.joint.parts import ByDomain, JointModel, index_of
from ctnet_ray.models.mlp import Mlp
from ctnet_ray.runs.layers import width
from ctnet_ray.runs.specs import JointSpec


class Experts(nn.Module):
    """Several experts that read the same input, as one linear map.

    Args:
        inputs: Width I.
        width: Width H of each expert.
        count: How many.

    Shapes:
        [B, I] -> [B, count, H].
    """

    def __init__(self, inputs: int, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.map = nn.Linear(inputs, count * width)

    def forward(self, state_BI: torch.Tensor) -> torch.Tensor:
        """Return all experts' outputs."""
        return torch.relu(self.map(state_BI)).unflatten(1, (self.count, -1))


class Gate(nn.Module):
    """Weights of experts that depend on the input.

    Args:
        inputs: Width I.
        count: Number N of the experts.

    Shapes:
        state_BI, experts_BNH -> [B, H].
    """

    def __init__(self, inputs: int, count: int) -> None:
        super().__init__()
        self.score = nn.Linear(inputs, count, bias=False)

    def weights(self, state_BI: torch.Tensor) -> torch.Tensor:
        """Return the weights, [B, N]: above zero, with sum one."""
        return self.score(state_BI).softmax(dim=1)

    def forward(self, state_BI: torch.Tensor, experts_BNH: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of the experts' outputs."""
        return torch.einsum("bn,bnh->bh", self.weights(state_BI), experts_BNH)


class Extraction(nn.Module):
    """One extraction layer.

    Args:
        inputs: Width I.
        width: Width H of each expert.
        joint: Numbers of experts.
        last: Whether it is the last layer, which has no shared gate.
    """

    def __init__(self, inputs: int, width: int, joint: JointConfig, last: bool) -> None:
        super().__init__()
        experts, shared = joint.domain_experts, joint.shared_experts
        self.experts = nn.ModuleList(Experts(inputs, width, experts) for _ in range(2))
        self.shared_experts = Experts(inputs, width, shared)
        self.gates = nn.ModuleList(Gate(inputs, experts + shared) for _ in range(2))
        self.shared_gate = None if last else Gate(inputs, 2 * experts + shared)

    def extract(self, domain: int, state_BI: torch.Tensor, shared_BI: torch.Tensor) -> torch.Tensor:
        """Return one domain's state above this layer, g^{k,j}, [B, H].

        Args:
            domain: Place k of the domain, 0 or 1.
            state_BI: Its state below, g^{k,j-1}.
            shared_BI: The shared state below, g^{s,j-1}.
        """
        experts = self.experts[domain](state_BI), self.shared_experts(shared_BI)
        return self.gates[domain](state_BI, torch.cat(experts, dim=1))

    def forward(
        self, states: tuple[torch.Tensor, torch.Tensor], shared_BI: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return both domains' states and the shared one above this layer, which is not the last."""
        assert self.shared_gate is not None, "the last layer has no shared gate"  # noqa: S101
        by_domain = [experts(state_BI) for experts, state_BI in zip(self.experts, states, strict=True)]
        shared = self.shared_experts(shared_BI)
        first_BH, second_BH = (
            gate(state_BI, torch.cat((experts_BNH, shared), dim=1))
            for gate, state_BI, experts_BNH in zip(self.gates, states, by_domain, strict=True)
        )
        return (first_BH, second_BH), self.shared_gate(shared_BI, torch.cat((*by_domain, shared), dim=1))


class Ple(JointModel, network="ple"):
    """Shared embeddings, extraction layers, one tower a domain.

    Args:
        spec: Features, widths, domains.
        device: As for `Embedder`.
    """

    def __init__(self, spec: JointSpec, device: Device = "cpu") -> None:
        super().__init__(spec, device)
        hidden = spec.config.hidden
        extracted = hidden[:-1] or hidden
        self.embedder = Embedder(spec.schema, spec.config, device)
        self.extractions = nn.ModuleList(
            Extraction(narrow, wide, spec.joint, last=index == len(extracted))
            for index, (narrow, wide) in enumerate(pairwise([width(spec.schema), *extracted]), start=1)
        )
        self.towers = ByDomain(spec.domains, lambda: Mlp(extracted[-1], hidden[len(extracted) :]))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits, [B]."""
        shared = concatenate(self.embedder(batch.inputs["target"], dense_BF=batch.dense.get("target")))
        states = shared, shared
        *below, last = self.extractions
        for extraction in below:
            states, shared = extraction(states, shared)
        domain = index_of(batch, self.domains)
        assert isinstance(last, Extraction)  # noqa: S101  (for the type checker)
        return self.towers.of(batch)(last.extract(domain, states[domain], shared))
