"""How a worker is put together."""

from datetime import timedelta
from random import Random

from prometheus_client import CollectorRegistry

from bridge.adapters.kafka.feed import KafkaFeed
from bridge.adapters.kafka.ledger import KafkaLedgers
from bridge.adapters.tams import TamsClient, authorization, fast_transport
from bridge.adapters.telemetry import WorkerTelemetry
from bridge.core.breaker import Breaker
from bridge.core.budget import RateBudget
from bridge.core.jobs import JobPolicy
from bridge.core.polling import FairTurns
from bridge.ports import Surroundings
from bridge.roles.ground import Ground, Role, back_off, export, ownership_plan, ownership_problems
from bridge.settings import Settings
from bridge.shell import Part
from bridge.submitter import Submitter
from bridge.tracker import Tracker
from bridge.upstream import Upstream
from bridge.worker import Worker, WorkerPlan


def build_worker(ground: Ground) -> Role:
    """Put a worker together.

    Raises:
        CannotStart: there are no credentials, or they cannot be used.
    """
    settings, clock = ground.settings, ground.clock
    scheme = authorization(settings.tams, clock=clock)
    surroundings = Surroundings(clock, Random(), WorkerTelemetry(ground.metrics))  # noqa: S311  jitter
    tams = TamsClient(settings.tams, scheme=scheme, transport=fast_transport(settings.tams), clock=clock)
    ground.stack.push_async_callback(tams.aclose)
    upstream = Upstream(
        tams,
        budget=RateBudget(settings.tams.rate, burst=settings.tams.burst),
        breaker=Breaker(threshold=3, back_off=back_off(1, 30)),
        concurrency=settings.tams.concurrency,
        surroundings=surroundings,
    )
    tracker = Tracker(upstream, policy=FairTurns(interval=settings.poll.interval_s), clock=clock)
    submitter = Submitter(
        upstream,
        clock=clock,
        room=lambda: settings.worker.max_in_flight - len(tracker) - submitter.under_way,
    )
    requests = ground.names.requests
    feed = KafkaFeed(settings, topic=requests, group=settings.worker.group, clock=clock)
    worker = Worker(
        ledgers=KafkaLedgers(settings, ground.names, ground.counts),
        feed=feed,
        upstream=upstream,
        submitter=submitter,
        tracker=tracker,
        registry=ground.registry,
        plan=_worker_plan(settings, requests, ground.counts[requests]),
        surroundings=surroundings,
    )
    _export_worker(ground.metrics, worker, upstream, submitter, tracker, feed)
    return _worker_role(ground, worker, upstream, submitter, tracker, feed)


def _worker_role(
    ground: Ground, worker: Worker, upstream: Upstream, submitter: Submitter, tracker: Tracker, feed: KafkaFeed
) -> Role:
    ownership = worker.ownership

    async def work() -> None:
        await ground.registry_tail.caught_up.wait()  # an event committed before would miss its endpoints
        await worker.run()

    async def read() -> None:
        await ground.registry_tail.caught_up.wait()
        await feed.run(worker.ownership)

    return Role(
        name="worker",
        work=(Part("worker", work, worker.stop),),
        feeds=(Part("requests feed", read, feed.stop),),
        problems=lambda: [
            *ownership_problems(ownership.assigned_partitions, ownership.open_partitions, "request"),
            *_tams_problems(upstream),
        ],
        state=lambda: {
            "partitions": {
                "assigned": len(ownership.assigned_partitions),
                "open": len(ownership.open_partitions),
            },
            "jobs": {"live": worker.live_jobs(), "waiting": len(submitter), "tracked": len(tracker)},
            "endpoints": len(ground.registry.endpoints),
        },
    )


def _tams_problems(upstream: Upstream) -> list[str]:
    health = upstream.health()
    if not health.authorized:
        return [
            f"tams: our credentials are refused ({health.problem}): check BRIDGE_TAMS__API_KEY; jobs wait meanwhile"
        ]
    return [] if health.reachable else [f"tams: not reachable ({health.problem}); jobs wait, probes go on"]


def job_policy(settings: Settings) -> JobPolicy:
    """The life of jobs as the settings want it."""
    jobs = settings.jobs
    return JobPolicy(
        max_attempts=jobs.max_attempts,
        retry=back_off(jobs.retry_pause_s, jobs.retry_pause_limit_s),
        resubmit=back_off(jobs.resubmit_pause_s, jobs.resubmit_pause_limit_s),
        ambiguous=jobs.submit_ambiguous,
        lease=timedelta(seconds=jobs.submit_lease_s),
        answer_timeout=timedelta(seconds=settings.tams.timeout_s),
        deadline=None if jobs.deadline_s is None else timedelta(seconds=jobs.deadline_s),
        deadline_grace=timedelta(seconds=jobs.deadline_grace_s),
        missing_grace=timedelta(seconds=jobs.missing_grace_s),
        dedupe_window=timedelta(seconds=jobs.dedupe_window_s),
    )


def _worker_plan(settings: Settings, topic: str, partitions: int) -> WorkerPlan:
    worker = settings.worker
    return WorkerPlan(
        topic=topic,
        partitions=partitions,
        policy=job_policy(settings),
        max_waiting=worker.max_waiting,
        max_request_bytes=worker.max_request_bytes,
        ownership=ownership_plan(settings, worker.closing_time_s),
    )


def _export_worker(
    metrics: CollectorRegistry,
    worker: Worker,
    upstream: Upstream,
    submitter: Submitter,
    tracker: Tracker,
    feed: KafkaFeed,
) -> None:
    export(
        metrics,
        {
            "jobs_live": ("Jobs of this process that have not ended.", worker.live_jobs),
            "jobs_waiting": ("Jobs that wait to be submitted.", submitter.__len__),
            "jobs_tracked": ("Jobs that TAMS holds for this process.", tracker.__len__),
            "requests_lag": ("Requests read so far behind the topic's end.", lambda: sum(feed.lag().values())),
            "tams_reachable": ("1 unless TAMS fails.", lambda: upstream.health().reachable),
            "tams_authorized": ("1 unless TAMS refuses our credentials.", lambda: upstream.health().authorized),
        },
    )
