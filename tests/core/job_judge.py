"""What people ask of a worker, and what must come of it: the part of the model that the core and the role share."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from hypothesis import strategies as st

from bridge.core import jobs
from bridge.core.jobs import JobPolicy
from bridge.messages import DeadLetterReason, EventType, JobEvent
from bridge.ports import Arrival, Changes, DeadLetter
from tests.core.examples import NOW, SECOND
from tests.core.job_world import ENDED_AT_TAMS, Ledger, Tams

UNREADABLE: dict[str, tuple[bytes | None, bytes | None, DeadLetterReason]] = {
    "nothing": (b"a", None, DeadLetterReason.EMPTY),
    "empty": (b"a", b"", DeadLetterReason.EMPTY),
    "cut": (b"a", b"{", DeadLetterReason.INVALID_JSON),
    "no text": (b"a", b"\xff\xfe", DeadLetterReason.INVALID_JSON),
    "a word": (b"a", b'"a"', DeadLetterReason.INVALID_REQUEST),
    "wrong type": (None, b'{"params": {}, "labels": 3}', DeadLetterReason.INVALID_REQUEST),
    "both": (b"a", b'{"params": {}, "cancel": "a"}', DeadLetterReason.INVALID_REQUEST),
    "bad key": (b"a\n", b'{"params": {}}', DeadLetterReason.INVALID_REQUEST_ID),
    "bad id": (b"a", b'{"params": {}, "request_id": ""}', DeadLetterReason.INVALID_REQUEST_ID),
    "too large": (b"a", b'{"params": {"x": "' + b"y" * 3_000 + b'"}}', DeadLetterReason.TOO_LARGE),
}

WISHES = ["job"] * 12 + ["cancel"] * 4 + sorted(UNREADABLE)
IDS = st.sampled_from(["a", "b", "", "", "", ""])
"""Empty for an id that nobody has used yet."""

GRAPHS = ['{"3":{"classType":"KSampler"}}', '{ "1": {"inputs": {"x": 1.0e1}} }']
FIELDS = st.fixed_dictionaries(
    {
        "params": st.sampled_from(GRAPHS),
        "labels": st.sampled_from([None, {"tenant": "acme"}]),
        "deadline_s": st.sampled_from([None, None, None, 15]),
        "max_attempts": st.sampled_from([None, 1, 3]),
        "priority": st.sampled_from([None, 0, 9]),
    }
)
WHAT = st.lists(st.tuples(st.sampled_from(WISHES), IDS, FIELDS), min_size=1, max_size=4)
"""Some records of the requests topic."""


@dataclass(frozen=True)
class Published:
    """What a record of the requests topic asks for.

    Args:
        request_id: whose; None if nobody can tell.
        cancels: whether it is a cancel.
        reason: why it cannot be read, if it cannot.
        priority: of the job.
        deadline: after its acceptance, of its own.
        attempts: how many there may be, if it says so.
    """

    request_id: str | None
    cancels: bool = False
    reason: DeadLetterReason | None = None
    priority: int = 4
    deadline: timedelta | None = None
    attempts: int | None = None


class Requests:
    """The requests topic, and what was meant by each of its records."""

    def __init__(self) -> None:
        self.log: list[Arrival] = []
        self.meant: list[Published] = []

    def come(self, what: list[tuple[str, str, dict[str, object]]], *, deadline: timedelta | None) -> None:
        """Somebody publishes.

        Args:
            what: one of `WISHES`, an id or none, and fields, for each record.
            deadline: of a job that names none.
        """
        for wish, request_id, fields in what:
            if wish == "job":
                self.ask(request_id or f"r{len(self.log)}", fields, deadline)
            elif wish == "cancel":
                self.ask_for_a_cancel(request_id)
            else:
                key, value, reason = UNREADABLE[wish]
                self.publish(key, value, Published(None, reason=reason))

    def ask(self, request_id: str, fields: dict[str, object], deadline: timedelta | None) -> None:
        """By an id in the value, or by the record's key alone."""
        named = {} if fields["labels"] is None else {"request_id": request_id}
        fields = {**fields, "params": msgspec.Raw(str(fields["params"]).encode())}
        value = msgspec.json.encode({name: value for name, value in {**fields, **named}.items() if value is not None})
        priority, own, attempts = fields["priority"], fields["deadline_s"], fields["max_attempts"]
        meant = Published(
            request_id,
            priority=priority if isinstance(priority, int) else 4,
            deadline=own * SECOND if isinstance(own, int) else deadline,
            attempts=attempts if isinstance(attempts, int) else None,
        )
        self.publish(request_id.encode(), value, meant)

    def ask_for_a_cancel(self, request_id: str) -> None:
        """Of some job, or of the last one that was asked for."""
        asked = [meant.request_id for meant in self.meant if meant.request_id and not meant.cancels]
        of = request_id or (asked[-1] if asked else "nobody")
        self.publish(of.encode(), msgspec.json.encode({"cancel": of}), Published(of, cancels=True))

    def publish(self, key: bytes | None, value: bytes | None, meant: Published) -> None:
        headers = (("traceparent", b"00-1"), ("x", None))
        self.log.append(Arrival(offset=len(self.log), key=key, value=value, headers=headers))
        self.meant.append(meant)

    def asked_for(self, life: str) -> Published:
        """What was accepted under a seed."""
        return self.meant[int(life.partition("@")[0].rpartition("-")[2])]


class Judge:
    """Looks at what was written, transaction by transaction, and says whether it may be so.

    Args:
        ledger, tams, requests: what it judges by.
        policy: what the user chose.
    """

    def __init__(self, ledger: Ledger, tams: Tams, requests: Requests, policy: JobPolicy) -> None:
        self.ledger = ledger
        self.tams = tams
        self.requests = requests
        self.policy = policy
        self._known: dict[str, datetime | None] = {}
        self._seen = 0
        self._now = NOW

    def written(self, changes: Changes, begin: int, now: datetime) -> None:
        """Each record between the positions has had its one consequence, in order.

        Args:
            changes: what was written.
            begin: the position before.
            now: when.
        """
        self._now = now
        assert changes.position in {None, self.ledger.position}
        for event, record in changes.events:
            may_go_on = event.error is not None and event.error.retryable and not record.stop
            assert event.type is not EventType.RETRYING or may_go_on
            assert event.type is not EventType.FAILED or not may_go_on or record.attempt == record.max_attempts
        events, letters = [event for event, _ in changes.events], list(changes.dead_letters)
        for offset in range(begin, self.ledger.position):
            meant = self.requests.meant[offset]
            if letters and letters[0].arrival.offset == offset:
                self._is_parked(letters.pop(0), meant)
            elif meant.cancels:
                assert meant.request_id in self._known
            else:
                assert meant.reason is None
                self._job_is_answered(events, meant)
        assert letters == []
        assert not any(self._tell(event) for event in events)
        for request_id in self._known.keys() - self.ledger.records.keys():
            assert self._may_be_forgotten(request_id)
            del self._known[request_id]

    def _is_parked(self, letter: DeadLetter, meant: Published) -> None:
        """As it came, byte for byte."""
        assert letter.arrival == self.requests.log[letter.arrival.offset]
        assert letter.reason is (DeadLetterReason.UNKNOWN_REQUEST if meant.cancels else meant.reason)
        assert meant.request_id is None or self._may_be_forgotten(meant.request_id)

    def _job_is_answered(self, events: list[JobEvent], meant: Published) -> None:
        """The next acceptance, or duplicate, is that of this request."""
        while not self._tell(event := events.pop(0)):
            pass
        assert event.request_id == meant.request_id

    def _tell(self, event: JobEvent) -> bool:
        """Follow an event; whether it answers a request."""
        if event.type is EventType.DUPLICATE:
            assert event.request_id in self._known
        elif event.type is EventType.ACCEPTED:
            assert self._may_be_forgotten(event.request_id)
            self._known[event.request_id] = None
        elif event.type.is_terminal:
            assert self._known[event.request_id] is None
            self._known[event.request_id] = event.time
        return event.type in {EventType.ACCEPTED, EventType.DUPLICATE}

    def _may_be_forgotten(self, request_id: str) -> bool:
        ended = self._known.get(request_id)
        return request_id not in self._known or (ended is not None and ended + self.policy.dedupe_window <= self._now)

    def lives_are_sound(self) -> None:
        """Sequences, ids, ends and statuses, of all that was published."""
        if self._seen == len(self.ledger.told):
            return
        self._seen = len(self.ledger.told)
        for events in self.ledger.lives().values():
            first, *later = events
            assert first.type is EventType.ACCEPTED
            assert EventType.ACCEPTED not in {event.type for event in later}
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert [event.id for event in events] == [f"{first.request_id}.{n + 1}" for n in range(len(events))]
            ends = [event.type.is_terminal for event in events]
            assert ends.count(True) <= 1
            after_end = events[ends.index(True) + 1 :] if any(ends) else []
            assert {event.type for event in after_end} <= {EventType.DUPLICATE}
            self._status_only_goes_forward(events)

    def _status_only_goes_forward(self, events: list[JobEvent]) -> None:
        before = (0, 0)
        for event in events:
            status = msgspec.json.decode(event.job)["status"] if event.job else ""
            step = 4 if status in ENDED_AT_TAMS else jobs.STATUS_ORDER.get(status, 0)
            assert event.attempt >= before[0]
            if step:
                assert (event.attempt, step) >= before, events
                before = (event.attempt, step)

    def ends_are_true(self) -> None:
        """Every acceptance has its one end, and TAMS would say the same."""
        self.lives_are_sound()
        for life, events in self.ledger.lives().items():
            (end,) = [event for event in events if event.type.is_terminal]
            self._end_is_what_tams_says(end, life)
            most = self.requests.asked_for(life).attempts or self.policy.max_attempts
            assert end.attempt <= most
            if end.type is EventType.EXPIRED:
                self._expired_in_time(events[0].time, end, life)

    def _expired_in_time(self, accepted: datetime, end: JobEvent, life: str) -> None:
        """Not before its deadline; and not while TAMS may be working on it, until the grace is over."""
        deadline = self.requests.asked_for(life).deadline
        assert deadline is not None
        is_stopped = {job.status for job in self.tams.of(life)} <= {"FAILED", "CANCELED"}
        grace = timedelta() if is_stopped or self.tams.forgets(life) else self.policy.deadline_grace
        assert end.time >= accepted + deadline + grace

    def _end_is_what_tams_says(self, end: JobEvent, life: str) -> None:
        made = self.tams.of(life)
        statuses = [job.status for job in made]
        if self.tams.forgets(life) or end.type is EventType.EXPIRED:
            return
        match end.type:
            case EventType.SUCCESS:
                assert statuses[-1:] == ["SUCCESS"]
            case EventType.FAILED:
                assert statuses[-1:] == ["FAILED"]
                assert end.error is not None
            case EventType.CANCELED:
                assert set(statuses) <= {"FAILED", "CANCELED"}
            case EventType.REJECTED:
                assert statuses == ["FAILED"] * (end.attempt - 1)
            case _:
                assert end.type is EventType.UNKNOWN
                assert end.error is not None
                was_missed = any(job.document.view.job_id in self.tams.missed for job in made)
                expected = "job_not_found" if was_missed else "already_exists"
                assert self.policy.ambiguous == "fail" or end.error.code in {"already_exists", expected}
