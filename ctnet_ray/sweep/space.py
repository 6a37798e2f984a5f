"""From a sweep's space, as YAML says it, to settings of trials.

Distributions are Optuna's, for drawing at random and by its model alike. A list's values may be anything that
a configuration holds, so that they are drawn as JSON.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ctnet_ray.config import JobConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.variants import START
from ctnet_ray.section import override
from ctnet_ray.sweep.config import SweepConfig

Settings = dict[str, Any]  #: values by dotted name
_DRAWS = 100  #: draws for each trial before a space counts as used up
_STARTS = ("hot", "scratch")


def distributions(space: Mapping[str, Any], config: JobConfig) -> dict[str, BaseDistribution]:
    """Return what each setting is drawn from.

    Args:
        space: `sweep.space`.
        config: A configuration that the settings must fit.

    Raises:
        CtnetError: A name is not known, or a value does not fit it.
    """
    drawn_from = {name: _distribution(name, spec) for name, spec in space.items()}
    for name, distribution in drawn_from.items():
        for value in _ends(distribution):
            if name != START:
                override(config, {name: value})
            elif value not in _STARTS:
                raise CtnetError(f"sweep.space: start is hot or scratch, not {value!r}")
    return drawn_from


def settings(drawn: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> Settings:
    """Return the settings that drawn values stand for."""
    return {
        name: json.loads(value) if isinstance(space[name], CategoricalDistribution) else value
        for name, value in drawn.items()
    }


def drawn(values: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Return settings as they are drawn; the inverse of `settings`."""
    return {
        name: json.dumps(value) if isinstance(space[name], CategoricalDistribution) else value
        for name, value in values.items()
    }


def listed(sweep: SweepConfig, space: Mapping[str, BaseDistribution]) -> list[Settings]:
    """Return the settings of a grid's or a random search's trials, in their order.

    Raises:
        CtnetError: A grid has a setting that is no list, or more combinations than sweep.trials.
    """
    most = sweep.trials - 1 - len(sweep.presets)
    if not space:
        return []
    return _grid(space, most) if sweep.search == "grid" else _random(space, most, sweep.seed)


def _grid(space: Mapping[str, BaseDistribution], most: int) -> list[Settings]:
    choices = []
    for name, distribution in space.items():
        if not isinstance(distribution, CategoricalDistribution):
            raise CtnetError(f"sweep.space: {name} is no list, as a grid needs: choose sweep.search random")
        choices.append([(name, value) for value in distribution.choices])
    combinations = [settings(dict(values), space) for values in itertools.product(*choices)]
    if len(combinations) > most:
        raise CtnetError(
            f"sweep.space: the grid has {len(combinations)} combinations, and beside the default and the "
            f"presets sweep.trials leaves {most}: raise it, or choose sweep.search random"
        )
    return combinations


def _random(space: Mapping[str, BaseDistribution], most: int, seed: int) -> list[Settings]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    by_content: dict[str, Settings] = {}
    for _ in range(_DRAWS * most):
        if len(by_content) == most:
            break
        # A space of few combinations gives the same ones again.
        drawn_settings = settings(study.ask(dict(space)).params, space)
        by_content.setdefault(json.dumps(drawn_settings, sort_keys=True), drawn_settings)
    return list(by_content.values())


def _distribution(name: str, spec: Any) -> BaseDistribution:
    if isinstance(spec, list | tuple):
        if not spec:
            raise CtnetError(f"sweep.space: {name} has no values")
        return CategoricalDistribution([json.dumps(value) for value in spec])
    if isinstance(spec, Mapping) and len(spec) == 1:
        kind, values = next(iter(spec.items()))
        if kind == "subsets" and isinstance(values, list | tuple) and values:
            return CategoricalDistribution([json.dumps(subset) for subset in _subsets(values)])
        if kind in ("uniform", "loguniform", "randint") and _is_range(values, kind):
            low, high = values
            if kind == "randint":
                return IntDistribution(low, high)
            return FloatDistribution(low, high, log=kind == "loguniform")
    raise CtnetError(
        f"sweep.space: {name}: {spec!r} is none of [VALUE, ...], {{uniform: [LOW, HIGH]}}, "
        "{loguniform: [LOW, HIGH]}, {randint: [LOW, HIGH]}, {subsets: [NAME, ...]}"
    )


def _is_range(values: Any, kind: str) -> bool:
    if not (isinstance(values, list | tuple) and len(values) == 2):
        return False
    number = int if kind == "randint" else (int, float)
    if not all(isinstance(value, number) and not isinstance(value, bool) for value in values):
        return False
    return values[0] < values[1] and (kind != "loguniform" or values[0] > 0)


def _subsets(names: Sequence[Any]) -> list[list[Any]]:
    return [
        list(subset) for size in range(1, len(names) + 1) for subset in itertools.combinations(names, size)
    ]


def _ends(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return [json.loads(str(value)) for value in distribution.choices]
    assert isinstance(distribution, FloatDistribution | IntDistribution)  # noqa: S101
    return [distribution.low, distribution.high]
