"""A worker in a world in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from bridge.core.breaker import Breaker
from bridge.core.budget import RateBudget
from bridge.core.in_flight import InFlightCap
from bridge.core.jobs import JobPolicy
from bridge.core.polling import LeastDelay
from bridge.core.registry import Registry
from bridge.core.run_times import RunTimes
from bridge.core.schedule import BackOff
from bridge.ownership import OwnershipPlan
from bridge.ports import Ledgers, Surroundings, Tams, WholeRate
from bridge.submitter import Submitter
from bridge.tracker import Tracker
from bridge.upstream import Upstream
from bridge.worker import Worker, WorkerPlan
from tests.roles.fakes import FakeFeed, FakeLedgers, FakeTams, FixedChance, HandClock, Listened, settle


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A worker, and all it knows of the world."""

    clock: HandClock
    ledgers: FakeLedgers
    feed: FakeFeed
    tams: FakeTams
    told: Listened
    upstream: Upstream
    submitter: Submitter
    tracker: Tracker
    registry: Registry
    worker: Worker
    working: asyncio.Task[None]

    async def request(self, request_id: str = "a", *, partition: int = 0, **fields: object) -> None:
        """Publish a request and let the worker do what it can without time passing."""
        graph = {"1": {"classType": "KSampler"}}
        self.feed.publish({"request_id": request_id, "params": graph, **fields}, key=request_id, partition=partition)
        await settle()

    async def cancel(self, request_id: str = "a", *, partition: int = 0) -> None:
        """Publish a cancel, as above."""
        self.feed.publish({"cancel": request_id}, key=request_id, partition=partition)
        await settle()

    async def stop(self) -> None:
        """Stop the worker and wait for its end."""
        self.worker.stop()
        await settle()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a test wants to be different."""

    partitions: int = 1
    rate: float = 0.0
    burst: int | None = None
    concurrency: int = 16
    interval: float = 1.0
    max_waiting: int = 1000
    max_in_flight: int = 1000
    max_request_bytes: int = 2 * 1024 * 1024
    policy: JobPolicy = field(default_factory=JobPolicy)
    ledgers: FakeLedgers = field(default_factory=FakeLedgers)
    feed: FakeFeed = field(default_factory=FakeFeed)
    registry: Registry = field(default_factory=Registry)


MakeWorld = Callable[[Options], Awaitable[World]]


@pytest.fixture
async def make_world() -> AsyncIterator[MakeWorld]:
    """Start a worker with these options."""
    async with AsyncExitStack() as stack:

        async def start(options: Options) -> World:
            return await stack.enter_async_context(_world(options))

        yield start


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of."""

    upstream: Upstream
    submitter: Submitter
    tracker: Tracker
    worker: Worker


def assembled(options: Options, *, ledgers: Ledgers, tams: Tams, surroundings: Surroundings) -> Parts:
    """A worker, as the runtime would join it, that reads the feed of the options."""
    upstream = Upstream(
        tams,
        budget=RateBudget(options.rate, burst=options.burst),
        breaker=Breaker(threshold=3, back_off=BackOff(initial=timedelta(seconds=2), limit=timedelta(seconds=30))),
        cap=InFlightCap(options.max_in_flight),
        concurrency=options.concurrency,
        surroundings=surroundings,
    )
    policy = LeastDelay(RunTimes(), RunTimes(), interval=options.interval, max_silence=60.0)
    tracker = Tracker(upstream, policy=policy, clock=surroundings.clock)
    submitter = Submitter(upstream, clock=surroundings.clock)
    worker = Worker(
        ledgers=ledgers,
        feed=options.feed,
        upstream=upstream,
        submitter=submitter,
        tracker=tracker,
        share=WholeRate(),
        plan=WorkerPlan(
            topic="t.requests",
            policy=options.policy,
            max_waiting=options.max_waiting,
            max_request_bytes=options.max_request_bytes,
            ownership=OwnershipPlan(closing_time=timedelta(seconds=6), fenced_pause=timedelta(seconds=15)),
        ),
        registry=options.registry,
        surroundings=surroundings,
    )
    options.feed.reader = worker.ownership
    return Parts(upstream, submitter, tracker, worker)


@asynccontextmanager
async def _world(options: Options) -> AsyncIterator[World]:
    clock = HandClock()
    told = Listened()
    tams = FakeTams(clock)
    surroundings = Surroundings(clock, FixedChance(), told)
    parts = assembled(options, ledgers=options.ledgers, tams=tams, surroundings=surroundings)
    worker = parts.worker
    working = asyncio.create_task(worker.run())
    await settle()
    worker.ownership.assigned(range(options.partitions))
    await settle()
    world = World(
        clock=clock,
        ledgers=options.ledgers,
        feed=options.feed,
        tams=tams,
        told=told,
        upstream=parts.upstream,
        submitter=parts.submitter,
        tracker=parts.tracker,
        registry=options.registry,
        worker=worker,
        working=working,
    )
    try:
        yield world
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
