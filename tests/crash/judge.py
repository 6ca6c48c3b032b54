"""What must be true of a bridge whatever happened to its workers, as a function of what outsiders saw.

The evidence comes from the topics (read_committed) and from TAMS' own journal; nothing in here knows the bridge's code.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

TERMINAL = frozenset({"success", "failed", "canceled", "rejected", "expired", "unknown"})
RANK = {"accepted": 0, "submitted": 1, "waiting": 1, "running": 2, "retrying": 3}
STATUS_RANK = {"CREATED": 0, "PENDING": 1, "WAITING": 1, "RUNNING": 2, "SUCCESS": 3, "FAILED": 3, "CANCELED": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One record of a result topic: what its value says, and what its key and CloudEvents headers say."""

    id: str
    kind: str
    request_id: str
    sequence: int
    attempt: int = 1
    job_id: str = ""
    status: str = ""
    key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that TAMS got: the `requestId` of a create, the job it was about or made, and when (s since 1970)."""

    request_id: str
    job_id: str
    is_create: bool
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgered:
    """What the ledger says last of a request."""

    phase: str
    sequence: int
    keeps_params: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known from outside.

    Args:
        accepted: ids of the readable requests that the broker took, however often.
        unreadable: places (`partition/offset`) of the records that are no requests.
        events: of each result topic in turn, in the order of its partitions.
        dead_letters: places named by the dead letters.
        calls: TAMS' journal.
        owners: job id at TAMS → the request it was made for, by a mark inside the graph.
        ledger: request id → its last record.
        possible: ids of readable requests of which nobody knows whether the broker took them.
    """

    accepted: frozenset[str]
    unreadable: Sequence[str]
    events: Sequence[Event]
    dead_letters: Sequence[str]
    calls: Sequence[Call]
    owners: Mapping[str, str]
    ledger: Mapping[str, Ledgered]
    possible: frozenset[str] = frozenset()


def judge(evidence: Evidence) -> list[str]:
    """Everything that is wrong; empty if every promise was kept."""
    stories: defaultdict[str, list[Event]] = defaultdict(list)
    for event in evidence.events:
        stories[event.request_id].append(event)
    complaints = [f"{name}: accepted, but without any event" for name in evidence.accepted - stories.keys()]
    strangers = stories.keys() - evidence.accepted - evidence.possible
    complaints += [f"{name}: events of a request nobody made" for name in strangers]
    for story in stories.values():
        complaints += _story_complaints(story)
    complaints += _tams_complaints(evidence)
    complaints += _ledger_complaints(evidence, stories)
    complaints += _dead_letter_complaints(evidence)
    return complaints


def is_ended(events: Sequence[Event]) -> bool:
    """Whether a request's events hold a terminal one."""
    return any(event.kind in TERMINAL for event in events)


def _story_complaints(story: Sequence[Event]) -> Iterator[str]:
    """One request: its events as they lie in the topics."""
    name = story[0].request_id
    sequences = [event.sequence for event in story]
    if sorted(sequences) != list(range(1, len(story) + 1)):
        yield f"{name}: sequences {sorted(sequences)} have a gap or a repeat"
    ends = [event for event in story if event.kind in TERMINAL]
    if len(ends) != 1:
        yield f"{name}: {len(ends)} terminal events"
    told = sorted(story, key=lambda event: event.sequence)
    for event in told:
        yield from _event_complaints(event)
    main = [event for event in told if event.kind != "duplicate"]
    if not main or main[0].kind != "accepted" or [event.kind for event in main].count("accepted") != 1:
        yield f"{name}: does not begin with its one accepted event"
    if any(event.kind in TERMINAL for event in main[:-1]):
        yield f"{name}: an event after the terminal one"
    yield from _order_complaints(name, main)


def _event_complaints(event: Event) -> Iterator[str]:
    if event.id != f"{event.request_id}.{event.sequence}":
        yield f"{event.request_id}: id {event.id} of event {event.sequence}"
    said = {
        "ce_id": event.id,
        "ce_type": f"tams.job.{event.kind}",
        "ce_subject": event.request_id,
        "ce_sequence": f"{event.sequence:010d}",
    }
    if event.key != event.request_id or any(event.headers.get(header) != value for header, value in said.items()):
        yield f"{event.id}: key or headers do not agree with the value"


def _order_complaints(name: str, story: Sequence[Event]) -> Iterator[str]:
    """Status never goes back, attempts follow each other, each is submitted once."""
    attempts = [event.attempt for event in story]
    submitted = [event.attempt for event in story if event.kind == "submitted"]
    if attempts != sorted(attempts) or set(attempts) != set(range(1, max(attempts, default=0) + 1)):
        yield f"{name}: attempts {attempts}"
    if len(submitted) != len(set(submitted)):
        yield f"{name}: one attempt was submitted twice: {submitted}"
    for attempt in set(attempts):
        of_attempt = [event for event in story if event.attempt == attempt]
        ranks = [RANK[event.kind] for event in of_attempt if event.kind in RANK]
        statuses = [STATUS_RANK[event.status] for event in of_attempt if event.status]
        if ranks != sorted(ranks) or statuses != sorted(statuses):
            yield f"{name}: status goes back in attempt {attempt}: {[(e.kind, e.status) for e in of_attempt]}"
        if len({event.job_id for event in of_attempt if event.job_id}) > 1:
            yield f"{name}: two jobs in attempt {attempt}"


def _tams_complaints(evidence: Evidence) -> Iterator[str]:
    """Each attempt made one job, under one `requestId`, and the events know every job that was made."""
    made: defaultdict[str, set[str]] = defaultdict(set)
    for call in evidence.calls:
        if call.is_create and (call.request_id or call.job_id):  # else it was turned away unread
            made[call.request_id] |= {call.job_id} - {""}
    for request_id, jobs in made.items():
        if len(jobs) > 1 or not request_id:
            yield f"TAMS made jobs {sorted(jobs)} for the one requestId {request_id!r}"
    told: defaultdict[str, list[str]] = defaultdict(list)
    for event in evidence.events:
        if event.kind == "submitted":
            told[event.request_id].append(event.job_id)
            if evidence.owners.get(event.job_id) != event.request_id:
                yield f"{event.id}: tells of job {event.job_id}, made for {evidence.owners.get(event.job_id)}"
    yield from _untold_complaints(evidence, made, told)
    yield from _unborn_complaints(evidence, sum(1 for jobs in made.values() if not jobs), told)


def _untold_complaints(
    evidence: Evidence, made: Mapping[str, set[str]], told: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Jobs that TAMS made and no event tells of, or the other way round; `unknown` may leave one behind."""
    jobs_of: defaultdict[str, list[str]] = defaultdict(list)
    for request_id, jobs in made.items():
        for job_id in jobs:
            jobs_of[evidence.owners.get(job_id, f"job {job_id}, which nobody owns")].append(request_id)
    unknown = {event.request_id for event in evidence.events if event.kind == "unknown"}
    for name in jobs_of.keys() | told.keys():
        number, told_of = len(jobs_of[name]), len(told.get(name, ()))
        if number != told_of and not (number == told_of + 1 and name in unknown):
            yield f"{name}: {number} jobs at TAMS (requestIds {jobs_of[name]}), {told_of} submitted"


def _unborn_complaints(evidence: Evidence, unborn: int, told: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """`requestId`s that led to no job: one for each rejected request, and for a cancel that came just before."""
    ends = {event.request_id: event.kind for event in evidence.events if event.kind in TERMINAL}
    rejected = sum(1 for kind in ends.values() if kind == "rejected")
    stopped = sum(1 for name, kind in ends.items() if kind != "rejected" and len(told.get(name, ())) == 0)
    retried = Counter(event.request_id for event in evidence.events if event.kind == "retrying")
    cut_short = sum(1 for name, count in retried.items() if len(told.get(name, ())) == count)
    if not rejected <= unborn <= rejected + stopped + cut_short:
        yield f"{unborn} requestIds without a job, but {rejected} rejected requests"


def _ledger_complaints(evidence: Evidence, stories: Mapping[str, Sequence[Event]]) -> Iterator[str]:
    for name, story in stories.items():
        kept = evidence.ledger.get(name)
        end = next((event.kind for event in story if event.kind in TERMINAL), "")
        if kept is None or (kept.phase, kept.sequence) != (end, max(event.sequence for event in story)):
            yield f"{name}: the ledger says {kept}, the events {end or 'no end'} after {len(story)}"
        elif kept.keeps_params:
            yield f"{name}: has ended, and the ledger still keeps its graph"


def _dead_letter_complaints(evidence: Evidence) -> Iterator[str]:
    expected, found = Counter(evidence.unreadable), Counter(evidence.dead_letters)
    for place in expected.keys() | found.keys():
        if expected[place] != found[place]:
            yield f"record {place}: {found[place]} dead letters, expected {expected[place]}"
