r"""A matrix as one Arrow column: the numbers of each row side by side, as fixed_size_binary.

It is read, cut and permuted at the speed of a copy. Two rows of two float16:

    [[1.0, 0.5], [2.0, 0.0]]  ->  b"\x00\x3c\x00\x38", b"\x00\x40\x00\x00"
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_column(matrix_NW: NDArray[Any]) -> pa.Array:
    """Return a matrix, [N, W] in rows, as a column of N rows."""
    rows, width = matrix_NW.shape
    content = pa.py_buffer(np.ascontiguousarray(matrix_NW))
    return pa.Array.from_buffers(pa.binary(matrix_NW.itemsize * width), rows, [None, content])


def from_column(column: pa.Array, kind: type[np.generic]) -> NDArray[Any]:
    """Return a column as a matrix, [N, W] of numbers of one kind, without a copy and not to be written to."""
    width = column.type.byte_width // np.dtype(kind).itemsize
    numbers = np.frombuffer(column.buffers()[1], kind)
    return numbers[column.offset * width :][: len(column) * width].reshape(len(column), width)
