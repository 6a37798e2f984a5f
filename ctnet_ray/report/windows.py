"""Quality against the number of days that fine-tuning trains on: the paper's table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctnet_ray.methods.table import FINETUNING
from ctnet_ray.report.costs import Cost
from ctnet_ray.report.differences import Line
from ctnet_ray.report.rows import Run


@dataclass(frozen=True)
class Window:
    """One fine-tuning label on one domain."""

    method: str
    """Which fine-tuning: finetune_all or finetune_embeddings."""
    label: str
    all_days: bool
    """Whether it trains on all days that there are; `days` is then their mean number."""
    days: float
    """Days of target samples that a step trains on."""
    cost: Cost
    lines: Mapping[str, Line]
    """Its lines by metric."""


def windows(runs: Sequence[Run], lines: Sequence[Line], costs: Sequence[Cost], domain: str) -> list[Window]:
    """Return the fine-tuning labels of a domain by method and number of days."""
    spent = {cost.label: cost for cost in costs if cost.domain == domain}
    by_label = {}
    for run in runs:
        transfer = run.record.config.get("transfer", {})
        if run.record.domain != domain or run.label not in spent or transfer.get("method") not in FINETUNING:
            continue
        window, cost = transfer.get("window", 1), spent[run.label]
        by_metric = {line.metric: line for line in lines if (line.domain, line.label) == (domain, run.label)}
        days = cost.target_days if window is None else float(window)
        by_label[run.label] = Window(transfer["method"], run.label, window is None, days, cost, by_metric)
    return sorted(by_label.values(), key=lambda window: (window.method, window.days))
