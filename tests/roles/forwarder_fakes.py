"""A forwarder's world in memory: a deliveries ledger, receivers, past events, a box for secrets.

They keep the contracts of `bridge.webhook_ports`; `tests/contracts` holds the ledger to it beside the real one.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from bridge.errors import CannotUnseal, OwnershipLost
from bridge.webhook_messages import Attempt, DeadDelivery, Delivery, Notice, Replay, ReplayOrder
from bridge.webhook_ports import DispatchChanges, NoResponse, OpenDispatch, PastEvents, Post, Response
from tests.roles.fakes import HandClock

DELIVERED = Response(status=204, headers={}, body=b"")

K = TypeVar("K")


@dataclass(slots=True)
class _Shelf:
    """What one partition of the fake ledger holds, all of it committed."""

    epoch: int = 0
    deliveries: dict[str, bytes] = field(default_factory=dict)
    events: dict[str, bytes] = field(default_factory=dict)
    replays: dict[tuple[str, str], bytes] = field(default_factory=dict)
    position: int | None = None


class FakeDispatchLedgers:
    """Implements `bridge.webhook_ports.DispatchLedgers`; what it holds is kept as bytes, as it is on a topic.

    `errors` are raised by the next commits, one each; while `gate` is not set, commits hang before they take effect.
    """

    def __init__(self) -> None:
        self.commits: list[DispatchChanges] = []
        self.errors: deque[Exception | None] = deque()
        self.open_errors: deque[Exception] = deque()
        self.opened: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._shelves: dict[int, _Shelf] = {}

    @property
    def attempts(self) -> list[Attempt]:
        """All that were written, in order."""
        return [attempt for changes in self.commits for attempt in changes.attempts]

    @property
    def dead(self) -> list[DeadDelivery]:
        """All that were given up, in order."""
        return [dead for changes in self.commits for dead in changes.dead]

    @property
    def notices(self) -> list[Notice]:
        """All that were given, in order."""
        return [notice for changes in self.commits for notice in changes.notices]

    def pending(self, partition: int = 0) -> list[Delivery]:
        """The deliveries of a partition that have not ended."""
        return [msgspec.json.decode(kept, type=Delivery) for kept in self._shelf(partition).deliveries.values()]

    def replay(self, replay_id: str, partition: int = 0) -> Replay | None:
        """A replay as committed."""
        for (_, kept_id), kept in self._shelf(partition).replays.items():
            if kept_id == replay_id:
                return msgspec.json.decode(kept, type=Replay)
        return None

    def position(self, partition: int = 0) -> int | None:
        """The committed position."""
        return self._shelf(partition).position

    def steal(self, partition: int = 0) -> None:
        """Fence whoever has the partition open, as another process would."""
        self._shelf(partition).epoch += 1

    def open(self, partition: int) -> AbstractAsyncContextManager[OpenDispatch]:
        return self._open(partition)

    @asynccontextmanager
    async def _open(self, partition: int) -> AsyncIterator[OpenDispatch]:
        self.opened.append(partition)
        if self.open_errors:
            raise self.open_errors.popleft()
        shelf = self._shelf(partition)
        shelf.epoch += 1
        yield OpenDispatch(
            ledger=_FakeDispatchLedger(self, shelf),
            deliveries=[msgspec.json.decode(kept, type=Delivery) for kept in shelf.deliveries.values()],
            events=dict(shelf.events),
            replays=[msgspec.json.decode(kept, type=Replay) for kept in shelf.replays.values()],
            position=shelf.position,
        )

    def _shelf(self, partition: int) -> _Shelf:
        return self._shelves.setdefault(partition, _Shelf())


class _FakeDispatchLedger:
    def __init__(self, ledgers: FakeDispatchLedgers, shelf: _Shelf) -> None:
        self._ledgers = ledgers
        self._shelf = shelf
        self._epoch = shelf.epoch

    async def commit(self, changes: DispatchChanges) -> None:
        await self._ledgers.gate.wait()
        error = self._ledgers.errors.popleft() if self._ledgers.errors else None
        if error is not None:
            raise error
        if self._shelf.epoch != self._epoch:
            message = "commit: another owner has taken the partition over"
            raise OwnershipLost(message)
        _keep(self._shelf.deliveries, _encoded(changes.deliveries))
        _keep(self._shelf.events, changes.events)
        _keep(self._shelf.replays, _encoded(changes.replays))
        if changes.position is not None:
            self._shelf.position = changes.position
        self._ledgers.commits.append(copy(changes))


def _encoded(changes: Mapping[K, object]) -> dict[K, bytes | None]:
    return {key: None if value is None else msgspec.json.encode(value) for key, value in changes.items()}


def _keep(shelf: dict[K, bytes], changes: Mapping[K, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            shelf.pop(key, None)
        else:
            shelf[key] = value


@dataclass(frozen=True, slots=True)
class Posted:
    """A POST that reached the fake receivers."""

    post: Post
    event_id: str
    at: float


class FakeSender:
    """Implements `bridge.webhook_ports.WebhookSender`: receivers that take everything unless told otherwise.

    `answers` by URL come first, one for each POST. A POST to a URL in `gates` hangs, after it was written down, until
    its gate is set.
    """

    def __init__(self, clock: HandClock) -> None:
        self.posted: list[Posted] = []
        self.answers: defaultdict[str, deque[Response | NoResponse]] = defaultdict(deque)
        self.gates: dict[str, asyncio.Event] = {}
        self.under_way = 0
        self.most_at_once = 0
        self._clock = clock

    def hang(self, url: str) -> asyncio.Event:
        """Let POSTs to this URL hang until the event is set."""
        return self.gates.setdefault(url, asyncio.Event())

    def events(self, url: str | None = None) -> list[str]:
        """The ids of the events that were posted, in order; perhaps only those to one URL."""
        return [posted.event_id for posted in self.posted if url in {None, posted.post.url}]

    def times(self, url: str) -> list[float]:
        """When POSTs to a URL began."""
        return [posted.at for posted in self.posted if posted.post.url == url]

    async def send(self, post: Post) -> Response | NoResponse:
        event_id = msgspec.json.decode(post.body, type=dict[str, msgspec.Raw])["id"]
        told = msgspec.json.decode(event_id, type=str)
        self.posted.append(Posted(post, told, self._clock.monotonic()))
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            gate = self.gates.get(post.url)
            if gate is not None:
                await gate.wait()
            answers = self.answers[post.url]
            return answers.popleft() if answers else DELIVERED
        finally:
            self.under_way -= 1


class FakeHistory:
    """Implements `bridge.webhook_ports.EventHistory` over lists of events, by `<topic>-<partition>`.

    `errors` are raised by the next calls of either kind, one each; while `gate` is not set, reading hangs before each
    of its steps, which give `step` events of each place.
    """

    def __init__(self, *, step: int = 2) -> None:
        self.topics: dict[str, list[bytes]] = {}
        self.errors: deque[Exception | None] = deque()
        self.asked: list[str] = []
        self.begun: list[dict[str, int]] = []
        self.reading = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._step = step

    async def bounds(self, order: ReplayOrder) -> tuple[dict[str, int], dict[str, int]]:
        self.asked.append(order.replay_id)
        self._fail()
        return dict.fromkeys(self.topics, 0), {place: len(values) for place, values in self.topics.items()}

    async def read(self, positions: Mapping[str, int], ends: Mapping[str, int]) -> AsyncGenerator[PastEvents, None]:
        at = dict(positions)
        self.begun.append(dict(at))
        self.reading += 1
        try:
            while any(at[place] < end for place, end in ends.items()):
                await self.gate.wait()
                self._fail()
                after = {place: min(at[place] + self._step, end) for place, end in ends.items()}
                values = [value for place in ends for value in self.topics[place][at[place] : after[place]]]
                at = after
                yield PastEvents(values=values, positions=dict(at))
        finally:
            self.reading -= 1

    def _fail(self) -> None:
        error = self.errors.popleft() if self.errors else None
        if error is not None:
            raise error


class FakeSecretBox:
    """Implements `bridge.webhook_ports.SecretBox`: opens for the same owner only, and nothing while `is_locked`."""

    def __init__(self) -> None:
        self.is_locked = False
        self.unsealed = 0

    def seal(self, plain: str, *, owner: str) -> str:
        return msgspec.json.encode((owner, plain.encode().hex())).decode()

    def unseal(self, sealed: str, *, owner: str) -> str:
        self.unsealed += 1
        sealed_for, plain = msgspec.json.decode(sealed, type=tuple[str, str])
        if self.is_locked or sealed_for != owner:
            message = f"no key in force opens a secret of {owner!r}"
            raise CannotUnseal(message)
        return bytes.fromhex(plain).decode()


class ListenedDispatch:
    """Implements `bridge.webhook_ports.DispatchTelemetry`: writes down what it is told."""

    def __init__(self) -> None:
        self.commits: list[DispatchChanges] = []
        self.ownerships: list[tuple[int, str]] = []
        self.troubles: list[tuple[str, str]] = []

    def committed(self, changes: DispatchChanges, seconds: float) -> None:
        assert seconds >= 0
        self.commits.append(changes)

    def ownership(self, partition: int, state: str, detail: str) -> None:
        del detail
        self.ownerships.append((partition, state))

    def trouble(self, doing: str, detail: str) -> None:
        self.troubles.append((doing, detail))
