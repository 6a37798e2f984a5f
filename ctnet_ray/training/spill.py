"""Rows that are too many to hold: sorted portions in temporary files, read back one range of keys at a time.

Two portions of four rows each, and the cut 5: the range below it is read from the start of both

    portion 0:  1 3 4 | 8        range 0:  1 3 4  2
    portion 1:  2 | 6 7 9        range 1:  8  6 7 9
"""

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ctnet_ray.errors import CtnetError

_Array = NDArray[Any]


class SortedPortions:
    """Columns of rows; the first is the key. One portion alone may stay in memory, several are on disk.

    The files have no name: nothing of them is left however the process ends.

    Args:
        dtypes: Type of each column.
    """

    def __init__(self, *dtypes: DTypeLike) -> None:
        self._held = [np.empty(0, dtype) for dtype in dtypes]
        self._ends = [0]
        self._files: list[BinaryIO] = []

    def add(self, columns: Sequence[_Array], *, spill: bool) -> None:
        """Take a portion, sorted by its key.

        Args:
            columns: Each [N].
            spill: Whether it goes to disk; only the one portion that is the first and last may stay.

        Raises:
            CtnetError: The disk is full, or there is no folder for temporary files.
        """
        self._ends.append(self._ends[-1] + len(columns[0]))
        if not spill:
            self._held = list(columns)
            return
        try:
            if not self._files:
                self._files = [tempfile.TemporaryFile(buffering=0) for _ in columns]  # noqa: SIM115
            for file, column in zip(self._files, columns, strict=True):
                _write(file, column)
        except OSError as error:
            raise CtnetError(
                f"can't write scored rows to {tempfile.gettempdir()} ({error.strerror}): make room there, or "
                "name another folder in TMPDIR"
            ) from error

    def bounds(self, cuts: _Array) -> NDArray[np.int64]:
        """Return where in each portion each range starts, and where the last ends, [portions, ranges + 1].

        Args:
            cuts: Keys between the ranges, ascending; a range holds its lower cut, not its upper one.
        """
        return np.array(
            [
                [start, *(start + np.searchsorted(self._read(0, start, stop), cuts, side="left")), stop]
                for start, stop in pairwise(self._ends)
            ],
            np.int64,
        )

    def read(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> list[_Array]:
        """Return the columns of the rows from start to stop of each portion, one portion after another."""
        spans = list(zip(starts.tolist(), stops.tolist(), strict=True))
        return [
            np.concatenate([self._read(index, start, stop) for start, stop in spans])
            if len(spans) > 1
            else self._read(index, *spans[0])
            for index in range(len(self._held))
        ]

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            file.close()

    def _read(self, index: int, start: int, stop: int) -> _Array:
        if not self._files:
            return self._held[index][start:stop]
        dtype = self._held[index].dtype
        self._files[index].seek(start * dtype.itemsize)
        return np.fromfile(self._files[index], dtype, stop - start)


def _write(file: BinaryIO, column: _Array) -> None:
    left = column.view(np.uint8).data
    while len(left):  # a full disk takes a part first, and refuses the next
        left = left[file.write(left) :]
