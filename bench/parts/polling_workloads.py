"""Jobs for the simulation of looks: which arrive when, how long they run, and what TAMS shows of them meanwhile."""

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, exp, log, sqrt
from random import Random
from typing import Protocol

SPREAD = 0.3
"""Of the logarithm of a run time."""

TAIL = 1.8
"""Exponent of the heavy tails: one job in a hundred runs nine times as long as the median or longer."""

LONGEST = 100.0
"""Times the median, beyond which even a heavy tail is cut off."""

WILD_SPREAD = 1.8
"""The same of kinds that tell little: one job in three runs six times as long as the median, or a sixth of it."""


QUEUE_S = 0.5
"""How long a job waits at the least, where jobs wait."""


class Law(Protocol):
    """How run times of a kind are distributed, in seconds."""

    def draw(self, chance: Random) -> float:
        """A run time."""

    def done_by(self, seconds: float) -> float:
        """Probability of at most `seconds`."""

    def mean(self) -> float:
        """The mean."""


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A `Law` without surprises."""

    median: float
    spread: float = SPREAD

    def draw(self, chance: Random) -> float:
        """See `Law`."""
        return chance.lognormvariate(log(self.median), self.spread)

    def done_by(self, seconds: float) -> float:
        """See `Law`."""
        return 0.5 * (1 + erf(log(seconds / self.median) / self.spread / sqrt(2))) if seconds > 0 else 0.0

    def mean(self) -> float:
        """See `Law`."""
        return self.median * exp(self.spread**2 / 2)


@dataclass(frozen=True, slots=True)
class Pareto:
    """A `Law` with a heavy tail: whatever has run long will run long yet."""

    median: float
    tail: float = TAIL

    def draw(self, chance: Random) -> float:
        """See `Law`."""
        return min(self._least * math.pow(1.0 - chance.random(), -1 / self.tail), self.median * LONGEST)

    def done_by(self, seconds: float) -> float:
        """See `Law`."""
        if seconds >= self.median * LONGEST:
            return 1.0
        return max(0.0, 1.0 - math.pow(self._least / seconds, self.tail)) if seconds > 0 else 0.0

    def mean(self) -> float:
        """See `Law`; of a tail that is not cut off, which makes little difference."""
        return self._least * self.tail / (self.tail - 1)

    @property
    def _least(self) -> float:
        return self.median * math.pow(0.5, 1 / self.tail)


@dataclass(frozen=True, slots=True)
class Slower:
    """A `Law` of which everything takes so many times as long."""

    law: Law
    times: float

    def draw(self, chance: Random) -> float:
        """See `Law`."""
        return self.law.draw(chance) * self.times

    def done_by(self, seconds: float) -> float:
        """See `Law`."""
        return self.law.done_by(seconds / self.times)

    def mean(self) -> float:
        """See `Law`."""
        return self.law.mean() * self.times


@dataclass(frozen=True, slots=True)
class Progress:
    """How TAMS shows progress: monotone, but as (age / run time) to a power of each job's own.

    Args:
        share: of the jobs that show any.
        spread: of the logarithm of the power; 0 for a progress that is linear.
        step: in which it moves.
    """

    share: float
    spread: float = 0.2
    step: float = 0.05


class Slots:
    """Where jobs run that wait for one another, first come first served.

    Args:
        count: how many jobs run at once; None for as many as there are, with no waiting.
    """

    def __init__(self, count: int | None) -> None:
        self._free_at = None if count is None else [0.0] * count
        self._starts: list[float] = []  # in order, as nobody overtakes

    def place(self, run_s: float, *, now: float) -> float:
        """Take in a job that runs so long; when it starts."""
        if self._free_at is None:
            return now
        starts_at = max(now + QUEUE_S, self._free_at[0])
        heapq.heapreplace(self._free_at, starts_at + run_s)
        self._starts.append(starts_at)
        return starts_at

    def rank(self, starts_at: float, *, now: float) -> int:
        """How many others stand before the one that starts then."""
        return bisect_left(self._starts, starts_at) - bisect_right(self._starts, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What arrives, and what becomes of it.

    Args:
        name, title: for options and for tables.
        laws: one for each kind; all kinds are equally frequent.
        progress: how it is shown, if it is.
        burst: how many jobs arrive at once.
        slowdown: by how much all jobs take longer from half-way on.
        slots_busy: part of TAMS' slots that runs use on average; None if no job waits for another.
    """

    name: str
    title: str
    laws: tuple[Law, ...]
    progress: Progress | None = None
    burst: int = 1
    slowdown: float = 1.0
    slots_busy: float | None = None

    def slots(self, rate: float) -> Slots:
        """What TAMS runs jobs on when so many arrive each second, with nobody in it yet."""
        if self.slots_busy is None:
            return Slots(None)
        run_s = sum(law.mean() for law in self.laws) / len(self.laws)
        return Slots(max(1, round(rate * run_s / self.slots_busy)))

    def law_by_name(self) -> dict[str, Law]:
        """The laws of all kinds, and what they become half-way, by the names that jobs carry."""
        laws = dict(enumerate(self.laws))
        return {law_name(kind, slow=False): law for kind, law in laws.items()} | {
            law_name(kind, slow=True): Slower(law, self.slowdown) for kind, law in laws.items()
        }


_THREE = tuple(LogNormal(median) for median in (8.0, 25.0, 90.0))
_THIRTY = tuple(5.0 * 18.0 ** (number / 29) for number in range(30))

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(name="one", title="one kind (median 25 s)", laws=(LogNormal(25.0),)),
        Workload(name="three", title="three kinds (medians 8, 25, 90 s)", laws=_THREE),
        Workload(name="progress", title="three kinds, with progress", laws=_THREE, progress=Progress(1.0)),
        Workload(name="half", title="three kinds, half of the jobs with progress", laws=_THREE, progress=Progress(0.5)),
        Workload(
            name="thirty",
            title="thirty kinds with heavy tails (medians 5 to 90 s, Pareto)",
            laws=tuple(Pareto(median) for median in _THIRTY),
        ),
        Workload(
            name="wild",
            title="thirty kinds that tell little (the same medians, log-normal, sigma 1.8)",
            laws=tuple(LogNormal(median, WILD_SPREAD) for median in _THIRTY),
        ),
        Workload(name="bursts", title="three kinds, in bursts of 200", laws=_THREE, burst=200),
        Workload(name="drift", title="three kinds, twice as slow half-way", laws=_THREE, slowdown=2.0),
        Workload(name="queue", title="three kinds that wait for slots, with ranks", laws=_THREE, slots_busy=0.97),
    )
}

LINEAR = Workload(
    name="linear",
    title="three kinds, with linear progress",
    laws=_THREE,
    progress=Progress(1.0, spread=0.0, step=1e-4),
)
"""What the emulator shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of a trace.

    Args:
        arrives_at: seconds from the start.
        kind: as the bridge names it.
        law: the name of what `run_s` was drawn from.
        run_s: how long it runs.
        power: what its progress follows; None if it shows none.
    """

    arrives_at: float
    kind: str
    law: str
    run_s: float
    power: float | None


def law_name(kind: int, *, slow: bool) -> str:
    """How the law of a kind is called."""
    return f"{kind}/{kind}{' slow' if slow else ''}"


def trace(workload: Workload, *, rate: float, seconds: float, turns_at: float, seed: int) -> Sequence[Job]:
    """Jobs that arrive at random, on average `rate` a second; the same ones for the same seed.

    Args:
        workload: what arrives.
        rate: jobs a second.
        seconds: how long.
        turns_at: when jobs get slower, in seconds, if they do.
        seed: of chance.
    """
    chance, jobs, at = Random(seed), list[Job](), 0.0
    while True:
        if workload.burst == 1:
            at += chance.expovariate(rate)
        elif jobs and len(jobs) % workload.burst == 0:
            at += workload.burst / rate
        if at > seconds:
            return jobs
        jobs.append(_job(workload, at, chance, slow=at > turns_at))


def _job(workload: Workload, at: float, chance: Random, *, slow: bool) -> Job:
    number = chance.randrange(len(workload.laws))
    run_s = workload.laws[number].draw(chance) * (workload.slowdown if slow else 1.0)
    shown, power = chance.random(), exp(chance.gauss(0.0, 1.0) * (workload.progress or Progress(0.0)).spread)
    shows = workload.progress is not None and shown < workload.progress.share
    return Job(
        arrives_at=at,
        kind=law_name(number, slow=False),
        law=law_name(number, slow=slow),
        run_s=run_s,
        power=power if shows else None,
    )
