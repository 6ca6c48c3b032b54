"""All jobs of one partition, by example; against chance they stand in `test_jobs_model.py`."""

from datetime import timedelta

import msgspec
import pytest

from bridge.core.jobs import JobPolicy
from bridge.core.partition import Action, Cancel, Partition, Post, Rest, Submit, Track
from bridge.messages import (
    Ambiguous,
    DeadLetterReason,
    Done,
    EventType,
    Phase,
)
from bridge.ports import Arrival, Changes
from tests.core.examples import FAIL_POLICY, FAILURE, NOW, POLICY, SECOND, failed, request, seen

GRAPH = {"3": {"classType": "KSampler"}}
DEADLINE = 60


def partition(policy: JobPolicy = POLICY) -> Partition:
    return Partition(topic="tams.requests", number=4, policy=policy, max_request_bytes=2_000)


def job(request_id: str = "a", offset: int = 0, **fields: object) -> Arrival:
    return request({"request_id": request_id, "params": GRAPH, **fields}, key=request_id.encode(), offset=offset)


def cancel(request_id: str = "a", offset: int = 1) -> Arrival:
    return request({"cancel": request_id}, key=request_id.encode(), offset=offset)


def with_accepted(**fields: object) -> Partition:
    """A partition whose job `a` is written down."""
    owned = partition()
    owned.arrive(request({"request_id": "a", "params": GRAPH, **fields}, key=b"a"), NOW)
    owned.take()
    return owned


def with_submitting(**fields: object) -> tuple[Partition, Post]:
    """A partition whose job `a` has its POST under way."""
    owned = with_accepted(**fields)
    owned.grant("a", NOW)
    (post,) = owned.take()[1]
    assert isinstance(post, Post)
    return owned, post


def with_tracking(**fields: object) -> Partition:
    """A partition whose job `a` TAMS holds as 7."""
    owned, _ = with_submitting(**fields)
    owned.submitted("a", 1, seen("CREATED"), NOW, 0.0)
    owned.take()
    return owned


def with_ended() -> Partition:
    """A partition whose job `a` has ended."""
    owned = with_tracking()
    owned.looked("a", "7", seen("SUCCESS"), NOW, 0.0)
    owned.take()
    return owned


def track_of(owned: Partition) -> Track:
    """What is to be done for job `a` while TAMS holds it as 7."""
    record = owned.record("a")
    assert record is not None
    return Track("7", record)


def types(changes: Changes) -> list[EventType]:
    return [event.type for event, _ in changes.events]


# ------------------------------------------------------------------------------------------------------------- arriving


def test_accepted_job_is_written_with_its_graph_and_position() -> None:
    """All of it in one transaction."""
    owned = partition()

    accepted = owned.arrive(job(offset=41), NOW)

    changes, actions = owned.take()
    assert (accepted, owned.live(), len(owned)) == ("a", 1, 1)
    assert (changes.params, changes.position, types(changes)) == (
        {"a": msgspec.json.encode(GRAPH)}, 42, [EventType.ACCEPTED],
    )  # fmt: skip
    assert changes.records == {"a": owned.record("a")}
    assert actions == [Submit("a", NOW, None)]


def test_events_carry_the_headers_of_the_request() -> None:
    """Traces go on, from the first event to the last."""
    owned = partition()

    owned.arrive(Arrival(offset=0, key=b"a", value=b'{"params": {}}', headers=(("traceparent", b"00-1"),)), NOW)

    assert [record.headers for _, record in owned.take()[0].events] == [{"traceparent": "00-1"}]


def test_record_that_was_read_before_is_passed_over() -> None:
    """After a rebalance the feed may begin too early."""
    owned = with_accepted()

    again = owned.arrive(job(offset=0), NOW)

    assert (again, bool(owned.take()[0])) == (None, False)


def test_nothing_happened_is_nothing_to_write() -> None:
    """An idle partition commits nothing."""
    changes, actions = with_accepted().take()

    assert (bool(changes), actions) == (False, [])


def test_unreadable_record_is_parked_with_its_reason_and_passed() -> None:
    """It never stops the partition."""
    owned, junk = partition(), Arrival(offset=3, key=None, value=b"{")

    owned.arrive(junk, NOW)

    (changes, actions), position = owned.take(), owned.position
    (letter,) = changes.dead_letters
    assert (letter.arrival, letter.reason, changes.position, position, actions) == (
        junk, DeadLetterReason.INVALID_JSON, 4, 4, [],
    )  # fmt: skip


def test_request_above_the_limit_is_parked() -> None:
    """The limit of this partition is the one that counts."""
    owned = partition()

    owned.arrive(job(labels={"x": "y" * 3_000}), NOW)

    assert [letter.reason for letter in owned.take()[0].dead_letters] == [DeadLetterReason.TOO_LARGE]


def test_cancel_of_an_unknown_job_is_parked() -> None:
    """Whoever sent it can find out."""
    owned = partition()

    owned.arrive(cancel("nobody", offset=0), NOW)

    (letter,) = owned.take()[0].dead_letters
    assert (letter.reason, "'nobody'" in letter.detail) == (DeadLetterReason.UNKNOWN_REQUEST, True)


@pytest.mark.parametrize("owned", [with_accepted(), with_submitting()[0], with_tracking(), with_ended()])
def test_request_id_seen_before_is_told_and_not_submitted_again(owned: Partition) -> None:
    """In whatever phase the job is."""
    phase = getattr(owned.record("a"), "phase", None)

    accepted = owned.arrive(job(offset=9), NOW)

    changes, _ = owned.take()
    assert (accepted, types(changes), changes.params) == (None, [EventType.DUPLICATE], {})
    assert getattr(owned.record("a"), "phase", None) is phase


# ----------------------------------------------------------------------------------------------------------- submitting


def test_granted_job_is_posted_once_its_intent_is_written() -> None:
    """The POST is an action: it comes after the commit of the record that tells of it."""
    owned = with_accepted()

    granted = owned.grant("a", NOW)

    changes, actions = owned.take()
    (post,) = actions
    assert isinstance(post, Post)
    assert granted
    assert getattr(changes.records["a"], "phase", None) is Phase.SUBMITTING
    assert (post.attempt, post.params, post.lease_until) == (1, msgspec.json.encode(GRAPH), NOW + 5 * SECOND)


def test_job_granted_as_it_arrives_is_accepted_and_posted_in_one_commit() -> None:
    """An idle system does not wait twice."""
    owned = partition()

    owned.arrive(job(), NOW)
    owned.grant("a", NOW)

    changes, actions = owned.take()
    assert (types(changes), [type(action) for action in actions]) == ([EventType.ACCEPTED], [Post])


@pytest.mark.parametrize(
    "owned",
    [partition(), with_submitting()[0], with_tracking(), with_ended()],
    ids=["no", "under way", "held", "ended"],
)
def test_grant_is_declined_by_a_job_that_has_no_use_for_it(owned: Partition) -> None:
    """A turn that comes late, or twice, posts nothing."""
    assert (owned.grant("a", NOW), owned.take()) == (False, (Changes(), []))


def test_job_granted_twice_before_the_commit_is_posted_once() -> None:
    """A duplicate may have put the job in line again while its turn was on its way."""
    owned = with_accepted()

    granted = [owned.grant("a", NOW), owned.grant("a", NOW)]

    assert (granted, [type(action) for action in owned.take()[1]]) == ([True, False], [Post])


def test_job_that_ended_before_the_commit_of_its_intent_is_not_posted() -> None:
    """The deadline passed in the same breath."""
    owned = with_accepted(deadline_s=DEADLINE)

    owned.grant("a", NOW)
    owned.time_passed(NOW + timedelta(seconds=500))

    changes, actions = owned.take()
    assert (types(changes), actions) == ([EventType.EXPIRED], [Rest("a")])


def test_job_that_was_forgotten_and_came_anew_before_the_commit_waits_in_line() -> None:
    """The POST that was meant for the one before does not stand in its way."""
    owned = with_accepted(deadline_s=DEADLINE)
    owned.grant("a", NOW)
    owned.time_passed(NOW + timedelta(seconds=500))
    owned.time_passed(NOW + timedelta(days=2))

    owned.arrive(job(offset=1), NOW + timedelta(days=2))

    assert owned.take()[1] == [Submit("a", NOW + timedelta(days=2), None)]


def test_answer_to_a_submit_of_another_attempt_changes_nothing() -> None:
    """It is late."""
    owned, _ = with_submitting()

    owned.submitted("a", 2, seen("CREATED"), NOW, 0.0)
    owned.submitted("b", 1, seen("CREATED"), NOW, 0.0)

    assert owned.take() == (Changes(), [])


def test_submit_to_be_repeated_waits_in_line_again() -> None:
    """With the time from which on it may be."""
    owned, _ = with_submitting()

    owned.submitted("a", 1, Ambiguous(FAILURE), NOW, 0.0)

    assert owned.take()[1] == [Submit("a", NOW, NOW + SECOND / 2)]


def test_created_job_is_tracked() -> None:
    """From now on it is looked at."""
    owned, _ = with_submitting()

    owned.submitted("a", 1, seen("CREATED"), NOW, 0.0)

    assert owned.take()[1] == [track_of(owned)]


# ---------------------------------------------------------------------------------------------------- looking, stopping


def test_ended_job_rests_and_its_graph_is_dropped() -> None:
    """Only the record is remembered, for duplicates."""
    owned = with_tracking()

    owned.looked("a", "7", seen("SUCCESS"), NOW, 0.0)

    changes, actions = owned.take()
    assert (types(changes), changes.params, actions) == ([EventType.SUCCESS], {"a": None}, [Rest("a")])
    assert (owned.live(), len(owned)) == (0, 1)


def test_retried_job_waits_in_line_again_with_its_graph() -> None:
    """From the end of the pause on."""
    owned = with_tracking()

    owned.looked("a", "7", failed("TRANSITORY_ERROR"), NOW, 0.0)

    changes, actions = owned.take()
    assert (types(changes), changes.params, actions) == ([EventType.RETRYING], {}, [Submit("a", NOW, NOW + SECOND)])


def test_answers_about_another_job_change_nothing() -> None:
    """A look or a cancel of the attempt before is late."""
    owned = with_tracking()

    owned.looked("a", "6", seen("SUCCESS"), NOW, 0.0)
    owned.looked("b", "7", seen("SUCCESS"), NOW, 0.0)
    owned.cancel_answered("a", "6", Done())
    owned.cancel_answered("b", "7", Done())

    assert owned.take() == (Changes(), [])


def test_cancel_of_a_waiting_job_ends_it_without_tams() -> None:
    """Nothing was sent, nothing is to be canceled there."""
    owned = with_accepted()

    owned.arrive(cancel(), NOW)

    changes, actions = owned.take()
    assert (types(changes), actions) == ([EventType.CANCELED], [Rest("a")])


def test_cancel_of_a_job_at_tams_is_sent_there() -> None:
    """And the job looked at until TAMS says how it ended."""
    owned = with_tracking()

    owned.arrive(cancel(), NOW)

    assert owned.take()[1] == [track_of(owned), Cancel("a", "7")]


def test_cancel_during_the_submit_is_sent_once_the_job_has_an_id() -> None:
    """It can only be canceled under its id."""
    owned, _ = with_submitting()
    owned.arrive(cancel(), NOW)
    before = owned.take()[1]

    owned.submitted("a", 1, seen("CREATED"), NOW, 0.0)

    assert (before, owned.take()[1]) == ([], [track_of(owned), Cancel("a", "7")])


def test_answered_cancel_is_not_sent_again() -> None:
    """Only looks are needed now."""
    owned = with_tracking()
    owned.arrive(cancel(), NOW)
    owned.take()

    owned.cancel_answered("a", "7", Done())

    assert owned.take()[1] == [track_of(owned)]


def test_cancel_of_an_ended_job_moves_the_position_only() -> None:
    """It came too late, and is no error."""
    owned = with_ended()

    owned.arrive(cancel(), NOW)

    assert owned.take() == (Changes(position=2), [])


# ----------------------------------------------------------------------------------------------------------------- time


def test_deadline_stops_the_job_at_tams_then_gives_it_up() -> None:
    """First the cancel, and after the grace the end."""
    owned = with_tracking(deadline_s=DEADLINE)

    first = owned.next_timer()
    owned.time_passed(NOW + timedelta(seconds=60))
    stopping, second, track = owned.take(), owned.next_timer(), track_of(owned)
    owned.time_passed(NOW + timedelta(seconds=120))

    assert (first, stopping[1]) == (NOW + timedelta(seconds=60), [track, Cancel("a", "7")])
    assert (second, types(owned.take()[0])) == (NOW + timedelta(seconds=120), [EventType.EXPIRED])


def test_job_that_ended_before_its_deadline_is_left_alone() -> None:
    """The timer rings for nobody."""
    owned = with_tracking(deadline_s=DEADLINE)
    owned.looked("a", "7", seen("SUCCESS"), NOW, 0.0)
    owned.take()

    owned.time_passed(NOW + timedelta(seconds=61))

    assert owned.take() == (Changes(), [])


def test_ended_job_is_forgotten_after_the_dedupe_window() -> None:
    """With a tombstone; the id may be used anew."""
    owned = with_ended()

    owned.time_passed(NOW + timedelta(hours=24))
    forgotten, _ = owned.take()

    assert (forgotten, len(owned), owned.next_timer()) == (Changes(records={"a": None}), 0, None)
    assert owned.arrive(job(offset=5), NOW + timedelta(hours=24)) == "a"


def test_timer_of_a_forgotten_job_rings_for_nobody() -> None:
    """A timer that was set before the job was forgotten does no harm to one that uses its id anew."""
    owned = with_tracking(deadline_s=2 * 86_400)
    owned.looked("a", "7", seen("SUCCESS"), NOW, 0.0)
    owned.time_passed(NOW + timedelta(hours=24))
    owned.take()

    owned.time_passed(NOW + timedelta(hours=48))

    assert owned.take() == (Changes(), [])


def test_idle_partition_has_no_timer() -> None:
    """Nothing to wake up for."""
    assert partition().next_timer() is None


# -------------------------------------------------------------------------------------------------------------- restore


def restored(owned: Partition, policy: JobPolicy = POLICY) -> Partition:
    """The same jobs, as a new owner finds them."""
    record = owned.record("a")
    assert record is not None
    params = {} if record.phase.is_terminal else {"a": msgspec.json.encode(GRAPH)}
    successor = partition(policy)
    successor.restore([record], params, owned.position, NOW)
    return successor


TRACKING = with_tracking()


@pytest.mark.parametrize(
    ("owned", "actions"),
    [
        (with_accepted(), [Submit("a", NOW, None)]),
        (with_submitting()[0], [Submit("a", NOW, NOW + 20 * SECOND)]),
        (TRACKING, [track_of(TRACKING)]),
        (with_ended(), []),
    ],
    ids=["accepted", "submitting", "tracking", "ended"],
)
def test_restored_jobs_go_on_where_they_were(owned: Partition, actions: list[Action]) -> None:
    """A submit that may be on its way waits until it surely is over."""
    assert restored(owned).take()[1] == actions


def test_requests_of_a_topic_made_anew_are_not_taken_for_old_ones() -> None:
    """The ledger's position lies behind the new topic's end: without the move, what comes would be passed over."""
    owned = partition()
    owned.restore([], {}, 500, NOW)

    owned.move_to(0)

    assert owned.arrive(job("a", offset=0), NOW) == "a"
    assert owned.take()[0].position == 1


def test_restored_partition_goes_on_at_its_position() -> None:
    """What was read is not read again."""
    successor = restored(with_accepted())

    assert (successor.position, successor.arrive(job("b", offset=0), NOW)) == (1, None)


def test_restored_submit_ends_unknown_where_the_user_wants_no_repeat() -> None:
    """A crash in the middle of a POST is told, not hidden."""
    changes, actions = restored(with_submitting()[0], FAIL_POLICY).take()

    assert (types(changes), changes.params, actions) == ([EventType.UNKNOWN], {"a": None}, [Rest("a")])


def test_restored_cancel_is_sent_again() -> None:
    """Whether the former owner sent it is not known; it does no harm twice."""
    owned = with_tracking()
    owned.arrive(cancel(), NOW)

    assert restored(owned).take()[1] == [track_of(owned), Cancel("a", "7")]


def test_restored_timers_ring() -> None:
    """Deadlines and forgetting survive a crash."""
    assert restored(with_ended()).next_timer() == NOW + timedelta(hours=24)
