"""All jobs of one partition: what has arrived for them, what is to be written down, and what is to be done next.

The owner feeds it what happened, commits the `Changes`, and only then carries out the `Action`s. Nothing here waits, so
no change can slip between reading a job and writing it.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from bridge.core import jobs
from bridge.core.jobs import JobPolicy, Step
from bridge.core.requests import CancelArrival, JobArrival, read_request
from bridge.errors import UnreadableRequest
from bridge.messages import NORMAL_PRIORITY, Answer, DeadLetterReason, JobRecord, Phase
from bridge.ports import Arrival, Changes, DeadLetter


@dataclass(frozen=True, slots=True)
class Submit:
    """The job waits for its turn to be submitted, from `not_before` on; `since` and `priority` order the waiting."""

    request_id: str
    since: datetime
    not_before: datetime | None
    priority: int = NORMAL_PRIORITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """The intent is written: create the job now, unless `lease_until` has passed."""

    request_id: str
    attempt: int
    tams_request_id: str
    params: bytes
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class Track:
    """Look at the job from time to time; its record tells what is known of it so far."""

    job_id: str
    record: JobRecord


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask TAMS to cancel the job."""

    request_id: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is to be done for this job any more."""

    request_id: str


Action = Submit | Post | Track | Cancel | Rest


class Partition:
    """The jobs of one partition, as its owner holds them in memory.

    Args:
        topic: the requests topic.
        number: the partition.
        policy: what the user chose about the life of jobs.
        max_request_bytes: longest request value taken.
    """

    def __init__(self, *, topic: str, number: int, policy: JobPolicy, max_request_bytes: int) -> None:
        self.topic = topic
        self.number = number
        self.position = 0
        self._policy = policy
        self._max_request_bytes = max_request_bytes
        self._records: dict[str, JobRecord] = {}
        self._params: dict[str, bytes] = {}
        self._timers: list[tuple[datetime, str]] = []
        self._changes = Changes()
        self._touched: dict[str, None] = {}
        self._posts: list[Post] = []

    def restore(self, records: Iterable[JobRecord], params: Mapping[str, bytes], position: int, now: datetime) -> None:
        """Take over what the ledger holds; what is to be done for it comes with the next `take`.

        Args:
            records: the latest state of each job.
            params: graphs of the jobs that have not ended.
            position: offset of the next request to read.
            now: the wall clock.
        """
        self.position = position
        self._params = dict(params)
        for record in records:
            self._records[record.request_id] = record
            self._set_timer(record)
            if not record.phase.is_terminal:
                self._touched[record.request_id] = None
                self._apply(record, jobs.restore(record, self._policy, now))

    def move_to(self, position: int) -> None:
        """Read on from here, even if that is further back: the topic was made anew, or lost its oldest records."""
        self.position = position

    def __len__(self) -> int:
        """How many jobs are remembered, ended ones included."""
        return len(self._records)

    def record(self, request_id: str) -> JobRecord | None:
        """The job as it stands, committed or not."""
        return self._records.get(request_id)

    def live(self) -> int:
        """How many jobs have not ended."""
        return len(self._params)

    def arrive(self, arrival: Arrival, now: datetime) -> str | None:
        """Take in a record of the requests topic; one that was read before is passed over.

        Returns:
            The id of a job that was accepted by this, so that it can be granted its submit at once.
        """
        if arrival.offset < self.position:
            return None
        self.position = self._changes.position = arrival.offset + 1
        try:
            request = read_request(arrival, topic=self.topic, partition=self.number, max_bytes=self._max_request_bytes)
            return self._take_in(request, now)
        except UnreadableRequest as error:
            self._changes.dead_letters.append(DeadLetter(arrival, DeadLetterReason(error.reason), error.detail, now))
            return None

    def grant(self, request_id: str, now: datetime) -> bool:
        """Give a waiting job its turn to be submitted.

        Returns:
            False if it has no use for it any more.
        """
        record = self._records.get(request_id)
        step = None if record is None else jobs.grant(record, self._policy, now)
        if record is None or step is None or step.record is record or step.record.lease_until is None:
            return False
        self._apply(record, step)
        self._posts.append(
            Post(
                request_id=request_id,
                attempt=step.record.attempt,
                tams_request_id=jobs.tams_request_id(step.record),
                params=self._params[request_id],
                lease_until=step.record.lease_until,
            )
        )
        return True

    def submitted(self, request_id: str, attempt: int, answer: Answer, now: datetime, chance: float) -> None:
        """Take in what became of the submit of one attempt."""
        record = self._records.get(request_id)
        if record is not None and record.attempt == attempt:
            self._apply(record, jobs.submitted(record, answer, self._policy, now, chance))

    def looked(self, request_id: str, job_id: str, answer: Answer, now: datetime, chance: float) -> None:
        """Take in what a look at a job came to."""
        record = self._records.get(request_id)
        if record is not None and record.job_id == job_id:
            self._apply(record, jobs.looked(record, answer, self._policy, now, chance))

    def cancel_answered(self, request_id: str, job_id: str, answer: Answer) -> None:
        """Take in what TAMS said to a cancel."""
        record = self._records.get(request_id)
        if record is not None and record.job_id == job_id:
            self._apply(record, jobs.cancel_answered(record, answer))

    def time_passed(self, now: datetime) -> None:
        """Apply every deadline that has passed, and forget what has been remembered long enough."""
        while self._timers and self._timers[0][0] <= now:
            _, request_id = heapq.heappop(self._timers)
            record = self._records.get(request_id)
            due = None if record is None else jobs.due(record, self._policy)
            if record is None or due is None or due > now:
                continue
            if record.phase.is_terminal:
                self._forget(request_id)
            else:
                self._apply(record, jobs.time_passed(record, self._policy, now))

    def next_timer(self) -> datetime | None:
        """When `time_passed` is next worth calling."""
        return self._timers[0][0] if self._timers else None

    def take(self) -> tuple[Changes, list[Action]]:
        """Hand over what has come together since the last call: what to commit, and what to do once that is done."""
        changes, self._changes = self._changes, Changes()
        posts, self._posts = [post for post in self._posts if self._is_still_meant(post)], []
        touched, self._touched = self._touched, {}
        posted = {post.request_id for post in posts}
        actions: list[Action] = []
        for request_id in touched:
            record = self._records.get(request_id)
            if record is not None and request_id not in posted:
                actions += self._next_actions(record)
        return changes, [*actions, *posts]

    def _is_still_meant(self, post: Post) -> bool:
        record = self._records.get(post.request_id)
        return record is not None and record.lease_until == post.lease_until

    def _take_in(self, request: JobArrival | CancelArrival, now: datetime) -> str | None:
        record = self._records.get(request.request_id)
        if isinstance(request, CancelArrival):
            self._take_in_cancel(request.request_id, record, now)
            return None
        if record is not None:
            self._apply(record, jobs.duplicate(record, now))
            return None
        self._params[request.request_id] = self._changes.params[request.request_id] = request.params
        self._apply(None, jobs.accept(request, self._policy, now))
        return request.request_id

    def _take_in_cancel(self, request_id: str, record: JobRecord | None, now: datetime) -> None:
        if record is None:
            detail = (
                f"no job {request_id!r} is known in partition {self.number}: "
                "a cancel needs the request id as its key, and works for as long as the job is remembered"
            )
            raise UnreadableRequest(DeadLetterReason.UNKNOWN_REQUEST, detail)
        self._apply(record, jobs.cancel(record, self._policy, now))

    def _apply(self, before: JobRecord | None, step: Step) -> None:
        record = step.record
        if record is before:
            return
        self._records[record.request_id] = self._changes.records[record.request_id] = record
        self._changes.events += [(event, record) for event in step.events]
        self._touched[record.request_id] = None
        if before is None or jobs.due(before, self._policy) != jobs.due(record, self._policy):
            self._set_timer(record)
        if record.phase.is_terminal and self._params.pop(record.request_id, None) is not None:
            self._changes.params[record.request_id] = None

    def _set_timer(self, record: JobRecord) -> None:
        due = jobs.due(record, self._policy)
        if due is not None:
            heapq.heappush(self._timers, (due, record.request_id))

    def _forget(self, request_id: str) -> None:
        del self._records[request_id]
        self._changes.records[request_id] = None

    def _next_actions(self, record: JobRecord) -> list[Action]:
        match record.phase:
            case Phase.ACCEPTED:
                return [_submit(record)]
            case Phase.SUBMITTING:
                is_under_way = record.lease_until is not None
                return [] if is_under_way else [_submit(record)]
            case Phase.TRACKING if record.job_id is not None:
                cancel = [Cancel(record.request_id, record.job_id)] if record.stop and not record.stop_told else []
                return [Track(record.job_id, record), *cancel]
            case _:
                return [Rest(record.request_id)]


def _submit(record: JobRecord) -> Submit:
    return Submit(record.request_id, record.accepted_at, record.not_before, record.priority)
