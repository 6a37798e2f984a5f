"""Lists in the cells of a log: columns of lists, texts with a separator, lists as Python and JSON write."""

import ast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def lists_of(column: pa.ChunkedArray, separator: str) -> pa.ListArray:
    """Return lists [N] of what a column holds, null where it is missing or an empty text.

    Args:
        column: Lists, or texts with a separator.
        separator: Text between the elements of a text. Where it is a comma, texts in brackets are lists as
            Python and JSON write them.
    """
    if not pa.types.is_list(column.type):
        texts = column.cast(pa.string()).combine_chunks()
        texts = pc.if_else(pc.equal(texts, ""), None, texts)
        column = pc.split_pattern(texts, separator)
        if separator.strip() == ",":
            column = _with_literals(column, texts)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def list_lengths(lists: pa.ListArray) -> np.ndarray:
    """Return the number of elements of each list, int [N]; 0 where it is missing."""
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy()


def list_array(length_N: np.ndarray, elements: pa.Array) -> pa.ListArray:
    """Return lists of some lengths, which have the elements one after another."""
    offsets = np.concatenate([[0], np.cumsum(length_N)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), elements)


def _with_literals(lists: pa.Array, texts: pa.Array) -> pa.Array:
    """Replace the lists of texts such as `[1, 2]` by what the texts say."""
    literal = pc.fill_null(pc.match_substring_regex(texts, r"(?s)^\s*\[.*\]\s*$"), False)
    if not pc.any(literal).as_py():
        return lists
    encoded = texts.filter(literal).dictionary_encode()
    parsed = pa.array([_elements(text) for text in encoded.dictionary.to_pylist()], pa.list_(pa.string()))
    rows = np.arange(len(texts))
    rows[literal.to_numpy(zero_copy_only=False)] = len(texts) + encoded.indices.to_numpy()
    return pa.concat_arrays([lists, parsed]).take(pa.array(rows))


def _elements(text: str) -> list[str | None]:
    """Return the elements of a list that is written as in Python or JSON."""
    within = text.strip()[1:-1]
    if "'" in within or '"' in within:
        try:
            return [None if value is None else str(value) for value in ast.literal_eval(text.strip())]
        except (ValueError, SyntaxError):
            pass
    elements = [element.strip().strip("'\"") for element in within.split(",")] if within.strip() else []
    return [None if element in ("None", "null") else element for element in elements]
