"""The comparison once more through the real worker: its tracker, submitter and HTTP client against the emulator.

The worker keeps to its rate; the emulator does not enforce it, since five milliseconds by which this machine hands a
request over late are a tenth of a second by a clock that runs twenty times as fast.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from urllib.request import urlopen

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from bench.parts.polling_policies import least_delay, round_robin
from bench.parts.polling_simulation import CALLS_PER_S, Outcome
from bench.parts.polling_table import OURS, ROUND_ROBIN, Figures, simulate
from bench.parts.polling_workloads import LINEAR, Job, trace
from bench.parts.polling_world import Counted, FastClock, OneLedger, OneTopic
from bench.parts.stack import Emulator, emulator
from bridge.adapters.tams import TamsClient, authorization, fast_transport
from bridge.core.breaker import Breaker
from bridge.core.budget import RateBudget
from bridge.core.in_flight import InFlightCap
from bridge.core.jobs import JobPolicy
from bridge.core.polling import PollPolicy
from bridge.core.registry import Registry
from bridge.core.schedule import BackOff
from bridge.ports import Surroundings, WholeRate
from bridge.settings import TamsSettings
from bridge.submitter import Submitter
from bridge.tracker import Tracker
from bridge.upstream import Upstream
from bridge.worker import Worker, WorkerPlan

RATE = 1.0
SEED = 0
LAST_S = 120.0
"""How long jobs go on to arrive after the horizon, so that the last ends are looked for as all others were."""

AGREES = 0.15
POLICIES: dict[str, Callable[[], PollPolicy]] = {ROUND_ROBIN: round_robin, OURS: least_delay}


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """What a worker did in one run; times in the emulator's seconds.

    Args:
        outcome: the delays.
        seconds: how long it worked.
        told: its calls.
        cpu: part of one processor that this process, and the emulator, used.
    """

    outcome: Outcome
    seconds: float
    told: Counted
    cpu: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Parts:
    """A worker as `bridge.roles.worker` puts it together, without Kafka."""

    worker: Worker
    topic: OneTopic
    ledger: OneLedger
    told: Counted


def _assemble(tams: TamsClient, policy: PollPolicy, clock: FastClock) -> _Parts:
    topic, ledger, told = OneTopic(), OneLedger(), Counted()
    surroundings = Surroundings(clock, Random(1), told)
    upstream = Upstream(
        tams,
        budget=RateBudget(CALLS_PER_S),
        breaker=Breaker(threshold=3, back_off=BackOff(initial=timedelta(seconds=1), limit=timedelta(seconds=30))),
        cap=InFlightCap(100_000),
        concurrency=16,
        surroundings=surroundings,
    )
    worker = Worker(
        ledgers=ledger,
        feed=topic,
        upstream=upstream,
        submitter=Submitter(upstream, clock=clock),
        tracker=Tracker(upstream, policy=policy, clock=clock),
        share=WholeRate(),
        registry=Registry(),
        plan=WorkerPlan(topic="bench.requests", policy=JobPolicy()),
        surroundings=surroundings,
    )
    return _Parts(worker, topic, ledger, told)


async def _work(
    url: str, jobs: Sequence[Job], policy: PollPolicy, clock: FastClock, seconds: float
) -> tuple[_Parts, float]:
    """Let a worker run the trace for so long; what it was made of, and when it started, on the clock."""
    tams_settings = TamsSettings.model_validate({"base_url": url, "api_key": "emulator-key"})
    scheme, transport = authorization(tams_settings, clock=clock), fast_transport(tams_settings)
    tams = TamsClient(tams_settings, scheme=scheme, transport=transport, clock=clock)
    parts = _assemble(tams, policy, clock)
    running = asyncio.create_task(parts.worker.run())
    await clock.reach(clock.monotonic() + 1.0)  # it has begun by then, and can be given the partition
    parts.worker.ownership.assigned([0])
    await parts.topic.begun.wait()
    started_at = clock.monotonic()
    for number, job in enumerate(jobs):
        await clock.reach(started_at + job.arrives_at)
        parts.worker.ownership.arrived(0, [parts.topic.record(str(number), _graph(job))])
    await clock.reach(started_at + seconds)
    running.cancel()
    with suppress(asyncio.CancelledError):  # any other way to have ended is a failure of the bench
        await running
    await tams.aclose()
    return parts, started_at


def _graph(job: Job) -> dict[str, object]:
    kind = job.kind.partition("/")[0]
    return {
        "1": {"classType": f"Kind{kind}", "inputs": {}},
        "2": {"classType": "EmulatorScript", "inputs": {"run_s": job.run_s}},
    }


def _outcome(tams: Emulator, parts: _Parts, started_at: float, horizon: float, seconds: float) -> Outcome:
    outcome = Outcome(jobs=len(parts.ledger.job_ids), looks=parts.told.calls - len(parts.ledger.job_ids))
    for request_id, job_id in parts.ledger.job_ids.items():
        with urlopen(f"{tams.url}/_emulator/jobs/{job_id}") as answer:  # noqa: S310 -- an emulator this bench has started
            ended_at = float(json.load(answer)["endsAt"]) - started_at
        if ended_at <= horizon:
            seen = parts.ledger.ended_at.get(request_id)
            outcome.ended_at.append(ended_at)
            outcome.delays.append((seconds if seen is None else seen.timestamp() - started_at) - ended_at)
    return outcome


def emulate(policy: PollPolicy, jobs: Sequence[Job], *, speed: float, horizon: float) -> Emulated:
    """One trace through a real worker and an emulator of its own.

    Args:
        policy: whom to look at next.
        jobs: the trace.
        speed: emulated seconds to a real one.
        horizon: ends after this do not count, in emulated seconds.
    """
    seconds = horizon + LAST_S
    with emulator(speed=speed) as tams:
        clock = FastClock(tams.url, speed)
        ours = psutil.Process()
        theirs = next(child for child in ours.children() if "bridge.emulator" in child.cmdline())
        before = [_cpu_s(process) for process in (ours, theirs)]
        parts, started_at = uvloop.run(_work(tams.url, jobs, policy, clock, seconds))
        used = [_cpu_s(process) - since for process, since in zip((ours, theirs), before, strict=True)]
        cpu = (used[0] * speed / seconds, used[1] * speed / seconds)
        return Emulated(
            outcome=_outcome(tams, parts, started_at, horizon, seconds), seconds=seconds, told=parts.told, cpu=cpu
        )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def measure_emulator(console: Console, *, speed: float, horizon: float) -> None:
    """Run, simulate the same, and print both."""
    jobs = trace(LINEAR, rate=RATE, seconds=horizon + LAST_S, turns_at=horizon, seed=SEED)
    title = f"{LINEAR.title}, {RATE:g} job/s, {speed:g} times as fast: seconds from end to event"
    names = ("policy", "", "mean", "p50", "p99", "looks", "calls/s", "s a call", "cpu: worker, emulator")
    table, means = Table(*names, title=title), dict[str, float]()
    for name, make in POLICIES.items():
        simulated = Figures.of([simulate(LINEAR, name, rate=RATE, seed=SEED, horizon=horizon)])
        ran = emulate(make(), jobs, speed=speed, horizon=horizon)
        found = Figures.of([ran.outcome])
        table.add_row(name, "simulated", *_delays(simulated))
        told = ran.told
        table.add_row(
            "",
            "emulated",
            *_delays(found),
            f"{told.calls / ran.seconds:.2f}",
            f"{told.seconds / told.calls:.3f}",
            ", ".join(f"{part:.0%}" for part in ran.cpu),
        )
        means[f"simulated {name}"], means[f"emulated {name}"] = simulated.mean, found.mean
    console.print(table)
    _compare(console, means)


def _delays(figures: Figures) -> tuple[str, ...]:
    return (
        f"{figures.mean:.2f}",
        f"{figures.p50:.2f}",
        f"{figures.p99:.2f}",
        f"{figures.looks:.2f}",
    )


def _compare(console: Console, means: dict[str, float]) -> None:
    simulated, emulated = (means[f"{how} {OURS}"] / means[f"{how} {ROUND_ROBIN}"] for how in ("simulated", "emulated"))
    off = abs(emulated / simulated - 1)
    console.print(
        f"{'met    ' if off <= AGREES else 'NOT MET'}  ours to round robin, emulated within {AGREES:.0%} of simulated: "
        f"{emulated:.3f} and {simulated:.3f}, {off:.0%} apart",
        soft_wrap=True,
    )
