"""All methods. A further one on a model that is there is a row of this table, and nothing else.

A method with a network of its own is a row and a file in `ctnet_ray/models/`.
"""

from collections.abc import Mapping

from ctnet_ray.methods.method import Method

_CTNET = "Liu et al., arXiv 2208.05728, section 3"
_ADAPTERS = ("adapters", "share_attention", "shared_attention")
_CONTRASTS = "Liu et al., arXiv 2208.05728, section 4.3"

#: By name, in the order of tables.
METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("base", "the target's own tower, trained on the target's days", starts_from_base=True),
        # What re-reading days brings without any source (variants base_last_7, base_all_days).
        Method(
            "base_retrained",
            "the target's own tower, trained anew on a window of the target's days at every step",
            reuse="nothing",
        ),
        Method(
            "source_direct",
            "the newest source model on the target's samples, untrained",
            "Liu et al., arXiv 2208.05728, table 2",
            reads="source",
            trains=False,
            source="continual",
        ),
        # A step begins anew from the source, so that it has to go back over earlier target days
        # (transfer.window) to know what they taught.
        Method(
            "finetune_all",
            "the newest source model, trained on a window of the target's days at every step",
            _CONTRASTS,
            reads="source",
            source="continual",
            reuse="all",
        ),
        # Attention, MLP and the tables that the source has not go on from the step before: they are the
        # target's own, hot-started from its base model.
        Method(
            "finetune_embeddings",
            "the target's tower on the newest source embeddings, trained on a window of days at every step",
            _CONTRASTS,
            source="continual",
            reuse="embeddings",
            starts_from_base=True,
        ),
        Method(
            "mlp_pp",
            "joint training: shared embeddings, an MLP for each domain",
            "Hu et al., CIKM 2018",
            model="mlp_pp",
            joint=True,
        ),
        Method(
            "ple",
            "joint training: shared and domain experts under gates, layer by layer",
            "Tang et al., RecSys 2020",
            model="ple",
            joint=True,
            options=("joint.shared_experts", "joint.domain_experts"),
        ),
        Method(
            "minet",
            "joint training: attention over long-term, source and target interests",
            "Ouyang et al., CIKM 2020",
            model="minet",
            joint=True,
            interests=True,
        ),
        Method(
            "ddtcdr",
            "joint training: each domain's network also sees the other's users through an orthogonal map",
            "Li and Tuzhilin, WSDM 2020",
            model="ddtcdr",
            joint=True,
            options=("joint.transfer_share",),
        ),
        Method(
            "dasl",
            "joint training: dual embeddings and attention over the clicks of both domains",
            "Li et al., WSDM 2021",
            model="dasl",
            joint=True,
            interests=True,
        ),
        Method(
            "ctnet_one_time",
            "CTNet whose source tower is loaded at the first step and never again",
            _CTNET,
            model="ctnet",
            source="once",
            starts_from_base=True,
            placement=("hidden",),
            options=_ADAPTERS,
        ),
        Method(
            "ctnet",
            "target tower and adapters over a source tower that is refreshed daily",
            _CTNET,
            model="ctnet",
            source="continual",
            starts_from_base=True,
            placement=("hidden",),
            options=_ADAPTERS,
        ),
        # Fine-tuning made continual: each target day is seen once. Equations: `ctnet_ray.models.source`.
        Method(
            "residual",
            "the source tower, refreshed daily, with residual embeddings of the target's own",
            model="residual",
            source="continual",
            options=("residual",),
        ),
        # Equations: `ctnet_ray.models.source` and `ctnet_ray.models.ctnet`.
        Method(
            "ctnet_residual",
            "CTNet whose source tower is read at residual embeddings",
            model="ctnet_residual",
            source="continual",
            starts_from_base=True,
            placement=("hidden", "logit"),
            options=(*_ADAPTERS, "residual"),
        ),
    )
}

#: Those whose windows (transfer.window) are variants by name, as finetune_all_7.
FINETUNING = tuple(name for name, method in METHODS.items() if method.family == "fine-tuning")
