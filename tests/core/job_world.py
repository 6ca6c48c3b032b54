"""What surrounds the core of a worker, as simple as can be: a ledger that fences, a TAMS that never forgets who paid.

The ledger holds bytes and nothing else, so that a restart sees what a restart would see. TAMS knows which request each
job was made for, and refuses, as an assertion, what would be paid twice or for nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from bridge.core.jobs import JobPolicy
from bridge.core.partition import Action, Cancel, Partition, Post, Rest, Submit, Track
from bridge.errors import OwnershipLost
from bridge.messages import (
    Answer,
    EventType,
    Failure,
    JobEvent,
    JobRecord,
    Missing,
    NotSent,
    Phase,
    Seen,
)
from bridge.ports import Changes, DeadLetter
from tests.core.examples import seen

TOPIC = "t.requests"
NUMBER = 4
MAX_BYTES = 2_000

NOT_FOUND = Failure(code="not_found", message="no such job", http_status=404)
TOO_LATE = Failure(code="lease_expired", message="the submit began too late", retryable=True)
LOST = Failure(code="no_answer", message="connection reset", retryable=True)

ENDED_AT_TAMS = frozenset({"SUCCESS", "FAILED", "CANCELED"})
ENDS_IN_DOUBT = frozenset({EventType.UNKNOWN, EventType.EXPIRED})
"""Ends that say themselves that TAMS may hold, or may have charged, the job."""


@dataclass(frozen=True)
class Told:
    """A published event, read back from its bytes, and the acceptance it belongs to."""

    event: JobEvent
    life: str


@dataclass
class Ledger:
    """The ledger of one partition, and the result topics; one transaction after the other, for one owner at a time.

    `jobs` is what the bytes of `records` say, for who wants to look.
    """

    epoch: int = 0
    records: dict[str, bytes] = field(default_factory=dict)
    params: dict[str, bytes] = field(default_factory=dict)
    position: int = 0
    told: list[Told] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    jobs: dict[str, JobRecord] = field(default_factory=dict)

    def commit(self, epoch: int, changes: Changes) -> None:
        """All of it, or nothing if another has opened the ledger since."""
        if epoch != self.epoch:
            message = "commit: another owner has taken the partition over"
            raise OwnershipLost(message)
        encode = msgspec.json.encode
        _keep(self.records, {key: each if each is None else encode(each) for key, each in changes.records.items()})
        self.jobs = {key: each for key, each in self.jobs.items() if key not in changes.records} | {
            key: msgspec.json.decode(self.records[key], type=JobRecord)
            for key in changes.records.keys() & self.records.keys()
        }
        _keep(self.params, changes.params)
        for event, record in changes.events:
            read_back = msgspec.json.decode(msgspec.json.encode(event), type=JobEvent)
            self.told.append(Told(read_back, record.seed))
        self.dead_letters += changes.dead_letters
        if changes.position is not None:
            self.position = changes.position

    def as_bytes(self) -> bytes:
        """Everything that was written."""
        return msgspec.json.encode((self.records, self.params, self.position, self.told, len(self.dead_letters)))

    def read(self) -> list[JobRecord]:
        """Every job, as the next owner reads it."""
        return [msgspec.json.decode(value, type=JobRecord) for value in self.records.values()]

    def lives(self) -> dict[str, list[JobEvent]]:
        """The events of each acceptance; an id that is used anew after it was forgotten lives again."""
        lives: dict[str, list[JobEvent]] = {}
        for told in self.told:
            lives.setdefault(told.life, []).append(told.event)
        return lives

    def end_of(self, life: str) -> JobEvent | None:
        """The terminal event of one acceptance, if it was published."""
        return next((told.event for told in self.told if told.life == life and told.event.type.is_terminal), None)


def _keep(kept: dict[str, bytes], changes: Mapping[str, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value


@dataclass
class TamsJob:
    """A job at TAMS.

    Args:
        life: of which acceptance; a retry is another job of the same life.
        status: where it stands.
        document: what a look would show.
    """

    life: str
    status: str
    document: Seen


@dataclass(eq=False)
class Underway:
    """A POST that has begun; `reached` is what TAMS answered once it arrived there."""

    post: Post
    reached: Seen | None = None


class Tams:
    """A TAMS that keeps its word: one job for each `requestId`, whose status only goes forward."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.jobs: dict[str, TamsJob] = {}
        self.ids: dict[str, str] = {}
        self.lives: dict[str, str] = {}
        self.attempts: dict[str, str] = {}
        self.forgotten: set[str] = set()
        self.missed: set[str] = set()
        self.answered_cancels: set[str] = set()
        self.on_the_way: list[Underway] = []

    def create(self, tams_request_id: str) -> Seen:
        """The job of this id, made if it is new: then nothing else of the same request may be paid for, or over."""
        if tams_request_id not in self.ids:
            self.ids[tams_request_id] = job_id = str(len(self.ids) + 1)
            life = self.lives[tams_request_id]
            end = self._ledger.end_of(life)
            assert end is None or end.type in ENDS_IN_DOUBT, f"created after {end}"
            assert [job.status for job in self.of(life)] == ["FAILED"] * len(self.of(life)), "paid twice"
            self.jobs[job_id] = TamsJob(life, "CREATED", seen("CREATED", job_id))
        return self.jobs[self.ids[tams_request_id]].document

    def of(self, life: str) -> list[TamsJob]:
        """All jobs that were made for one acceptance, the oldest first."""
        return [job for job in self.jobs.values() if job.life == life]

    def forgets(self, life: str) -> bool:
        """Whether it has forgotten a job of an acceptance."""
        return any(job.document.view.job_id in self.forgotten for job in self.of(life))

    def move(self, job_id: str, status: str, **fields: object) -> None:
        """The job goes on, unless it has ended."""
        job = self.jobs[job_id]
        if job.status not in ENDED_AT_TAMS:
            job.status, job.document = status, seen(status, job_id, **fields)

    def look(self, job_id: str) -> Answer:
        """What a look at this moment shows."""
        return Missing(NOT_FOUND) if job_id in self.forgotten else self.jobs[job_id].document

    def queue(self, job_id: str, rank: int) -> None:
        """The job waits, if it does not run yet."""
        if self.jobs[job_id].status in {"CREATED", "WAITING"}:
            self.move(job_id, "WAITING", waitingInfo={"queueRank": str(rank)})

    def cancel(self, job_id: str) -> None:
        """A cancel arrives."""
        self.move(job_id, "CANCELED")


class Owner:
    """A process that has the partition open, as the roles are one, but for the loop: what is to be done is lists.

    Actions of a commit are done before anything else happens in this process; if it stands still, or dies, in between,
    they are done too late or never.
    """

    def __init__(self, ledger: Ledger, tams: Tams, policy: JobPolicy, now: datetime) -> None:
        self._ledger = ledger
        self._tams = tams
        self._policy = policy
        ledger.epoch += 1
        self.epoch = ledger.epoch
        self.partition = Partition(topic=TOPIC, number=NUMBER, policy=policy, max_request_bytes=MAX_BYTES)
        self.partition.restore(ledger.read(), ledger.params, ledger.position, now)
        self.todo: list[Action] = []
        self.waiting: dict[str, Submit] = {}
        self.posts: list[Underway] = []
        self.tracked: dict[str, str] = {}
        self.looks: list[tuple[str, str, Answer]] = []
        self.cancels: dict[str, str] = {}

    def commit(self, *, then: Callable[[Changes], None]) -> None:
        """One transaction; `then` is told what was written before anything is done about it."""
        changes, actions = self.partition.take()
        if changes:
            self._ledger.commit(self.epoch, changes)
            then(changes)
        for action in actions:
            if isinstance(action, Post):
                self._intended(action)
        self.todo += actions

    def _intended(self, post: Post) -> None:
        """The intent of a POST is written, and its id is that of this attempt of this acceptance alone."""
        record = self._ledger.jobs[post.request_id]
        assert (record.phase, record.lease_until) == (Phase.SUBMITTING, post.lease_until)
        assert record.attempt == post.attempt
        assert post.params == self._ledger.params[post.request_id]
        attempt = f"{record.seed}\n{post.attempt}"
        assert self._tams.attempts.setdefault(attempt, post.tams_request_id) == post.tams_request_id
        assert self._tams.lives.setdefault(post.tams_request_id, record.seed) == record.seed
        assert len(set(self._tams.attempts.values())) == len(self._tams.attempts)

    def act(self, now: datetime) -> None:
        """Do what the last commit allows."""
        todo, self.todo = self.todo, []
        for action in todo:
            self._carry_out(action, now)

    def _carry_out(self, action: Action, now: datetime) -> None:
        match action:
            case Submit(request_id):
                self._drop(request_id)
                self.waiting.setdefault(request_id, action)
            case Post():
                self._post(action, now)
            case Track(job_id, record):
                if self.tracked.get(record.request_id) != job_id:
                    self.cancels.pop(record.request_id, None)
                self.tracked[record.request_id] = job_id
            case Cancel(request_id, job_id):
                self.cancels[request_id] = job_id
            case Rest(request_id):
                self._drop(request_id)
                self.waiting.pop(request_id, None)

    def _drop(self, request_id: str) -> None:
        self.tracked.pop(request_id, None)
        self.cancels.pop(request_id, None)

    def _post(self, post: Post, now: datetime) -> None:
        """A POST begins, if its lease still stands; never two of one attempt at a time, whoever makes them."""
        if now >= post.lease_until:
            self.partition.submitted(post.request_id, post.attempt, NotSent(TOO_LATE), now, 0.5)
            return
        others = [each.post.tams_request_id for each in self._tams.on_the_way if self.is_within_time(each, now)]
        assert post.tams_request_id not in others, "two POSTs of one attempt at a time"
        begun = Underway(post)
        self.posts.append(begun)
        self._tams.on_the_way.append(begun)

    def is_within_time(self, begun: Underway, now: datetime) -> bool:
        """Whether a POST may still be under way: no exchange is longer than the policy allows."""
        return now < begun.post.lease_until + self._policy.answer_timeout
