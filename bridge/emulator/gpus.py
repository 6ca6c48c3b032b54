"""Which job runs when: the machines of the emulated TAMS, planned ahead at the creation of each job. Pure."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from heapq import heapreplace

from bridge.emulator.jobs import Job


class Gpus:
    """Slots that jobs occupy in the order of their creation; without a number of slots no job waits for another."""

    def __init__(self, slots: int | None) -> None:
        self._free_at = None if slots is None else [0.0] * slots
        self._starts: list[float] = []
        self._ends: list[float] = []

    def place(self, job: Job, *, strangers: int) -> None:
        """Find a slot for a new job and so settle when it starts."""
        job.ahead = strangers + self.queue_length(job.created_at)
        self._plan(job)

    def queue_length(self, now: float) -> int:
        """Count the jobs that have not started."""
        return len(self._starts) - bisect_right(self._starts, now)

    def live(self, now: float) -> int:
        """Count the jobs that are not over."""
        return len(self._ends) - bisect_right(self._ends, now)

    def cancel(self, job: Job, others: Iterable[Job], now: float) -> bool:
        """Cancel a job, unless it is over, and let those behind it move up; tell whether that changed anything."""
        start, end = job.starts_at, job.ends_at
        if not job.cancel(now):
            return False
        if self._free_at is not None:
            self.replan(others, len(self._free_at), now)
            return True
        _move(self._ends, end, now)
        if now < start:
            _move(self._starts, start, now)
        return True

    def replan(self, jobs: Iterable[Job], slots: int | None, now: float) -> None:
        """Plan again which job runs when, in the order given; what runs goes on."""
        live = [job for job in jobs if now < job.ends_at]
        running = [job for job in live if job.starts_at <= now]
        self._starts = sorted(job.starts_at for job in running)
        self._ends = sorted(job.ends_at for job in running)
        # A sorted list is a heap; with fewer slots than running jobs, the last ones to end are those that count.
        self._free_at = None if slots is None else ([now] * (slots - len(running)) + self._ends)[-slots:]
        for job in live:
            if now < job.starts_at:
                self._plan(job)

    def _plan(self, job: Job) -> None:
        job.starts_at = job.ready_at
        if self._free_at is not None:
            job.starts_at = max(job.ready_at, self._free_at[0])
            heapreplace(self._free_at, job.ends_at)
        insort(self._starts, job.starts_at)
        insort(self._ends, job.ends_at)


def _move(moments: list[float], old: float, new: float) -> None:
    del moments[bisect_left(moments, old)]
    insort(moments, new)
