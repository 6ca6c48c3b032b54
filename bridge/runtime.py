"""Composition and supervision: which parts make a process, and what happens when one of them ends.

A process is a FastStream application: its lifespan starts and stops our tasks, its broker tells whether Kafka answers,
its ASGI side serves health and metrics. The partition owners use aiokafka directly (docs/decisions).
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from random import Random

import msgspec
import uvicorn
from faststream.asgi import AsgiFastStream, AsgiResponse, get
from faststream.asgi.types import Scope
from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from typing_extensions import override

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.connection import broker_security
from bridge.adapters.kafka.feed import KafkaRequestsFeed
from bridge.adapters.kafka.ledger import KafkaLedgers
from bridge.adapters.kafka.topics import TopicNames, Topics
from bridge.adapters.tams import TamsClient, authorization, fast_transport
from bridge.adapters.telemetry import WorkerTelemetry
from bridge.core.breaker import Breaker
from bridge.core.budget import RateBudget
from bridge.core.jobs import JobPolicy
from bridge.core.polling import FairTurns
from bridge.core.schedule import BackOff
from bridge.errors import CannotStart
from bridge.ports import Surroundings
from bridge.settings import Settings
from bridge.submitter import Submitter
from bridge.tracker import Tracker
from bridge.upstream import Upstream
from bridge.worker import Worker, WorkerPlan

CLOSING_TIME_S = 10.0
"""Longest time from SIGTERM to the end of a worker."""

_PING_S = 3.0


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """A worker, put together but not yet running."""

    worker: Worker
    feed: KafkaRequestsFeed
    upstream: Upstream
    submitter: Submitter
    tracker: Tracker
    tams: TamsClient
    registry: CollectorRegistry


async def build_worker(settings: Settings) -> WorkerParts:
    """Put a worker together, creating topics that are absent.

    Raises:
        CannotStart: settings, credentials, broker or topics are not as they must be.
    """
    clock = SystemClock()
    scheme = authorization(settings.tams, clock=clock)
    names, counts = await _prepare_topics(settings)
    registry = CollectorRegistry()
    surroundings = Surroundings(clock, Random(), WorkerTelemetry(registry))  # noqa: S311  jitter
    tams = TamsClient(settings.tams, scheme=scheme, transport=fast_transport(settings.tams), clock=clock)
    upstream = Upstream(
        tams,
        budget=RateBudget(settings.tams.rate, burst=settings.tams.burst),
        breaker=Breaker(threshold=3, back_off=BackOff(initial=timedelta(seconds=1), limit=timedelta(seconds=30))),
        concurrency=settings.tams.concurrency,
        surroundings=surroundings,
    )
    tracker = Tracker(upstream, policy=FairTurns(interval=settings.poll.interval_s), clock=clock)
    submitter = Submitter(
        upstream,
        clock=clock,
        room=lambda: settings.worker.max_in_flight - len(tracker) - submitter.under_way,
    )
    feed = KafkaRequestsFeed(settings, topic=names.requests, clock=clock)
    worker = Worker(
        ledgers=KafkaLedgers(settings, names, counts),
        feed=feed,
        upstream=upstream,
        submitter=submitter,
        tracker=tracker,
        plan=_plan(settings, names.requests, counts[names.requests]),
        surroundings=surroundings,
    )
    parts = WorkerParts(worker, feed, upstream, submitter, tracker, tams, registry)
    _export_gauges(parts)
    return parts


async def run_worker(settings: Settings, *, ready: Callable[[], None] = lambda: None) -> None:
    """Run a worker until SIGTERM or SIGINT, or until something ends it.

    Args:
        settings: in force.
        ready: called once it has begun.

    Raises:
        CannotStart: it could not begin.
        Exception: what ended it, if it was not a signal; nothing half done has been written.
    """
    parts = await build_worker(settings)
    shell = _Shell(settings, parts)
    try:
        await shell.run(ready)
    finally:
        await parts.tams.aclose()


class _Shell:
    """The FastStream application around a worker: lifespan, signals, health, metrics."""

    def __init__(self, settings: Settings, parts: WorkerParts) -> None:
        self._settings = settings
        self._parts = parts
        self._broker = KafkaBroker(
            settings.kafka.bootstrap_servers,
            client_id=settings.kafka.client_id,
            security=broker_security(settings.kafka),
            graceful_timeout=_PING_S,
            logger=None,
        )
        self._stop = asyncio.Event()
        self.app = AsgiFastStream(
            self._broker,
            logger=None,
            lifespan=self._lifespan,
            asgi_routes=[
                ("/health/live", get(self._live)),
                ("/health/ready", get(self._ready)),
                ("/metrics", get(self._metrics)),
            ],
        )
        self._work: asyncio.Task[None] | None = None

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until a signal comes or the work ends; raises what ended it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        http = self._settings.http
        if http.port:
            await self._serve(_listener(http.host, http.port), ready)
        else:
            async with self.app.start_lifespan_context({}):
                ready()
                await self._stop.wait()
        if self._work is not None:
            await self._work

    async def _serve(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        server = _QuietServer(uvicorn.Config(self.app, log_config=None, access_log=False, lifespan="on"))
        with listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            stopping = asyncio.create_task(self._stop.wait())
            ready()
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if serving.done() and not self._stop.is_set():
                message = "http: the health server could not start: see the log above"
                raise CannotStart(message)
            server.should_exit = True
            await serving

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        self._work = asyncio.create_task(self._supervise())
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.wait([self._work])

    async def _supervise(self) -> None:
        """Run feed and worker together; when one ends, the other finishes its work."""
        feed, worker = self._parts.feed, self._parts.worker
        working, reading = asyncio.create_task(worker.run()), asyncio.create_task(feed.run(worker))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({working, reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        began = asyncio.get_running_loop().time()
        worker.stop()
        await asyncio.wait({working}, timeout=CLOSING_TIME_S)
        feed.stop()
        await asyncio.wait({reading}, timeout=max(1.0, CLOSING_TIME_S - (asyncio.get_running_loop().time() - began)))
        stopping.cancel()
        self._stop.set()
        for task in (working, reading):
            task.cancel()
        for outcome in await asyncio.gather(working, reading, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _live(self, scope: Scope) -> AsgiResponse:
        """The process runs and its work has not ended."""
        del scope
        alive = self._work is not None and not self._work.done()
        return _json({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    async def _ready(self, scope: Scope) -> AsgiResponse:
        """Requests are being worked on; if not, why, and what an operator can do."""
        del scope
        problems = [*self._kafka_problems(), *self._tams_problems()]
        if not await self._broker.ping(_PING_S):
            problems.append("kafka: no broker answers")
        parts = self._parts
        body = {
            "status": "problem" if problems else "ok",
            "problems": problems,
            "partitions": {
                "assigned": len(parts.worker.assigned_partitions),
                "open": len(parts.worker.open_partitions),
            },
            "jobs": {"live": parts.worker.live_jobs(), "waiting": len(parts.submitter), "tracked": len(parts.tracker)},
        }
        return _json(body, 503 if problems else 200)

    async def _metrics(self, scope: Scope) -> AsgiResponse:
        """Metrics in Prometheus' text format."""
        del scope
        return AsgiResponse(generate_latest(self._parts.registry), 200, {"content-type": "text/plain; version=0.0.4"})

    def _kafka_problems(self) -> list[str]:
        worker = self._parts.worker
        closed = sorted(worker.assigned_partitions - worker.open_partitions)
        return (
            [f"kafka: partitions {closed} are assigned but not open (restoring, fenced, or the brokers fail)"]
            if closed
            else []
        )

    def _tams_problems(self) -> list[str]:
        health = self._parts.upstream.health()
        if not health.authorized:
            return [
                f"tams: our credentials are refused ({health.problem}): check BRIDGE_TAMS__API_KEY; jobs wait meanwhile"
            ]
        return [] if health.reachable else [f"tams: not reachable ({health.problem}); jobs wait, probes go on"]


class _QuietServer(uvicorn.Server):
    """uvicorn without signal handlers of its own: ours end the work first."""

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), reuse_port=False)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        message = f"http: cannot listen on {host}:{port}: {reason} (set BRIDGE_HTTP__PORT, 0 for none)"
        raise CannotStart(message) from None


def _json(body: object, status: int) -> AsgiResponse:
    return AsgiResponse(msgspec.json.encode(body), status, {"content-type": "application/json"})


async def _prepare_topics(settings: Settings) -> tuple[TopicNames, dict[str, int]]:
    topics = Topics(settings.kafka, settings.topics, longest_answer=settings.tams.max_answer_bytes)
    if settings.topics.create:
        await topics.create()
    states = await topics.check()
    problems = [f"topic {state.name} {state.problem}" for state in states if state.problem]
    if problems:
        raise CannotStart("kafka: " + "; ".join(problems))
    return topics.names, {state.name: state.partitions for state in states}


def job_policy(settings: Settings) -> JobPolicy:
    """The life of jobs as the settings want it."""
    jobs = settings.jobs
    return JobPolicy(
        max_attempts=jobs.max_attempts,
        retry=_back_off(jobs.retry_pause_s, jobs.retry_pause_limit_s),
        resubmit=_back_off(jobs.resubmit_pause_s, jobs.resubmit_pause_limit_s),
        ambiguous=jobs.submit_ambiguous,
        lease=timedelta(seconds=jobs.submit_lease_s),
        answer_timeout=timedelta(seconds=settings.tams.timeout_s),
        deadline=None if jobs.deadline_s is None else timedelta(seconds=jobs.deadline_s),
        deadline_grace=timedelta(seconds=jobs.deadline_grace_s),
        missing_grace=timedelta(seconds=jobs.missing_grace_s),
        dedupe_window=timedelta(seconds=jobs.dedupe_window_s),
    )


def _back_off(initial_s: float, limit_s: float) -> BackOff:
    return BackOff(initial=timedelta(seconds=initial_s), limit=timedelta(seconds=limit_s))


def _plan(settings: Settings, topic: str, partitions: int) -> WorkerPlan:
    worker = settings.worker
    return WorkerPlan(
        topic=topic,
        partitions=partitions,
        policy=job_policy(settings),
        max_waiting=worker.max_waiting,
        max_in_flight=worker.max_in_flight,
        max_request_bytes=worker.max_request_bytes,
        closing_time=timedelta(seconds=worker.closing_time_s),
        fenced_pause=timedelta(seconds=settings.kafka.session_timeout_s),
    )


def _export_gauges(parts: WorkerParts) -> None:
    gauges: dict[str, tuple[str, Callable[[], float]]] = {
        "tams_bridge_jobs_live": ("Jobs of this process that have not ended.", parts.worker.live_jobs),
        "tams_bridge_jobs_waiting": ("Jobs that wait to be submitted.", parts.submitter.__len__),
        "tams_bridge_jobs_tracked": ("Jobs that TAMS holds for this process.", parts.tracker.__len__),
        "tams_bridge_requests_lag": (
            "Requests read so far behind the topic's end.",
            lambda: sum(parts.feed.lag().values()),
        ),
        "tams_bridge_tams_reachable": ("1 unless TAMS fails.", lambda: parts.upstream.health().reachable),
        "tams_bridge_tams_authorized": (
            "1 unless TAMS refuses our credentials.",
            lambda: parts.upstream.health().authorized,
        ),
    }
    for name, (meaning, read) in gauges.items():
        Gauge(name, meaning, registry=parts.registry).set_function(read)
