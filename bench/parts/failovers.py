"""Two workers with jobs in flight, of which one is killed again and again: how soon the other looks at its jobs."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from random import Random
from threading import Event
from typing import Any

import aiohttp

from bench.parts.memory import PARAMS, record_of
from bench.parts.stack import BRIDGE, Emulator, Measured, emulator, measured, settings_for
from bridge.adapters.kafka.ledger import KafkaLedgers
from bridge.adapters.kafka.topics import Topics
from bridge.ports import Changes
from bridge.settings import Settings

AT_ONCE = 1_000
POSTS_AT_ONCE = 50
RATE = 50
"""Calls a second over both workers, by slots as always: so many that a job whose turn it is waits for no other."""

OLDEST_S = 3_600.0
"""Jobs were submitted at any time since; else all of one partition would come before all of another."""

STILL_UNDER_WAY_S = 0.2
"""A call that the dead one had sent may be counted so much later."""

PATIENCE_S = 120.0

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """Seconds of one failover.

    Args:
        first_look: from the kill to the first look by the successor at a job of the dead one's.
        noticed: from the kill until the successor hears of it: its session has ended.
        assigned: from there until the partitions are handed out.
        opened: from there until the first of the dead one's partitions is restored.
        all_opened: until the last is.
        looked: from the first one's restore to the first look.
        silence: the longest time without any call to TAMS meanwhile.
    """

    first_look: float
    noticed: float
    assigned: float
    opened: float
    all_opened: float
    looked: float
    silence: float


class Fleet:
    """Two workers on one ledger of jobs that TAMS runs for hours.

    Args:
        stack: what ends with it.
        settings: of the workers.
        tams: the emulator.
        jobs: ids of the jobs at TAMS, by partition.
    """

    def __init__(self, stack: ExitStack, settings: Settings, tams: Emulator, jobs: Sequence[frozenset[str]]) -> None:
        self._stack = stack
        self._settings = settings
        self._tams = tams
        self._jobs = jobs
        self._pause = Event()
        self._workers = [self._start(), self._start()]

    def fail_over(self, chance: Random) -> Failover:
        """Kill the elder of the two at a moment that chance chooses, and start another once its jobs are looked at."""
        victim, successor = self._workers
        self._await_shares()
        self._pause.wait(chance.uniform(0.0, 2 * self._settings.kafka.heartbeat_interval_s))
        theirs = _open(victim.lines())
        orphans = frozenset().union(*(self._jobs[partition] for partition in theirs))
        after, told = self._last_call(), len(successor.lines())
        victim.kill()
        killed_at = time.time()  # noqa: TID251 -- as the emulator and the log reckon
        first_look, calls = self._first_look(orphans, after, killed_at + STILL_UNDER_WAY_S)
        result = _parts(successor.lines()[told:], theirs, killed_at, first_look, calls)
        self._workers = [successor, self._start()]
        return result

    def _start(self) -> Measured:
        return self._stack.enter_context(measured(BRIDGE, self._settings))

    def _await_shares(self) -> None:
        share = self._settings.topics.partitions // 2
        self._until(lambda: all(len(_open(worker.lines())) == share for worker in self._workers), "shares")
        after = self._last_call()
        self._until(lambda: len(self._tams.journal(after)) > RATE, "calls")

    def _last_call(self) -> int:
        return max((int(line["number"]) for line in self._tams.journal()), default=0)

    def _first_look(self, orphans: frozenset[str], after: int, not_before: float) -> tuple[float, list[float]]:
        """When the first of these jobs was looked at, and the times of all calls until then."""
        found: list[float] = []
        calls: list[float] = []

        def look() -> bool:
            lines = self._tams.journal(after)
            calls[:] = [line["real_at"] for line in lines]
            found[:] = [line["real_at"] for line in lines if line["job_id"] in orphans and line["real_at"] > not_before]
            return bool(found)

        self._until(look, "look at a job of the killed worker's")
        return found[0], [call for call in calls if call <= found[0]]

    def _until(self, enough: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while not enough():
            assert time.monotonic() < until, f"no {what} within {PATIENCE_S} s"
            self._pause.wait(0.05)


def _open(lines: Sequence[Line]) -> frozenset[int]:
    """The partitions a worker works on."""
    partitions: set[int] = set()
    for line in lines:
        if line["event"] == "partition opened":
            partitions.add(line["partition"])
        elif line["event"] in {"partition closed", "partition lost", "partition unavailable"}:
            partitions.discard(line["partition"])
    return frozenset(partitions)


def _parts(
    lines: Sequence[Line], theirs: frozenset[int], killed_at: float, first_look: float, calls: Sequence[float]
) -> Failover:
    """What the successor's log says of the way from the kill to the first look."""
    closed = min(_at(line) for line in lines if line["event"] == "partition closed")
    assigned = min(_at(line) for line in lines if line["event"] == "partitions assigned" and _at(line) > closed)
    opened = [_at(line) for line in lines if line["event"] == "partition opened" and line["partition"] in theirs]
    return Failover(
        first_look=first_look - killed_at,
        noticed=closed - killed_at,
        assigned=assigned - closed,
        opened=min(opened) - assigned,
        all_opened=max(opened) - assigned,
        looked=first_look - min(opened),
        silence=max(later - earlier for earlier, later in pairwise(calls)),
    )


def _at(line: Line) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


@contextmanager
def fleet(servers: str, *, jobs: int, session_s: float) -> Iterator[Fleet]:
    """Two workers with so many jobs in flight."""
    with ExitStack() as stack:
        tams = stack.enter_context(emulator(run_s=86_400))
        settings = settings_for(servers, tams, kafka={"session_timeout_s": session_s}, tams={"rate": RATE})
        documents = asyncio.run(_made(tams, jobs))
        by_partition = asyncio.run(_fill(settings, documents))
        yield Fleet(stack, settings, tams, by_partition)


async def _made(tams: Emulator, jobs: int) -> list[bytes]:
    """Let TAMS run so many jobs; its answers."""
    documents: list[bytes] = []
    numbers = iter(range(jobs))
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer emulator-key"}) as session:

        async def make() -> None:
            for number in numbers:
                body = json.dumps({"requestId": f"order-{number}", "params": json.loads(PARAMS)})
                async with session.post(f"{tams.url}/v1/jobs/workflow", data=body) as answer:
                    documents.append(await answer.read())

        await asyncio.gather(*(make() for _ in range(POSTS_AT_ONCE)))
    return documents


async def _fill(settings: Settings, documents: Sequence[bytes]) -> list[frozenset[str]]:
    """Write the ledger of workers that have submitted these jobs; ids by partition."""
    topics = Topics(settings.kafka, settings.topics)
    counts = {state.name: state.partitions for state in await topics.check()}
    ledgers, ages = KafkaLedgers(settings, topics.names, counts), Random(1)
    ids: list[frozenset[str]] = []
    for partition in range(settings.topics.partitions):
        records = [
            record_of(number, documents[number], age_s=ages.uniform(0.0, OLDEST_S))
            for number in range(partition, len(documents), settings.topics.partitions)
        ]
        ids.append(frozenset(record.job_id for record in records if record.job_id))
        async with ledgers.open(partition) as opened:
            for first in range(0, len(records), AT_ONCE):
                changes = Changes(position=0)
                for record in records[first : first + AT_ONCE]:
                    changes.records[record.request_id] = record
                    changes.params[record.request_id] = PARAMS
                await opened.ledger.commit(changes)
    return ids
