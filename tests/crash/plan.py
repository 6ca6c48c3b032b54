"""A plan of faults from its beginning to the judgement: start, load, faults, healing, drain, stop, judge."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from tests.crash.cluster import Cluster
from tests.crash.faults import Kind, draw_plan
from tests.crash.injection import STOPPED_S, Injection, end_complaints
from tests.crash.judge import judge
from tests.crash.plan_judge import PlanEvidence, judge_plan, judge_secrets
from tests.crash.plan_system import PROCESSES, PlanSystem, running_plan_system, written
from tests.crash.plan_topics import Everything
from tests.crash.processes import opened
from tests.crash.system import PARTITIONS
from tests.crash.webhook_judge import judge_orders, judge_webhooks, repeats

RATE = 20
_PER_SECOND_AT_RATE = 3
_PER_SECOND = 12
_STARTED_S = 60.0
_WHOLE_S = 60.0
_DRAINED_S = 90.0
_EXPLAINED_S = 2.0
_SHOWN = 20
_TAIL = 10
"""How many complaints, and last lines of each log, a failure shows."""


def run_plan(cluster: Cluster, seed: int, duration_s: float, directory: Path) -> list[str]:
    """Carry out the plan of a seed, and say what is wrong in the end; the directory then holds all that was seen.

    Args:
        cluster: whole, and left whole.
        seed: of the plan, the load, and whether there is a limit of the rate.
        duration_s: of the plan.
        directory: empty.
    """
    cluster.await_whole(seconds=_WHOLE_S)
    rate = 0 if seed % 3 == 2 else RATE  # in a third of all seeds there is no limit
    with running_plan_system(cluster, Random(seed), rate=rate, directory=directory) as system:
        injection = Injection(system, draw_plan(seed, duration_s), Random(seed), _now)
        try:
            with _clocked(f"seed {seed}, plan of {duration_s} s, rate {rate or 'without limit'}"):
                complaints = _lived_through(system, injection, rate)
        except AssertionError as error:
            complaints = [*injection.problems, str(error)]
            _ask_for_reasons(system)
        finally:
            written(system, directory)
            (directory / "plan.txt").write_text("\n".join(injection.diary) + "\n")
            (directory / "journal.jsonl").write_text("\n".join(json.dumps(line) for line in system.tams.journal()))
        sys.stdout.write(_table(injection))
    (directory / "complaints.txt").write_text("\n".join(complaints) + "\n")
    return complaints


def in_short(complaints: Sequence[str], seed: int, duration_s: float, directory: Path) -> str:
    """What a person needs to know of a plan that has failed: what is wrong, how to repeat it, where all logs are."""
    parts = [
        f"seed {seed}: {len(complaints)} complaints",
        *(f"  {complaint}" for complaint in complaints[:_SHOWN]),
        f"again: BRIDGE_CRASH_SEED={seed} BRIDGE_CRASH_SEEDS=1 BRIDGE_CRASH_PLAN_S={duration_s}",
        f"the plan as it went, every whole log and TAMS' journal lie in {directory}; the logs end like this:",
    ]
    for log in sorted(directory.glob("*.log")):
        parts += [f"---- {log.name}", *log.read_text().splitlines()[-_TAIL:]]
    return "\n".join(parts)


def _lived_through(system: PlanSystem, injection: Injection, rate: int) -> list[str]:
    for name in PROCESSES:
        system.start(name)
    _read_until(system, lambda: _has_begun(system), seconds=_STARTED_S, what=lambda: "all begin their work")
    injection.note("all have begun their work")
    system.load.start(_PER_SECOND_AT_RATE if rate else _PER_SECOND)
    injection.begin()
    system.follower.read_while(injection.tick)
    injection.note("the plan is over")
    system.load.finish()
    system.cluster.await_whole(seconds=_WHOLE_S)
    injection.note("brokers and load are at rest")
    _drain(system, injection)
    injection.note("everything has ended, and is delivered")
    complaints = [*injection.problems, *system.load.problems]
    complaints += _stop(system)
    injection.note("all have stopped")
    return [*complaints, *_judged(system, injection, rate)]


def _has_begun(system: PlanSystem) -> bool:
    return (
        all(
            sum(len(opened(process.lines, kind)) for name, process in system.running.items() if name.startswith(role))
            == PARTITIONS
            for role, kind in (("worker", "partition"), ("forwarder", "dispatch partition"))
        )
        and system.api_answers()
    )


def _drain(system: PlanSystem, injection: Injection) -> None:
    """Return once every request has ended, and every event been delivered where somebody takes it."""
    follower, load = system.follower, system.load

    def ended() -> bool:
        injection.tick()
        return not (load.accepted.keys() - follower.stories.keys()) and not follower.unended()

    _read_until(system, ended, seconds=_DRAINED_S, what=lambda: _unended(system))
    injection.note("every request has ended")
    wanted = system.webhooks.wanted(system.webhooks.events().values())
    system.webhooks.until_delivered(wanted, system.running["forwarder-1"], seconds=_DRAINED_S)


def _unended(system: PlanSystem) -> object:
    silent = sorted(system.load.accepted.keys() - system.follower.stories.keys())
    begun = {name: [event.kind for event in system.follower.stories[name]] for name in system.follower.unended()[:10]}
    return f"all requests end; without any event: {silent[:10]}; without an end: {begun}"


def _ask_for_reasons(system: PlanSystem) -> None:
    """Let the workers say what they are waiting for, so that it stands in their logs."""
    until = time.monotonic() + _EXPLAINED_S
    for name, process in system.running.items():
        if name.startswith("worker"):
            process.explain()
    system.follower.read_while(lambda: time.monotonic() < until)


def _stop(system: PlanSystem) -> Iterator[str]:
    running, until = dict(system.running), time.monotonic() + STOPPED_S
    system.running.clear()
    for process in running.values():
        process.end()
    system.follower.read_while(
        lambda: any(process.code is None for process in running.values()) and time.monotonic() < until
    )
    for name, process in running.items():
        yield from end_complaints(name, process)


def _judged(system: PlanSystem, injection: Injection, rate: int) -> Iterator[str]:
    load, follower, webhooks = system.load, system.follower, system.webhooks
    jobs = replace(
        system.system.evidence(follower, frozenset(load.accepted), list(load.unreadable)),
        possible=frozenset(load.possible),
    )
    yield from judge(jobs)
    journal = system.tams.journal()
    yield from judge_plan(
        PlanEvidence(
            canceled=follower.canceled,
            held_back=injection.held_back,
            rate=rate,
            calls=[line["real_at"] for line in journal if line["path"].startswith("/v1/jobs")],
            sent=load.unreadable,
            letters=follower.letters,
        ),
        jobs,
    )
    events = webhooks.events()
    wanted = webhooks.wanted(events.values())
    evidence = webhooks.evidence(wanted)
    yield from judge_orders(wanted, events, webhooks.follower().orders)
    yield from judge_webhooks(evidence)
    yield from judge_secrets(system.secrets, _told(system))
    sys.stdout.write(
        f"{len(load.accepted)} requests accepted, {len(load.unreadable)} unreadable, {len(events)} events, "
        f"{len(journal)} calls to TAMS, {len(evidence.receipts)} POSTs, {repeats(evidence)} of them repeats\n"
        f"API: {dict(sorted(load.answers.items()))}\n"
    )


def _told(system: PlanSystem) -> Iterator[tuple[str, bytes]]:
    """All that anybody can read: logs, topics, and what the API said when it refused."""
    for name, process in system.started:
        yield from ((f"log of {name}", json.dumps(line, ensure_ascii=False).encode()) for line in process.lines)
    yield from (("refusal of the API", refusal) for refusal in system.load.refusals)
    everything = Everything(system.cluster.direct_servers, system.prefix)
    try:
        everything.to_the_end()
        yield from everything.told
    finally:
        everything.close()


def _read_until(system: PlanSystem, enough: Callable[[], bool], *, seconds: float, what: Callable[[], object]) -> None:
    until, has_come = time.monotonic() + seconds, False

    def goes_on() -> bool:
        nonlocal has_come
        has_come = enough()
        return not has_come and time.monotonic() < until

    system.follower.read_while(goes_on)
    assert has_come, f"not within {seconds} s: {what()}"


def _now() -> float:
    return datetime.now(UTC).timestamp()  # noqa: TID251  real processes, real time


@contextmanager
def _clocked(what: str) -> Iterator[None]:
    sys.stdout.write(f"{what}\n")
    began = time.monotonic()
    yield
    sys.stdout.write(f"took {time.monotonic() - began:.0f} s\n")


def _table(injection: Injection) -> str:
    rows = [
        f"  {kind:<36} {injection.injected[kind]:>8} {injection.recovered[kind]:>9}"
        for kind in Kind
        if injection.injected[kind]
    ]
    return "\n".join([f"  {'fault':<36} {'injected':>8} {'recovered':>9}", *rows, ""])
