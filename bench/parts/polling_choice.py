"""What one choice costs when very many jobs are in flight: the processor's time alone, with a clock that jumps.

Jobs run for 80 to 900 s in the middle, and each that ends is followed by a new one, so that as many stay in flight. So
many want more than five looks a second; a thousand are made, at which each job gets about four. A tenth of the jobs
waits in the queue first, half of them show progress.
"""

import gc
import heapq
import time
from collections.abc import Hashable
from dataclasses import dataclass
from random import Random

from rich.console import Console
from rich.table import Table

from bench.parts.polling_policies import INTERVAL_S, MAX_SILENCE_S
from bench.parts.polling_workloads import LogNormal
from bridge.core.polling import JobHistory, LeastDelay
from bridge.core.run_times import RunTimes
from bridge.messages import NOTHING, JobView, TamsStatus

LAWS = tuple(LogNormal(median) for median in (80.0, 150.0, 250.0, 400.0, 600.0, 900.0))
LOOKS_PER_S = 1000.0
WAIT_S = 40.0
WARM_S = 120.0
"""How long, in jumping time, before it is measured: runs, waits and progress are known by then."""

AIM_US = 50.0


@dataclass(frozen=True, slots=True)
class _Job:
    kind: str
    submitted_at: float
    starts_at: float
    ends_at: float
    shows_progress: bool


class Crowd:
    """A steady number of jobs in flight under `LeastDelay`, looked at as fast as `LOOKS_PER_S` allows.

    Args:
        jobs: how many.
    """

    def __init__(self, jobs: int) -> None:
        self._chance = Random(1)
        self._policy = LeastDelay(RunTimes(), RunTimes(), interval=INTERVAL_S, max_silence=MAX_SILENCE_S)
        self._jobs: dict[Hashable, _Job] = {}
        self._now = 0.0
        self._next = 0
        self.take_us: list[float] = []
        self.looked_us: list[float] = []
        self.add_us: list[float] = []
        for number in range(jobs):
            self._add(self._chance.random() * LAWS[number % len(LAWS)].median)

    def look(self) -> None:
        """Choose a job and tell what was seen."""
        self._now += 1.0 / LOOKS_PER_S
        began = time.thread_time()
        key = self._policy.take(now=self._now)
        chosen = time.thread_time()
        self.take_us.append((chosen - began) * 1e6)
        job = self._jobs[key]
        view = self._view(job)
        began = time.thread_time()
        self._policy.looked(key, view, now=self._now)
        self.looked_us.append((time.thread_time() - began) * 1e6)
        if self._now >= job.ends_at:
            self._policy.discard(key)
            del self._jobs[key]
            self._add(0.0)

    def forget_figures(self) -> None:
        """Measure from here on."""
        self.take_us.clear()
        self.looked_us.clear()
        self.add_us.clear()

    def _add(self, age: float) -> None:
        number, submitted_at = self._chance.randrange(len(LAWS)), self._now - age
        starts_at = submitted_at + (self._chance.random() * WAIT_S if self._chance.random() < 0.1 else 0.0)
        job = _Job(
            kind=f"{number}/{number}",
            submitted_at=submitted_at,
            starts_at=starts_at,
            ends_at=starts_at + LAWS[number].draw(self._chance),
            shows_progress=self._chance.random() < 0.5,
        )
        self._next += 1
        self._jobs[self._next] = job
        history = JobHistory(kind=job.kind, submitted_at=submitted_at, seen_at=submitted_at)
        began = time.thread_time()
        self._policy.add(self._next, history, now=self._now)
        self.add_us.append((time.thread_time() - began) * 1e6)

    def _view(self, job: _Job) -> JobView:
        if self._now >= job.ends_at:
            return _view(TamsStatus.SUCCESS)
        if self._now < job.starts_at:
            return _view(TamsStatus.WAITING, rank=int(job.starts_at - self._now))
        part = (self._now - job.starts_at) / (job.ends_at - job.starts_at)
        return _view(TamsStatus.RUNNING, progress=part if job.shows_progress else 0.0)


def _view(status: TamsStatus, *, rank: int | None = None, progress: float = 0.0) -> JobView:
    return JobView(
        job_id="1",
        status=status,
        queue_rank=rank,
        progress=progress,
        finished_nodes=0,
        failure=None,
        document=NOTHING,
    )


def _heap_us(jobs: int, looks: int) -> list[float]:
    """The same number of jobs in a plain heap by due time: pop the first, push it further back."""
    chance, took = Random(1), list[float]()
    heap = [(chance.random(), number) for number in range(jobs)]
    heapq.heapify(heap)
    for _ in range(looks):
        later = 1.0 + chance.random()
        began = time.thread_time()
        due, number = heapq.heappop(heap)
        heapq.heappush(heap, (due + later, number))
        took.append((time.thread_time() - began) * 1e6)
    return took


def measure_choice(console: Console, *, jobs: int, looks: int) -> None:
    """Measure and print."""
    crowd = Crowd(jobs)
    adds = crowd.add_us.copy()
    for _ in range(int(WARM_S * LOOKS_PER_S)):
        crowd.look()
    crowd.forget_figures()
    gc.collect()
    gc.freeze()  # a hundred thousand jobs are no garbage; a collection would count as the choice's
    for _ in range(looks):
        crowd.look()
    both = [take + looked for take, looked in zip(crowd.take_us, crowd.looked_us, strict=True)]
    heap = _heap_us(jobs, looks)
    gc.unfreeze()
    table = Table("", "mean", "p50", "p99", title=f"One choice among {jobs:,} jobs: µs of CPU")
    for name, took in (
        ("take: whose turn it is", crowd.take_us),
        ("looked: take in what was seen, plan the next look", crowd.looked_us),
        ("both", both),
        ("add: a new job", adds + crowd.add_us),
        ("beside it, a plain heap: pop and push", heap),
    ):
        ordered = sorted(took)
        figures = (sum(took) / len(took), ordered[len(took) // 2], ordered[int(len(took) * 0.99)])
        table.add_row(name, *(f"{figure:.1f}" for figure in figures))
    console.print(table)
    for name, took in (("whose turn it is", crowd.take_us), ("the same and planning the next look", both)):
        mean = sum(took) / len(took)
        word = "met    " if mean <= AIM_US else "NOT MET"
        console.print(f"{word}  one choice in {AIM_US:g} µs on average, {name}: {mean:.1f} µs")
