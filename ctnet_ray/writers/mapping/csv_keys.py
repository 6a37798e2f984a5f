"""The section `csv` of a mapping file (`writers.mapping`)."""

import codecs
from typing import Any

from ctnet_ray import plain_data as plain
from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.files.csv_text import NULLS, Dialect


def dialect_of(values: Any, where: str) -> Dialect:
    """Check the section.

    Args:
        values: What stands in the section.
        where: File and key, for messages.

    Raises:
        CtnetError: A key of it can't be; the message names the key.
    """
    if isinstance(values, dict):
        # YAML reads the key `null` as no text.
        values = {"null" if key is None else key: value for key, value in values.items()}
    text = plain.section(values, where, {"delimiter", "quote", "escape", "null", "encoding", "header"})
    delimiter = plain.text(text.get("delimiter", ","), f"{where}.delimiter")
    quote = _character(text.get("quote", '"'), f"{where}.quote")
    escape = _character(text.get("escape"), f"{where}.escape")
    if set(delimiter) & {"\r", "\n", quote, escape}:
        raise CtnetError(f"{where}.delimiter: {delimiter!r} holds a line end, the quote or the escape")
    header = plain.texts(text.get("header", []), f"{where}.header")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise CtnetError(f"{where}.header: {twice!r} stands twice")
    return Dialect(
        delimiter,
        quote,
        # A quote that escapes quotes is one that is doubled.
        "" if escape == quote else escape,
        ("", *plain.texts(text["null"], f"{where}.null")) if "null" in text else NULLS,
        _encoding(text.get("encoding", "utf-8"), f"{where}.encoding"),
        header,
    )


def _character(value: Any, where: str) -> str:
    if value in (None, "none", ""):
        return ""
    if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in "\r\n":
        raise CtnetError(f"{where}: one ASCII character or none is needed, not {value!r}")
    return value


def _encoding(value: Any, where: str) -> str:
    try:
        "".encode(value)  # refuses codecs that are for no text
        name = codecs.lookup(value).name
    except (LookupError, TypeError) as error:
        raise CtnetError(f"{where}: no such encoding {value!r}; one is called latin-1") from error
    return "utf-8-sig" if name in ("utf-8", "ascii") else name
