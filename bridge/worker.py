"""ROLE worker: owns partitions of the requests topic and carries their jobs from request to terminal event.

What happens to a job reaches its partition's owner through one inbox. The owner lets the core decide, commits what
follows in one transaction, and only then acts on it; what arrives while a commit runs goes into the next one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import assert_never

from bridge.core.budget import Turn, Turns
from bridge.core.fanout import fan_out
from bridge.core.jobs import JobPolicy
from bridge.core.partition import Action, Cancel, Partition, Post, Rest, Submit, Track
from bridge.core.registry import Registry
from bridge.messages import Answer
from bridge.ownership import Ownership, OwnershipPlan, Taken
from bridge.ports import Arrival, Feed, Ledger, Ledgers, RateShare, Surroundings
from bridge.submitter import Submitter
from bridge.tracker import Tracker
from bridge.upstream import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """What a worker is to do, and when requests stay in Kafka.

    Args:
        topic: the requests topic's name.
        policy: what the user chose about the life of jobs.
        max_waiting: most jobs of this process that wait to be submitted.
        max_request_bytes: longest request value taken.
        submit_share: part of the calls that submit while looks wait, too.
        ownership: how partitions are held.
    """

    topic: str
    policy: JobPolicy
    max_waiting: int = 1_000
    max_request_bytes: int = 2 * 1024 * 1024
    submit_share: float = 0.5
    ownership: OwnershipPlan = field(default_factory=OwnershipPlan)


class PartitionOwner:
    """The one task that may change the jobs of a partition.

    Args:
        partition: the jobs, restored.
        ledger: where changes are committed.
        submitter, tracker: who acts on them.
        registry: who is to be told of what by webhook.
        tasks: where POSTs run.
        surroundings: time, randomness and who is told.
    """

    def __init__(  # noqa: PLR0913  everything it works with, by name
        self,
        partition: Partition,
        *,
        ledger: Ledger,
        submitter: Submitter,
        tracker: Tracker,
        registry: Registry,
        tasks: asyncio.TaskGroup,
        surroundings: Surroundings,
    ) -> None:
        self.number = partition.number
        self._partition = partition
        self._ledger = ledger
        self._submitter = submitter
        self._tracker = tracker
        self._registry = registry
        self._tasks = tasks
        self._clock = surroundings.clock
        self._chance = surroundings.chance
        self._telemetry = surroundings.telemetry
        self._inbox: list[Callable[[datetime], None]] = []
        self._wake = asyncio.Event()
        self._granted = 0  # turns given that lie in the inbox
        self._unused = 0  # turns taken from the inbox that have led to no POST yet
        self._posts = 0
        self._answers = 0  # of POSTs, not yet written down and acted on
        self._closing = False
        self._gone = False
        self.commit_began: float | None = None
        """Of the transaction under way, on the monotonic clock."""

    @property
    def backlog(self) -> int:
        """How many things wait in the inbox."""
        return len(self._inbox)

    @property
    def live(self) -> int:
        """How many jobs of this partition have not ended."""
        return self._partition.live()

    def arrived(self, arrivals: Sequence[Arrival]) -> None:
        """Take in records of the requests topic, in order."""
        for arrival in arrivals:
            self._put(partial(self._arrive, arrival))

    def moved(self, position: int) -> None:
        """The requests topic goes on at another position than the ledger's."""
        self._put(lambda _: self._partition.move_to(position))

    def granted(self, request_id: str) -> None:
        """A waiting job's turn has come."""
        self._granted += 1
        self._put(lambda now: self._grant(request_id, now))

    def submitted(self, request_id: str, attempt: int, answer: Answer) -> None:
        """A POST has ended."""
        self._posts -= 1
        if self._gone:
            self._submitter.settled(1)
            return
        self._answers += 1
        self._put(lambda now: self._partition.submitted(request_id, attempt, answer, now, self._chance.random()))

    def looked(self, request_id: str, job_id: str, answer: Answer) -> None:
        """A look has ended."""
        self._put(lambda now: self._partition.looked(request_id, job_id, answer, now, self._chance.random()))

    def cancel_answered(self, request_id: str, job_id: str, answer: Answer) -> None:
        """TAMS has answered a cancel."""
        self._put(lambda _: self._partition.cancel_answered(request_id, job_id, answer))

    def close(self) -> None:
        """Begin nothing new; `run` returns once what is under way has been written down."""
        self._closing = True
        self._submitter.withdraw_all(self)
        self._wake.set()

    async def run(self) -> None:
        """Work until closed, beginning with the jobs taken over.

        Raises:
            OwnershipLost, LedgerUnavailable: see `Ledger.commit`; nothing that was not committed has been acted on.
        """
        try:
            await self._step()
            while not (self._closing and not self._inbox and not self._posts):
                await self._clock.wait(self._wake, self._seconds_to_timer())
                self._wake.clear()
                await self._step()
        finally:
            self._abandon()

    async def _step(self) -> None:
        now = self._clock.now()
        happened, self._inbox = self._inbox, []
        answers = self._answers
        for happening in happened:
            happening(now)
        self._partition.time_passed(now)
        changes, actions = self._partition.take()
        if changes:
            changes.orders = fan_out(changes.events, self._registry)
            began = self.commit_began = self._clock.monotonic()
            await self._ledger.commit(changes)
            self.commit_began = None
            self._telemetry.committed(self.number, changes, self._clock.monotonic() - began)
        self._carry_out(actions)
        self._answers -= answers
        self._submitter.settled(answers)

    def _arrive(self, arrival: Arrival, now: datetime) -> None:
        if self._closing:
            return
        accepted = self._partition.arrive(arrival, now)
        if accepted is not None and self._submitter.may_skip_the_line():
            self._submitter.reserve()
            self._unused += 1
            self._partition.grant(accepted, now)

    def _grant(self, request_id: str, now: datetime) -> None:
        self._granted -= 1
        self._unused += 1
        if not self._closing:
            self._partition.grant(request_id, now)

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Submit():
                    self._tracker.drop(self, action.request_id)
                    if not self._closing:
                        self._submitter.offer(self, action)
                case Post():
                    self._unused -= 1
                    self._posts += 1
                    self._tasks.create_task(self._submitter.post(self, action))
                case Track():
                    self._tracker.track(self, action.job_id, action.record)
                case Cancel():
                    self._tracker.cancel(self, action.request_id)
                case Rest():
                    self._tracker.drop(self, action.request_id)
                    self._submitter.withdraw(self, action.request_id)
                case _:
                    assert_never(action)
        self._decline(self._unused)
        self._unused = 0

    def _decline(self, turns: int) -> None:
        for _ in range(turns):
            self._submitter.decline()

    def _abandon(self) -> None:
        self._closing = self._gone = True
        self._submitter.settled(self._answers)
        self._decline(self._unused + self._granted)
        self._submitter.withdraw_all(self)
        self._tracker.drop_all(self)

    def _seconds_to_timer(self) -> float | None:
        timer = self._partition.next_timer()
        return None if timer is None else max(0.0, (timer - self._clock.now()).total_seconds())

    def _put(self, happening: Callable[[datetime], None]) -> None:
        self._inbox.append(happening)
        self._wake.set()


class Worker:
    """All partitions of one process, and the loop that spends its share of the rate.

    Args:
        ledgers: to take partitions over.
        feed: the requests topic.
        upstream, submitter, tracker: the way to TAMS and who uses it.
        share: the part of the rate that is ours.
        registry: who is to be told of what by webhook.
        plan: what to do.
        surroundings: time, randomness and who is told.
    """

    def __init__(  # noqa: PLR0913  the composition root names every part once
        self,
        *,
        ledgers: Ledgers,
        feed: Feed,
        upstream: Upstream,
        submitter: Submitter,
        tracker: Tracker,
        share: RateShare,
        registry: Registry,
        plan: WorkerPlan,
        surroundings: Surroundings,
    ) -> None:
        self._ledgers = ledgers
        self._upstream = upstream
        self._submitter = submitter
        self._tracker = tracker
        self._share = share
        self._registry = registry
        self._plan = plan
        self._surroundings = surroundings
        self._clock = surroundings.clock
        self._turns = Turns(submit_share=plan.submit_share)
        self.ownership = Ownership(
            self._take_over,
            feed=feed,
            plan=plan.ownership,
            clock=surroundings.clock,
            chance=surroundings.chance,
            tell=surroundings.telemetry.ownership,
            wants_more=lambda backlog: len(submitter) + backlog < plan.max_waiting,
        )

    def live_jobs(self) -> int:
        """How many jobs of this process have not ended."""
        return sum(owner.live for owner in self.ownership.owners)

    async def run(self) -> None:
        """Work until `stop`; an error that is not foreseen ends everything at once, with nothing half done written."""
        await self.ownership.run_beside(self._make_calls)

    def stop(self) -> None:
        """Begin nothing new; `run` returns once what is under way has been written down."""
        self.ownership.stop()

    @asynccontextmanager
    async def _take_over(self, number: int, tasks: asyncio.TaskGroup) -> AsyncIterator[Taken[PartitionOwner]]:
        async with self._ledgers.open(number) as opened:
            partition = Partition(
                topic=self._plan.topic,
                number=number,
                policy=self._plan.policy,
                max_request_bytes=self._plan.max_request_bytes,
            )
            partition.restore(opened.records, opened.params, opened.position or 0, self._clock.now())
            owner = PartitionOwner(
                partition,
                ledger=opened.ledger,
                submitter=self._submitter,
                tracker=self._tracker,
                registry=self._registry,
                tasks=tasks,
                surroundings=self._surroundings,
            )
            yield Taken(owner, opened.position, f"{len(partition)} jobs, {partition.live()} of them live")

    async def _make_calls(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._upstream.changed.clear()
            work = len(self._submitter) + len(self._tracker)
            self._share.set_demand(work, work)
            while self._make_call(tasks):
                pass
            await self._clock.wait(self._upstream.changed, self._seconds_to_call())

    def _make_call(self, tasks: asyncio.TaskGroup) -> bool:
        if self._upstream.available_at() > self._clock.monotonic():
            return False
        turn = self._turns.choose(
            cancel=self._tracker.has_cancel(), submit=self._submitter.is_ready(), look=self._tracker.has_look()
        )
        match turn:
            case None:
                return False
            case Turn.CANCEL:
                self._upstream.reserve()
                tasks.create_task(self._tracker.cancel_next())
            case Turn.SUBMIT:
                self._submitter.reserve()
                self._submitter.grant_next()
            case Turn.LOOK:
                self._upstream.reserve()
                tasks.create_task(self._tracker.look_next())
            case _:
                assert_never(turn)
        return True

    def _seconds_to_call(self) -> float | None:
        until_call = self._upstream.available_at() - self._clock.monotonic()
        seconds = (
            until_call
            if until_call > 0
            else min(self._submitter.ready_in(), self._tracker.look_in(), self._tracker.cancel_in())
        )
        return None if seconds == float("inf") else max(0.0, seconds)
