"""With which settings the methods ran, and how they differ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctnet_ray.report.rows import Run

# What names the work or the seed, and what does not decide a result.
_LEFT_OUT = (
    "data.store",
    "data.schema",
    "data.domain",
    "training.seed",
    "transfer.source_series",
    "transfer.hot_start",
    "compute.",
    "tracking.",
)


def settings(runs: Sequence[Run], domain: str) -> dict[str, dict[str, str]]:
    """Return each label's settings on a domain, by dotted key; of several values over seeds, all."""
    by_label: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        if run.record.domain != domain:
            continue
        by_key = by_label.setdefault(run.label, {})
        for key, value in _flat(run.record.config):
            values = by_key.setdefault(key, [])
            if value not in values:
                values.append(value)
    return {
        label: {key: " or ".join(values) for key, values in by_key.items()}
        for label, by_key in by_label.items()
    }


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Return the settings in `one` that `other` lacks or has otherwise."""
    return {key: value for key, value in one.items() if other.get(key) != value}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif not any(name == left or (left[-1] == "." and name.startswith(left)) for left in _LEFT_OUT):
            listed = isinstance(value, list | tuple)
            yield name, f"[{', '.join(map(str, value))}]" if listed else str(value)
