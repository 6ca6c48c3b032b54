"""Workers against chance: real roles over a ledger, a TAMS and a clock that do what the model says.

Processes die between any two turns of their event loop, stand still in a commit that has happened, or go on though
another has taken their partition. Whatever happens, the judge of the core's model has no complaint, and once everything
works the last worker standing brings every job to its end, with no turn and no call lost.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from bridge.core.jobs import JobPolicy
from bridge.messages import Ambiguous, Answer, Failure, InHand, NotSent, Refused, TryLater, Unauthorized
from bridge.ports import Surroundings
from tests.core.examples import FAILURE, NO, SECOND
from tests.core.job_judge import WHAT, Judge, Requests
from tests.core.job_world import LOST, MAX_BYTES, NUMBER, Ledger, Tams
from tests.models import MODEL_TIMEOUT_S, model_settings
from tests.roles.conftest import Options, Parts, assembled
from tests.roles.fakes import FakeFeed, FixedChance, HandClock, Listened, settle
from tests.roles.model_world import Call, SlowLedgers, SlowTams

pytestmark = pytest.mark.timeout(MODEL_TIMEOUT_S)

T = TypeVar("T")

POLICY = JobPolicy(
    max_attempts=2,
    deadline_grace=30 * SECOND,
    missing_grace=10 * SECOND,
    dedupe_window=timedelta(seconds=200),
)
REPEATED = Failure(code="already_exists", message="the requestId was used before", http_status=409)
PICK = st.integers(0, 50)
TURNS = st.sampled_from([60, 60, 60, 0, 1, 2, 3, 5, 8, 13, 21])
"""Of the event loop; after 60 nothing more happens by itself."""

MOVES = [
    "WAITING", "RUNNING", "RUNNING", "SUCCESS", "SUCCESS", "TRANSITORY_ERROR", "FATAL_ERROR", "CANCELED", "forgotten",
]  # fmt: skip
REPLIES = [
    "usual", "usual", "usual", "arrives", "lost", "done, lost", "in hand", "refused", "later", "unauthorized", "unsent",
]  # fmt: skip
COMMITS = ["lands", "lands", "lands", "lands unheard", "fails", "in doubt"]
CHANGES = ["dies", "dies", "is fenced", "is fenced", "is told", "stops", "wakes up late"]


@dataclass(eq=False)
class Process:
    """A worker at work."""

    parts: Parts
    feed: FakeFeed
    working: asyncio.Task[None]


class EarlyFeed(FakeFeed):
    """Begins so much earlier than it is asked to, as may happen in a rebalance; what was read is to be passed over."""

    def __init__(self, early: int) -> None:
        super().__init__()
        self._early = early

    @override
    def begin(self, partition: int, position: int | None) -> None:
        super().begin(partition, max(0, (position or 0) - self._early))


async def turns(count: int) -> None:
    """Let the event loop turn so many times."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


class WorkersOfAPartition(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.clock = HandClock()
        self.requests = Requests()
        self.ledger = Ledger()
        self.at_tams = Tams(self.ledger)
        self.zombies: list[Process] = []

    @initialize(
        ambiguous=st.sampled_from(["repeat", "repeat", "repeat", "fail"]),
        deadline=st.sampled_from([None, None, None, 40]),
        tams=st.booleans(),
        ledger=st.booleans(),
    )
    def begin(self, ambiguous: str, deadline: int | None, *, tams: bool, ledger: bool) -> None:
        self.policy = replace(POLICY, ambiguous=ambiguous, deadline=deadline and deadline * SECOND)  # type: ignore[arg-type]  # one of the two words
        self.judge = Judge(self.ledger, self.at_tams, self.requests, self.policy)
        self.ledgers = SlowLedgers(self.ledger, self.judge, self.clock)
        self.tams = SlowTams(self.at_tams, self.ledgers, self.clock)
        self.tams.is_quick, self.ledgers.is_quick = tams, ledger
        self.holder = self.do(self.start())

    def do(self, work: Coroutine[None, None, T]) -> T:
        return self.loop.run(work)

    # ------------------------------------------------------------------------------------------------------- processes

    async def start(self) -> Process:
        """A process that the group gives the partition to."""
        feed = EarlyFeed(2 * (self.ledger.epoch % 2))
        feed._topic = {NUMBER: self.requests.log}
        options = Options(
            concurrency=4, interval=1.0, max_in_flight=8, policy=self.policy, max_request_bytes=MAX_BYTES, feed=feed
        )
        surroundings = Surroundings(self.clock, FixedChance(), Listened())
        parts = assembled(options, ledgers=self.ledgers, tams=self.tams, surroundings=surroundings)
        working = asyncio.create_task(parts.worker.run())
        await settle()
        parts.worker.ownership.assigned([NUMBER])
        return Process(parts, feed, working)

    async def kill(self, process: Process, *, after: int = 0) -> None:
        """As a signal would: nothing more is done, between two turns of the loop."""
        await turns(after)
        process.working.cancel()
        (outcome,) = await asyncio.gather(process.working, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome

    @rule(what=st.sampled_from(CHANGES), after=TURNS, lands=st.booleans())
    def processes_change(self, what: str, after: int, *, lands: bool) -> None:
        """What is under way may yet happen, though its process is gone."""
        if lands:
            self.commits_land_unheard()
        match what:
            case "dies":
                self.do(self.kill(self.holder, after=after))
                self.holder = self.do(self.start())
            case "is fenced":
                self.zombies.append(self.holder)
                self.holder = self.do(self.start())
            case "is told":
                self.do(self.hand_over(after))
            case "stops":
                self.holder.parts.worker.stop()
                self.do(self.kill(self.holder, after=after))
                self.holder = self.do(self.start())
            case _:
                for zombie in self.zombies:
                    self.do(self.kill(zombie, after=after))
                self.zombies.clear()
        self.do(turns(after))

    async def hand_over(self, after: int) -> None:
        """The group takes the partition back and gives it to another; who does not close in time is cut off."""
        revoking = asyncio.create_task(self.holder.parts.worker.ownership.revoked())
        await turns(after)
        if not revoking.done():
            await self.clock.advance(6.5)
        await revoking
        former, self.holder = self.holder, await self.start()
        await self.kill(former)

    # ------------------------------------------------------------------------------------------------------- the world

    @rule(what=WHAT, after=TURNS)
    def requests_come(self, what: list[tuple[str, str, dict[str, object]]], after: int) -> None:
        self.requests.come(what, deadline=self.policy.deadline)
        self.do(self.deliver(after))

    async def deliver(self, after: int) -> None:
        for process in [self.holder, *self.zombies]:
            process.feed.deliver()
        await turns(after)

    @rule(tams=st.booleans(), ledger=st.booleans(), after=TURNS)
    def world_slows_or_recovers(self, after: int, *, tams: bool, ledger: bool) -> None:
        self.tams.is_quick, self.ledgers.is_quick = tams, ledger
        for call in self.tams.calls if tams else ():
            self.answer(call, "usual")
        for commit in self.ledgers.pending if ledger else ():
            commit.goes_on.set()
        self.do(turns(after))

    @precondition(lambda self: self.tams.calls or self.tams.ghosts)
    @rule(replies=st.lists(st.tuples(PICK, st.sampled_from(REPLIES)), min_size=1, max_size=6), after=TURNS)
    def calls_go_on(self, replies: list[tuple[int, str]], after: int) -> None:
        for pick, reply in replies:
            if self.tams.calls and reply != "arrives":
                self.answer(self.tams.calls[pick % len(self.tams.calls)], reply)
            elif reply == "arrives" and (ghosts := self.tams.under_way_unheard()):
                self.tams.usual(ghosts[pick % len(ghosts)])
        self.do(turns(after))

    def answer(self, call: Call, reply: str) -> None:
        """What TAMS, or the network, says; nothing that its having done the thing would make a lie."""
        if call.answer is not None:
            return
        is_known = call.kind == "create" and call.of in self.at_tams.ids
        if reply == "usual":
            call.answer = self.tams.usual(call)
        elif reply == "done, lost" or call.reached:
            self.tams.usual(call)
            call.answer = Ambiguous(LOST)
        elif reply == "refused" and call.kind == "create":
            call.answer = Refused(REPEATED if is_known else NO)
        else:
            call.answer = self.other_answers().get(reply, Ambiguous(LOST))
        call.answered.set()

    def other_answers(self) -> dict[str, Answer]:
        """Those of a TAMS that has done nothing."""
        return {
            "in hand": InHand(),
            "later": TryLater(FAILURE, 3 * SECOND, throttled=True),
            "unauthorized": Unauthorized(FAILURE),
            "unsent": NotSent(FAILURE),
        }

    @precondition(lambda self: self.at_tams.jobs)
    @rule(moves=st.lists(st.tuples(PICK, st.sampled_from(MOVES)), min_size=1, max_size=5))
    def jobs_go_on_at_tams(self, moves: list[tuple[int, str]]) -> None:
        for pick, status in moves:
            job_id = sorted(self.at_tams.jobs)[-(pick % len(self.at_tams.jobs)) - 1]
            if status.endswith("ERROR"):
                self.at_tams.move(job_id, "FAILED", failedInfo={"code": status, "reason": "no luck"})
            elif status == "WAITING":
                self.at_tams.queue(job_id, pick)
            elif status == "forgotten":
                self.at_tams.forgotten |= {job_id} if pick > 40 else set()
            else:
                self.at_tams.move(job_id, status)

    @precondition(lambda self: self.ledgers.pending)
    @rule(outcomes=st.lists(st.tuples(PICK, st.sampled_from(COMMITS)), min_size=1, max_size=3), after=TURNS)
    def commits_go_on(self, outcomes: list[tuple[int, str]], after: int) -> None:
        for pick, outcome in outcomes:
            if self.ledgers.pending:
                commit = self.ledgers.pending[pick % len(self.ledgers.pending)]
                if outcome == "lands unheard":
                    self.commits_land_unheard()
                else:
                    commit.outcome = outcome
                    commit.goes_on.set()
                self.do(turns(after))

    def commits_land_unheard(self) -> None:
        """The transaction is done, and its owner still waits to hear so."""
        for commit in self.ledgers.pending:
            if self.ledgers.may_land(commit):
                self.ledgers.land(commit)

    @rule(seconds=st.sampled_from([0.3, 1.0, 1.0, 3.0, 3.0, 7.0, 16.0, 31.0, 201.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(self.clock.advance(seconds))
        if self.ledgers.is_quick and not self.zombies and self.holder.parts.worker.ownership.open_partitions:
            self.deadlines_are_kept()

    def deadlines_are_kept(self) -> None:
        """By an owner that is not held up, whatever else happens, or nothing."""
        for record in self.ledger.jobs.values():
            if record.phase.is_terminal:
                assert record.expires_at is not None
                assert record.expires_at > self.clock.now()
            elif record.deadline is not None and record.deadline <= self.clock.now():
                assert record.stop
                assert self.clock.now() < record.deadline + self.policy.deadline_grace

    # ------------------------------------------------------------------------------------------------------ what holds

    @invariant()
    def nobody_has_stumbled(self) -> None:
        for process in [self.holder, *self.zombies]:
            if process.working.done():
                process.working.result()

    @invariant()
    def every_life_is_told_once_and_in_order(self) -> None:
        self.judge.lives_are_sound()

    @override
    def teardown(self) -> None:
        """Once everything works, every accepted request comes to its end, and nothing of it is kept."""
        with self.loop:
            for zombie in self.zombies:
                self.do(self.kill(zombie))
            self.zombies.clear()
            self.world_slows_or_recovers(60, tams=True, ledger=True)
            for _ in range(60):
                self.do(self.everything_works_for_a_while())
                if self.everything_has_ended():
                    break
            self.nobody_has_stumbled()
            self.judge.ends_are_true()
            self.nothing_is_kept()
            self.do(self.kill(self.holder))

    async def everything_works_for_a_while(self) -> None:
        await self.deliver(60)
        stopping = {record.job_id for record in self.ledger.jobs.values() if record.stop}
        for job_id in self.at_tams.jobs.keys() - stopping:  # those wait for the worker to cancel them
            self.at_tams.move(job_id, "SUCCESS")
        await self.clock.advance(6.0)

    def everything_has_ended(self) -> bool:
        worker = self.holder.parts.worker
        is_read = worker.ownership.open_partitions == {NUMBER} and self.ledger.position == len(self.requests.log)
        return is_read and not worker.live_jobs()

    def nothing_is_kept(self) -> None:
        parts = self.holder.parts
        assert self.everything_has_ended()
        assert (len(parts.submitter), len(parts.tracker), parts.submitter.under_way) == (0, 0, 0)
        assert parts.upstream._under_way == 0


TestWorkersOfAPartition = WorkersOfAPartition.TestCase
TestWorkersOfAPartition.settings = model_settings(examples=100, steps=30)
