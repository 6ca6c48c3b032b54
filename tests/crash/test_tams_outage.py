"""TAMS is away for an hour: nobody listens, it answers 503 with and without `Retry-After`, it never answers.

One worker process lives through it once, and each test holds one promise against what was seen of it. Its clock runs
fast, so that the hour takes half a minute; `BRIDGE_TAMS_OUTAGE_S=3600` gives it as long by an ordinary clock, with the
rate of calls limited.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest

from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from tests.crash.fast import FAST
from tests.crash.judge import Event
from tests.crash.load import graph
from tests.crash.processes import TAMS_BRIDGE, Child, Line
from tests.crash.proxy import Proxy, proxy
from tests.crash.system import CREATE, QuickBroker, System, await_partitions, running_system

GIVEN_S = os.environ.get("BRIDGE_TAMS_OUTAGE_S", "")
OUTAGE_S = float(GIVEN_S or 3600)
"""How long TAMS is away, by the worker's clock."""
SPEED = 1.0 if GIVEN_S else 150.0
RATE = 10 if GIVEN_S else 0

PHASES = ("nobody listens", "503", "503 with Retry-After", "no answer")
STEPS = 15
"""Of each phase; in each some requests come, and the worker is looked at."""
NEW = 400
MAX_WAITING = 100
PROBE_LIMIT_S = 30.0
"""Longest pause between probes, as the documents say; jitter makes it half of that at the least."""
RAMP = 60
"""Calls that were under way when TAMS went, and probes until their pauses are at that limit: in all phases together."""
RAMP_S = 120.0
"""After that they are, whatever the jitter."""
STALL_S = 3.0
"""What a busy machine may add to a time-out, of real time."""

EVENTS_OF = {
    "quick": "success",
    "long": "success",
    "outliving": "success",
    "doubt": "success",
    "new": "success",
    "late": "expired",
    "hasty": "expired",
    "endless": "canceled",
    "given-up": "canceled",
}
"""How each kind of request is to end, by the first part of its id."""

pytestmark = [pytest.mark.apache, pytest.mark.timeout(0)]  # one of them lives through it all; each wait has its bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How the worker was at one moment of the outage."""

    phase: str
    status: int
    problems: Sequence[str]
    waiting: int
    resident_mb: float


@dataclass(slots=True, kw_only=True)
class Seen:
    """What was seen of it all; `begun_at` and all times of the journal are TAMS' seconds."""

    looks: list[Look] = field(default_factory=list)
    after: Look | None = None
    begun_at: float = 0.0
    calls: list[Line] = field(default_factory=list)
    journal: Sequence[Line] = ()
    asked: dict[str, list[Line]] = field(default_factory=dict)
    took_s: float = 0.0
    told_meanwhile: Mapping[str, Sequence[Event]] = field(default_factory=dict)
    ends: Mapping[str, str] = field(default_factory=dict)
    complaints: Sequence[str] = ()
    code: int = -1


class Outage:
    """The worker, what stands around it, and the hour."""

    def __init__(self, stack: ExitStack, system: System) -> None:
        self._stack = stack
        self._system = system
        self._tams_port = urlsplit(system.tams.url).port or 0
        self._way = ExitStack()
        stack.callback(self._way.close)
        self._front = self._open_way(0)
        [self._http_port] = free_ports(1)
        self._worker = self._start_worker(self._front.port)
        self._published = 0
        self.seen = Seen()

    def before(self) -> None:
        """Jobs of all kinds are under way, and some creates have reached TAMS whose answers have not come."""
        await_partitions(self._worker)
        self._request("quick", 10, run_s=1)
        self._await_ends(self._system.load.accepted, seconds=30)
        self._request("long", 20, run_s=OUTAGE_S / 3)
        self._request("outliving", 5, run_s=OUTAGE_S * 1.05)
        self._request("endless", 5, run_s=OUTAGE_S * 3)
        self._request("late", 5, run_s=OUTAGE_S * 3, deadline_s=OUTAGE_S / 4)
        stories = self._system.follower().stories
        self._system.follower().until(
            lambda: all(_has(stories.get(name, ()), "submitted") for name in self._system.load.accepted),
            seconds=30,
            what=lambda: "all jobs at TAMS",
        )
        self._system.tams.add_fault({"match": {"method": "POST"}, "fault": {"delay_s": 0.8 * SPEED}})
        creates = len(self._creates())
        self._request("doubt", 10, run_s=1)
        self._system.tams.await_journal(lambda _: len(self._creates()) >= creates + 10, seconds=20)

    def away(self) -> None:
        """TAMS is away, each way for a quarter of the time; requests and cancels go on coming."""
        lines = len(self._worker.lines)
        self.seen.begun_at = max(line["emulated_at"] for line in self._system.tams.journal())
        for phase in PHASES:
            begun = len(self._system.tams.journal())
            self._go_away(phase)
            if phase == PHASES[0]:
                self._ask_for_what_cannot_be()
            for _ in range(STEPS):
                self._step(phase)
            self.seen.asked[phase] = list(self._system.tams.journal()[begun:])
        self.seen.calls = [line for line in self._worker.lines[lines:] if line.get("event") == "tams call"]
        follower = self._system.follower()
        follower.to_the_end()
        self.seen.told_meanwhile = {name: list(story) for name, story in follower.stories.items()}

    def back(self) -> None:
        """TAMS is there again; the worker is stopped once everything has ended."""
        clock = SystemClock()
        self._system.tams.clear_faults()
        self._front.cut()  # what hangs in it must not reach TAMS now, as if it had been sent now
        self._front.heal()
        back_at = clock.monotonic()
        self._await_ends(self._system.load.accepted, seconds=60 + (2 * NEW / RATE + 60 if RATE else 0))
        self.seen.took_s = clock.monotonic() - back_at
        self.seen.after = self._look("afterwards")
        self.seen.code = self._worker.stop(seconds=15)
        self._system.load.finish()
        self.seen.complaints = self._system.judged()
        self.seen.journal = self._system.tams.journal()
        stories = self._system.follower().stories
        self.seen.ends = {name: max(story, key=lambda told: told.sequence).kind for name, story in stories.items()}

    def _start_worker(self, port: int) -> Child:
        slow = {"TAMS__TIMEOUT_S": "5", "POLL__INTERVAL_S": "1", "TAMS__RATE": f"{RATE}"}
        fast = {"JOBS__SUBMIT_LEASE_S": f"{5 * SPEED}", "POLL__INTERVAL_S": "30"}
        return self._system.worker(
            command=TAMS_BRIDGE if GIVEN_S else (*FAST, f"{SPEED}"),
            HTTP__PORT=f"{self._http_port}",
            TAMS__BASE_URL=f"http://127.0.0.1:{port}",
            WORKER__MAX_WAITING=f"{MAX_WAITING}",
            JOBS__RETRY_PAUSE_S="2",
            JOBS__RESUBMIT_PAUSE_S="1",
            JOBS__RESUBMIT_PAUSE_LIMIT_S="60",
            JOBS__DEADLINE_GRACE_S=f"{OUTAGE_S / 60}",
            **(slow if GIVEN_S else fast),
        )

    def _open_way(self, port: int) -> Proxy:
        return self._way.enter_context(proxy(self._tams_port, port))

    def _go_away(self, phase: str) -> None:
        tams = self._system.tams
        match phase:
            case "nobody listens":
                self._way.close()
                tams.clear_faults()
            case "503":
                tams.add_fault({"fault": {"status": 503}})
                self._front = self._open_way(self._front.port)
            case "503 with Retry-After":
                tams.clear_faults()
                tams.add_fault({"fault": {"status": 503, "retry_after": 1}})
            case _:
                self._front.stall()

    def _ask_for_what_cannot_be(self) -> None:
        self._request("hasty", 10, run_s=1, deadline_s=OUTAGE_S / 20)
        self._request("given-up", 10, run_s=1)
        for kind, count in (("given-up", 10), ("endless", 5)):
            for number in range(count):
                self._system.load.cancel(f"{kind}-{number}")

    def _step(self, phase: str) -> None:
        count = NEW // (STEPS * len(PHASES))
        self._request("new", count, first=self._published, run_s=1)
        self._published += count
        self._worker.live_for(OUTAGE_S / len(PHASES) / STEPS / SPEED)
        self.seen.looks.append(self._look(phase))

    def _request(self, kind: str, count: int, *, first: int = 0, run_s: float, deadline_s: float | None = None) -> None:
        for number in range(first, first + count):
            name = f"{kind}-{number}"
            fields = {} if deadline_s is None else {"deadline_s": deadline_s}
            self._system.load.request(name, graph(name, queue_s=0, run_s=run_s), **fields)

    def _await_ends(self, names: Sequence[str], *, seconds: float) -> None:
        self._system.follower().until_ended(names, seconds=seconds)

    def _creates(self) -> list[Line]:
        return [line for line in self._system.tams.journal() if line["route"] == CREATE]

    def _look(self, phase: str) -> Look:
        connection = HTTPConnection("127.0.0.1", self._http_port, timeout=20)
        try:
            connection.request("GET", "/health/ready")
            answer = connection.getresponse()
            body = json.load(answer)
        finally:
            connection.close()
        resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self._worker.pid}/status").read_text())
        assert resident
        return Look(
            phase=phase,
            status=answer.status,
            problems=body["problems"],
            waiting=body["worker"]["jobs"]["waiting"],
            resident_mb=int(resident[1]) / 1e3,
        )


@pytest.fixture(scope="module")
def seen(quick_broker: QuickBroker) -> Iterator[Seen]:
    """All of it, lived through once."""
    with ExitStack() as stack:
        system = stack.enter_context(running_system(quick_broker, Random(1), speed=SPEED, rate=RATE))
        outage = Outage(stack, system)
        outage.before()
        outage.away()
        outage.back()
        sys.stdout.write(_figures(outage.seen))
        yield outage.seen


def test_everything_ends_as_promised_and_nothing_is_rejected_doubled_or_paid_twice(seen: Seen) -> None:
    """The judge compares requests, events, ledger and TAMS' own journal."""
    assert seen.complaints == []
    assert {name: EVENTS_OF[name.rpartition("-")[0]] for name in seen.ends} == seen.ends
    assert seen.code == 0


def test_a_create_whose_answer_was_cut_off_is_repeated_under_its_request_id_and_paid_once(seen: Seen) -> None:
    doubtful = {line["job_id"] for line in seen.journal if line["route"] == CREATE and line["fault"]}
    made = Counter(line["request_id"] for line in seen.journal if line["job_id"] in doubtful - {""})

    assert len(made) == 10
    assert min(made.values()) >= 2


def test_requests_wait_in_the_worker_up_to_the_limit_and_the_rest_stays_in_kafka(seen: Seen) -> None:
    assert max(look.waiting for look in seen.looks) >= MAX_WAITING * 0.9
    assert max(look.waiting for look in seen.looks) <= MAX_WAITING + 500  # what one fetch may bring
    accepted = {name for name, story in seen.told_meanwhile.items() if name.startswith("new-") and story}
    assert 0 < len(accepted) < NEW


def test_probes_are_few_and_alone_however_tams_is_away(seen: Seen) -> None:
    """Both by the worker's log and, where TAMS was there to say no, by its journal."""
    assert len(seen.calls) <= OUTAGE_S / (PROBE_LIMIT_S / 2) + RAMP
    for phase in ("503", "503 with Retry-After"):
        steady = [time for time in _times(seen.asked[phase]) if time >= seen.begun_at + RAMP_S]
        assert min(_gaps(steady), default=PROBE_LIMIT_S) >= PROBE_LIMIT_S / 2 - 1.0, phase


def test_probes_do_not_stop(seen: Seen) -> None:
    """Or nobody would find out that TAMS is there again."""
    for phase in ("503", "503 with Retry-After"):
        assert max(_gaps(_times(seen.asked[phase])), default=0.0) <= PROBE_LIMIT_S + STALL_S * SPEED, phase
        assert seen.asked[phase], phase


def test_health_says_in_words_that_tams_is_away_however_it_is_and_is_green_afterwards(seen: Seen) -> None:
    for phase in PHASES:
        looks = [look for look in seen.looks if look.phase == phase][3:]
        assert {look.status for look in looks} == {503}, phase
        assert all("tams: not reachable" in " ".join(look.problems) for look in looks), phase
    assert seen.after is not None
    assert (seen.after.status, list(seen.after.problems)) == (200, [])


def test_memory_does_not_grow_with_the_length_of_the_outage(seen: Seen) -> None:
    """From a third of it on the limit of waiting jobs is reached, and nothing more is taken in."""
    later = [look.resident_mb for look in seen.looks[len(seen.looks) // 3 :]]

    assert max(later) - later[0] <= 6.0, later


def test_a_job_that_waits_at_its_deadline_expires_meanwhile_and_one_that_is_given_up_is_canceled(seen: Seen) -> None:
    """TAMS need not be there for that."""
    for kind, end in (("hasty", "expired"), ("given-up", "canceled"), ("late", "expired")):
        stories = [story for name, story in seen.told_meanwhile.items() if name.startswith(f"{kind}-")]
        assert stories
        assert all(_has(story, end) for story in stories), kind


def test_a_job_that_tams_holds_is_canceled_there_once_it_is_back(seen: Seen) -> None:
    deletes = Counter(line["job_id"] for line in seen.journal if line["method"] == "DELETE" and line["status"] == 200)

    assert len(deletes) == 5


def test_all_that_waited_is_done_soon_after_and_within_the_rate(seen: Seen) -> None:
    """The first probe that succeeds opens the way for all."""
    assert seen.took_s <= PROBE_LIMIT_S / SPEED + STALL_S + (3.5 * NEW / RATE if RATE else 0.05 * NEW)
    refused = [line for line in seen.journal if line["status"] == 429]
    assert len(refused) <= len(seen.journal) / 200, refused  # a busy machine hands calls on late, and so close together


def _times(lines: Sequence[Line]) -> list[float]:
    return sorted(line["emulated_at"] for line in lines)


def _gaps(times: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


def _figures(seen: Seen) -> str:
    """What may interest who runs it by hand."""
    asked = ", ".join(f"{len(lines)} at TAMS while {phase!r}" for phase, lines in seen.asked.items() if lines)
    memory = f"{seen.looks[0].resident_mb:.1f} MB resident at first, {seen.looks[-1].resident_mb:.1f} at last"
    return f"{OUTAGE_S:g} s away: {len(seen.calls)} calls ({asked}); {memory}; all ended {seen.took_s:.1f} s later\n"


def _has(story: Sequence[Event], kind: str) -> bool:
    return any(event.kind == kind for event in story)
