"""The worker's promises, told in a world in memory: what is written before what, and what happens on bad days."""

import asyncio
from datetime import timedelta
from random import Random

import pytest

from bridge.core.jobs import JobPolicy
from bridge.errors import LedgerUnavailable, OwnershipLost
from bridge.messages import Ambiguous, Answer, Failure, NotSent, Phase, Refused, TryLater, Unauthorized
from bridge.ownership import OwnershipPlan
from tests.roles.conftest import MakeWorld, Options, World
from tests.roles.fakes import FakeLedgers, seen, settle

DOWN = Failure(code="not_sent", message="connection refused", retryable=True)
LOST = Failure(code="no_answer", message="connection reset", retryable=True)
WRONG_KEY = Failure(code="unauthorized", message="app not found", http_status=404)


async def test_a_request_becomes_a_job_and_every_change_of_it_an_event(make_world: MakeWorld) -> None:
    world = await make_world(Options())

    await world.request("a")
    world.tams.end("job-1", "RUNNING")
    await world.clock.advance(1.0)
    world.tams.end("job-1", "SUCCESS")
    await world.clock.advance(1.0)

    assert world.ledgers.types("a") == ["accepted", "submitted", "running", "success"]
    assert [event.id for event in world.ledgers.events] == ["a.1", "a.2", "a.3", "a.4"]


async def test_nothing_is_sent_to_tams_before_the_intent_is_committed(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    world.ledgers.gate.clear()

    await world.request("a")
    assert world.tams.calls == []

    world.ledgers.gate.set()
    await settle()
    assert len(world.tams.of("create")) == 1
    assert world.ledgers.commits[0].records.keys() == {"a"}


async def test_an_idle_worker_writes_acceptance_and_intent_in_one_transaction(make_world: MakeWorld) -> None:
    world = await make_world(Options())

    await world.request("a")

    first = world.ledgers.commits[0]
    record = first.records["a"]
    assert record is not None
    assert record.phase is Phase.SUBMITTING
    assert [event.id for event, _ in first.events] == ["a.1"]


async def test_what_arrives_while_a_commit_runs_goes_into_the_next_one_together(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    world.ledgers.gate.clear()
    await world.request("first")
    for number in range(20):
        await world.request(f"later-{number}")

    world.ledgers.gate.set()
    await settle()

    sizes = [len(changes.records) for changes in world.ledgers.commits]
    assert sizes[0] == 1
    assert sizes[1] >= 20


async def test_a_request_id_seen_before_is_answered_with_a_duplicate_event_and_no_second_job(
    make_world: MakeWorld,
) -> None:
    world = await make_world(Options())

    await world.request("a")
    await world.request("a")

    assert world.ledgers.types("a").count("duplicate") == 1
    assert len(world.tams.of("create")) == 1


async def test_an_unreadable_record_is_parked_and_the_next_one_worked_on(make_world: MakeWorld) -> None:
    world = await make_world(Options())

    world.feed.publish(b"{broken", key="x")
    await world.request("a")

    letters = [letter for changes in world.ledgers.commits for letter in changes.dead_letters]
    assert [(letter.arrival.value, letter.reason.value) for letter in letters] == [(b"{broken", "invalid_json")]
    assert "submitted" in world.ledgers.types("a")
    assert world.ledgers.position() == 2


@pytest.mark.parametrize("refusal", [LedgerUnavailable("the broker is gone"), OwnershipLost("fenced")])
async def test_what_was_not_committed_is_not_acted_on_and_comes_again(
    make_world: MakeWorld, refusal: Exception
) -> None:
    """A record whose transaction failed is read again from the committed position by the next owner."""
    world = await make_world(Options())
    world.ledgers.errors.append(refusal)

    await world.request("a")
    assert world.tams.calls == []
    assert world.ledgers.events == []

    await world.clock.advance(20.0)
    assert world.ledgers.types("a")[:2] == ["accepted", "submitted"]
    assert len(world.tams.of("create")) == 1


async def test_a_lost_ledger_is_opened_again_and_its_jobs_go_on(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    await world.request("a")
    world.ledgers.errors.append(LedgerUnavailable("the outcome is unknown"))
    world.tams.end("job-1", "SUCCESS")
    await world.clock.advance(1.0)
    assert world.worker.ownership.open_partitions == frozenset()

    await world.clock.advance(5.0)

    assert world.worker.ownership.open_partitions == {0}
    assert world.ledgers.types("a") == ["accepted", "submitted", "success"]
    assert [state for _, state in world.told.ownerships] == ["opened", "closed", "unavailable", "opened"]


async def test_a_ledger_that_does_not_open_is_tried_again_ever_more_slowly(make_world: MakeWorld) -> None:
    ledgers = FakeLedgers()
    ledgers.open_errors.extend(LedgerUnavailable("no answer") for _ in range(5))
    world = await make_world(Options(ledgers=ledgers))

    await world.clock.advance(0.4)
    assert len(ledgers.opened) == 1
    await world.clock.advance(0.2)
    assert len(ledgers.opened) == 2
    await world.clock.advance(0.8)
    assert len(ledgers.opened) == 2
    await world.clock.advance(30.0)
    assert world.worker.ownership.open_partitions == {0}


async def test_a_fenced_owner_leaves_its_partition_alone_for_a_while(make_world: MakeWorld) -> None:
    """Two processes must never fence each other in turn: the group decides in the meantime."""
    world = await make_world(Options())
    await world.request("a")
    world.ledgers.steal()
    world.tams.end("job-1", "SUCCESS")
    await world.clock.advance(1.0)
    assert (0, "lost") in world.told.ownerships

    await world.clock.advance(13.0)
    assert world.ledgers.opened == [0]
    assert "success" not in world.ledgers.types("a")

    await world.clock.advance(3.0)
    assert world.ledgers.opened == [0, 0]
    assert world.ledgers.types("a")[-1] == "success"


async def test_a_partition_taken_away_is_closed_and_its_looks_end(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    await world.request("a")

    await world.worker.ownership.revoked()
    looks = len(world.tams.of("look"))
    await world.clock.advance(10.0)

    assert world.worker.ownership.assigned_partitions == frozenset()
    assert len(world.tams.of("look")) == looks
    assert world.feed.begun == {}


async def test_a_partition_given_back_goes_on_where_it_stopped(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    await world.request("a")
    await world.worker.ownership.revoked()
    world.feed.publish({"request_id": "b", "params": {"1": {}}}, key="b")

    world.worker.ownership.assigned([0])
    await settle()
    world.tams.end_all()
    await world.clock.advance(2.0)

    assert world.feed.begins == [(0, None), (0, 1)]
    assert world.ledgers.types("a") == ["accepted", "submitted", "success"]
    assert world.ledgers.types("b") == ["accepted", "submitted", "success"]
    assert len(world.tams.of("create")) == 2


async def test_a_partition_that_is_still_opening_when_taken_away_never_opens(make_world: MakeWorld) -> None:
    ledgers = FakeLedgers()
    ledgers.open_errors.append(LedgerUnavailable("slow"))
    world = await make_world(Options(ledgers=ledgers))

    await world.worker.ownership.revoked()
    await world.clock.advance(60.0)

    assert ledgers.opened == [0]


async def test_requests_stay_in_kafka_while_too_many_wait(make_world: MakeWorld) -> None:
    world = await make_world(Options(max_waiting=3, concurrency=1))
    world.tams.gates["create"].clear()
    for number in range(10):
        world.feed.publish({"request_id": f"r{number}", "params": {"1": {}}}, key=f"r{number}")
        await settle()
    assert not world.worker.ownership.wants_more()
    assert world.feed.begun[0] < 10

    world.tams.gates["create"].set()
    for _ in range(10):
        await settle()
        world.feed.deliver()
    await settle()

    assert world.feed.begun[0] == 10
    assert len(world.tams.of("create")) == 10


async def test_no_more_jobs_are_given_to_tams_than_allowed(make_world: MakeWorld) -> None:
    world = await make_world(Options(max_in_flight=2))
    for number in range(5):
        await world.request(f"r{number}")
    assert len(world.tams.of("create")) == 2

    world.tams.end_all()
    await world.clock.advance(1.0)

    assert len(world.tams.of("create")) == 4


async def test_jobs_are_submitted_in_the_order_they_came(make_world: MakeWorld) -> None:
    world = await make_world(Options(concurrency=1, partitions=2))
    for number in range(6):
        await world.request(f"r{number}", partition=number % 2)
        await world.clock.advance(0.01)

    submitted = [event.request_id for event in world.ledgers.events if event.type.endswith("submitted")]
    assert submitted == [f"r{number}" for number in range(6)]


async def test_never_more_calls_at_once_than_allowed(make_world: MakeWorld) -> None:
    world = await make_world(Options(concurrency=3))

    for number in range(12):
        await world.request(f"r{number}")
    await world.clock.advance(3.0)

    assert world.tams.most_at_once <= 3
    assert len(world.tams.of("create")) == 12


async def test_the_rate_holds_for_submits_looks_and_cancels_together(make_world: MakeWorld) -> None:
    world = await make_world(Options(rate=5.0, interval=0.2))
    for number in range(20):
        await world.request(f"r{number}")
    for number in range(5):
        await world.cancel(f"r{number}")

    await world.clock.advance(10.0)

    times = [call.at for call in world.tams.calls]
    busiest = max(sum(1 for other in times if at <= other < at + 1.0) for at in times)
    assert busiest <= 5
    assert len(times) >= 40


async def test_a_cancel_before_the_submit_ends_the_job_without_a_word_to_tams(make_world: MakeWorld) -> None:
    world = await make_world(Options(max_in_flight=1))
    await world.request("first")
    await world.request("a")

    await world.cancel("a")

    assert world.ledgers.types("a") == ["accepted", "canceled"]
    assert len(world.tams.of("create")) == 1
    assert world.tams.of("cancel") == []


async def test_a_cancel_after_the_submit_is_told_to_tams_and_its_word_published(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    await world.request("a")

    await world.cancel("a")
    await world.clock.advance(1.0)

    assert [call.of for call in world.tams.of("cancel")] == ["job-1"]
    assert world.ledgers.types("a") == ["accepted", "submitted", "canceled"]


async def test_a_success_that_came_before_the_cancel_stays_a_success(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    await world.request("a")
    world.tams.end("job-1", "SUCCESS")

    await world.cancel("a")
    await world.clock.advance(1.0)

    assert world.ledgers.types("a")[-1] == "success"


async def test_a_cancel_that_tams_does_not_take_is_repeated(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    await world.request("a")
    world.tams.answers["cancel"].extend([Ambiguous(LOST), TryLater(LOST, timedelta(seconds=2), throttled=True)])

    await world.cancel("a")
    await world.clock.advance(10.0)

    assert len(world.tams.of("cancel")) == 3
    assert world.ledgers.types("a")[-1] == "canceled"


async def test_a_cancel_is_told_once_however_the_answers_cross(make_world: MakeWorld) -> None:
    """A look's change is being committed while TAMS answers the cancel."""
    world = await make_world(Options())
    await world.request("a")
    world.tams.gates["cancel"].clear()
    await world.cancel("a")
    world.tams.end("job-1", "RUNNING")
    world.ledgers.gate.clear()
    await world.clock.advance(1.0)

    world.tams.gates["cancel"].set()
    await settle()
    world.ledgers.gate.set()
    await world.clock.advance(5.0)

    assert len(world.tams.of("cancel")) == 1
    assert world.ledgers.types("a")[-1] == "canceled"


async def test_a_cancel_during_the_submit_follows_it(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    world.tams.gates["create"].clear()
    await world.request("a")
    await world.cancel("a")
    assert world.tams.of("cancel") == []

    world.tams.gates["create"].set()
    await world.clock.advance(2.0)

    assert len(world.tams.of("cancel")) == 1
    assert world.ledgers.types("a") == ["accepted", "submitted", "canceled"]


async def test_a_job_past_its_deadline_is_canceled_at_tams_and_ends_expired(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    await world.request("a", deadline_s=30)

    await world.clock.advance(29.0)
    assert world.tams.of("cancel") == []
    await world.clock.advance(3.0)

    assert len(world.tams.of("cancel")) == 1
    assert world.ledgers.types("a")[-1] == "expired"
    assert world.ledgers.events[-1].error is not None
    assert world.ledgers.events[-1].error.code == "deadline"


async def test_a_job_that_still_waits_at_its_deadline_expires_unsubmitted(make_world: MakeWorld) -> None:
    world = await make_world(Options(max_in_flight=1))
    await world.request("first")
    await world.request("a", deadline_s=5)

    await world.clock.advance(6.0)

    assert world.ledgers.types("a") == ["accepted", "expired"]


async def test_a_transitory_failure_is_tried_again_until_the_attempts_are_used_up(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    failed = {"failedInfo": {"reason": "a GPU went away", "code": "TRANSITORY_ERROR"}}
    await world.request("a", max_attempts=2)
    world.tams.end("job-1", "FAILED", **failed)
    await world.clock.advance(10.0)
    world.tams.end("job-2", "FAILED", **failed)
    await world.clock.advance(10.0)

    assert world.ledgers.types("a") == ["accepted", "submitted", "retrying", "submitted", "failed"]
    assert len({call.of for call in world.tams.of("create")}) == 2


async def test_a_lost_answer_is_asked_for_again_with_the_same_request_id(make_world: MakeWorld) -> None:
    """The submit was carried out, its answer lost: TAMS must be able to recognise the repeat."""
    world = await make_world(Options())
    world.tams.answers["create"].append(Ambiguous(LOST))

    await world.request("a")
    await world.clock.advance(3.0)

    assert len(world.tams.of("create")) == 2
    assert len({call.of for call in world.tams.of("create")}) == 1
    assert world.ledgers.types("a")[:2] == ["accepted", "submitted"]


async def test_a_lost_answer_ends_the_job_as_unknown_if_the_user_wants_that(make_world: MakeWorld) -> None:
    world = await make_world(Options(policy=JobPolicy(ambiguous="fail")))
    world.tams.answers["create"].append(Ambiguous(LOST))

    await world.request("a")
    await world.clock.advance(30.0)

    assert len(world.tams.of("create")) == 1
    assert world.ledgers.types("a") == ["accepted", "unknown"]


async def test_a_refused_job_is_rejected_for_good(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    world.tams.answers["create"].append(Refused(Failure(code="invalid_samples", message="no", http_status=400)))

    await world.request("a")
    await world.clock.advance(60.0)

    assert world.ledgers.types("a") == ["accepted", "rejected"]
    assert len(world.tams.of("create")) == 1


async def test_the_breaker_opens_probes_one_at_a_time_and_closes_again(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    world.tams.answers["create"].extend([NotSent(DOWN)] * 5)
    for number in range(6):
        await world.request(f"r{number}")
    assert not world.upstream.health().reachable

    made = len(world.tams.of("create"))
    await world.clock.advance(0.5)
    assert len(world.tams.of("create")) == made

    await world.clock.advance(60.0)
    assert world.upstream.health().reachable
    assert world.told.states == ["unreachable", "reachable"]
    for number in range(6):
        assert world.ledgers.types(f"r{number}")[:2] == ["accepted", "submitted"]


async def test_jobs_wait_while_tams_is_down_for_an_hour_and_no_event_is_doubled(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    await world.request("running")
    for kind in ("create", "look"):
        world.tams.answers[kind].extend([NotSent(DOWN)] * 100_000)
    for number in range(5):
        await world.request(f"r{number}")

    await world.clock.advance(3600.0)
    calls = len(world.tams.calls)
    for answers in world.tams.answers.values():
        answers.clear()
    await world.clock.advance(60.0)
    world.tams.end_all()
    await world.clock.advance(60.0)

    assert calls < 400
    assert world.ledgers.types("running") == ["accepted", "submitted", "success"]
    for number in range(5):
        assert world.ledgers.types(f"r{number}") == ["accepted", "submitted", "success"]


async def test_refused_credentials_stop_the_calls_burn_nothing_and_work_goes_on_once_mended(
    make_world: MakeWorld,
) -> None:
    world = await make_world(Options())
    world.tams.answers["create"].extend([Unauthorized(WRONG_KEY)] * 4)
    for number in range(5):
        await world.request(f"r{number}")
    health = world.upstream.health()
    assert (health.authorized, health.problem) == (False, "app not found")
    assert world.told.states == ["unauthorized"]

    await world.clock.advance(300.0)

    assert world.upstream.health().authorized
    for number in range(5):
        assert world.ledgers.types(f"r{number}")[:2] == ["accepted", "submitted"]


async def test_an_overloaded_tams_is_left_alone_for_as_long_as_it_asks(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    world.tams.answers["create"].append(TryLater(DOWN, timedelta(seconds=7), throttled=True))

    await world.request("a")
    await world.clock.advance(6.5)
    assert len(world.tams.calls) == 1

    await world.clock.advance(1.5)
    assert world.ledgers.types("a")[:2] == ["accepted", "submitted"]


async def test_a_submit_whose_lease_has_passed_is_not_sent(make_world: MakeWorld) -> None:
    """The commit of the intent took too long: a successor might submit the same job by now."""
    world = await make_world(Options())
    world.ledgers.gate.clear()
    await world.request("a")
    await world.clock.advance(6.0)
    assert world.tams.calls == []

    world.ledgers.gate.set()
    await settle()
    assert world.tams.calls == []
    await world.clock.advance(3.0)

    assert len(world.tams.of("create")) == 1
    assert world.ledgers.types("a")[:2] == ["accepted", "submitted"]


async def test_a_closing_worker_waits_for_the_post_under_way_and_writes_its_outcome_down(
    make_world: MakeWorld,
) -> None:
    world = await make_world(Options())
    world.tams.gates["create"].clear()
    await world.request("a")

    await world.stop()
    assert not world.working.done()
    world.tams.gates["create"].set()
    await settle()

    assert world.working.done()
    assert world.ledgers.types("a") == ["accepted", "submitted"]
    record = world.ledgers.record("a")
    assert record is not None
    assert record.job_id == "job-1"


async def test_a_post_that_takes_too_long_does_not_keep_a_worker_from_closing(make_world: MakeWorld) -> None:
    """Its intent is in the ledger: the successor repeats it with the same `requestId`."""
    world = await make_world(Options())
    world.tams.gates["create"].clear()
    await world.request("a")
    world.worker.ownership._plan = OwnershipPlan(closing_time=timedelta(0))

    world.worker.stop()
    await asyncio.wait_for(world.working, 5)

    record = world.ledgers.record("a")
    assert record is not None
    assert record.phase is Phase.SUBMITTING


async def test_a_closing_worker_begins_nothing_new(make_world: MakeWorld) -> None:
    world = await make_world(Options(max_in_flight=1))
    world.tams.gates["create"].clear()
    await world.request("a")
    await world.request("b")

    await world.stop()
    await world.request("c")
    world.tams.gates["create"].set()
    await settle()

    assert world.working.done()
    assert len(world.tams.of("create")) == 1
    assert world.ledgers.types("c") == []


async def test_a_successor_repeats_an_interrupted_submit_only_after_it_must_have_ended(make_world: MakeWorld) -> None:
    former = await make_world(Options())
    former.tams.gates["create"].clear()
    await former.request("a")
    sent = former.tams.of("create")[0].of
    former.ledgers.steal()

    latter = await make_world(Options(ledgers=former.ledgers))
    await latter.clock.advance(19.0)
    assert latter.tams.calls == []
    await latter.clock.advance(2.0)

    assert [call.of for call in latter.tams.of("create")] == [sent]


async def test_jobs_that_tams_holds_are_looked_at_by_the_successor_at_once(make_world: MakeWorld) -> None:
    former = await make_world(Options())
    await former.request("a")
    await former.stop()

    latter = await make_world(Options(ledgers=former.ledgers))
    latter.tams.statuses.update(former.tams.statuses)
    latter.tams.end("job-1", "SUCCESS")
    await latter.clock.advance(1.0)

    assert former.ledgers.types("a") == ["accepted", "submitted", "success"]
    assert latter.tams.of("create") == []


async def test_a_cancel_that_tams_had_not_answered_is_sent_again_by_the_successor(make_world: MakeWorld) -> None:
    former = await make_world(Options())
    await former.request("a")
    former.tams.gates["cancel"].clear()
    await former.cancel("a")
    former.ledgers.steal()

    latter = await make_world(Options(ledgers=former.ledgers))
    latter.tams.statuses.update(former.tams.statuses)
    await latter.clock.advance(2.0)

    assert len(latter.tams.of("cancel")) == 1
    assert former.ledgers.types("a")[-1] == "canceled"


async def test_a_finished_job_is_forgotten_after_the_window_and_its_id_may_be_used_again(
    make_world: MakeWorld,
) -> None:
    world = await make_world(Options(policy=JobPolicy(dedupe_window=timedelta(hours=1))))
    await world.request("a")
    world.tams.end("job-1", "SUCCESS")
    await world.clock.advance(10.0)
    assert world.ledgers.record("a") is not None

    await world.clock.advance(3700.0)
    assert world.ledgers.record("a") is None
    await world.request("a")

    assert world.ledgers.types("a")[3:5] == ["accepted", "submitted"]
    assert len({call.of for call in world.tams.of("create")}) == 2


async def test_an_unforeseen_error_ends_the_worker_loudly_with_nothing_half_done_written(
    make_world: MakeWorld,
) -> None:
    world = await make_world(Options())
    world.ledgers.errors.append(ZeroDivisionError("a bug"))

    await world.request("a")

    assert world.working.done()
    with pytest.raises(ExceptionGroup) as caught:
        await world.working
    assert caught.group_contains(ZeroDivisionError, depth=1)
    assert world.ledgers.commits == []
    assert world.tams.calls == []


async def test_records_of_a_partition_that_is_not_open_are_left_alone(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    await world.worker.ownership.revoked()

    world.worker.ownership.arrived(0, [])
    await world.request("a")

    assert world.ledgers.commits == []


async def test_a_stopped_worker_takes_no_partitions(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    await world.stop()

    world.worker.ownership.assigned([0])

    assert world.worker.ownership.assigned_partitions == frozenset()


async def test_live_jobs_are_those_that_have_not_ended(make_world: MakeWorld) -> None:
    world = await make_world(Options(partitions=2))
    await world.request("a")
    await world.request("b", partition=1)
    assert world.worker.live_jobs() == 2

    world.tams.end("job-1", "SUCCESS")
    await world.clock.advance(1.0)

    assert world.worker.live_jobs() == 1


async def test_a_late_look_at_a_job_that_has_ended_changes_nothing(make_world: MakeWorld) -> None:
    world = await make_world(Options())
    await world.request("a")
    world.tams.gates["look"].clear()
    await world.clock.advance(1.0)
    owner = next(iter(world.worker.ownership.owners))
    owner.looked("a", "job-1", seen("job-1", "SUCCESS"))
    await settle()

    world.tams.gates["look"].set()
    await settle()

    assert world.ledgers.types("a") == ["accepted", "submitted", "success"]


TROUBLE: list[Answer] = [
    NotSent(DOWN),
    Ambiguous(LOST),
    TryLater(DOWN, None, throttled=True),
    Unauthorized(WRONG_KEY),
]


async def make_trouble(world: World, chance: Random, request_id: str, partition: int) -> None:
    """What may go wrong at any time, or not."""
    if chance.random() < 0.3:
        world.ledgers.errors.append(chance.choice([LedgerUnavailable("gone"), OwnershipLost("fenced"), None]))
    if chance.random() < 0.3:
        world.tams.answers[chance.choice(["create", "look", "cancel"])].append(chance.choice(TROUBLE))
    if chance.random() < 0.15:
        await world.cancel(request_id, partition=partition)
    if chance.random() < 0.1:
        await world.worker.ownership.revoked()
        world.worker.ownership.assigned(range(2))
    if chance.random() < 0.5:
        await world.clock.advance(chance.random() * 3)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_every_request_ends_once_without_gap_and_no_turn_is_lost(
    make_world: MakeWorld, seed: int
) -> None:
    """Failing commits, fencing, partitions that come and go, an unreliable TAMS: all of it by chance."""
    chance = Random(seed)
    world = await make_world(Options(partitions=2, concurrency=3, interval=0.5, max_in_flight=10))
    for number in range(40):
        await world.request(f"r{number}", partition=number % 2)
        await make_trouble(world, chance, f"r{number}", number % 2)
    for _ in range(60):
        await world.clock.advance(10.0)
        world.tams.end_all()

    for number in range(40):
        events = [event for event in world.ledgers.events if event.request_id == f"r{number}"]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert [event.type.is_terminal for event in events].count(True) == 1
    assert world.submitter.under_way == 0
    assert world.upstream._under_way == 0
    assert len(world.tracker) == len(world.submitter) == 0
