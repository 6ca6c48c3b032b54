"""ROLE forwarder: owns partitions of the dispatch topic and carries their deliveries to the receivers.

A delivery is sent as soon as its endpoint may be sent to; what became of it is written a moment later, many in one
transaction. A process that dies in between sends again what it has not written: receivers get each event at least once.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from bridge.core.deliveries import Unsendable
from bridge.core.dispatch import DispatchPartition, DispatchPolicy, Moment, Send
from bridge.core.registry import Registry
from bridge.errors import LedgerUnavailable
from bridge.ownership import Ownership, OwnershipPlan, Taken
from bridge.ports import Arrival, Clock, Feed
from bridge.poster import Poster
from bridge.webhook_messages import Exchange, Replay, ReplayOrder, ReplayState
from bridge.webhook_ports import (
    DispatchLedger,
    DispatchLedgers,
    DispatchTelemetry,
    EventHistory,
    ForwarderSurroundings,
    NoResponse,
    Response,
)

_TICK_S = 5.0
_COMMIT_PATIENCE_S = 2.0
_REPLAY_PAUSE_S = 0.2
_REPLAY_RETRY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwarderPlan:
    """What a forwarder is to do.

    Args:
        policy: what the operator chose about deliveries.
        concurrency: most POSTs under way at once.
        read_ahead: deliveries waiting for endpoints that take them, beyond which orders stay in Kafka.
        commit_interval: longest time an outcome waits to be written.
        ownership: how partitions are held.
    """

    policy: DispatchPolicy = field(default_factory=DispatchPolicy)
    concurrency: int = 1_000
    read_ahead: int = 20_000
    commit_interval: timedelta = timedelta(seconds=0.1)
    ownership: OwnershipPlan = field(default_factory=OwnershipPlan)


class DispatchOwner:
    """The one task that may change the deliveries of a partition; implements `bridge.ownership.Owner`.

    Args:
        partition: the deliveries, restored.
        ledger: where changes are committed.
        history: past events, for replays.
        plan: what to do.
        surroundings: time, randomness and who is told.
        tasks: where replays run.
        changed: set when more may be sent.
    """

    def __init__(  # noqa: PLR0913  everything it works with, by name
        self,
        partition: DispatchPartition,
        *,
        ledger: DispatchLedger,
        history: EventHistory,
        plan: ForwarderPlan,
        surroundings: ForwarderSurroundings,
        tasks: asyncio.TaskGroup,
        changed: asyncio.Event,
    ) -> None:
        self.partition = partition
        self._ledger = ledger
        self._history = history
        self._plan = plan
        self._clock = surroundings.clock
        self._chance = surroundings.chance
        self._telemetry = surroundings.telemetry
        self._tasks = tasks
        self._changed = changed
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._gone = False
        self._under_way = 0
        self.commit_began: float | None = None
        """Of the transaction under way, on the monotonic clock."""
        self._replaying: set[str] = set()  # endpoints

    @property
    def backlog(self) -> int:
        """How many deliveries wait for endpoints that take them: those of others must not hold these up."""
        return self.partition.moving(self._clock.monotonic())

    def arrived(self, arrivals: Sequence[Arrival]) -> None:
        """See `Owner`."""
        if self._closing.is_set():
            return
        moment = moment_of(self._clock)
        for arrival in arrivals:
            self.partition.arrive(arrival, moment)
        self._begin_replays()
        self._wake_all()

    def moved(self, position: int) -> None:
        """See `Owner`."""
        self.partition.move_to(position)

    def endpoint_changed(self, endpoint_id: str) -> None:
        """The registry says something new of an endpoint."""
        self.partition.endpoint_changed(endpoint_id, moment_of(self._clock))
        self._wake_all()

    def tenant_changed(self) -> None:
        """The registry says something new of a tenant's secrets."""
        self.partition.tenant_changed(moment_of(self._clock))
        self._wake_all()

    def next_send_at(self) -> float:
        """When the next POST may begin, on the monotonic clock; infinity while none may, or when closing.

        None may while a commit takes long: what is sent meanwhile would be sent once more if it fails.
        """
        return float("inf") if self._closing.is_set() or self._is_held_up() else self.partition.next_send_at()

    def take_send(self) -> Send:
        """The POST whose turn it is; only after `next_send_at` has passed, and followed by `sent`."""
        self._under_way += 1
        return self.partition.take_send(moment_of(self._clock))

    def sent(self, send: Send, answer: Response | NoResponse | Unsendable, exchange: Exchange | None) -> None:
        """Take in what a POST came to."""
        self._under_way -= 1
        if not self._gone:
            self.partition.sent(send, answer, exchange, moment_of(self._clock), self._chance.random())
        self._wake_all()

    def close(self) -> None:
        """See `Owner`."""
        self._closing.set()
        self._wake.set()

    async def run(self) -> None:
        """Write down what happens until closed.

        Raises:
            OwnershipLost, LedgerUnavailable: see `DispatchLedger.commit`; what was not written is sent again.
        """
        self._begin_replays()
        interval = self._plan.commit_interval / timedelta(seconds=1)
        try:
            while True:
                self.partition.time_passed(moment_of(self._clock))
                if not self.partition.journal.is_empty:
                    await self._clock.wait(self._closing, interval)
                    await self._commit()
                elif self._closing.is_set() and not self._under_way:
                    return
                else:
                    await self._clock.wait(self._wake, _TICK_S)
                self._wake.clear()
        finally:
            self._gone = True
            self._closing.set()

    async def _commit(self) -> None:
        changes = self.partition.journal.take()
        began = self.commit_began = self._clock.monotonic()
        await self._ledger.commit(changes)
        self.commit_began = None
        self._changed.set()
        self._telemetry.committed(changes, self._clock.monotonic() - began)

    def _is_held_up(self) -> bool:
        began = self.commit_began
        return began is not None and self._clock.monotonic() - began > _COMMIT_PATIENCE_S

    def _wake_all(self) -> None:
        self._wake.set()
        self._changed.set()

    def _begin_replays(self) -> None:
        """One after the other for an endpoint: each reads Kafka by clients of its own, and anybody may ask for many."""
        for replay in self.partition.replays.running():
            if replay.order.endpoint_id not in self._replaying and not self._closing.is_set():
                self._replaying.add(replay.order.endpoint_id)
                self._tasks.create_task(self._replay(replay.order))

    async def _replay(self, order: ReplayOrder) -> None:
        """Read past events into the endpoint's line until all are, beginning where a former owner stopped."""
        while (replay := self._going_on(order.replay_id)) is not None:
            try:
                await self._read_past(replay)
            except LedgerUnavailable as error:
                self._telemetry.trouble("replay", str(error))
                await self._clock.wait(self._closing, _REPLAY_RETRY_S)
        self._replaying.discard(order.endpoint_id)
        self._begin_replays()

    async def _read_past(self, replay: Replay) -> None:
        order = replay.order
        if not replay.ends:
            bounds = await self._history.bounds(order)
            self.partition.replay_begun(order.replay_id, bounds, moment_of(self._clock))
            self._wake_all()
            begun = self._going_on(order.replay_id)
            if begun is None:
                return
            replay = begun
        async with aclosing(self._history.read(replay.positions, replay.ends)) as reading:
            async for past in reading:
                while self._going_on(order.replay_id) and self.partition.room(order.endpoint_id) <= 0:
                    await self._clock.wait(self._closing, _REPLAY_PAUSE_S)
                if not self._going_on(order.replay_id):
                    return
                self.partition.replay_read(order.replay_id, past.values, past.positions, moment_of(self._clock))
                self._wake_all()

    def _going_on(self, replay_id: str) -> Replay | None:
        """The replay, while it is to be read on."""
        replay = self.partition.replays.get(replay_id)
        has_ended = replay is None or replay.state is not ReplayState.RUNNING or self._closing.is_set()
        return None if has_ended else replay


class Forwarder:
    """All partitions of one process, and the loop that sends.

    Args:
        ledgers: to take partitions over.
        feed: the dispatch topic.
        history: past events, for replays.
        poster: makes the POSTs.
        registry: who wants what; its changes are told by `endpoint_changed` and `tenant_changed`.
        plan: what to do.
        surroundings: time, randomness and who is told.
    """

    def __init__(  # noqa: PLR0913  the composition root names every part once
        self,
        *,
        ledgers: DispatchLedgers,
        feed: Feed,
        history: EventHistory,
        poster: Poster,
        registry: Registry,
        plan: ForwarderPlan,
        surroundings: ForwarderSurroundings,
    ) -> None:
        self._ledgers = ledgers
        self._history = history
        self._poster = poster
        self._registry = registry
        self._plan = plan
        self._surroundings = surroundings
        self._clock = surroundings.clock
        self._telemetry: DispatchTelemetry = surroundings.telemetry
        self._changed = asyncio.Event()
        self._under_way = 0
        self.ownership = Ownership(
            self._take_over,
            feed=feed,
            plan=plan.ownership,
            clock=surroundings.clock,
            chance=surroundings.chance,
            tell=surroundings.telemetry.ownership,
            wants_more=lambda backlog: backlog < plan.read_ahead,
        )

    @property
    def under_way(self) -> int:
        """How many POSTs are under way."""
        return self._under_way

    def pending(self) -> int:
        """How many deliveries of this process have not ended."""
        return sum(len(owner.partition) for owner in self.ownership.owners)

    def endpoint_changed(self, endpoint_id: str) -> None:
        """The registry says something new of an endpoint."""
        for owner in self.ownership.owners:
            owner.endpoint_changed(endpoint_id)

    def tenant_changed(self) -> None:
        """The registry says something new of a tenant's secrets."""
        for owner in self.ownership.owners:
            owner.tenant_changed()

    async def run(self) -> None:
        """Work until `stop`; an error that is not foreseen ends everything at once."""
        await self.ownership.run_beside(self._send)

    def stop(self) -> None:
        """Begin nothing new; `run` returns once what is under way has been written down."""
        self.ownership.stop()

    async def _send(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._changed.clear()
            wait = self._send_what_may_be(tasks)
            await self._clock.wait(self._changed, wait)

    def _send_what_may_be(self, tasks: asyncio.TaskGroup) -> float | None:
        """Begin every POST that may begin now, the one that has waited longest first; seconds until the next one may.

        Over all partitions alike: while as many are under way as may be, one with much to send would starve the others.
        """
        while self._under_way < self._plan.concurrency:
            owner = min(self.ownership.owners, key=DispatchOwner.next_send_at, default=None)
            at, now = float("inf") if owner is None else owner.next_send_at(), self._clock.monotonic()
            if owner is None or at > now:
                return None if at == float("inf") else at - now
            self._under_way += 1
            tasks.create_task(self._post(owner, owner.take_send()))
        return None

    async def _post(self, owner: DispatchOwner, send: Send) -> None:
        answer, exchange = await self._poster.post(send)
        self._under_way -= 1
        owner.sent(send, answer, exchange)

    @asynccontextmanager
    async def _take_over(self, number: int, tasks: asyncio.TaskGroup) -> AsyncIterator[Taken[DispatchOwner]]:
        async with self._ledgers.open(number) as opened:
            partition = DispatchPartition(number=number, registry=self._registry, policy=self._plan.policy)
            pending = [(each, opened.events[each.id]) for each in opened.deliveries if each.id in opened.events]
            partition.restore(pending, opened.replays, opened.position or 0, moment_of(self._clock))
            owner = DispatchOwner(
                partition,
                ledger=opened.ledger,
                history=self._history,
                plan=self._plan,
                surroundings=self._surroundings,
                tasks=tasks,
                changed=self._changed,
            )
            self._changed.set()
            yield Taken(owner, opened.position, f"{len(partition)} deliveries")


def moment_of(clock: Clock) -> Moment:
    """The time on both clocks."""
    return Moment(clock.now(), clock.monotonic())
