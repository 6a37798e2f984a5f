"""All rows in memory, histories padded to one length: what libraries ask for that read no lists."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import Spec


def read_padded(spec: Spec) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return all row numbers and labels.

    Returns:
        int64 [N] of each feature and [N, L] of each history, 0 behind its end; labels, int8 [N].
    """
    table = pq.read_table(spec.data)
    rows = {name: table[name].to_numpy() for name in spec.names}
    histories = {name: pad(table[name].combine_chunks(), spec.length) for name in spec.clicked}
    return {**rows, **histories}, table["label"].to_numpy()


def pad(lists: pa.ListArray, length: int) -> np.ndarray:
    """Return N lists of at most `length` row numbers as int64 [N, L], 0 behind the end of each."""
    padded_NL = np.zeros((len(lists), length), dtype=np.int64)
    lengths_N = lists.value_lengths().to_numpy(zero_copy_only=False)
    padded_NL[np.arange(length) < lengths_N[:, None]] = lists.flatten().to_numpy(zero_copy_only=False)
    return padded_NL
