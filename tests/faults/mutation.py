"""Valid files made slightly invalid: bytes changed anywhere, values of JSON and YAML by their structure.

All choices come from a `random.Random`, which hypothesis and atheris both can give: what was found once is
found again from the same seed.
"""

import json
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from contextlib import suppress
from copy import deepcopy
from random import Random
from typing import Any, Literal

import yaml
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY

Kind = Literal["bytes", "csv", "json", "yaml", "safetensors"]
LARGEST = 1 << 16  #: bytes; a file that grew beyond is cut off

_TOKENS: dict[Kind, tuple[bytes, ...]] = {
    "bytes": (b"\0", b"\xff\xff\xff\xff", b"\n", b"PAR1", b"PK\3\4"),
    "csv": (
        *(
            b",",
            b'"',
            b'""',
            b"\n",
            b"\r\n",
            b"\r",
            b"\\",
            b"\t",
            b"::",
            b"\x1f",
            b"\0",
            b"\xff",
            b"\x1f\x8b",
        ),
        *(b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80"),
        *(b"NaN", b"\\N", b"1e400", b"2022-02-30", b"9" * 400),
    ),
    "json": (
        *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\ud800", b"null", b"NaN", b"1e999"),
        *(b"9" * 400, b"9" * 5000, b"[" * 900, b'{"":' * 900),
    ),
    "yaml": (
        *(b"&a ", b"*a", b"? ", b"<<: ", b"- ", b": ", b"{", b"[", b"\t", b"|\n", b"---\n", b"\0", b"\xff"),
        *(b"!!binary ", b"!!bool ", b"!!timestamp ", b"!!int ", b"!!set ", b"!!python/name:os.system "),
        *(b"2022-13-45", b"0x", b"1_0:99", b"0001-01-01 00:00:00+23:59", b"%YAML 9.9\n"),
        *(b"9" * 5000, b"[" * 300, b"&a [&b [*a, *b], *b]"),
    ),
    "safetensors": (b"\0", b"\xff" * 8, b"{", b"}", b'"'),
}
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 4, 2**31, 2**53, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308),
    *(float("inf"), float("nan"), [], {}, [[]], [{}], {"": ""}, ["item", "item"], [1, "a", None], {"a": [1]}),
    *[
        "",
        " ",
        "0",
        "nan",
        "all",
        "7d",
        "../x",
        "/",
        ".",
        "a\nb",
        "a\x00b",
        "�",
        "é",
        "2022-05-01",
        "2022-02-30",
        "0001-01-01",
        "9999-12-31",
    ],
    *("memory://x", "http://x", "s3://u:p@x/y", "x" * 5000),
)
_Place = tuple[Any, Any]  # a mapping or a list, and a key or an index of it


def mutated(content: bytes, kind: Kind, random: Random, others: tuple[bytes, ...] = ()) -> bytes:
    """Return a file changed in one place or a few.

    Args:
        content: The file.
        kind: What it is.
        random: Chooses what is changed, and how.
        others: Files of the same kind, of which parts may be taken over.
    """
    change = _STRUCTURES.get(kind)
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        if change is not None and random.random() < 0.7:
            with suppress(
                ValueError,
                ArithmeticError,
                LookupError,
                TypeError,
                AttributeError,
                RecursionError,
                yaml.YAMLError,
            ):
                content = change(content, random)
                continue
        content = _change_bytes(content, _TOKENS[kind], random, others)
    return content[:LARGEST]


def _change_bytes(
    content: bytes, tokens: tuple[bytes, ...], random: Random, others: tuple[bytes, ...]
) -> bytes:
    start = random.randrange(len(content) + 1)
    end = min(len(content), start + random.choice((1, 1, 2, 4, 8, 100)))
    before, part, after = content[:start], content[start:end], content[end:]
    match random.randrange(8):
        case 0:  # a bit
            return before + bytes(byte ^ (1 << random.randrange(8)) for byte in part[:1]) + part[1:] + after
        case 1:  # a byte
            return before + bytes([random.randrange(256)]) + part[1:] + after
        case 2:  # nothing
            return before + after
        case 3:  # twice, or often
            return before + part * random.choice((2, 3, 50)) + after
        case 4:
            return before + random.choice(tokens) + part + after
        case 5:
            return before + random.choice(tokens) + after
        case 6:  # the end is cut off
            return before
        case _:  # the end of another file
            other = random.choice(others) if others else content
            return before + other[random.randrange(len(other) + 1) :]


def _change_json(content: bytes, random: Random) -> bytes:
    return json.dumps(_changed(json.loads(content), random)).encode()


def _change_yaml(content: bytes, random: Random) -> bytes:
    return yaml.safe_dump(_changed(yaml.safe_load(content), random), sort_keys=False).encode()


def _change_safetensors(content: bytes, random: Random) -> bytes:
    """Change the header, or what is encoded in it, and say its length."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    inner = header.get("__metadata__", {}).get(CUSTOM_METADATA_KEY)
    if inner and random.random() < 0.3:
        header["__metadata__"][CUSTOM_METADATA_KEY] = json.dumps(_changed(json.loads(inner), random))
    else:
        header = _changed(header, random)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[end:]


_STRUCTURES: dict[Kind, Callable[[bytes, Random], bytes]] = {
    "json": _change_json,
    "yaml": _change_yaml,
    "safetensors": _change_safetensors,
}


def _changed(value: Any, random: Random) -> Any:
    """Return plain data of which one value is another, absent, elsewhere, or twice there."""
    value = deepcopy(value)
    places = list(_places(value))
    if not places or random.random() < 0.02:
        return random.choice(_VALUES)
    holder, key = random.choice(places)
    alike = [place for place in places if type(_at(place)) is type(holder[key])]
    match random.randrange(8):
        case 0:
            del holder[key]
        case 1:  # what stands elsewhere
            holder[key] = deepcopy(_at(random.choice(places)))
        case 2:
            holder[key] = random.choice(([holder[key]], {"x": holder[key]}, str(holder[key])))
        case 3 if isinstance(holder, MutableMapping):
            name = random.choice([key for _, key in places if isinstance(key, str)] + ["x", "", "é", "a\nb"])
            holder[name] = holder.pop(key)
        case 3:
            holder.insert(key, deepcopy(holder[key]))
        case 4 if isinstance(holder[key], int | float) and abs(holder[key]) < 1 << 64:
            holder[key] += random.choice((-1, 1, 0.5, 1 << 40))
        case 5 | 6:  # a value of the same type
            holder[key] = deepcopy(_at(random.choice(alike)))
        case _:
            holder[key] = random.choice(_VALUES)
    return value


def _places(value: Any) -> Iterator[_Place]:
    if isinstance(value, MutableMapping):
        entries = [*value.items()]
    elif isinstance(value, MutableSequence):
        entries = [*enumerate(value)]
    else:
        return
    for key, entry in entries:
        yield value, key
        yield from _places(entry)


def _at(place: _Place) -> Any:
    holder, key = place
    return holder[key]
