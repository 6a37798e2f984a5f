"""From raw ids to the 64-bit ids that samples hold.

A raw id, a number or a text, becomes XXH3-64 of its text in UTF-8, read as a signed integer. The hash is
the same in every run, release and language, so nothing about the vocabulary has to be known in advance,
and tables of different sizes read the same samples (they fold ids by remainder).
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ctnet_ray.errors import CtnetError

MISSING = 0  #: id of a value that is not there


def hash_ids(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Hash raw ids.

    Args:
        values: Numbers, texts or booleans of any Arrow type, [N]; whole numbers hash as integers do, so that
            "7", 7, 7.0, "7.0" (a column that lost its type to missing values) and " 7" are one id.

    Returns:
        int64 [N] without nulls; null, NaN, the text "nan" and texts that are empty or white space
            become `MISSING`.

    Raises:
        CtnetError: The values have no text, as lists and bytes that are not UTF-8.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    try:
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_float16(values.type):
            values = values.cast(pa.float32())
        encoded = pc.dictionary_encode(values)
        texts = id_texts(encoded.dictionary)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CtnetError(
            f"ids of type {values.type} can't be hashed: {error}: give numbers or texts"
        ) from error
    hashes = pa.array(_hash_texts(texts))
    taken = hashes.take(encoded.indices) if len(hashes) else pa.nulls(len(values), pa.int64())
    return pc.fill_null(taken, MISSING)


def hash_id(value: str) -> int:
    """Return the id of one text, as `hash_ids`."""
    return hash_ids(pa.array([value]))[0].as_py()


def combine_ids(first_N: np.ndarray, second_N: np.ndarray) -> np.ndarray:
    """Return an id of each pair of ids, int64 [N]; the order in a pair counts.

    The finaliser is that of SplitMix64 (Steele et al., OOPSLA 2014).
    """
    bits = first_N.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + second_N.view(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return (bits ^ (bits >> np.uint64(31))).view(np.int64)


def id_texts(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return the text of each id, [N]: of a whole number that of the integer, whatever its type.

    Space around a text is no part of the id.

    Args:
        values: Numbers, texts or booleans.

    Raises:
        pyarrow.ArrowException: The values have no text.
    """
    if pa.types.is_integer(values.type):
        return values.cast(pa.string())
    texts = pc.utf8_trim_whitespace(values.cast(pa.string()))
    if pa.types.is_floating(values.type):
        texts = _integer_texts(values, texts)
    if pc.any(pc.match_substring(texts, ".0")).as_py():
        texts = pc.replace_substring_regex(texts, r"^(-?\d+)\.0+$", r"\1")
    return pc.if_else(pc.equal(texts, "-0"), "0", texts)


def _integer_texts(values: pa.Array | pa.ChunkedArray, texts: pa.Array) -> pa.Array | pa.ChunkedArray:
    """Replace the texts of whole floats, for large ones have an exponent."""
    numbers = pc.fill_null(values, float("nan")).to_numpy()
    whole = (np.trunc(numbers) == numbers) & (np.abs(numbers) < 2.0**63)
    integers = pa.array(np.where(whole, numbers, 0).astype(np.int64))
    return pc.if_else(pa.array(whole), integers.cast(pa.string()), texts)


def _hash_texts(texts: pa.Array) -> np.ndarray:
    missing = pc.is_in(texts, pa.array(["", "nan", None])).to_numpy(zero_copy_only=False)
    # One call from C for each id, and no line of Python.
    digests = map(xxhash.xxh3_64_intdigest, pc.fill_null(texts, "").cast(pa.binary()).to_pylist())
    hashes = np.fromiter(digests, np.uint64, len(texts)).view(np.int64)
    return np.where(missing, MISSING, np.where(hashes == MISSING, 1, hashes))
