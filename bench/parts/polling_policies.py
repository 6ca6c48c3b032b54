"""Ways to choose the next job to look at, to be measured beside the one that is used."""

import heapq
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

from typing_extensions import override

from bench.parts.polling_workloads import Job, Law, Workload
from bridge.core.durations import EDGES, Durations
from bridge.core.polling import NEVER, JobHistory, LeastDelay, PollPolicy
from bridge.core.run_times import RunTimes
from bridge.messages import JobView

INTERVAL_S = 1.0
"""Shortest time between two looks at one job, for every policy that has one."""

FIXED_INTERVAL_S = 5.0
BACK_OFF = 1.5
MAX_SILENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What nobody but TAMS knows of a job; times in seconds.

    Args:
        job: as it arrived.
        submitted_at, starts_at, ends_at: when TAMS took it, begins to run it, has it done.
    """

    job: Job
    submitted_at: float
    starts_at: float
    ends_at: float


class InTurn:
    """Whoever has been due for the longest comes first; what is seen makes no difference.

    Args:
        pause: seconds until a job is due, given the job and how many looks it has had.
    """

    def __init__(self, pause: Callable[[Hashable, int], float]) -> None:
        self._pause = pause
        self._due: dict[Hashable, float] = {}
        self._looks: dict[Hashable, int] = {}
        self._queue: list[tuple[float, int, Hashable]] = []
        self._hurried: set[Hashable] = set()
        self._order = 0

    def add(self, key: Hashable, history: JobHistory, *, now: float) -> None:
        """See `PollPolicy`."""
        del history
        if key not in self._due:
            self._looks[key] = 0
            self._schedule(key, now + self._pause(key, 0))

    def discard(self, key: Hashable) -> None:
        """See `PollPolicy`."""
        self._due.pop(key, None)
        self._looks.pop(key, None)
        self._hurried.discard(key)

    def hurry(self, key: Hashable, *, now: float) -> None:
        """See `PollPolicy`."""
        due = self._due.get(key, now)
        if due == NEVER:
            self._hurried.add(key)
        elif due > now:
            self._schedule(key, now)

    def available_at(self) -> float:
        """See `PollPolicy`."""
        while self._queue and self._due.get(self._queue[0][2]) != self._queue[0][0]:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else NEVER

    def take(self, *, now: float) -> Hashable:
        """See `PollPolicy`."""
        del now
        self.available_at()
        key = heapq.heappop(self._queue)[2]
        self._due[key] = NEVER
        self._looks[key] += 1
        return key

    def looked(self, key: Hashable, view: JobView | None, *, now: float) -> None:
        """See `PollPolicy`."""
        del view
        if key in self._due:
            self._schedule(key, now if key in self._hurried else now + self._pause(key, self._looks[key]))
            self._hurried.discard(key)

    def __len__(self) -> int:
        """See `PollPolicy`."""
        return len(self._due)

    def _schedule(self, key: Hashable, due: float) -> None:
        self._due[key] = due
        self._order += 1
        heapq.heappush(self._queue, (due, self._order, key))


class ByChance:
    """Any job that was not looked at within the interval is as likely as any other."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._free_at: dict[Hashable, float] = {}
        self._resting: list[tuple[float, int, Hashable]] = []
        self._free: list[Hashable] = []
        self._order = 0

    def add(self, key: Hashable, history: JobHistory, *, now: float) -> None:
        """See `PollPolicy`."""
        del history
        if key not in self._free_at:
            self._rest(key, now + INTERVAL_S)

    def discard(self, key: Hashable) -> None:
        """See `PollPolicy`."""
        if self._free_at.pop(key, None) is not None and key in self._free:
            self._free.remove(key)

    def hurry(self, key: Hashable, *, now: float) -> None:
        """See `PollPolicy`; chance cannot be hurried."""

    def available_at(self) -> float:
        """See `PollPolicy`."""
        while self._resting and self._free_at.get(self._resting[0][2]) != self._resting[0][0]:
            heapq.heappop(self._resting)
        if self._free:
            return float("-inf")
        return self._resting[0][0] if self._resting else NEVER

    def take(self, *, now: float) -> Hashable:
        """See `PollPolicy`."""
        while self._resting and self._resting[0][0] <= now:
            free_at, _, key = heapq.heappop(self._resting)
            if self._free_at.get(key) == free_at:
                self._free.append(key)
        place = self._chance.randrange(len(self._free))
        self._free[place], self._free[-1] = self._free[-1], self._free[place]
        return self._free.pop()

    def looked(self, key: Hashable, view: JobView | None, *, now: float) -> None:
        """See `PollPolicy`."""
        del view
        if key in self._free_at:
            self._rest(key, now + INTERVAL_S)

    def __len__(self) -> int:
        """See `PollPolicy`."""
        return len(self._free_at)

    def _rest(self, key: Hashable, free_at: float) -> None:
        self._free_at[key] = free_at
        self._order += 1
        heapq.heappush(self._resting, (free_at, self._order, key))


class _TrueRunTimes(RunTimes):
    """Knows the laws, and has nothing to learn but what progress means."""

    def __init__(self, laws: Mapping[str, Law]) -> None:
        super().__init__()
        self._laws = {name: _durations(law) for name, law in laws.items()}

    @override
    def of(self, kind: str) -> Durations:
        return self._laws[kind]

    @override
    def evidence(self, kind: str) -> float:
        return 1e9

    @override
    def learn(self, kind: str, low: float, high: float) -> None:
        pass


def _durations(law: Law) -> Durations:
    done = [law.done_by(edge) for edge in EDGES]
    return Durations([high - low + 1e-12 for low, high in pairwise(done)])


class _Informed(LeastDelay):
    """Told of each job by which law it runs, also when that has just changed."""

    def __init__(self, workload: Workload, fates: Mapping[Hashable, Fate]) -> None:
        run_times = _TrueRunTimes(workload.law_by_name())
        super().__init__(run_times, RunTimes(), interval=INTERVAL_S, max_silence=MAX_SILENCE_S)
        self._fates = fates

    @override
    def add(self, key: Hashable, history: JobHistory, *, now: float) -> None:
        super().add(key, replace(history, kind=self._fates[key].job.law), now=now)


def round_robin() -> PollPolicy:
    """Everybody in turn, and nobody more often than once an interval."""
    return InTurn(lambda _, __: INTERVAL_S)


def least_delay() -> PollPolicy:
    """The policy that is used, from a cold start."""
    return LeastDelay(RunTimes(), RunTimes(), interval=INTERVAL_S, max_silence=MAX_SILENCE_S)


def _until_the_end(fates: Mapping[Hashable, Fate]) -> Callable[[Hashable, int], float]:
    def pause(key: Hashable, looks: int) -> float:
        return INTERVAL_S if looks else fates[key].ends_at - fates[key].submitted_at

    return pause


MakePolicy = Callable[[Workload, Mapping[Hashable, Fate]], PollPolicy]
"""Makes a policy for a workload, given what will become of jobs: few make use of that."""

POLICIES: Mapping[str, MakePolicy] = {
    "round robin": lambda _, __: round_robin(),
    "fixed interval, 5 s": lambda _, __: InTurn(lambda _, __: FIXED_INTERVAL_S),
    "back-off": lambda _, __: InTurn(lambda _, looks: BACK_OFF**looks),
    "random": lambda _, __: ByChance(Random(1)),
    "ours": lambda _, __: least_delay(),
    "ours, knowing all laws": _Informed,
    "lower bound": lambda _, fates: InTurn(_until_the_end(fates)),
}
