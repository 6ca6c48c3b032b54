"""The life of one job: the grid of every phase with everything that can happen, then the stories one by one."""

from collections.abc import Callable, Mapping
from dataclasses import replace as with_policy
from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bridge.core import jobs
from bridge.core.answers import ALREADY_EXISTS
from bridge.core.jobs import ENDS, MOVES, STATUS_ORDER, Step
from bridge.messages import (
    TERMINAL_EVENT,
    Ambiguous,
    Answer,
    Done,
    EventType,
    Failure,
    InHand,
    JobEvent,
    JobRecord,
    Missing,
    NotSent,
    Phase,
    Refused,
    Stop,
    TryLater,
    Unauthorized,
)
from tests.core.examples import (
    FAIL_POLICY,
    FAILURE,
    NO,
    NOW,
    POLICY,
    SECOND,
    accepted,
    every_answer,
    failed,
    in_every_phase,
    job_arrival,
    running,
    seen,
    stopped,
    submitting,
    tracking,
    waiting,
)

Happening = Callable[[JobRecord, datetime], Step]
LATE = NOW + timedelta(seconds=61)
TOO_LATE = NOW + timedelta(seconds=121)
UNLIMITED = with_policy(POLICY, deadline=None)


def submit_answered(answer: Answer, policy: jobs.JobPolicy = POLICY) -> Happening:
    return lambda record, now: jobs.submitted(record, answer, policy, now, 0.0)


def look_answered(answer: Answer) -> Happening:
    return lambda record, now: jobs.looked(record, answer, POLICY, now, 0.0)


def cancel_answered(answer: Answer) -> Happening:
    return lambda record, _: jobs.cancel_answered(record, answer)


def every_happening() -> Mapping[str, Happening]:
    """Everything that can happen to a job, with every answer there is; a duplicate aside, which is told to all."""
    answered = {
        f"{call}: {name}": happening(answer)
        for call, happening in {"submit": submit_answered, "look": look_answered, "cancel": cancel_answered}.items()
        for name, answer in every_answer().items()
    }
    return {
        **answered,
        "submit: ambiguous, fail": submit_answered(Ambiguous(FAILURE), FAIL_POLICY),
        "grant": lambda record, now: jobs.grant(record, POLICY, now),
        "cancel": lambda record, now: jobs.cancel(record, POLICY, now),
        "time": lambda record, now: jobs.time_passed(record, POLICY, now),
        "time, late": lambda record, _: jobs.time_passed(record, POLICY, LATE),
        "time, too late": lambda record, _: jobs.time_passed(record, POLICY, TOO_LATE),
        "restore": lambda record, now: jobs.restore(record, POLICY, now),
        "restore, fail": lambda record, now: jobs.restore(record, FAIL_POLICY, now),
    }


HAPPENINGS = every_happening()
STARTS: dict[str, JobRecord] = {
    **{phase.value: record for phase, record in in_every_phase().items()},
    "accepted again": replace(accepted(deadline_s=60), attempt=3, not_before=NOW, error=FAILURE),
    "submitting in doubt": replace(submitting(deadline_s=60), doubt=True, lease_until=None),
    "submitting, to stop": stopped(submitting(deadline_s=60)),
    "submitting in doubt, to stop": stopped(replace(submitting(), doubt=True, lease_until=None)),
    "tracking, running": jobs.looked(tracking(deadline_s=60), running(0.5, "1"), POLICY, NOW, 0.0).record,
    "tracking, to stop": stopped(tracking(deadline_s=60)),
    "tracking, told to stop": replace(stopped(tracking(), Stop.DEADLINE), stop_told=True),
    "tracking, missing": replace(tracking(deadline_s=60), missing_since=NOW),
    "tracking, last attempt": replace(tracking(), attempt=3),
}


EACH_START = pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)


@EACH_START
def test_every_happening_in_every_phase_keeps_the_promises_of_a_step(start: JobRecord) -> None:
    """Only allowed moves, numbered events, one terminal event with an end, and ACCEPTED never with doubt."""
    for happening in HAPPENINGS.values():
        assert_step_is_sound(start, happening(start, NOW + SECOND))


@EACH_START
def test_what_changes_nothing_gives_the_same_record_back(start: JobRecord) -> None:
    """A step without change writes nothing to the ledger."""
    for name, happening in HAPPENINGS.items():
        step = happening(start, NOW + SECOND)

        assert step.record is start or step.record != start, name


@EACH_START
def test_what_happens_twice_changes_nothing_more(start: JobRecord) -> None:
    """The same again at the same moment is a repeat, unless the first has made it mean something new."""
    means_something_new = {
        "submit: in hand", "submit: try later", "submit: not sent", "submit: unauthorized", "submit: ambiguous",
        "submit: transitory", "time, too late", "look: missing", "look: refused", "grant", "restore", "restore, fail",
    }  # fmt: skip
    for name in HAPPENINGS.keys() - means_something_new:
        once = HAPPENINGS[name](start, NOW + SECOND).record

        assert HAPPENINGS[name](once, NOW + SECOND).record is once, name


@pytest.mark.parametrize("end", sorted(ENDS))
def test_nothing_follows_an_end(end: Phase) -> None:
    """The end that was told is the end."""
    ended = in_every_phase()[end]

    for name, happening in HAPPENINGS.items():
        assert happening(ended, TOO_LATE).record is ended, name


def assert_step_is_sound(before: JobRecord, step: Step) -> None:
    after, events = step.record, step.events
    was_created = any(event.type is EventType.SUBMITTED for event in events)
    reachable = MOVES[before.phase] | {before.phase} | (MOVES[Phase.TRACKING] if was_created else set())
    assert after.phase in reachable
    assert [event.sequence for event in events] == list(range(before.sequence + 1, after.sequence + 1))
    assert [event.id for event in events] == [f"{after.request_id}.{event.sequence}" for event in events]
    ends = [event.type for event in events if event.type.is_terminal]
    assert ends == ([TERMINAL_EVENT[after.phase]] if after.phase in ENDS and before.phase not in ENDS else [])
    assert not ends or events[-1].type == ends[0]
    assert not (after.phase is Phase.ACCEPTED and after.doubt)
    assert (after.job_id is not None) or after.phase is not Phase.TRACKING
    assert (after.expires_at is not None) == (after.phase in ENDS)


def test_a_forbidden_move_is_a_bug_and_loud() -> None:
    """The table is what the code follows."""
    with pytest.raises(jobs.ForbiddenMove, match="success → tracking"):
        jobs._move(in_every_phase()[Phase.SUCCESS], Phase.TRACKING)


def test_every_phase_has_its_row_in_the_table() -> None:
    """Ends have no way out, and every phase but the first can be reached."""
    assert set(MOVES) == set(Phase)
    assert {phase for phase in Phase if not MOVES[phase]} == ENDS
    assert frozenset[Phase]().union(*MOVES.values()) == set(Phase)


# ------------------------------------------------------------------------------------------------------------ accepting


def test_accepted_request_is_told_with_its_labels_and_what_was_ignored() -> None:
    """The first event is number one."""
    step = jobs.accept(job_arrival("a.b", labels={"t": "x"}, colour=1), POLICY, NOW)

    (event,) = step.events
    assert (event.id, event.type, event.sequence, event.attempt, event.time, event.labels, event.unknown_fields) == (
        "a.b.1", EventType.ACCEPTED, 1, 1, NOW, {"t": "x"}, ("colour",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "default", "deadline"),
    [(None, None, None), (None, 90 * SECOND, NOW + 90 * SECOND), (5, 90 * SECOND, NOW + 5 * SECOND)],
)
def test_deadline_of_the_request_beats_the_one_of_the_policy(
    asked: int | None, default: timedelta | None, deadline: datetime | None
) -> None:
    """Who names a deadline means it."""
    policy = with_policy(POLICY, deadline=default)

    assert jobs.accept(job_arrival(deadline_s=asked), policy, NOW).record.deadline == deadline


@pytest.mark.parametrize(("asked", "attempts"), [(None, 3), (7, 7)])
def test_attempts_of_the_request_beat_those_of_the_policy(asked: int | None, attempts: int) -> None:
    """Who names a number of attempts means it."""
    assert accepted(max_attempts=asked).max_attempts == attempts


def test_webhook_is_kept_with_the_job() -> None:
    """For the forwarder, as JSON."""
    kept = accepted(webhook={"url": "https://acme.example/hook"}).webhook

    assert msgspec.json.decode(kept) == {"url": "https://acme.example/hook", "events": ["success", "failed"]}


@pytest.mark.parametrize("phase", list(Phase))
def test_duplicate_is_told_with_the_job_as_it_stands(phase: Phase) -> None:
    """The job goes on, or stays ended: never a second terminal event."""
    record = replace(in_every_phase()[phase], error=NO)

    step = jobs.duplicate(record, NOW)

    (event,) = step.events
    assert (event.type, event.job, event.error) == (EventType.DUPLICATE, record.job, NO)
    assert step.record == replace(record, sequence=record.sequence + 1)


# -------------------------------------------------------------------------------------------------- the id told to TAMS


@pytest.mark.parametrize("start_name", list(STARTS))
def test_request_id_for_tams_is_the_same_after_a_round_trip_through_the_ledger(start_name: str) -> None:
    """A crash does not make it another job."""
    record = STARTS[start_name]

    restored = msgspec.json.decode(msgspec.json.encode(record), type=JobRecord)

    assert jobs.tams_request_id(restored) == jobs.tams_request_id(record)


def test_request_id_for_tams_is_the_same_through_an_attempt() -> None:
    """However often its submit is tried."""
    again = jobs.submitted(submitting(), Ambiguous(FAILURE), POLICY, NOW, 0.0).record
    again = jobs.grant(again, POLICY, NOW + 60 * SECOND).record

    assert jobs.tams_request_id(again) == jobs.tams_request_id(accepted())


def test_request_id_for_tams_differs_for_every_attempt() -> None:
    """Else TAMS would answer with the attempt that failed."""
    retried = jobs.looked(tracking(), failed("TRANSITORY_ERROR"), POLICY, NOW, 0.0).record

    assert jobs.tams_request_id(retried) != jobs.tams_request_id(tracking())


@pytest.mark.parametrize(
    "other",
    [
        jobs.accept(job_arrival(), POLICY, NOW + SECOND).record,
        replace(accepted(), seed="other.requests-4-0"),
        jobs.accept(job_arrival("order-2"), POLICY, NOW).record,
    ],
    ids=["accepted later", "on another cluster", "another request"],
)
def test_request_id_for_tams_differs_for_every_acceptance(other: JobRecord) -> None:
    """A request id used again is a new job."""
    assert jobs.tams_request_id(other) != jobs.tams_request_id(accepted())


# ----------------------------------------------------------------------------------------------------------- submitting


def test_grant_writes_the_intent_and_its_lease() -> None:
    """Before the first byte goes out."""
    step = jobs.grant(accepted(), POLICY, NOW)

    assert (step.record.phase, step.record.lease_until, step.record.tries) == (Phase.SUBMITTING, NOW + 5 * SECOND, 1)


def test_turn_given_twice_makes_no_second_post() -> None:
    """Two POSTs of one attempt at once could be paid for twice."""
    under_way = submitting()

    assert jobs.grant(under_way, POLICY, NOW + SECOND).record is under_way


def test_created_job_is_tracked_and_told() -> None:
    """All marks of the submit are gone, and the document is in the event."""
    doubtful = replace(submitting(), doubt=True, error=FAILURE, tries=4)

    step = jobs.submitted(doubtful, seen("CREATED", job_id="41"), POLICY, NOW, 0.0)

    record, (event,) = step.record, step.events
    assert (record.phase, record.job_id, record.status) == (Phase.TRACKING, "41", "CREATED")
    assert (record.doubt, record.tries, record.lease_until, record.error) == (False, 0, None, None)
    assert (event.type, bytes(event.job)) == (EventType.SUBMITTED, b'{"id":"41","status":"CREATED"}')


@pytest.mark.parametrize(
    ("answer", "phase", "types"),
    [
        (seen("SUCCESS"), Phase.SUCCESS, [EventType.SUBMITTED, EventType.SUCCESS]),
        (seen("CANCELED"), Phase.CANCELED, [EventType.SUBMITTED, EventType.CANCELED]),
        (failed("FATAL_ERROR"), Phase.FAILED, [EventType.SUBMITTED, EventType.FAILED]),
        (failed("TRANSITORY_ERROR"), Phase.ACCEPTED, [EventType.SUBMITTED, EventType.RETRYING]),
        (seen("RUNNING"), Phase.TRACKING, [EventType.SUBMITTED]),
        (seen("PAUSED"), Phase.TRACKING, [EventType.SUBMITTED]),
    ],
)
def test_job_that_is_further_on_when_created_is_told_in_order(
    answer: Answer, phase: Phase, types: list[EventType]
) -> None:
    """A repeated create may find the job done."""
    step = jobs.submitted(submitting(), answer, POLICY, NOW, 0.0)

    assert (step.record.phase, [event.type for event in step.events]) == (phase, types)


def test_refused_submit_rejects_the_job() -> None:
    """With TAMS' own words."""
    step = jobs.submitted(submitting(), Refused(NO), POLICY, NOW, 0.0)

    assert (step.record.phase, step.events[-1].type, step.events[-1].error) == (Phase.REJECTED, EventType.REJECTED, NO)


@pytest.mark.parametrize("answer", [NotSent(FAILURE), Unauthorized(FAILURE), TryLater(FAILURE, None, throttled=True)])
def test_submit_that_did_nothing_puts_the_job_back(answer: Answer) -> None:
    """Nothing is burnt: no event, no attempt used, another try after a pause."""
    step = jobs.submitted(submitting(), answer, POLICY, NOW, 0.0)

    record = step.record
    assert (record.phase, record.doubt, record.attempt, record.not_before, record.error, step.events) == (
        Phase.ACCEPTED, False, 1, NOW + SECOND / 2, FAILURE, (),
    )  # fmt: skip


def test_pause_before_a_submit_grows_with_the_tries() -> None:
    """TAMS down for an hour is not asked every second."""
    answer = NotSent(FAILURE)
    once = jobs.submitted(submitting(), answer, POLICY, NOW, 0.0).record

    twice = jobs.submitted(jobs.grant(once, POLICY, NOW).record, answer, POLICY, NOW, 0.0).record

    assert (once.not_before, twice.not_before) == (NOW + SECOND / 2, NOW + SECOND)


@pytest.mark.parametrize(("asked", "pause"), [(9.0, 9.0), (0.0, 0.5), (None, 0.5)])
def test_wait_that_tams_asks_for_is_kept(asked: float | None, pause: float) -> None:
    """The longer of its wait and ours."""
    later = TryLater(FAILURE, None if asked is None else asked * SECOND, throttled=False)

    step = jobs.submitted(submitting(), later, POLICY, NOW, 0.0)

    assert step.record.not_before == NOW + pause * SECOND


@pytest.mark.parametrize("answer", [Ambiguous(FAILURE), InHand()])
def test_submit_that_may_have_worked_is_repeated_in_doubt(answer: Answer) -> None:
    """The job stays SUBMITTING: TAMS may hold it."""
    record = jobs.submitted(submitting(), answer, POLICY, NOW, 0.0).record

    assert (record.phase, record.doubt, record.lease_until, record.not_before) == (
        Phase.SUBMITTING, True, None, NOW + SECOND / 2,
    )  # fmt: skip


def test_ambiguous_submit_ends_unknown_where_the_user_wants_no_repeat() -> None:
    """Never silence: the event says that the job may exist."""
    step = jobs.submitted(submitting(), Ambiguous(FAILURE), FAIL_POLICY, NOW, 0.0)

    assert (step.record.phase, step.events[-1].error) == (Phase.UNKNOWN, FAILURE)


def test_in_hand_is_repeated_even_where_the_user_wants_no_repeat() -> None:
    """202 says "repeat with the original parameters": that is no doubt of ours."""
    assert jobs.submitted(submitting(), InHand(), FAIL_POLICY, NOW, 0.0).record.phase is Phase.SUBMITTING


@pytest.mark.parametrize("answer", [NotSent(FAILURE), Unauthorized(FAILURE), TryLater(FAILURE, None, throttled=True)])
def test_doubt_survives_a_repeat_that_did_nothing(answer: Answer) -> None:
    """That this POST did not arrive says nothing of the one before."""
    in_doubt = replace(submitting(), doubt=True)

    record = jobs.submitted(in_doubt, answer, POLICY, NOW, 0.0).record

    assert (record.phase, record.doubt, record.lease_until) == (Phase.SUBMITTING, True, None)


@pytest.mark.parametrize(("doubt", "phase"), [(True, Phase.UNKNOWN), (False, Phase.REJECTED)])
def test_already_exists_after_doubt_means_a_job_nobody_can_find(*, doubt: bool, phase: Phase) -> None:
    """TAMS took the first POST and does not tell its id: the end is unknown, not rejected."""
    exists = Refused(Failure(code=ALREADY_EXISTS, message="again"))

    step = jobs.submitted(replace(submitting(), doubt=doubt), exists, POLICY, NOW, 0.0)

    assert step.record.phase is phase


def test_answer_of_another_call_says_nothing_about_a_submit() -> None:
    """A cancel's answer leaves it as it is."""
    under_way = submitting()

    assert jobs.submitted(under_way, Done(), POLICY, NOW, 0.0).record is under_way


def test_restored_submit_is_in_doubt_until_the_former_owners_post_is_surely_over() -> None:
    """The lease and the answer's time-out pass before the repeat."""
    step = jobs.restore(submitting(), POLICY, NOW)

    record = step.record
    assert (record.phase, record.doubt, record.lease_until, record.not_before, step.events) == (
        Phase.SUBMITTING, True, None, NOW + 20 * SECOND, (),
    )  # fmt: skip


def test_restored_submit_ends_unknown_where_the_user_wants_no_repeat() -> None:
    """A crash in the middle of a POST is an ambiguous submit like any other."""
    step = jobs.restore(submitting(), FAIL_POLICY, NOW)

    (event,) = step.events
    assert (step.record.phase, event.type, event.error and event.error.code) == (
        Phase.UNKNOWN, EventType.UNKNOWN, "submit_interrupted",
    )  # fmt: skip


@pytest.mark.parametrize("policy", [POLICY, FAIL_POLICY], ids=["repeat", "fail"])
def test_restored_job_without_a_post_under_way_stays_as_it_is(policy: jobs.JobPolicy) -> None:
    """Only a POST that may be on its way needs care."""
    in_hand = jobs.submitted(submitting(), InHand(), policy, NOW, 0.0).record

    assert jobs.restore(in_hand, policy, NOW).record is in_hand


# ------------------------------------------------------------------------------------------------------------- tracking


def look(record: JobRecord, answer: Answer, now: datetime = NOW) -> Step:
    return jobs.looked(record, answer, POLICY, now, 0.0)


@pytest.mark.parametrize(
    ("answer", "event_type"),
    [
        (waiting(3), EventType.WAITING),
        (seen("PENDING"), EventType.WAITING),
        (running(0.0), EventType.RUNNING),
        (seen("PAUSED"), EventType.WAITING),
    ],
)
def test_moved_status_is_told(answer: Answer, event_type: EventType) -> None:
    """With the document as it came."""
    step = look(tracking(), answer)

    (event,) = step.events
    assert (event.type, event.job) == (event_type, step.record.job)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (waiting(3), waiting(3), False),
        (waiting(3), waiting(2), True),
        (waiting(3), waiting(4), True),
        (running(0.5), running(0.5), False),
        (running(0.5), running(0.6), True),
        (running(0.5), running(0.4), False),
        (running(0.5), running(0.5, "1"), True),
        (running(0.5, "1"), running(0.5), False),
        (running(0.5), waiting(1), False),
        (running(0.5), seen("CREATED"), False),
        (waiting(1), seen("CREATED"), False),
        (waiting(1), seen("PENDING"), True),
    ],
)
def test_only_what_moves_forward_is_told(first: Answer, second: Answer, *, told: bool) -> None:
    """A look that shows nothing new, or an earlier state, changes nothing."""
    record = look(tracking(), first).record

    step = look(record, second)

    assert (bool(step.events), step.record is not record) == (told, told)


def test_unknown_status_after_running_counts_as_running() -> None:
    """A new word of TAMS is live, and no way back."""
    record = look(tracking(), running(0.5)).record

    assert [event.type for event in look(record, seen("SAVING")).events] == [EventType.RUNNING]


def test_success_ends_with_its_document_and_is_remembered() -> None:
    """For the dedupe window."""
    step = look(tracking(), seen("SUCCESS", successInfo={"images": []}))

    (event,) = step.events
    assert (step.record.phase, event.type, event.job) == (Phase.SUCCESS, EventType.SUCCESS, step.record.job)
    assert step.record.expires_at == NOW + timedelta(hours=24)


def test_transitory_failure_is_retried_after_a_pause() -> None:
    """The next attempt begins with nothing of the last."""
    record = look(tracking(), running(0.5, "1")).record

    step = look(record, failed("TRANSITORY_ERROR"))

    again, (event,) = step.record, step.events
    assert (event.type, event.attempt, event.error) == (EventType.RETRYING, 1, again.error)
    assert (again.phase, again.attempt, again.not_before) == (Phase.ACCEPTED, 2, NOW + SECOND)
    assert (again.job_id, again.status, again.progress, again.finished_nodes, bytes(again.job)) == (
        None, None, 0.0, 0, b"",
    )  # fmt: skip


def test_transitory_then_success_is_the_whole_story_in_order() -> None:
    """Told under one request id, without gap."""
    steps = [jobs.accept(job_arrival(), POLICY, NOW)]

    def then(step: Step) -> JobRecord:
        steps.append(step)
        return step.record

    record = then(jobs.grant(steps[-1].record, POLICY, NOW))
    record = then(jobs.submitted(record, waiting(2), POLICY, NOW, 0.0))
    record = then(look(record, running(0.3)))
    record = then(look(record, failed("TRANSITORY_ERROR")))
    record = then(jobs.grant(record, POLICY, NOW + 2 * SECOND))
    record = then(jobs.submitted(record, seen("CREATED", job_id="8"), POLICY, NOW, 0.0))
    then(look(record, seen("SUCCESS", job_id="8")))

    events = [event for step in steps for event in step.events]
    assert [(event.sequence, event.type.rpartition(".")[2], event.attempt) for event in events] == [
        (1, "accepted", 1), (2, "submitted", 1), (3, "running", 1), (4, "retrying", 1), (5, "submitted", 2),
        (6, "success", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "answer"),
    [
        (tracking(), failed("FATAL_ERROR")),
        (tracking(), failed("DEFAULT")),
        (tracking(max_attempts=1), failed("TRANSITORY_ERROR")),
        (replace(tracking(), attempt=3), failed("TRANSITORY_ERROR")),
        (stopped(tracking()), failed("TRANSITORY_ERROR")),
        (stopped(tracking(), Stop.DEADLINE), failed("TRANSITORY_ERROR")),
    ],
    ids=["fatal", "no code", "one attempt", "attempts used up", "to be canceled", "past its deadline"],
)
def test_failure_that_is_not_retried_ends_the_job(record: JobRecord, answer: Answer) -> None:
    """With TAMS' reason."""
    step = look(record, answer)

    (event,) = step.events
    assert (step.record.phase, event.type, event.error and event.error.message) == (
        Phase.FAILED, EventType.FAILED, "no luck",
    )  # fmt: skip


@pytest.mark.parametrize(
    "answer", [InHand(), Done(), TryLater(FAILURE, None, throttled=True), Unauthorized(FAILURE), NotSent(FAILURE),
               Ambiguous(FAILURE)],
)  # fmt: skip
def test_look_that_told_nothing_changes_nothing(answer: Answer) -> None:
    """While TAMS is down, jobs wait."""
    record = tracking()

    assert look(record, answer).record is record


def test_missing_job_is_given_time_to_turn_up() -> None:
    """A fresh job may not be known everywhere at once."""
    missed = look(tracking(), Missing(NO))

    assert (missed.record.phase, missed.record.missing_since, missed.events) == (Phase.TRACKING, NOW, ())


def test_job_missed_again_within_the_grace_keeps_its_first_time() -> None:
    """The grace does not begin anew with every look."""
    record = replace(tracking(), missing_since=NOW)

    assert look(record, Missing(NO), NOW + 59 * SECOND).record is record


def test_job_that_turns_up_again_is_missing_no_more() -> None:
    """Without a word about it."""
    step = look(replace(tracking(), missing_since=NOW), seen("CREATED"), NOW + 59 * SECOND)

    assert (step.record.missing_since, step.events) == (None, ())


def test_job_missing_beyond_the_grace_ends_unknown() -> None:
    """It was there, and nobody can say what became of it."""
    step = look(replace(tracking(), missing_since=NOW), Missing(NO), NOW + 60 * SECOND)

    (event,) = step.events
    assert (step.record.phase, event.error and event.error.code) == (Phase.UNKNOWN, "job_not_found")


# ----------------------------------------------------------------------------------------------------- cancel, deadline


def test_cancel_before_the_submit_ends_the_job_at_once() -> None:
    """Without a word to TAMS."""
    step = jobs.cancel(accepted(), POLICY, NOW)

    assert (step.record.phase, [event.type for event in step.events]) == (Phase.CANCELED, [EventType.CANCELED])


@pytest.mark.parametrize("record", [submitting(), tracking()], ids=["submitting", "tracking"])
def test_cancel_after_the_intent_is_noted_and_waits_for_tams(record: JobRecord) -> None:
    """TAMS may hold the job: how it ended is for TAMS to say."""
    step = jobs.cancel(record, POLICY, NOW)

    assert step == Step(replace(record, stop=Stop.CANCEL))


@pytest.mark.parametrize("answer", [NotSent(FAILURE), Unauthorized(FAILURE), TryLater(FAILURE, None, throttled=True)])
@pytest.mark.parametrize(("stop", "phase"), [(Stop.CANCEL, Phase.CANCELED), (Stop.DEADLINE, Phase.EXPIRED)])
def test_stopped_submit_that_did_nothing_ends_the_job(answer: Answer, stop: Stop, phase: Phase) -> None:
    """There is nothing to cancel at TAMS."""
    step = jobs.submitted(stopped(submitting(), stop), answer, POLICY, NOW, 0.0)

    assert step.record.phase is phase


def test_stopped_submit_in_doubt_is_repeated_to_find_the_job() -> None:
    """Only under its id can it be canceled."""
    in_doubt = stopped(replace(submitting(), doubt=True))

    record = jobs.submitted(in_doubt, NotSent(FAILURE), POLICY, NOW, 0.0).record

    assert (record.phase, record.stop, record.not_before) == (Phase.SUBMITTING, Stop.CANCEL, NOW + SECOND / 2)


@pytest.mark.parametrize("answer", [Done(), Missing(NO), Refused(NO)])
def test_answered_cancel_is_not_sent_again(answer: Answer) -> None:
    """The end itself is for the next look to see."""
    step = jobs.cancel_answered(stopped(tracking()), answer)

    assert (step.record.phase, step.record.stop_told, step.events) == (Phase.TRACKING, True, ())


@pytest.mark.parametrize(
    "answer", [InHand(), Ambiguous(FAILURE), NotSent(FAILURE), Unauthorized(FAILURE), seen("CANCELED")]
)
def test_cancel_without_a_usable_answer_stays_to_be_sent(answer: Answer) -> None:
    """Until TAMS has heard it."""
    record = stopped(tracking())

    assert jobs.cancel_answered(record, answer).record is record


def test_answer_to_a_cancel_that_nobody_asked_for_changes_nothing() -> None:
    """Else a later cancel would never be sent."""
    record = tracking()

    assert jobs.cancel_answered(record, Done()).record is record


@pytest.mark.parametrize("stop", list(Stop))
def test_success_that_came_first_stays_a_success(stop: Stop) -> None:
    """It was paid for."""
    record = replace(stopped(tracking(), stop), stop_told=True)

    assert look(record, seen("SUCCESS")).record.phase is Phase.SUCCESS


@pytest.mark.parametrize(
    ("stop", "phase", "code"), [(Stop.CANCEL, Phase.CANCELED, None), (Stop.DEADLINE, Phase.EXPIRED, "deadline")]
)
@pytest.mark.parametrize("answer", [seen("CANCELED"), Missing(NO)], ids=["canceled", "gone"])
def test_job_canceled_at_tams_ends_by_what_stopped_it(
    stop: Stop, phase: Phase, code: str | None, answer: Answer
) -> None:
    """Whether TAMS says CANCELED or has forgotten it."""
    step = look(replace(stopped(tracking(), stop), stop_told=True), answer)

    assert (step.record.phase, step.record.error and step.record.error.code) == (phase, code)


def test_job_missing_before_its_cancel_was_answered_is_waited_for() -> None:
    """The cancel may be on its way."""
    assert look(stopped(tracking()), Missing(NO)).record.phase is Phase.TRACKING


def test_job_canceled_at_tams_by_somebody_else_ends_canceled() -> None:
    """Without an error of ours."""
    step = look(tracking(), seen("CANCELED"))

    assert (step.record.phase, step.record.error) == (Phase.CANCELED, None)


@pytest.mark.parametrize("phase", [Phase.ACCEPTED, Phase.SUBMITTING, Phase.TRACKING])
def test_nothing_happens_before_the_deadline(phase: Phase) -> None:
    """Not a moment too early."""
    record = in_every_phase()[phase]

    assert jobs.time_passed(record, POLICY, NOW + timedelta(seconds=59.999)).record is record


@pytest.mark.parametrize("record", [accepted(), submitting(), tracking()], ids=["accepted", "submitting", "tracking"])
def test_job_without_deadline_never_expires(record: JobRecord) -> None:
    """Nor is it ever asked about."""
    late = NOW + timedelta(days=365)

    assert (jobs.time_passed(record, UNLIMITED, late).record, jobs.due(record, UNLIMITED)) == (record, None)


def test_waiting_job_expires_at_its_deadline() -> None:
    """TAMS has never heard of it."""
    step = jobs.time_passed(accepted(deadline_s=60), POLICY, NOW + 60 * SECOND)

    assert (step.record.phase, step.record.error and step.record.error.code) == (Phase.EXPIRED, "deadline")


@pytest.mark.parametrize("phase", [Phase.SUBMITTING, Phase.TRACKING])
def test_job_at_tams_is_stopped_at_its_deadline(phase: Phase) -> None:
    """It is to be canceled there first."""
    record = in_every_phase()[phase]

    step = jobs.time_passed(record, POLICY, NOW + 60 * SECOND)

    assert step == Step(replace(record, stop=Stop.DEADLINE))


@pytest.mark.parametrize("stop", [None, *Stop])
@pytest.mark.parametrize("phase", [Phase.SUBMITTING, Phase.TRACKING])
def test_job_is_given_up_after_the_grace(phase: Phase, stop: Stop | None) -> None:
    """The event says that it may have run all the same."""
    record = replace(in_every_phase()[phase], stop=stop)

    step = jobs.time_passed(record, POLICY, NOW + 120 * SECOND)

    assert step.record.phase is Phase.EXPIRED
    assert "may have been charged" in (step.record.error or NO).message


def test_cancel_before_the_deadline_stays_a_cancel() -> None:
    """The deadline adds nothing to a job that is being stopped."""
    record = stopped(tracking(deadline_s=60))

    assert jobs.time_passed(record, POLICY, NOW + 60 * SECOND).record is record


@pytest.mark.parametrize(
    ("record", "due"),
    [
        (accepted(deadline_s=60), NOW + 60 * SECOND),
        (stopped(tracking(deadline_s=60)), NOW + 120 * SECOND),
        (stopped(tracking()), None),
        (in_every_phase()[Phase.SUCCESS], NOW + timedelta(hours=24)),
    ],
    ids=["deadline", "grace", "no deadline", "ended"],
)
def test_due_is_when_time_next_matters(record: JobRecord, due: datetime | None) -> None:
    """The deadline, then its grace, then forgetting."""
    assert jobs.due(record, POLICY) == due


# ------------------------------------------------------------------------------------------------------ any life at all


@given(
    start=st.sampled_from([accepted(), accepted(deadline_s=30), accepted(max_attempts=1)]),
    happenings=st.lists(
        st.tuples(st.sampled_from(sorted(HAPPENINGS)), st.sampled_from([0.0, 1.0, 31.0])), min_size=1, max_size=40
    ),
)
def test_any_life_keeps_the_promises(start: JobRecord, happenings: list[tuple[str, float]]) -> None:
    """Whatever happens in whatever order: one end, no gap, no way back, and each step written and read again."""
    record, now = start, NOW
    events: list[JobEvent] = []
    for name, seconds in happenings:
        now += seconds * SECOND
        step = HAPPENINGS[name](record, now)
        assert_step_is_sound(record, step)
        events += step.events
        record = msgspec.json.decode(msgspec.json.encode(step.record), type=JobRecord)
        assert record == step.record

    assert [event.sequence for event in events] == list(range(2, 2 + len(events)))
    assert sum(event.type.is_terminal for event in events) == (record.phase in ENDS)
    attempts = [event.attempt for event in events]
    assert attempts == sorted(attempts)
    assert max(attempts, default=1) <= start.max_attempts


LOOKS = st.lists(
    st.one_of(
        st.sampled_from([seen("CREATED"), seen("PENDING")]),
        st.builds(waiting, st.integers(0, 5)),
        st.builds(running, st.floats(0, 1)),
    ),
    max_size=20,
)


@given(LOOKS)
def test_events_of_a_live_job_never_go_back(answers: list[Answer]) -> None:
    """However stale a look may be, TAMS' status only goes forward in what is told."""
    record, told = tracking(), []
    for answer in answers:
        step = look(record, answer)
        record = step.record
        told += [STATUS_ORDER[msgspec.json.decode(event.job)["status"]] for event in step.events]

    assert told == sorted(told)
