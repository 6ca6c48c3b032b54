"""Holding partitions: from the group's word that a partition is ours to its owner's last commit.

Every role that owns partitions does it this way: take the partition over (fence, replay), work until it is closed or
lost, take it over again if that may help.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Generic, Protocol, TypeVar

from bridge.core.schedule import BackOff
from bridge.errors import LedgerUnavailable, OwnershipLost
from bridge.ports import Arrival, Clock, Feed

_REOPEN = BackOff(initial=timedelta(seconds=1), limit=timedelta(seconds=15))
_WORKED_S = 60.0
"""How long a partition must have been open for its failure to count as the first."""


class Owner(Protocol):
    """The one task that may change a partition."""

    @property
    def backlog(self) -> int:
        """How many things wait to be taken in."""

    def arrived(self, arrivals: Sequence[Arrival]) -> None:
        """Take in records of the input topic, in order."""

    def moved(self, position: int) -> None:
        """The input topic goes on at another position than the ledger's."""

    def close(self) -> None:
        """Begin nothing new; `run` returns once what is under way has been written down."""

    async def run(self) -> None:
        """Work until closed; raises OwnershipLost and LedgerUnavailable."""


OwnerT = TypeVar("OwnerT", bound=Owner)


@dataclass(frozen=True, slots=True)
class Taken(Generic[OwnerT]):
    """A partition that was taken over.

    Args:
        owner: works on it.
        position: offset of the next input record to read; None if none was ever read.
        detail: what it holds, for people.
    """

    owner: OwnerT
    position: int | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipPlan:
    """How partitions are held.

    Args:
        closing_time: how long an owner that must close may wait for what is under way.
        fenced_pause: how long a fenced owner leaves its partition alone; longer than the group needs to take it away.
        reopen: pauses before a partition that could not be opened, or written, is opened again.
    """

    closing_time: timedelta = timedelta(seconds=6)
    fenced_pause: timedelta = timedelta(seconds=15)
    reopen: BackOff = _REOPEN


class _AllClosed(Exception):
    """Ends calls that are still under way: nobody is left to take in their answers."""


class Ownership(Generic[OwnerT]):
    """All partitions of one input topic that this process holds; implements `bridge.ports.FeedReader`.

    Args:
        take_over: fences, replays, and makes the owner of a partition, whose work runs in the task group.
        feed: the input topic.
        plan: how partitions are held.
        clock, chance: time, and randomness for jitter.
        tell: is told that a partition (its number) was `opened`, `closed`, `lost` or is `unavailable`, and why.
        wants_more: False while records had better stay in Kafka; told how many wait in the inboxes.
    """

    def __init__(  # noqa: PLR0913  everything it needs, by name
        self,
        take_over: Callable[[int, asyncio.TaskGroup], AbstractAsyncContextManager[Taken[OwnerT]]],
        *,
        feed: Feed,
        plan: OwnershipPlan,
        clock: Clock,
        chance: Random,
        tell: Callable[[int, str, str], None],
        wants_more: Callable[[int], bool],
    ) -> None:
        self._take_over = take_over
        self._feed = feed
        self._plan = plan
        self._clock = clock
        self._chance = chance
        self._tell = tell
        self._wants_more = wants_more
        self._tasks: asyncio.TaskGroup | None = None
        self._owners: dict[int, OwnerT] = {}
        self._owning: dict[int, asyncio.Task[None]] = {}
        self._reasons: dict[int, str] = {}
        self._stopping = asyncio.Event()
        self._is_closing = False

    @property
    def assigned_partitions(self) -> frozenset[int]:
        """The partitions the group gave to this process."""
        return frozenset(self._owning)

    @property
    def owners(self) -> Collection[OwnerT]:
        """Those of the partitions whose ledger is restored and that are being worked on."""
        return self._owners.values()

    @property
    def open_partitions(self) -> frozenset[int]:
        """Their numbers."""
        return frozenset(self._owners)

    @property
    def reasons(self) -> Mapping[int, str]:
        """Why partitions that were tried, and that the group still gives to this process, are not open."""
        return self._reasons

    async def run_beside(self, work: Callable[[asyncio.TaskGroup], Coroutine[None, None, None]]) -> None:
        """Hold partitions until `stop`, and work for as long; an error that is not foreseen ends everything at once.

        Args:
            work: what the owners share; it is ended, with what it began, once all partitions are closed.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(work(tasks))
                await self.run(tasks)
                raise _AllClosed  # noqa: TRY301  the way to end a task group
        except* _AllClosed:
            pass

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Hold partitions until `stop`; returns once all are closed."""
        self._tasks = tasks
        await self._stopping.wait()
        await self._close_owners()
        self._tasks = None

    def stop(self) -> None:
        """Begin nothing new; `run` returns once what is under way has been written down."""
        self._stopping.set()

    def assigned(self, partitions: Collection[int]) -> None:
        """See `FeedReader`."""
        if self._tasks is None or self._stopping.is_set():
            return
        for number in partitions:
            self._owning[number] = self._tasks.create_task(self._own(number, self._tasks))

    async def revoked(self) -> None:
        """See `FeedReader`."""
        await self._close_owners()

    def moved(self, partition: int, position: int) -> None:
        """See `FeedReader`."""
        owner = self._owners.get(partition)
        if owner is not None:
            owner.moved(position)

    def arrived(self, partition: int, arrivals: Sequence[Arrival]) -> None:
        """See `FeedReader`; what comes while the partition has no owner is read again later."""
        owner = self._owners.get(partition)
        if owner is not None:
            owner.arrived(arrivals)

    def wants_more(self) -> bool:
        """See `FeedReader`."""
        return self._wants_more(sum(owner.backlog for owner in self._owners.values()))

    async def _close_owners(self) -> None:
        self._is_closing = True
        for owner in self._owners.values():
            owner.close()
        owning = list(self._owning.values())
        for number, task in self._owning.items():
            if number not in self._owners:
                task.cancel()
        await self._ended(owning)
        late = [task for task in owning if task.cancel()]
        await asyncio.gather(*late, return_exceptions=True)
        self._owning.clear()
        self._reasons.clear()
        self._is_closing = False

    async def _ended(self, owning: Collection[asyncio.Task[None]]) -> None:
        """Return once all of these have ended, or the closing time has."""
        if not owning:
            return
        have_ended = asyncio.Event()

        def look(_: asyncio.Task[None]) -> None:
            if all(task.done() for task in owning):
                have_ended.set()

        for task in owning:
            task.add_done_callback(look)
        await self._clock.wait(have_ended, self._plan.closing_time / timedelta(seconds=1))

    async def _own(self, number: int, tasks: asyncio.TaskGroup) -> None:
        """Hold a partition for as long as the group gives it to this process.

        A fenced owner waits before it tries again: if it is no longer the group's choice it learns so meanwhile, and
        two processes never fence each other in turn. One whose commits go on failing is opened ever more slowly: what
        it could not write down, it does again each time.
        """
        failures, opened = 0, float("inf")
        while not self._stopping.is_set():
            try:
                async with self._take_over(number, tasks) as taken:
                    opened = self._clock.monotonic()
                    await self._work_on(number, taken)
                    return
            except OwnershipLost as lost:
                self._failed(number, "lost", str(lost))
                pause = self._plan.fenced_pause
            except LedgerUnavailable as error:
                has_worked = self._clock.monotonic() - opened >= _WORKED_S
                failures, opened = 1 if has_worked else failures + 1, float("inf")
                self._failed(number, "unavailable", str(error))
                pause = self._plan.reopen.pause(failures, self._chance.random())
            if self._is_closing:
                return
            await self._clock.wait(self._stopping, pause / timedelta(seconds=1))

    def _failed(self, number: int, state: str, reason: str) -> None:
        self._reasons[number] = reason
        self._tell(number, state, reason)

    async def _work_on(self, number: int, taken: Taken[OwnerT]) -> None:
        self._owners[number] = taken.owner
        self._reasons.pop(number, None)
        self._tell(number, "opened", taken.detail)
        self._feed.begin(number, taken.position)
        try:
            await taken.owner.run()
        finally:
            self._feed.hold(number)
            del self._owners[number]
            self._tell(number, "closed", "")
