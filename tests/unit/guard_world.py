"""Steps that go wrong: a trained model is changed before it is saved."""

from collections.abc import Callable
from datetime import date

import torch
from torch import nn

from ctnet_ray.runs.plan import RunPlan, StepPlan
from ctnet_ray.training.context import LocalContext, Moment
from ctnet_ray.training.state import TrainingState

Change = Callable[[nn.Linear], None]


def biased(output: nn.Linear) -> None:
    """Let every score be far too high."""
    output.bias.add_(6.0)


def flipped(output: nn.Linear) -> None:
    """Flip the highest bit of the exponent of one number: what is near 0.1 becomes something near 1e37."""
    output.bias.view(torch.int32)[0] ^= 1 << 30


def no_numbers(output: nn.Linear) -> None:
    """Let all weights be not a number."""
    output.weight.fill_(torch.nan)


class Spoiling(LocalContext):
    """A worker whose model changes after it was trained on a day; made by the fixture `spoiling`."""

    states: list[TrainingState]

    def __init__(self, day: date, change: Change) -> None:
        self._day, self._change = day, change

    def reached(self, moment: Moment, plan: RunPlan, step: StepPlan) -> None:
        if moment == "trained" and step.day == self._day:
            with torch.no_grad():
                output = self.states[-1].network.get_submodule("tower.mlp.output")
                assert isinstance(output, nn.Linear)
                self._change(output)
