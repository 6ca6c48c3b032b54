"""The life of a job, reckoned from the clock whenever somebody looks. Pure: nothing happens between two looks.

```
created_at     pending_at   waiting_at            starts_at          ends_at
   │  CREATED  │  PENDING   │  WAITING, rank falls │  RUNNING         │  SUCCESS · FAILED · CANCELED
   └──────────────── canceled_at, if it comes before ends_at ────────┴─► CANCELED
```
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf, isinf

from bridge.emulator.graph import Graph
from bridge.emulator.script import Outcome, Script

HANGS_HALFWAY_S = 30.0


class Status(StrEnum):
    """The states of a job, as TAMS writes them."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


FINAL_STATUS = {
    Outcome.SUCCESS: Status.SUCCESS,
    Outcome.TRANSITORY_ERROR: Status.FAILED,
    Outcome.FATAL_ERROR: Status.FAILED,
    Outcome.CANCELED: Status.CANCELED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A job that was asked for, before it exists."""

    app: str
    request_id: str
    graph: Graph
    script: Script
    group: str
    notify_url: str = ""


@dataclass(slots=True, kw_only=True)
class Job:
    """A job and its timetable, in emulated unix seconds; the GPUs set `starts_at`."""

    id: str
    order: Order
    outcome: Outcome
    credits: float
    outputs: int
    created_at: float
    pending_at: float
    waiting_at: float
    ready_at: float
    run_s: float
    starts_at: float = inf
    canceled_at: float = inf
    ahead: int = 0
    gets: int = 0
    deletes: int = 0

    @property
    def ends_at(self) -> float:
        """When the job is over; never, if it hangs."""
        planned = inf if self.outcome is Outcome.HANG else self.starts_at + self.run_s
        return min(planned, self.canceled_at)

    def status(self, now: float) -> Status:
        """Give the state at a moment."""
        if now >= self.ends_at:
            return Status.CANCELED if now >= self.canceled_at else FINAL_STATUS[self.outcome]
        if now >= self.starts_at:
            return Status.RUNNING
        if now >= self.waiting_at:
            return Status.WAITING
        return Status.PENDING if now >= self.pending_at else Status.CREATED

    def queue_rank(self, now: float) -> int:
        """Give the number of jobs ahead in the queue; it falls steadily from `ahead` to 0."""
        if isinf(self.starts_at):
            return self.ahead
        left = (self.starts_at - now) / (self.starts_at - self.waiting_at)
        return int(self.ahead * min(left, 1.0))

    def progress(self, now: float) -> float:
        """Give the part of the work that is done, from 0 to 1; a job that hangs gets slower and slower."""
        running = now - self.starts_at
        if self.outcome is Outcome.HANG:
            return round(max(running, 0.0) / (max(running, 0.0) + HANGS_HALFWAY_S), 4)
        return round(min(max(running / self.run_s, 0.0), 1.0), 4) if self.run_s else 1.0

    def cancel(self, now: float) -> bool:
        """Cancel the job, unless it is over; tell whether that changed anything."""
        if now >= self.ends_at:
            return False
        self.canceled_at = now
        return True

    @property
    def is_charged(self) -> bool:
        """Whether the job costs credits: not if it fails, nor if it is canceled before it runs."""
        return self.outcome in (Outcome.SUCCESS, Outcome.HANG) and self.canceled_at >= self.starts_at
