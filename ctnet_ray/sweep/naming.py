"""Settings and their values, for people."""

from collections.abc import Collection, Mapping
from typing import Any


def short_names(names: Collection[str]) -> dict[str, str]:
    """Return each dotted name's last parts, as few as tell it from the others."""
    return {name: _shortest(name, names) for name in names}


def shown(value: Any) -> str:
    """Return a value as people write it: [first, last], {hidden_3: hidden_4}, 0.003, null."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {shown(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if value is None:
        return "null"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def described(settings: Mapping[str, Any]) -> str:
    """Return settings in one line: adapters.gate=linear, rank=8."""
    short = short_names(settings)
    return ", ".join(f"{short[name]}={shown(value)}" for name, value in settings.items())


def _shortest(name: str, names: Collection[str]) -> str:
    parts = name.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if not any(other != name and f".{other}".endswith(f".{end}") for other in names):
            return end
    return name
