"""How a worker is put together."""

import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from bridge.adapters.kafka.feed import KafkaFeed
from bridge.adapters.kafka.ledger import KafkaLedgers
from bridge.adapters.kafka.publishing import KafkaPublisher
from bridge.adapters.kafka.run_times import KafkaRunTimes
from bridge.adapters.kafka.slots import KafkaSlots
from bridge.adapters.tams import TamsClient, authorization, fast_transport
from bridge.adapters.telemetry import WorkerTelemetry
from bridge.core.breaker import Breaker
from bridge.core.budget import RateBudget
from bridge.core.in_flight import InFlightCap
from bridge.core.jobs import JobPolicy
from bridge.core.polling import LeastDelay, LookReason
from bridge.core.run_times import RunTimes
from bridge.core.slots import SlotHolder
from bridge.ports import Surroundings, WholeRate
from bridge.roles.ground import (
    Ground,
    Role,
    back_off,
    export,
    ownership_plan,
    ownership_problems,
    unconfirmed_problems,
)
from bridge.settings import Settings
from bridge.shell import Part
from bridge.submitter import Submitter
from bridge.tracker import Tracker
from bridge.upstream import Upstream
from bridge.worker import Worker, WorkerPlan


async def build_worker(ground: Ground) -> Role:
    """Put a worker together.

    Raises:
        CannotStart: there are no credentials, or they cannot be used.
    """
    settings, clock = ground.settings, ground.clock
    scheme = authorization(settings.tams, clock=clock)
    surroundings = Surroundings(clock, Random(), WorkerTelemetry(ground.metrics))  # noqa: S311  jitter
    tams = TamsClient(settings.tams, scheme=scheme, transport=fast_transport(settings.tams), clock=clock)
    ground.stack.push_async_callback(tams.aclose)
    budget = RateBudget(settings.tams.rate, burst=settings.tams.burst)
    upstream = Upstream(
        tams,
        budget=budget,
        breaker=Breaker(
            threshold=settings.tams.breaker_threshold,
            back_off=back_off(settings.tams.breaker_pause_s, settings.tams.breaker_pause_limit_s),
        ),
        cap=InFlightCap(settings.worker.max_in_flight),
        concurrency=settings.tams.concurrency,
        throttled_pause=timedelta(seconds=settings.tams.throttled_pause_s),
        surroundings=surroundings,
    )
    slots = _share_rate(ground, budget, upstream.changed.set) if settings.tams.rate else None
    run_times, waits = RunTimes(), RunTimes()
    policy = LeastDelay(run_times, waits, interval=settings.poll.interval_s, max_silence=settings.poll.max_silence_s)
    publisher = await ground.stack.enter_async_context(KafkaPublisher(settings))
    learned = KafkaRunTimes(
        settings,
        ground.names.run_times,
        {"run": run_times, "wait": waits},
        publisher=publisher,
        clock=clock,
    )
    cancel_pause = back_off(settings.jobs.resubmit_pause_s, settings.jobs.resubmit_pause_limit_s)
    tracker = Tracker(upstream, policy=policy, clock=clock, cancel_pause=cancel_pause)
    priority_step = timedelta(seconds=settings.jobs.priority_step_s)
    submitter = Submitter(upstream, clock=clock, priority_step=priority_step)
    requests = ground.names.requests
    feed = KafkaFeed(settings, topic=requests, group=settings.worker.group, clock=clock)
    worker = Worker(
        ledgers=KafkaLedgers(settings, ground.names, ground.counts),
        feed=feed,
        upstream=upstream,
        submitter=submitter,
        tracker=tracker,
        share=slots or WholeRate(),
        registry=ground.registry,
        plan=_worker_plan(settings, requests),
        surroundings=surroundings,
    )
    parts = _Parts(worker, upstream, submitter, tracker, feed, learned, slots)
    _export_budget(ground, budget, slots)
    _export_worker(ground.metrics, parts)
    _export_polling(ground.metrics, policy, run_times)
    return _worker_role(ground, parts)


@dataclass(frozen=True, slots=True)
class _Parts:
    worker: Worker
    upstream: Upstream
    submitter: Submitter
    tracker: Tracker
    feed: KafkaFeed
    learned: KafkaRunTimes
    slots: KafkaSlots | None


def _share_rate(ground: Ground, budget: RateBudget, changed: Callable[[], None]) -> KafkaSlots:
    holder = SlotHolder(f"{socket.gethostname()}.{secrets.token_hex(4)}", budget)
    return KafkaSlots(ground.settings, ground.names.budget, holder, clock=ground.clock, changed=changed)


def _worker_role(ground: Ground, parts: _Parts) -> Role:
    worker, feed, learned, ownership = parts.worker, parts.feed, parts.learned, parts.worker.ownership

    async def until_informed() -> None:
        await ground.registry_tail.caught_up.wait()  # an event committed before would miss its endpoints
        await learned.tail.caught_up.wait()  # jobs restored are planned by what is known of them

    async def work() -> None:
        await until_informed()
        await worker.run()

    async def read() -> None:
        await until_informed()  # partitions that are assigned before the worker runs would be nobody's
        await feed.run(worker.ownership)

    return Role(
        name="worker",
        work=(Part("worker", work, worker.stop),),
        feeds=(Part("requests feed", read, feed.stop),),
        tails=(
            Part("run times tail", learned.tail.run, learned.tail.stop),
            Part("run times", learned.run, learned.stop),
            *([Part("slots", parts.slots.run, parts.slots.stop)] if parts.slots else ()),
        ),
        problems=lambda: [
            *ownership_problems(ownership.assigned_partitions, ownership.open_partitions, ownership.reasons, "request"),
            *unconfirmed_problems(
                [
                    *(owner.commit_began for owner in ownership.owners),
                    parts.slots.unconfirmed_since if parts.slots else None,
                ],
                now=ground.clock.monotonic(),
            ),
            *_tams_problems(parts.upstream),
            *_rate_problems(parts.slots),
        ],
        state=lambda: {
            "partitions": {
                "assigned": len(ownership.assigned_partitions),
                "open": len(ownership.open_partitions),
            },
            "jobs": {"live": worker.live_jobs(), "waiting": len(parts.submitter), "tracked": len(parts.tracker)},
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


def _rate_problems(slots: KafkaSlots | None) -> list[str]:
    if slots is None or not slots.gives_way():
        return []
    return ["rate: workers of a later release share it in a way this one does not know: it makes no calls; upgrade it"]


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


def _worker_plan(settings: Settings, topic: str) -> WorkerPlan:
    worker = settings.worker
    return WorkerPlan(
        topic=topic,
        policy=job_policy(settings),
        max_waiting=worker.max_waiting,
        max_request_bytes=worker.max_request_bytes,
        submit_share=settings.tams.submit_share,
        ownership=ownership_plan(settings, worker.closing_time_s),
    )


def _export_worker(metrics: CollectorRegistry, parts: _Parts) -> None:
    upstream = parts.upstream
    export(
        metrics,
        {
            "jobs_live": ("Jobs of this process that have not ended.", parts.worker.live_jobs),
            "jobs_waiting": ("Jobs that wait to be submitted.", parts.submitter.__len__),
            "jobs_tracked": ("Jobs that TAMS holds for this process.", parts.tracker.__len__),
            "requests_lag": ("Requests read so far behind the topic's end.", lambda: sum(parts.feed.lag().values())),
            "tams_reachable": ("1 unless TAMS fails.", lambda: upstream.health().reachable),
            "tams_authorized": ("1 unless TAMS refuses our credentials.", lambda: upstream.health().authorized),
        },
    )


def _export_budget(ground: Ground, budget: RateBudget, slots: KafkaSlots | None) -> None:
    if slots is None:
        return
    export(
        ground.metrics,
        {
            "rate_slots": (
                "Calls a window that this worker may make; those of all workers are the rate.",
                slots.usable,
            ),
            "rate_slots_in_use": (
                "Those that have a call under way, or had one within the last window.",
                lambda: budget.in_use(now=ground.clock.monotonic()),
            ),
        },
    )


def _export_polling(metrics: CollectorRegistry, policy: LeastDelay, run_times: RunTimes) -> None:
    export(
        metrics,
        {
            "poll_delay_seconds": (
                "Estimate of how long ends have gone unnoticed of late.",
                lambda: policy.delay_estimate,
            ),
            "poll_price_seconds": ("Delay to be expected of a job at which it is looked at.", lambda: policy.price),
            "kinds_learned": ("Kinds of graph whose run times are known, coarser ones included.", run_times.__len__),
        },
    )
    metrics.register(_Looks(policy))


class _Looks(Collector):
    """Counts what the policy counts."""

    def __init__(self, policy: LeastDelay) -> None:
        self._policy = policy

    @override
    def collect(self) -> Iterator[Metric]:
        counted = CounterMetricFamily(
            "tams_bridge_looks", "Looks at jobs, by what made each worth a call.", labels=["reason"]
        )
        for reason in LookReason:
            counted.add_metric([reason], self._policy.looks[reason])
        yield counted
