"""Arrow streams from clients: nothing of one is believed before it is checked."""

import struct

import pyarrow as pa

#: Kinds of messages, and numbers of fields in their flatbuffers, as Arrow's Message.fbs has them.
_DICTIONARY, _RECORDS = 2, 3
_HEADER_TYPE, _HEADER, _DICTIONARY_DATA, _COMPRESSION = 1, 2, 1, 3


class ArrowBodyError(ValueError):
    """A stream that is not read; `status` is HTTP's."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


def read_stream(body: bytes, most_rows: int) -> pa.Table:
    """Read an Arrow stream.

    Args:
        body: The stream.
        most_rows: Rows beyond which it is read no further; the table then has more rows than that.

    Raises:
        ArrowBodyError: It is none, holds what Arrow itself finds wrong, or compressed buffers: a small body
            could become any amount of memory.
    """
    try:
        for message in pa.ipc.MessageReader.open_stream(body):
            if _is_compressed(message.metadata.to_pybytes()):
                raise ArrowBodyError("the Arrow stream is compressed: send it as it is", 422)
        reader = pa.ipc.open_stream(body)
        batches, rows = [], 0
        while rows <= most_rows and (batch := _next_batch(reader)) is not None:
            # Offsets that lead out of a buffer would be read all the same.
            batch.validate(full=True)
            batches.append(batch)
            rows += batch.num_rows
        table = pa.Table.from_batches(batches, reader.schema)
        table.column_names  # noqa: B018 - names that are no UTF-8 show here
        return table
    except (pa.ArrowException, struct.error, OSError, ValueError) as error:
        if isinstance(error, ArrowBodyError):
            raise
        raise ArrowBodyError(f"the body is no Arrow stream ({str(error)[:100]})") from error


def _next_batch(reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None


def _is_compressed(metadata: bytes) -> bool:
    """Whether a message's buffers are compressed, which pyarrow does not say: it lies in its flatbuffer."""
    root = struct.unpack_from("<I", metadata)[0]
    kind = _field(metadata, root, _HEADER_TYPE)
    header = _field(metadata, root, _HEADER)
    if kind is None or header is None:
        return False
    match metadata[kind]:
        case value if value == _RECORDS:
            table = _follow(metadata, header)
        case value if value == _DICTIONARY:
            data = _field(metadata, _follow(metadata, header), _DICTIONARY_DATA)
            if data is None:
                return False
            table = _follow(metadata, data)
        case _:
            return False
    return _field(metadata, table, _COMPRESSION) is not None


def _field(buffer: bytes, table: int, number: int) -> int | None:
    """Return where a field of a flatbuffer's table lies; None: it is not there."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, vtable)[0]
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", buffer, vtable + place)[0] if place < size else 0
    return table + offset if offset else None


def _follow(buffer: bytes, place: int) -> int:
    return place + struct.unpack_from("<I", buffer, place)[0]
