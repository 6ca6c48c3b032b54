"""Events to whoever listens: each listener has a short queue of its own, and one that does not keep up is cut off.

Handing out an event never waits for anybody.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec

from bridge.core.layouts import UNREADABLE
from bridge.messages import TERMINAL_EVENT
from bridge.ports import Clock

_QUEUED = 256
"""Events that wait for one listener at the most."""

_REMEMBERED = 1_000
"""Events kept for listeners that come just after them."""

_TERMINAL = frozenset(TERMINAL_EVENT.values())

TOO_SLOW = "cut off: the events came faster than this client reads them"
CLOSING = "the server is stopping"


class _Head(msgspec.Struct):
    id: str
    type: str
    request_id: str
    sequence: int
    labels: dict[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What matters of an event to those who choose, and its value as published.

    Args:
        id, type, request_id, sequence, labels: of the event.
        value: the whole of it.
    """

    id: str
    type: str
    request_id: str
    sequence: int
    labels: dict[str, str]
    value: bytes

    @property
    def is_terminal(self) -> bool:
        """Whether it ends its job."""
        return self.type in _TERMINAL


class Listener:
    """One who listens; used as `with hub.listen(…) as listener`.

    Args:
        wants: which events.
        hub: where it listens.
    """

    def __init__(self, wants: Callable[[Told], bool], hub: "EventHub") -> None:
        self.wants = wants
        self.ended: str | None = None
        self._hub = hub
        self._queue: deque[Told] = deque()
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hub.leave(self)

    def offer(self, told: Told) -> None:
        """Queue an event; a full queue is the end."""
        if len(self._queue) >= _QUEUED:
            self._queue.clear()
            self.end(TOO_SLOW)
        else:
            self._queue.append(told)
            self._changed.set()

    def end(self, why: str) -> None:
        """Nothing more will come."""
        self.ended = why
        self._changed.set()

    async def events(self, clock: Clock, *, pause_s: float) -> AsyncIterator[Told | None]:
        """The events as they come, until the end; a None whenever none has come for so many seconds."""
        while True:
            if self._queue:
                yield self._queue.popleft()
            elif self.ended is not None:
                return
            else:
                self._changed.clear()
                await clock.wait(self._changed, pause_s)
                if not self._changed.is_set():
                    yield None


class EventHub:
    """Everybody who listens in this process.

    Args:
        room: most listeners at once.
    """

    def __init__(self, *, room: int = 500) -> None:
        self.unreadable = 0
        self._room = room
        self._here: set[Listener] = set()
        self._remembered: deque[Told] = deque(maxlen=_REMEMBERED)
        self._closed = False

    @property
    def is_full(self) -> bool:
        """Whether nobody else can listen now."""
        return len(self._here) >= self._room

    def take(self, value: bytes | None) -> None:
        """Hand out the value of a record of a result topic."""
        told = _read(value or b"")
        if told is None:
            self.unreadable += 1
            return
        self._remembered.append(told)
        for listener in self._here:
            if listener.ended is None and listener.wants(told):
                listener.offer(told)

    def listen(self, wants: Callable[[Told], bool], *, lately: Callable[[Told], bool] | None = None) -> Listener:
        """Begin to listen, until the listener is left.

        Args:
            wants: which events.
            lately: which of those that have just been handed out, besides.
        """
        listener = Listener(wants, self)
        self._here.add(listener)
        if lately is not None:
            for told in self._remembered:
                if wants(told) and lately(told):
                    listener.offer(told)
        if self._closed:
            listener.end(CLOSING)
        return listener

    def leave(self, listener: Listener) -> None:
        """Forget a listener; may be called twice."""
        self._here.discard(listener)

    def close(self) -> None:
        """Send everybody home, those to come as well."""
        self._closed = True
        for listener in self._here:
            listener.end(CLOSING)


def _read(value: bytes) -> Told | None:
    """None for what is no event: anybody can write to a topic."""
    try:
        head = msgspec.json.decode(value, type=_Head)
    except UNREADABLE:
        return None
    if not (head.id.isprintable() and head.type.isprintable()):
        return None
    return Told(
        id=head.id,
        type=head.type,
        request_id=head.request_id,
        sequence=head.sequence,
        labels=head.labels,
        value=value,
    )
