"""Records whose headers have names that are no UTF-8: aiokafka cannot read them, and would never get past one.

A client in another language may write such a name. aiokafka raises `UnicodeDecodeError` from `getmany` for the whole
partition, again and again: one record would stop a partition, and with it the worker. Here a batch that cannot be read
is read once more by aiokafka's own Python reader, with the bytes that are no text written as backslash and hex digits.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from typing_extensions import override

_BATCH_HEAD = 12
"""Bytes of a batch before its length begins to count: base offset and the length itself."""


class TolerantRecords:
    """Stands in for aiokafka's `MemoryRecords`: the records of one answer to a fetch.

    Args:
        data: as received.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._records = MemoryRecords(data)
        self._at = 0

    def size_in_bytes(self) -> int:
        """How long the answer is."""
        size: int = self._records.size_in_bytes()
        return size

    def has_next(self) -> bool:
        """Whether another batch follows."""
        has_next: bool = self._records.has_next()
        return has_next

    def next_batch(self) -> "_TolerantBatch | None":
        """The next batch."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        length = int.from_bytes(self._data[self._at + 8 : self._at + _BATCH_HEAD])
        begin, self._at = self._at, self._at + _BATCH_HEAD + length
        return _TolerantBatch(batch, self._data[begin : self._at])


class _TolerantBatch:
    def __init__(self, batch: Any, raw: bytes) -> None:  # noqa: ANN401  aiokafka is untyped
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  as above
        return getattr(self._batch, name)

    def __next__(self) -> Any:  # noqa: ANN401  as above
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            return iter(_LenientBatch(self._raw))


class _LenientText(bytearray):
    """Bytes that are always text when asked for it."""

    @override
    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return _LenientText(found) if isinstance(place, slice) else found

    @override
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self).decode(encoding, "backslashreplace")


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka is untyped
    @override
    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _LenientText(self._buffer)


def install() -> None:
    """Make every consumer of this process tolerant; safe to repeat."""
    fetcher.MemoryRecords = TolerantRecords
