"""Which of many methods stand in a plot that can't hold them all."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ctnet_ray.methods.table import METHODS
from ctnet_ray.metrics import LEADING
from ctnet_ray.report.differences import Line
from ctnet_ray.report.rows import Run

_FEW = 8


def featured(runs: Sequence[Run], lines: Sequence[Line], domain: str, baseline: str) -> list[str]:
    """Choose labels of a domain for plots by day: the baseline first, then one for each way to transfer.

    All labels where they are few. Else the label that bears its method's name for each method that stands
    alone (the method's first label where none does), and of fine-tuning and of joint training the label
    with the best AUC on the scored days.
    """
    here = [run for run in runs if run.record.domain == domain and run.steps]
    methods = {run.label: run.record.method for run in here}
    gains = {line.label: line.gain for line in lines if line.domain == domain and line.metric == LEADING}
    if len(methods) <= _FEW:
        chosen = list(methods)
    else:
        families = _families()
        alone = families.pop(None)
        chosen = [_best(methods, gains, family, baseline) for family in families.values()]
        chosen += [_plain(methods, name, baseline) for name in alone if name != "base"]
    others = [label for label in chosen if label and label != baseline]
    return [baseline] * (baseline in methods) + others


def _families() -> dict[str | None, list[str]]:
    """Return the methods by family; None: those that stand alone."""
    families: dict[str | None, list[str]] = defaultdict(list)
    for name, method in METHODS.items():
        families[method.family].append(name)
    return families


def _best(
    methods: Mapping[str, str], gains: Mapping[str, float | None], family: Sequence[str], baseline: str
) -> str:
    scored = {
        label: gain
        for label, method in methods.items()
        if method in family and label != baseline and (gain := gains.get(label)) is not None
    }
    return max(scored, key=lambda label: scored[label], default="")


def _plain(methods: Mapping[str, str], name: str, baseline: str) -> str:
    if name in methods and methods[name] == name:
        return name
    return next((label for label, method in methods.items() if method == name and label != baseline), "")
