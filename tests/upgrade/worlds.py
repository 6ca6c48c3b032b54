"""A worker and a forwarder of the present release that go on with what a former one has left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from bridge.adapters.vault import Vault
from bridge.core.breaker import Breaker
from bridge.core.budget import RateBudget
from bridge.core.dispatch import DispatchPolicy
from bridge.core.documents import read_job
from bridge.core.in_flight import InFlightCap
from bridge.core.jobs import JobPolicy
from bridge.core.polling import LeastDelay
from bridge.core.registry import Registry
from bridge.core.run_times import RunTimes
from bridge.core.schedule import BackOff
from bridge.forwarder import Forwarder, ForwarderPlan
from bridge.messages import Answer, Done, Failure, Missing, Seen
from bridge.ports import Surroundings, WholeRate
from bridge.poster import Poster
from bridge.submitter import Submitter
from bridge.tracker import Tracker
from bridge.upstream import Upstream
from bridge.webhook_ports import ForwarderSurroundings
from bridge.worker import Worker, WorkerPlan
from tests.roles.fakes import FakeFeed, FixedChance, HandClock, Listened, settle
from tests.roles.forwarder_fakes import FakeHistory, FakeSender, ListenedDispatch
from tests.upgrade.snapshots import PaperDispatchLedgers, PaperLedgers, Snapshot


@dataclass
class RememberingTams:
    """Implements `bridge.ports.Tams`: knows the jobs of the past; a job runs at its first look and ends at its second.

    Args:
        jobs: what was made, by `requestId`.
        created: the `requestId`s of all creates.
        canceled: ids of jobs.
    """

    jobs: dict[str, str]
    created: list[str] = field(default_factory=list)
    canceled: set[str] = field(default_factory=set)
    looks: dict[str, int] = field(default_factory=dict)

    async def create(self, tams_request_id: str, params: bytes) -> Answer:
        msgspec.json.decode(params, type=dict[str, object])
        self.created.append(tams_request_id)
        job_id = self.jobs.setdefault(tams_request_id, f"new-{len(self.jobs)}")
        return _seen(job_id, "CREATED")

    async def look(self, job_id: str) -> Answer:
        if job_id not in self.jobs.values():
            return Missing(Failure(code="not_found", message="job not found", http_status=404))
        if job_id in self.canceled:
            return _seen(job_id, "CANCELED")
        self.looks[job_id] = self.looks.get(job_id, 0) + 1
        return _seen(job_id, "RUNNING" if self.looks[job_id] == 1 else "SUCCESS")

    async def cancel(self, job_id: str) -> Answer:
        self.canceled.add(job_id)
        return Done()


def _seen(job_id: str, status: str) -> Seen:
    return Seen(read_job(msgspec.json.encode({"job": {"id": job_id, "status": status}})))


@asynccontextmanager
async def working(kept: Snapshot, tams: RememberingTams) -> AsyncIterator[HandClock]:
    """A worker that has taken over; gives its clock."""
    clock, feed = HandClock(), FakeFeed()
    _publish(feed, kept, kept.names.requests)
    surroundings = Surroundings(clock, FixedChance(), Listened())
    upstream = Upstream(
        tams,
        budget=RateBudget(0),
        breaker=Breaker(threshold=3, back_off=BackOff(initial=timedelta(seconds=2), limit=timedelta(seconds=30))),
        cap=InFlightCap(1000),
        concurrency=16,
        surroundings=surroundings,
    )
    worker = Worker(
        ledgers=PaperLedgers(kept),
        feed=feed,
        upstream=upstream,
        submitter=Submitter(upstream, clock=clock),
        tracker=Tracker(
            upstream, policy=LeastDelay(RunTimes(), RunTimes(), interval=1.0, max_silence=60.0), clock=clock
        ),
        share=WholeRate(),
        plan=WorkerPlan(topic=kept.names.requests, policy=JobPolicy()),
        registry=registry_of(kept),
        surroundings=surroundings,
    )
    feed.reader = worker.ownership
    task = asyncio.create_task(worker.run())
    await settle()
    worker.ownership.assigned([0])
    await settle()
    try:
        yield clock
    finally:
        worker.stop()
        await settle()
        await clock.advance(10)
        await task


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A forwarder that has taken over."""

    clock: HandClock
    sender: FakeSender
    registry: Registry


@asynccontextmanager
async def forwarding(kept: Snapshot) -> AsyncIterator[Forwarding]:
    """A forwarder that has taken over, whose receivers all work by now."""
    clock, feed, registry, history = HandClock(), FakeFeed(), registry_of(kept), FakeHistory()
    history.topics = {f"{topic}-0": kept.values(topic) for topic in kept.names.results}
    _publish(feed, kept, kept.names.dispatch)
    sender = FakeSender(clock)
    forwarder = Forwarder(
        ledgers=PaperDispatchLedgers(kept),
        feed=feed,
        history=history,
        poster=Poster(
            sender,
            secret_box=Vault([kept.encryption_key]),
            clock=clock,
            source="/tams-bridge",
            user_agent="tams-bridge",
        ),
        registry=registry,
        plan=ForwarderPlan(policy=DispatchPolicy()),
        surroundings=ForwarderSurroundings(clock, FixedChance(), ListenedDispatch()),
    )
    feed.reader = forwarder.ownership
    task = asyncio.create_task(forwarder.run())
    await settle()
    forwarder.ownership.assigned([0])
    await settle()
    try:
        yield Forwarding(clock, sender, registry)
    finally:
        forwarder.stop()
        await settle()
        await clock.advance(10)
        await task


def _publish(feed: FakeFeed, kept: Snapshot, topic: str) -> None:
    for record in kept.of(topic):
        feed.publish(record.value, key=(record.key or b"").decode())


def registry_of(kept: Snapshot) -> Registry:
    """The registry as its topics add up to."""
    registry = Registry()
    for topic in (kept.names.endpoints, kept.names.statuses):
        for record in kept.of(topic):
            registry.apply(record.key or b"", record.value)
    return registry
