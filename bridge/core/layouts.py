"""Layouts of what is kept in Kafka, and what a release does with a record that another release wrote.

A record names its layout in the field `version`; one without it is of the first. Within a layout fields may be added
whose loss does no harm: who does not know a field passes over it, and drops it when it writes the record anew. Any
other change makes a new layout. A release reads all layouts up to its own; of a later one it reads nothing, however
well the record seems to fit: who guesses may submit a job twice. Why: docs/decisions, "Records of other releases".
"""

from datetime import datetime
from functools import cache
from typing import Generic, Protocol, TypeVar, get_args, get_type_hints

import msgspec

from bridge.errors import NewerLayout
from bridge.messages import Instant

NEWEST = 1
"""The latest layout that this release reads, and the one it writes."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that it cannot make sense of."""

_YEARS = range(1970, 9000)
"""Dates end with the year 9999."""


class Kept(Protocol):
    """A record that names its layout."""

    @property
    def version(self) -> int:
        """The layout."""


KeptT = TypeVar("KeptT", bound=Kept)


class _Head(msgspec.Struct):
    version: int = 1


class KeptReader(Generic[KeptT]):
    """Reads records of one kind.

    Args:
        kind: what they are.
    """

    def __init__(self, kind: type[KeptT]) -> None:
        self._decode = msgspec.json.Decoder(kind).decode
        self._what = kind.__name__

    def read(self, value: bytes) -> KeptT:
        """The record in these bytes.

        Raises:
            NewerLayout: a later release wrote it.
            UNREADABLE: it is none of this kind.
        """
        try:
            record = self._decode(value)
            refuse_odd_times(record)
        except UNREADABLE:
            self._refuse_newer(_version_of(value))
            raise
        self._refuse_newer(record.version)
        return record

    def _refuse_newer(self, version: int) -> None:
        if version > NEWEST:
            message = (
                f"a record ({self._what}) of layout {version}, written by a later release of tams-bridge; "
                f"this one reads layouts up to {NEWEST}: run that release again"
            )
            raise NewerLayout(message)


def refuse_odd_times(record: object) -> None:
    """Return if all times that a record names itself are such that hours and days can be added to them.

    Raises:
        msgspec.ValidationError: one is not.
    """
    kind: type = type(record)
    for name in _times_of(kind):
        moment: datetime | None = getattr(record, name)
        if moment is not None and moment.year not in _YEARS:
            message = f"{name} lies in the year {moment.year}"
            raise msgspec.ValidationError(message)


@cache
def _times_of(kind: type) -> list[str]:
    hints = get_type_hints(kind, include_extras=True)
    return [name for name, hint in hints.items() if Instant in {hint, *get_args(hint)}]


def _version_of(value: bytes) -> int:
    try:
        return msgspec.json.decode(value, type=_Head).version
    except UNREADABLE:
        return NEWEST
