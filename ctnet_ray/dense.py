"""Dense features: numbers that a tower reads as they are, standardised, beside its embeddings.

In a schema file (`ctnet_ray.schema`), among the other features:

    price: {kind: dense, transform: log1p, mean: 3.2, std: 1.1, clip: 4}
    photo: {kind: dense, width: 64}                                              # a vector, as it is
    user_clicks: {kind: dense, transform: log1p, counts_in: feed, domains: [feed, channel]}

A tower reads clip((transform(x) - mean) / std) within -clip and clip, and 0, the mean, where x is missing.
On disk a number is a column of floats or integers, a vector one of lists of `width` floats; NaN and null are
missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ctnet_ray.errors import CtnetError
from ctnet_ray.plain_data import is_finite, names, positive, section
from ctnet_ray.roles import ROLES, Role, towers

Transform = Literal["identity", "log1p"]
Numbers = float | tuple[float, ...]  #: one for all elements of a vector, or one for each

DENSE = "dense"  #: the kind, in a schema file


@dataclass(frozen=True)
class DenseFeature:
    """A number, or a vector of them, that is looked up nowhere."""

    name: str
    """Name of the sample column."""
    width: int = 1
    """Numbers in it."""
    transform: Transform = "identity"
    """What is done first: nothing, or log(1 + x)."""
    mean: Numbers = 0.0
    """Mean of the transformed values."""
    std: Numbers = 1.0
    """Their standard deviation, above 0."""
    clip: float | None = None
    """Largest distance from the mean, in standard deviations; None: any."""
    counts_in: str | None = None
    """Domain whose impressions or clicks it counts: a statistic. Which towers read it depends on it
    (`Schema.for_tower`)."""
    towers: tuple[Role, ...] = ROLES
    """Towers that use the feature."""
    domains: tuple[str, ...] = ()
    """Domains whose samples have the feature; elsewhere it reads as missing. Empty: all domains."""

    def present_in(self, domain: str) -> bool:
        """Whether samples of `domain` have this feature's column."""
        return not self.domains or domain in self.domains

    def to_dict(self) -> dict[str, Any]:
        """Return what a schema file says of it: what differs from the defaults."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)[1:]}
        changed = {key: value for key, (value, default) in values.items() if value != default}
        return {
            "kind": DENSE,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()},
        }


KEYS = tuple(field.name for field in fields(DenseFeature) if field.name != "name")  #: in a schema file


def dense_feature(name: str, entry: Mapping[Any, Any], where: str) -> DenseFeature:
    """Build a dense feature from plain data, and check it.

    Args:
        name: The feature.
        entry: Its keys in a schema file.
        where: File and key, for messages.

    Raises:
        CtnetError: A key is not known, or says something that can't be.
    """
    values = section(entry, where, {*KEYS, "kind"})
    width = positive(values.get("width", 1), f"{where}.width")
    transform = values.get("transform", "identity")
    if transform not in get_args(Transform):
        options = " and ".join(get_args(Transform))
        raise CtnetError(f"{where}.transform: only {options} are known, not {transform!r}")
    std = _numbers(values.get("std", 1.0), width, f"{where}.std")
    smallest = min(std) if isinstance(std, tuple) else std
    if smallest <= 0:
        raise CtnetError(
            f"{where}.std: {smallest:g}: it must be above 0; a constant feature tells nothing: leave it out"
        )
    clip, counts_in = values.get("clip"), values.get("counts_in")
    if clip is not None and not (is_finite(clip) and clip > 0):
        raise CtnetError(f"{where}.clip: a number above 0 is needed, not {clip!r}")
    return DenseFeature(
        name,
        width,
        transform,
        _numbers(values.get("mean", 0.0), width, f"{where}.mean"),
        std,
        None if clip is None else float(clip),
        None if counts_in is None else str(counts_in),
        towers(values, where),
        names(values["domains"], f"{where}.domains") if "domains" in values else (),
    )


def _numbers(value: Any, width: int, where: str) -> Numbers:
    """Return one number for all elements, or one for each."""
    if is_finite(value):
        return float(value)
    several = isinstance(value, list | tuple) and len(value) == width
    if not several or not all(map(is_finite, value)):
        raise CtnetError(f"{where}: a finite number, or a list of {width}, is needed, not {value!r}")
    return tuple(float(number) for number in value)
