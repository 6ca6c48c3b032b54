"""Holding partitions, with owners that do nothing but what the test says."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise

import pytest

from bridge.errors import LedgerUnavailable, OwnershipLost
from bridge.ownership import Ownership, OwnershipPlan, Taken
from bridge.ports import Arrival
from tests.roles.fakes import FakeFeed, FixedChance, HandClock, settle

GONE = LedgerUnavailable("commit: no answer from the brokers in time")
FENCED = OwnershipLost("commit: another owner has taken the partition over")


class ScriptedOwner:
    """Implements `bridge.ownership.Owner`; ends once closed, unless it is slow, or as the test says."""

    def __init__(self, number: int, *, is_slow: bool) -> None:
        self.number = number
        self.backlog = 0
        self.took: list[int] = []
        self.moves: list[int] = []
        self.was_closed = False
        self.was_cut_off = False
        self._is_slow = is_slow
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def arrived(self, arrivals: Sequence[Arrival]) -> None:
        self.took += [arrival.offset for arrival in arrivals]

    def moved(self, position: int) -> None:
        self.moves.append(position)

    def close(self) -> None:
        self.was_closed = True
        if not self._is_slow:
            self.end()

    def end(self, error: Exception | None = None) -> None:
        """Let `run` return, or raise."""
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(error)

    async def run(self) -> None:
        try:
            await self._end
        except asyncio.CancelledError:
            self.was_cut_off = True
            raise


@dataclass
class Held:
    """An ownership at work."""

    clock: HandClock = field(default_factory=HandClock)
    feed: FakeFeed = field(default_factory=FakeFeed)
    told: list[tuple[int, str]] = field(default_factory=list)
    opened: list[tuple[int, float]] = field(default_factory=list)
    errors: deque[Exception | None] = field(default_factory=deque)
    opening: asyncio.Event = field(default_factory=asyncio.Event)
    are_slow: bool = False
    owners: dict[int, ScriptedOwner] = field(default_factory=dict)
    ownership: Ownership[ScriptedOwner] = field(init=False)

    def __post_init__(self) -> None:
        self.opening.set()
        self.ownership = Ownership(
            self._take_over,
            feed=self.feed,
            plan=OwnershipPlan(closing_time=timedelta(seconds=6), fenced_pause=timedelta(seconds=15)),
            clock=self.clock,
            chance=FixedChance(),
            tell=lambda number, state, _: self.told.append((number, state)),
            wants_more=lambda backlog: backlog < 10,
        )
        self.feed.reader = self.ownership

    @asynccontextmanager
    async def _take_over(self, number: int, _: asyncio.TaskGroup) -> AsyncIterator[Taken[ScriptedOwner]]:
        self.opened.append((number, self.clock.monotonic()))
        error = self.errors.popleft() if self.errors else None
        if error is not None:
            raise error
        await self.opening.wait()
        self.owners[number] = ScriptedOwner(number, is_slow=self.are_slow)
        yield Taken(self.owners[number], 7 + number, "some jobs")

    @asynccontextmanager
    async def holding(self, *partitions: int) -> AsyncIterator[asyncio.Task[None]]:
        """Run, with these partitions assigned."""

        async def work() -> None:
            async with asyncio.TaskGroup() as tasks:
                await self.ownership.run(tasks)

        working = asyncio.create_task(work())
        await settle()
        self.ownership.assigned(partitions)
        await settle()
        try:
            yield working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    def openings(self) -> list[float]:
        """Seconds between one opening and the next."""
        times = [when for _, when in self.opened]
        return [later - earlier for earlier, later in pairwise(times)]


async def test_a_partition_is_taken_over_and_read_from_where_its_ledger_stands() -> None:
    held = Held()
    async with held.holding(0, 3):
        assert held.ownership.assigned_partitions == held.ownership.open_partitions == {0, 3}
        assert held.feed.begins == [(0, 7), (3, 10)]
        assert held.told == [(0, "opened"), (3, "opened")]


async def test_records_go_to_the_owner_of_their_partition_and_others_are_left_alone() -> None:
    held = Held()
    async with held.holding(0, 1):
        held.ownership.arrived(1, [Arrival(offset=8, key=None, value=None), Arrival(offset=9, key=None, value=None)])
        held.ownership.moved(1, 4)
        held.ownership.arrived(5, [Arrival(offset=1, key=None, value=None)])
        held.ownership.moved(5, 1)

        assert (held.owners[0].took, held.owners[0].moves) == ([], [])
        assert (held.owners[1].took, held.owners[1].moves) == ([8, 9], [4])


async def test_more_is_wanted_while_little_waits_in_all_inboxes_together() -> None:
    held = Held()
    async with held.holding(0, 1):
        held.owners[0].backlog, held.owners[1].backlog = 4, 5
        assert held.ownership.wants_more()

        held.owners[1].backlog = 6
        assert not held.ownership.wants_more()


async def test_partitions_taken_back_are_closed_and_given_again_are_opened_again() -> None:
    held = Held()
    async with held.holding(0, 1):
        first = held.owners[0]
        await held.ownership.revoked()
        assert first.was_closed
        assert not first.was_cut_off
        assert held.ownership.assigned_partitions == held.ownership.open_partitions == frozenset()
        assert held.feed.begun == {}

        held.ownership.assigned([0])
        await settle()
        assert held.owners[0] is not first
        assert held.told[-1] == (0, "opened")


async def test_why_a_partition_is_not_open_is_known_until_it_is_open() -> None:
    """For health: in the words of what went wrong."""
    held = Held(errors=deque([GONE, FENCED]))
    async with held.holding(0, 1):
        assert held.ownership.reasons == {0: str(GONE), 1: str(FENCED)}

        await held.clock.advance(1.0)
        assert held.ownership.reasons == {1: str(FENCED)}

        await held.clock.advance(15.0)
        assert held.ownership.reasons == {}


async def test_why_a_partition_was_lost_is_known_until_the_group_takes_it_back() -> None:
    held = Held()
    async with held.holding(0):
        held.owners[0].end(FENCED)
        await settle()
        assert held.ownership.reasons == {0: str(FENCED)}

        await held.ownership.revoked()
        assert held.ownership.reasons == {}


async def test_taking_nothing_back_takes_no_time() -> None:
    """The group does so when it is joined."""
    held = Held()
    async with held.holding():
        revoking = asyncio.create_task(held.ownership.revoked())
        await settle()

        assert revoking.done()


async def test_an_owner_that_does_not_end_in_time_is_cut_off() -> None:
    held = Held(are_slow=True)
    async with held.holding(0):
        revoking = asyncio.create_task(held.ownership.revoked())
        await held.clock.advance(5.9)
        assert not revoking.done()

        await held.clock.advance(0.2)
        assert revoking.done()
        assert held.owners[0].was_cut_off
        assert held.told[-1] == (0, "closed")


async def test_all_are_given_the_same_time_to_close() -> None:
    held = Held(are_slow=True)
    async with held.holding(0, 1, 2):
        revoking = asyncio.create_task(held.ownership.revoked())
        await held.clock.advance(3.0)
        held.owners[1].end()
        await held.clock.advance(3.1)

        assert revoking.done()
        assert [owner.was_cut_off for owner in held.owners.values()] == [True, False, True]


async def test_a_partition_that_is_still_opening_when_taken_back_never_opens() -> None:
    held = Held()
    held.opening.clear()
    async with held.holding(0):
        await held.ownership.revoked()
        held.opening.set()
        await held.clock.advance(60.0)

        assert held.told == []
        assert held.owners == {}


async def test_a_partition_that_was_lost_is_left_alone_for_the_pause_of_fenced_owners() -> None:
    """Two processes must never fence each other in turn: the group decides in the meantime."""
    held = Held()
    async with held.holding(0):
        held.owners[0].end(FENCED)
        await held.clock.advance(16.0)

        assert held.openings() == [15.0]
        assert held.told == [(0, "opened"), (0, "closed"), (0, "lost"), (0, "opened")]


async def test_a_partition_that_does_not_open_is_tried_ever_more_slowly() -> None:
    held = Held()
    held.errors.extend([GONE] * 8)
    async with held.holding(0):
        await held.clock.advance(100.0)

        assert held.openings() == pytest.approx([0.5, 1.0, 2.0, 4.0, 7.5, 7.5, 7.5, 7.5])
        assert held.ownership.open_partitions == {0}


async def test_a_partition_whose_owner_fails_at_once_each_time_is_opened_ever_more_slowly() -> None:
    """A ledger may open and still take no commit: whatever its owner does before, it does each time again."""
    held = Held()
    async with held.holding(0):
        pauses = []
        for _ in range(4):
            failed_at = held.clock.monotonic()
            held.owners[0].end(GONE)
            await held.clock.advance(10.0)
            pauses.append(held.opened[-1][1] - failed_at)

        assert pauses == pytest.approx([0.5, 1.0, 2.0, 4.0])


async def test_the_failure_of_an_owner_that_has_worked_for_long_is_its_first() -> None:
    held = Held()
    async with held.holding(0):
        for _ in range(3):
            held.owners[0].end(GONE)
            await held.clock.advance(10.0)
        await held.clock.advance(60.0)
        held.owners[0].end(GONE)
        await held.clock.advance(0.6)

        assert held.told[-1] == (0, "opened")


@pytest.mark.parametrize("error", [GONE, FENCED])
async def test_a_partition_that_fails_while_it_is_taken_back_is_not_opened_again(error: Exception) -> None:
    """Nor does anybody wait for it: the group is waiting for us."""
    held = Held(are_slow=True)
    async with held.holding(0):
        revoking = asyncio.create_task(held.ownership.revoked())
        await settle()
        held.owners[0].end(error)
        await settle()

        assert revoking.done()
        assert len(held.opened) == 1


async def test_a_stop_ends_once_all_are_closed() -> None:
    held = Held(are_slow=True)
    async with held.holding(0, 1) as working:
        held.ownership.stop()
        await settle()
        held.owners[0].end()
        await settle()
        assert not working.done()

        held.owners[1].end()
        await settle()
        assert working.done()
        assert held.ownership.open_partitions == frozenset()


@pytest.mark.parametrize("error", [GONE, FENCED])
async def test_a_stop_does_not_open_again_what_waits_to_be(error: Exception) -> None:
    held = Held()
    held.errors.append(error)
    async with held.holding(0) as working:
        held.ownership.stop()
        await settle()

        assert working.done()
        assert len(held.opened) == 1


async def test_after_a_stop_no_partition_is_taken() -> None:
    held = Held()
    async with held.holding(0) as working:
        held.ownership.stop()
        held.ownership.assigned([1])
        await settle()
        held.ownership.assigned([2])

        assert working.done()
        assert [number for number, _ in held.opened] == [0]
        assert held.ownership.assigned_partitions == frozenset()


async def test_an_error_that_is_not_foreseen_ends_everything() -> None:
    held = Held()
    async with held.holding(0, 1) as working:
        held.owners[0].end(ZeroDivisionError("a bug"))
        await settle()

        with pytest.raises(ExceptionGroup) as caught:
            await working
        assert caught.group_contains(ZeroDivisionError)
        assert held.owners[1].was_cut_off
