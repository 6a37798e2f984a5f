"""From raw ids to the 64-bit ids that samples hold.

A raw id, a number or a text, becomes XXH3-64 of its text in UTF-8, read as a signed integer. The hash is
the same in every run, release and language, so nothing about the vocabulary has to be known in advance,
and tables of different sizes read the same samples (they fold ids by remainder).
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

MISSING = 0  #: id of a value that is not there


def hash_ids(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Hash raw ids.

    Args:
        values: Numbers, texts or booleans of any Arrow type, [N]; whole floats hash as integers do, so that
            "7", 7 and 7.0 (a column that lost its type to missing values) are one id.

    Returns:
        int64 [N] without nulls; null, NaN and the empty text become `MISSING`.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type) and _whole(values):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values).cast(pa.int64())
    encoded = pc.dictionary_encode(values)
    hashes = np.fromiter(map(_hash_text, encoded.dictionary.cast(pa.string()).to_pylist()), dtype=np.int64)
    indices = encoded.indices
    taken = pa.array(hashes).take(indices) if len(hashes) else pa.nulls(len(values), pa.int64())
    return pc.fill_null(taken, MISSING)


def _whole(values: pa.Array) -> bool:
    numbers = values.drop_null().to_numpy(zero_copy_only=False)
    numbers = numbers[~np.isnan(numbers)]
    return bool(np.all(np.isfinite(numbers)) and np.all(numbers == np.trunc(numbers)))


def _hash_text(text: str | None) -> int:
    if text is None or text in ("", "nan"):
        return MISSING
    value = xxhash.xxh3_64_intdigest(text.encode())
    signed = value - (1 << 64) if value >= 1 << 63 else value
    return signed or 1
