"""How each fault is made, and put right again, on a running system; in one thread, from one moment to the next.

A fault is a generator: it does something, and says until when it has nothing to do: for so many seconds, or until
something is so. Processes must be started by a thread that lives as long as they do, hence no thread for each fault.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from random import Random
from signal import SIGTERM
from typing import assert_never

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from tests.crash import stepped
from tests.crash.cluster import Node
from tests.crash.faults import NODES, TAMS_LINK, Fault, Kind, Plan
from tests.crash.plan_judge import Span
from tests.crash.plan_system import PlanSystem
from tests.crash.processes import Child, opened
from tests.crash.system import PARTITIONS

STOPPED_S = 20.0
"""Longest time that a process may take to end after SIGTERM."""

_JOINED_S = 15.0
"""Longest time that is waited for a process to begin its work."""

_CAUGHT_UP_S = 1.5
"""How long after a link to TAMS was healed what it held back may still arrive."""

_COUNTED = ("progress", "success", "failed", "dead-letter")

Steps = Iterator[Callable[[], bool]]
"""What a fault waits for, one thing after the other."""


class Injection:
    """Carries out a plan, as far as it is told to at each `tick`.

    Args:
        system: what it befalls.
        plan: what, and when after `begin`.
        chance: who leads which partition.
        now: the wall clock, s since 1970.
    """

    def __init__(self, system: PlanSystem, plan: Plan, chance: Random, now: Callable[[], float]) -> None:
        self._system = system
        self._left = list(plan)
        self._chance = chance
        self._now = now
        self._begun = time.monotonic()
        self._under_way: list[tuple[Fault, Steps, Callable[[], bool]]] = []
        self._meant_to_end: set[str] = set()
        self.injected: Counter[Kind] = Counter()
        self.recovered: Counter[Kind] = Counter()
        self.held_back: list[Span] = []
        self.problems: list[str] = []
        self.diary: list[str] = []

    def begin(self) -> None:
        """The plan's time begins."""
        self._begun = time.monotonic()

    def note(self, what: str) -> None:
        """Write something into the diary."""
        self.diary.append(f"{time.monotonic() - self._begun:8.2f} s  {what}")

    def tick(self) -> bool:
        """Do what is due by now; False once everything has been done and put right."""
        under_way, self._under_way = self._under_way, []
        for fault, steps, is_due in under_way:
            if is_due():
                self._go_on(fault, steps)
            else:
                self._under_way.append((fault, steps, is_due))
        elapsed = time.monotonic() - self._begun
        for due in [each for each in self._left if each[0] <= elapsed]:
            self._begin(due)
        self._look_for_the_dead()
        return bool(self._left or self._under_way)

    def _begin(self, planned: tuple[float, Fault]) -> None:
        """Begin a fault; not yet, if one before it takes longer than was planned, as on a busy machine."""
        _, fault = planned
        if any(fault.lane == other.lane for other, _, _ in self._under_way):
            return
        self._left.remove(planned)
        self.injected[fault.kind] += 1
        self.note(f"{fault.kind}: {fault.target}, for {fault.for_s} s, {fault.amount}")
        self._go_on(fault, self._steps(fault))

    def _go_on(self, fault: Fault, steps: Steps) -> None:
        is_due = next(steps, None)
        if is_due is not None:
            self._under_way.append((fault, steps, is_due))
            return
        self.recovered[fault.kind] += 1
        self.note(f"over: {fault.kind}: {fault.target}")

    def _steps(self, fault: Fault) -> Steps:
        match fault.kind:
            case Kind.KILL | Kind.PAUSE | Kind.RESTART | Kind.JOIN | Kind.CLOCK:
                return self._befall_process(fault)
            case Kind.NODE_KILL | Kind.NODE_PAUSE | Kind.LEADERS | Kind.PARTITIONS:
                return self._befall_brokers(fault)
            case Kind.CUT | Kind.STALL | Kind.SLOW | Kind.HALF_CLOSE | Kind.REFUSE:
                return self._befall_link(fault)
            case Kind.IN_HAND | Kind.THROTTLED | Kind.BROKEN | Kind.GARBAGE | Kind.LATE | Kind.NEVER:
                return self._befall_tams(fault)
            case _:
                assert_never(fault.kind)

    # ------------------------------------------------------------------------------------------------------- processes
    def _befall_process(self, fault: Fault) -> Steps:
        system, name = self._system, fault.target
        match fault.kind:
            case Kind.KILL:
                system.running.pop(name).kill()
                yield _after(fault.for_s)
                system.start(name)
            case Kind.PAUSE:
                system.running[name].pause()
                yield _after(fault.for_s)
                system.running[name].go_on()
            case Kind.RESTART:
                yield from self._stop(name)
                system.start(name)
            case Kind.JOIN:
                system.start(name)
                process, in_time = system.running[name], _after(_JOINED_S)
                yield lambda: bool(opened(process.lines)) or in_time()
                yield _after(fault.for_s)
                yield from self._stop(name)
            case _:
                stepped.step(system.clock_file(name), fault.amount)
                yield _after(fault.for_s)
                stepped.step(system.clock_file(name), 0.0)

    def _stop(self, name: str) -> Steps:
        process = self._system.running[name]
        self._meant_to_end.add(name)
        process.end()
        in_time = _after(STOPPED_S)
        yield lambda: process.code is not None or in_time()
        self.problems += end_complaints(name, process)
        self._meant_to_end.discard(name)
        del self._system.running[name]

    def _look_for_the_dead(self) -> None:
        """Whoever ended by itself is a problem, and another takes its place, as under any supervisor."""
        for name, process in list(self._system.running.items()):
            if process.code is not None and name not in self._meant_to_end:
                self.problems.append(
                    f"{name} has ended by itself with code {process.code}; it said {process.lines[-3:]}"
                )
                self._system.start(name)

    # --------------------------------------------------------------------------------------------------------- brokers
    def _befall_brokers(self, fault: Fault) -> Steps:
        cluster = self._system.cluster
        match fault.kind:
            case Kind.NODE_KILL:
                node = self._node(fault)
                node.kill()
                yield _after(fault.for_s)
                node.start()
                yield lambda: node.is_up
            case Kind.NODE_PAUSE:
                node = self._node(fault)
                node.pause()
                yield _after(fault.for_s)
                node.go_on()
            case Kind.LEADERS:
                cluster.move_leaders(self._system.prefix, self._chance)
            case _:
                self._add_partitions()

    def _node(self, fault: Fault) -> Node:
        return self._system.cluster.nodes[NODES.index(fault.target)]

    def _add_partitions(self) -> None:
        """Events stay where they are: the partition of a request's events is chosen by that of the request."""
        admin = AdminClient({"bootstrap.servers": self._system.cluster.direct_servers, "log_level": 0})
        topics = [NewPartitions(f"{self._system.prefix}.{name}", PARTITIONS + 2) for name in _COUNTED]
        for made in admin.create_partitions(topics).values():
            if made.exception() is None:
                made.result(10)

    # ----------------------------------------------------------------------------------------------------------- links
    def _befall_link(self, fault: Fault) -> Steps:
        links = self._system.links(fault.target)
        began = self._now()
        for link in links:
            match fault.kind:
                case Kind.CUT:
                    link.cut()
                case Kind.STALL:
                    link.stall()
                case Kind.SLOW:
                    link.slow(fault.amount)
                case Kind.HALF_CLOSE:
                    link.half_close()
                case _:
                    link.refuse()
        yield _after(fault.for_s)
        for link in links:
            link.heal()
        if fault.target == TAMS_LINK and fault.kind in {Kind.STALL, Kind.SLOW}:
            self.held_back.append((began, self._now() + _CAUGHT_UP_S))

    # ------------------------------------------------------------------------------------------------------------ TAMS
    def _befall_tams(self, fault: Fault) -> Steps:
        answers: Mapping[Kind, Mapping[str, object]] = {
            Kind.IN_HAND: {"status": 202},
            Kind.THROTTLED: {"status": 429, "retry_after": 1},
            Kind.BROKEN: {"status": 503 if fault.for_s > 2 else 500},
            Kind.GARBAGE: {"malformed": True} if fault.for_s > 2 else {"html": True},
            Kind.LATE: {"delay_s": fault.amount},
            Kind.NEVER: {"delay_s": 3600},
        }
        share = 1.0 if fault.kind is Kind.LATE else fault.amount
        match = {"method": "POST"} if fault.kind is Kind.IN_HAND else {}
        self._system.tams.add_fault(
            {"match": match, "fault": answers[fault.kind], "probability": share, "seed": self._chance.randrange(1000)}
        )
        yield _after(fault.for_s)
        self._system.tams.clear_faults()


def end_complaints(name: str, process: Child) -> Iterator[str]:
    """What is wrong with how it has ended after SIGTERM, or that it has not; it is gone then.

    A process that had not begun yet when SIGTERM came is ended by the system.
    """
    code = process.code
    process.kill()
    if code is None:
        yield f"{name} has not ended {STOPPED_S} s after SIGTERM; it said last: {process.lines[-3:]}"
    elif code and (code != -SIGTERM or process.lines):
        yield f"{name} ended with code {code} after SIGTERM; it said last: {process.lines[-3:]}"


def _after(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until
