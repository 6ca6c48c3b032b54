"""The judge is worth what it finds: a history in order passes, and each way of breaking a promise is named."""

from dataclasses import replace

import pytest

from tests.crash.judge import Call, Event, Evidence, Ledgered, judge


def event(request_id: str, sequence: int, kind: str, attempt: int = 1, job_id: str = "", status: str = "") -> Event:
    event_id = f"{request_id}.{sequence}"
    return Event(
        id=event_id,
        kind=kind,
        request_id=request_id,
        sequence=sequence,
        attempt=attempt,
        job_id=job_id,
        status=status,
        key=request_id,
        headers={
            "ce_id": event_id,
            "ce_type": f"tams.job.{kind}",
            "ce_subject": request_id,
            "ce_sequence": f"{sequence:010d}",
        },
    )


def create(request_id: str, job_id: str = "") -> Call:
    return Call(request_id=request_id, job_id=job_id, is_create=True)


EVENTS = (
    event("a", 1, "accepted"),
    event("a", 2, "submitted", job_id="1", status="CREATED"),
    event("a", 3, "running", job_id="1", status="RUNNING"),
    event("a", 4, "retrying", job_id="1", status="FAILED"),
    event("a", 5, "submitted", 2, job_id="2", status="WAITING"),
    event("a", 7, "duplicate", 2, job_id="2", status="SUCCESS"),
    event("a", 6, "success", 2, job_id="2", status="SUCCESS"),
    event("b", 1, "accepted"),
    event("b", 2, "rejected"),
)
SOUND = Evidence(
    accepted=frozenset("ab"),
    unreadable=["0/7"],
    events=EVENTS,
    dead_letters=["0/7"],
    calls=[create("r1"), create("r1", "1"), create("r1", "1"), create("r2", "2"), create("r3")],
    owners={"1": "a", "2": "a"},
    ledger={"a": Ledgered(phase="success", sequence=7), "b": Ledgered(phase="rejected", sequence=2)},
)


def without(*event_ids: str) -> Evidence:
    return replace(SOUND, events=[event for event in EVENTS if event.id not in event_ids])


def instead(event_id: str, **changes: object) -> Evidence:
    events = [replace(event, **changes) if event.id == event_id else event for event in EVENTS]  # type: ignore[arg-type]
    return replace(SOUND, events=events)


def also(*events: Event) -> Evidence:
    return replace(SOUND, events=[*EVENTS, *events])


BROKEN: dict[str, tuple[Evidence, str]] = {
    "an accepted request has no event": (replace(SOUND, accepted=frozenset("abc")), "without any event"),
    "a request came from nowhere": (replace(SOUND, accepted=frozenset("a")), "nobody made"),
    "an event is lost": (without("a.3"), "a gap or a repeat"),
    "the terminal event is lost": (without("b.2"), "b: 0 terminal events"),
    "the last event is lost": (without("a.7"), "the ledger says"),
    "an event is doubled": (also(event("a", 3, "running", job_id="1", status="RUNNING")), "a gap or a repeat"),
    "the terminal event is doubled": (also(event("b", 2, "rejected")), "b: 2 terminal events"),
    "there are two ends": (also(event("b", 3, "failed")), "b: 2 terminal events"),
    "an event follows the end": (also(event("b", 3, "waiting")), "after the terminal one"),
    "an id is not from the sequence": (instead("a.3", id="a.9"), "id a.9 of event 3"),
    "a header lies": (instead("a.3", headers={}), "do not agree"),
    "a key lies": (instead("a.3", key="b"), "do not agree"),
    "accepted twice": (instead("a.3", kind="accepted"), "its one accepted event"),
    "the type goes back": (instead("a.4", kind="waiting", status=""), "status goes back"),
    "the status goes back": (instead("a.2", status="SUCCESS"), "status goes back"),
    "an attempt is skipped": (instead("b.2", attempt=3), "attempts [1, 3]"),
    "an attempt is submitted twice": (instead("a.3", kind="submitted"), "submitted twice"),
    "a job changes within an attempt": (instead("a.3", job_id="2"), "two jobs in attempt 1"),
    "one requestId made two jobs": (
        replace(SOUND, calls=[*SOUND.calls, create("r2", "3")]),
        "for the one requestId 'r2'",
    ),
    "a job was paid that no event tells of": (
        replace(SOUND, calls=[*SOUND.calls, create("r4", "4")], owners={**SOUND.owners, "4": "b"}),
        "b: 1 jobs at TAMS",
    ),
    "a told job was never made": (replace(SOUND, calls=SOUND.calls[:3]), "a: 1 jobs at TAMS"),
    "a job is told under another request": (replace(SOUND, owners={"1": "a", "2": "b"}), "made for b"),
    "an attempt used two requestIds": (
        replace(SOUND, calls=[*SOUND.calls, create("r9")]),
        "2 requestIds without a job",
    ),
    "a rejected request was not asked for": (replace(SOUND, calls=SOUND.calls[:-1]), "0 requestIds without a job"),
    "the ledger lags": (
        replace(SOUND, ledger={**SOUND.ledger, "b": Ledgered(phase="submitting", sequence=1)}),
        "b: the ledger says",
    ),
    "the ledger keeps a graph": (
        replace(SOUND, ledger={**SOUND.ledger, "b": Ledgered(phase="rejected", sequence=2, keeps_params=True)}),
        "keeps its graph",
    ),
    "a dead letter is lost": (replace(SOUND, dead_letters=[]), "0/7: 0 dead letters"),
    "a dead letter is doubled": (replace(SOUND, dead_letters=["0/7", "0/7"]), "0/7: 2 dead letters"),
    "a readable record was parked": (replace(SOUND, dead_letters=["0/7", "0/8"]), "0/8: 1 dead letters"),
}


def test_a_history_in_order_passes() -> None:
    assert judge(SOUND) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named(name: str) -> None:
    evidence, named = BROKEN[name]
    assert any(named in complaint for complaint in judge(evidence)), judge(evidence)


def test_an_unknown_end_may_leave_one_job_behind() -> None:
    """That is what `unknown` says: TAMS may have made a job, or not."""
    evidence = replace(
        SOUND,
        events=[*EVENTS[:-1], event("b", 2, "unknown")],
        calls=[*SOUND.calls[:-1], create("r3", "3")],
        owners={**SOUND.owners, "3": "b"},
        ledger={**SOUND.ledger, "b": Ledgered(phase="unknown", sequence=2)},
    )
    assert judge(evidence) == []
