"""Which of many methods stand in a plot that can't hold them all."""

from collections.abc import Mapping, Sequence

from ctnet_ray.report.differences import Line
from ctnet_ray.report.rows import Run
from ctnet_ray.report.windows import FINETUNING

JOINT = ("mlp_pp", "ple", "minet", "ddtcdr", "dasl")
ALONE = ("source_direct", "ctnet_one_time", "ctnet", "residual", "ctnet_residual")
_FEW = 8


def featured(runs: Sequence[Run], lines: Sequence[Line], domain: str, baseline: str) -> list[str]:
    """Choose labels of a domain for plots by day: the baseline first, then one for each way to transfer.

    All labels where they are few. Else the label that bears its method's name for each method that stands
    alone (the method's first label where none does), and of fine-tuning and of joint training the label
    with the best AUC on the scored days.
    """
    here = [run for run in runs if run.record.domain == domain and run.steps]
    methods = {run.label: run.record.method for run in here}
    gains = {line.method: line.gain for line in lines if line.domain == domain and line.metric == "auc"}
    if len(methods) <= _FEW:
        chosen = list(methods)
    else:
        chosen = [_best(methods, gains, FINETUNING, baseline), _best(methods, gains, JOINT, baseline)]
        chosen += [_plain(methods, name, baseline) for name in ALONE]
    kept = [label for label in chosen if label and label != baseline]
    return [baseline] * (baseline in methods) + kept


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
