"""All deliveries of one partition, by example; `test_dispatch_model` does the same by chance."""

from datetime import timedelta

import msgspec
import pytest

from bridge.core.fanout import inline_id
from bridge.core.health import FAILING
from bridge.core.health import GONE as IS_GONE
from bridge.core.registry import endpoint_key
from bridge.messages import DeadLetterReason, EventType
from bridge.ports import Arrival
from bridge.webhook_messages import (
    After,
    DeadReason,
    EndpointStatus,
    Exchange,
    InlineWebhook,
    NoticeType,
    Order,
    Outcome,
    ReplayCancel,
    ReplayState,
)
from bridge.webhook_ports import NoResponse, Response
from tests.core.examples import NOW
from tests.core.webhook_examples import (
    BLOCKED,
    DELIVERED,
    FAILED,
    GONE,
    NEVER,
    NO_RESPONSE,
    SCHEDULE,
    THROTTLED,
    UNSENDABLE,
    Desk,
    endpoint,
    event,
    instant,
    names,
    order,
    put,
    replay_order,
    secrets,
    value_of,
    with_policy,
)

ACME = InlineWebhook(url="https://acme.example/hook", tenant="acme")
INLINE = inline_id(ACME)
HOUR = 3_600.0
DAY = 24 * HOUR


def orders(count: int, endpoint_id: str = "ep_a", *, job: str = "j") -> list[Order]:
    """As many jobs, one event each."""
    return [order(endpoint_id, f"{job}{number}") for number in range(count)]


def inline_order(job: str = "a", sequence: int = 1, webhook: InlineWebhook = ACME) -> Order:
    return order(inline_id(webhook), job, sequence, inline=webhook)


def notices(desk: Desk) -> list[NoticeType]:
    """Those that were given since the last commit."""
    return [notice.type for notice in desk.commit().notices]


def disabled(reason: str = FAILING, *, epoch: int = 1, at: float = 0.0) -> EndpointStatus:
    return EndpointStatus(
        endpoint_id="ep_a",
        epoch=epoch,
        failing_since=None if reason == IS_GONE else NOW,
        warned=reason != IS_GONE,
        disabled_at=instant(at),
        disabled_reason=reason,
        changed=instant(at),
    )


def nothing_is_left(desk: Desk) -> bool:
    """Neither in the ledger nor in memory."""
    desk.commit()
    return not (len(desk.partition) or desk.ledger.deliveries or desk.ledger.events)


# ---------------------------------------------------------------------------------------------------- order to delivery


def test_order_is_sent_at_once() -> None:
    """Nothing is written before: the order stays in its topic."""
    desk = Desk(endpoint())

    desk.place(order())

    send = desk.send_one()
    assert (send.delivery.id, send.endpoint, send.event) == ("ep_a/a.1", endpoint(), value_of(event()))
    assert send.began == desk.now


def test_delivery_that_succeeds_at_once_leaves_only_its_attempt() -> None:
    """And the position of its order."""
    desk = Desk(endpoint())
    desk.place(order())
    exchange = Exchange(response_body="thanks")
    send = desk.send_one()
    desk.passes(0.5)

    desk.partition.sent(send, DELIVERED, exchange, desk.now, 0.5)

    changes = desk.commit()
    assert (changes.deliveries, changes.events, changes.position, changes.dead) == ({}, {}, 1, [])
    (attempt,) = changes.attempts
    assert (attempt.after, attempt.exchange, attempt.attempt.duration_s) == (After.DELIVERED, exchange, 0.5)
    assert len(desk.partition) == 0


def test_commit_covers_all_that_was_read() -> None:
    """What is still under way gets a record, with its event, until it has ended."""
    desk = Desk(endpoint())
    desk.place(*orders(3))
    sends = desk.send()
    desk.answer(sends[0])

    desk.commit()
    assert desk.ledger.deliveries.keys() == {"ep_a/j1.1", "ep_a/j2.1"}
    assert desk.ledger.position == 3

    desk.answer_all(sends[1:])
    assert nothing_is_left(desk)


def test_nothing_happened_is_nothing_to_write() -> None:
    """An idle partition commits nothing."""
    desk = Desk(endpoint())

    desk.passes(DAY)

    assert desk.partition.journal.is_empty


def test_order_that_waits_already_is_not_taken_in_twice() -> None:
    """A replay may ask for it."""
    desk = Desk(endpoint())
    desk.place(order(), order())

    assert names(desk.send()) == ["ep_a/a.1"]
    desk.place(order())

    assert (names(desk.send()), len(desk.partition)) == ([], 1)


def test_order_that_comes_again_while_it_waits_for_a_retry_changes_nothing() -> None:
    """It has used up an attempt, and keeps its time."""
    desk = Desk(endpoint())
    desk.place(order())
    desk.answer(desk.send_one(), FAILED)

    desk.place(order())

    assert (desk.waits(), len(desk.partition)) == (SCHEDULE[0], 1)
    assert desk.next_send().delivery.used == 1


def test_records_that_were_read_before_are_passed_over() -> None:
    """The feed may begin earlier than asked."""
    desk = Desk(endpoint())
    desk.place(order())
    desk.answer(desk.send_one())
    desk.commit()

    desk.crash()

    assert (desk.send(), desk.partition.position) == ([], 1)


def test_topic_that_was_made_anew_is_read_from_where_it_begins() -> None:
    """Further back than the ledger knows."""
    desk = Desk(endpoint())
    desk.place(*orders(3))

    desk.partition.move_to(0)
    desk.partition.arrive(Arrival(offset=0, key=None, value=msgspec.json.encode(order(job="new"))), desk.now)

    assert "ep_a/new.1" in names(desk.send())
    assert desk.commit().position == 1


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"no JSON",
        b"{}",
        b'{"kind": "dance"}',
        b'{"kind": "deliver", "endpoint_id": "\xff"}',
        b"[" * 50_000,
        msgspec.json.encode(order()).replace(b'"a.1"', b'"a\\u001f.1"'),  # parts keys of the ledger
        msgspec.json.encode(order()).replace(b"2026-", b"9999-"),  # nothing can be added to it
        msgspec.json.encode(order()).replace(b"Z", b""),  # of no zone
    ],
)
def test_record_that_makes_no_sense_is_parked_and_the_rest_goes_on(value: bytes | None) -> None:
    """As received, with the reason."""
    desk = Desk(endpoint())
    arrival = Arrival(offset=0, key=b"ep_a", value=value)

    desk.partition.arrive(arrival, desk.now)

    (letter,) = desk.commit().dead_letters
    assert (letter.arrival, letter.reason, letter.time) == (arrival, DeadLetterReason.INVALID_DISPATCH, NOW)
    assert len(letter.detail) <= 500
    assert desk.ledger.position == 1


# ---------------------------------------------------------------------------------------------------------- tried again


@pytest.mark.parametrize("answer", [FAILED, NO_RESPONSE, BLOCKED])
def test_failed_delivery_is_tried_again_by_the_schedule_until_it_is_dead(answer: Response | NoResponse) -> None:
    """And then lies on the dead-letter topic with all its attempts and its event."""
    desk, began = Desk(endpoint()), list[float]()
    desk.place(order())
    for _ in range(3):
        send = desk.next_send()
        began.append(desk.now.monotonic - 1000.0)
        desk.answer(send, answer)

    assert began == [0.0, SCHEDULE[0], SCHEDULE[0] + SCHEDULE[1]]
    (dead,) = desk.commit().dead
    assert (dead.reason, dead.delivery.used, bytes(dead.event)) == (DeadReason.EXHAUSTED, 3, value_of(event()))
    assert [attempt.number for attempt in dead.delivery.attempts] == [1, 2, 3]
    assert [attempt.after for attempt in desk.ledger.attempts] == [After.WAITING, After.WAITING, After.DEAD]
    assert nothing_is_left(desk)


def test_retry_waits_across_a_restart() -> None:
    """By the wall clock; what has passed meanwhile counts."""
    desk = Desk(endpoint())
    desk.place(order())
    desk.answer(desk.send_one(), FAILED)
    desk.commit()

    desk.crash(seconds=4.0)

    assert desk.waits() == pytest.approx(SCHEDULE[0] - 4.0)
    assert desk.next_send().delivery.used == 1


def test_retry_that_is_overdue_after_a_restart_is_sent_at_once() -> None:
    """Not earlier than now."""
    desk = Desk(endpoint())
    desk.place(order())
    desk.answer(desk.send_one(), FAILED)
    desk.commit()

    desk.crash(seconds=DAY)

    assert desk.waits() == 0.0


def test_answer_is_taken_in_once() -> None:
    """A second one to the same POST is not about what the delivery has become."""
    desk = Desk(endpoint())
    desk.place(order())
    send = desk.send_one()
    desk.answer(send, FAILED)

    desk.answer(send, FAILED)
    desk.answer(send, DELIVERED)

    assert len(desk.commit().attempts) == 1
    assert desk.next_send().delivery.used == 1


# ---------------------------------------------------------------------------------------------------- asked for a pause


def test_receiver_that_asks_for_a_pause_gets_it_and_no_attempt_is_used_up() -> None:
    """The whole endpoint waits; other endpoints do not."""
    desk = Desk(endpoint(), endpoint("ep_b"))
    desk.place(order(), order(job="b"))
    first, _ = desk.send()
    desk.answer(first, THROTTLED)
    assert notices(desk) == []

    desk.place(order(job="c"), order("ep_b", "d"))

    assert names(desk.send()) == ["ep_b/d.1"]
    assert desk.waits() == 60.0
    desk.passes(60.0)
    sends = desk.send()
    assert sorted(names(sends)) == ["ep_a/a.1", "ep_a/c.1"]
    assert [send.delivery.used for send in sends] == [0, 0]


def test_receiver_may_ask_for_pauses_for_days() -> None:
    """The delivery is not given up before it is too old, and does not grow."""
    desk = Desk(endpoint())
    desk.place(order())
    for _ in range(200):
        desk.answer(desk.next_send(), THROTTLED)

    assert desk.commit().attempts[-1].after is After.WAITING
    assert len(desk.next_send().delivery.attempts) == 20


def test_other_success_does_not_cut_a_pause_short() -> None:
    """It was under way when the pause was asked for."""
    desk = Desk(endpoint())
    desk.place(*orders(3))
    sends = desk.send()
    desk.answer(sends[0], THROTTLED)

    desk.answer(sends[1], DELIVERED)

    assert desk.waits() == 60.0


def test_what_cannot_be_signed_waits_and_is_told_once() -> None:
    """No attempt is used up, nothing is held against the endpoint, and its owner learns what to do."""
    desk = Desk()
    desk.place(inline_order("a"), inline_order("b"))
    for send in desk.send():
        desk.answer(send, UNSENDABLE)

    assert notices(desk) == [NoticeType.FAILING]
    assert desk.ledger.notices[0].detail == UNSENDABLE.error
    assert (desk.waits(), desk.ledger.statuses) == (60.0, [])
    assert desk.next_send().delivery.used == 0


# ----------------------------------------------------------------------------------------------------------------- gone


def test_gone_receiver_gets_nothing_more_until_the_user_says_so() -> None:
    """410: disabled at once, told once; its deliveries are kept and lose no attempt."""
    desk = Desk(endpoint())
    desk.place(*orders(2))
    sends = desk.send()
    desk.answer_all(sends, GONE)
    desk.place(order(job="c"))
    desk.passes(DAY)

    changes = desk.commit()
    assert [notice.type for notice in changes.notices] == [NoticeType.DISABLED]
    assert changes.statuses["ep_a"].disabled_reason == IS_GONE
    assert (desk.partition.next_send_at(), len(desk.ledger.deliveries)) == (NEVER, 3)

    desk.put(endpoint(epoch=2))

    again = desk.send()
    assert (len(again), {send.delivery.used for send in again}) == (3, {0})


def test_own_status_that_the_registry_brings_back_changes_nothing() -> None:
    """Not even after the endpoint was enabled anew."""
    desk = Desk(endpoint())
    desk.place(order())
    desk.answer(desk.send_one(), GONE)
    (status,) = desk.commit().statuses.values()

    desk.put(endpoint(epoch=2), status)

    assert len(desk.send()) == 1


def test_late_success_does_not_enable_what_is_gone() -> None:
    """It was under way when the 410 came."""
    desk = Desk(endpoint())
    desk.place(*orders(3))
    first, second, third = desk.send()
    desk.answer(first, GONE)

    desk.answer(second, DELIVERED)
    desk.answer(third, FAILED)

    assert (desk.partition.next_send_at(), notices(desk)) == (NEVER, [NoticeType.DISABLED])


@pytest.mark.parametrize("change", [{"epoch": 2}, {"url": "https://elsewhere.example/hook"}])
def test_late_answer_of_a_receiver_that_was_replaced_says_nothing_of_the_new_one(change: dict[str, object]) -> None:
    """Who has just been enabled, or has moved, must not be disabled by the old receiver's 410; attempts count."""
    desk = Desk(endpoint())
    desk.place(*orders(3))
    first, second, third = desk.send()
    desk.put(endpoint(**change))

    desk.answer(first, GONE)
    desk.answer(second, THROTTLED)
    desk.answer(third, FAILED)

    changes = desk.commit()
    assert (changes.notices, changes.statuses, len(changes.attempts)) == ([], {}, 3)
    assert names(desk.send()) == ["ep_a/j0.1", "ep_a/j1.1"]
    assert desk.waits() == SCHEDULE[0]


def test_endpoint_that_moves_while_it_is_probed_is_probed_again() -> None:
    """The probe's answer tells nothing, and must not shut it for ever."""
    desk = Desk(endpoint(retry_schedule_s=[1.0] * 9))
    desk.place(order())
    for _ in range(3):
        desk.answer(desk.next_send(), FAILED)
    probe = desk.next_send()
    desk.put(endpoint(retry_schedule_s=[1.0] * 9, url="https://elsewhere.example/hook"))

    desk.answer(probe, FAILED)

    assert desk.next_send().endpoint.url == "https://elsewhere.example/hook"


def test_status_of_a_former_owner_that_comes_late_is_heeded() -> None:
    """The partition changed hands before the registry told of the 410."""
    desk = Desk(endpoint())
    desk.place(*orders(2))

    desk.put(disabled(IS_GONE))

    assert desk.partition.next_send_at() == NEVER


def test_late_word_of_a_former_owner_that_an_endpoint_is_gone_has_the_last_word_in_the_registry() -> None:
    """A record of ours that lies behind it would tell the user of an endpoint that works, and that gets nothing."""
    desk = Desk(endpoint(retry_schedule_s=[1.0] * 9))
    desk.place(*orders(1))
    for _ in range(3):
        desk.answer(desk.next_send(), FAILED)
    desk.commit()

    desk.put(disabled(IS_GONE), *desk.ledger.statuses)
    desk.commit()

    assert [status.disabled_reason for status in desk.ledger.statuses] == ["", IS_GONE]
    desk.put(desk.ledger.statuses[-1])
    assert not desk.commit().statuses


# ---------------------------------------------------------------------------------------------------------- the breaker


def test_failing_endpoint_is_probed_and_what_is_skipped_costs_no_attempt() -> None:
    """After three failures in a row: one POST at a time, with growing pauses."""
    desk = Desk(endpoint(max_in_flight=3))
    desk.place(*orders(3))
    desk.answer_all(desk.send(), FAILED)
    desk.place(*orders(4, job="k"))
    assert desk.send() == []

    probe = desk.next_send()
    assert (probe.delivery.id, desk.send()) == ("ep_a/k0.1", [])
    desk.answer(probe, FAILED)
    second = desk.next_send()
    assert (second.delivery.id, desk.send()) == ("ep_a/k1.1", [])
    desk.answer(second, DELIVERED)

    assert [(send.delivery.id, send.delivery.used) for send in desk.send()] == [("ep_a/k2.1", 0), ("ep_a/k3.1", 0)]


def test_probe_that_is_asked_to_wait_is_followed_by_another() -> None:
    """It told nothing of whether the endpoint works, and must not shut it for ever."""
    desk = Desk(endpoint(retry_schedule_s=[1.0] * 9))
    desk.place(order())
    for _ in range(3):
        desk.answer(desk.next_send(), FAILED)

    desk.answer(desk.next_send(), THROTTLED)

    assert desk.waits() == 60.0
    desk.answer(desk.next_send(), DELIVERED)


def test_breaker_holds_while_nothing_waits() -> None:
    """The endpoint failed a moment ago, even if its only delivery is dead by now."""
    desk = Desk(endpoint(retry_schedule_s=[1.0, 1.0]))
    desk.place(order())
    for _ in range(3):
        desk.answer(desk.next_send(), FAILED)
    assert len(desk.partition) == 0

    desk.place(order(job="b"))

    assert 0.0 < desk.waits() <= 4.0


def test_failures_shrink_what_may_be_under_way() -> None:
    """From eight to four to two, before the breaker opens."""
    desk = Desk(endpoint(max_in_flight=8, retry_schedule_s=[0.001] * 20))
    desk.place(*orders(9))
    sends = desk.send()
    assert len(sends) == 8

    desk.answer(sends[0], FAILED)
    desk.answer_all(sends[1:5], THROTTLED)
    desk.passes(60.0)

    assert len(desk.send()) == 1


# ----------------------------------------------------------------------------------------------------- paused, disabled


def test_paused_endpoint_gets_nothing_and_loses_nothing() -> None:
    """Whatever arrives is kept, and goes when it is resumed."""
    desk = Desk(endpoint())
    desk.place(order(job="a"))
    desk.answer(desk.send_one(), FAILED)

    desk.put(endpoint(paused=True))
    desk.place(order(job="b"))
    desk.passes(HOUR)
    assert desk.partition.next_send_at() == NEVER

    desk.commit()
    desk.crash(seconds=HOUR)
    assert desk.partition.next_send_at() == NEVER

    desk.put(endpoint())
    assert sorted(names(desk.send())) == ["ep_a/a.1", "ep_a/b.1"]


def test_post_that_was_under_way_when_the_endpoint_was_paused_still_counts() -> None:
    """It cannot be taken back."""
    desk = Desk(endpoint())
    desk.place(order())
    send = desk.send_one()
    desk.put(endpoint(paused=True))

    desk.answer(send, DELIVERED)

    assert nothing_is_left(desk)


def failing_for_days(days: float) -> Desk:
    """An endpoint with work, and failures every hour."""
    desk = Desk(endpoint(retry_schedule_s=[HOUR] * 1_000), policy=with_policy(max_age=timedelta(days=99)))
    desk.place(*orders(3))
    while desk.now.now < instant(days * DAY):
        desk.answer(desk.next_send(), FAILED)
    return desk


def test_owner_is_warned_then_told_when_a_failing_endpoint_is_disabled() -> None:
    """Once each."""
    desk = failing_for_days(5.2)

    assert notices(desk) == [NoticeType.FAILING, NoticeType.DISABLED]
    assert desk.ledger.statuses[-1].disabled_reason == FAILING


def test_disabled_endpoint_is_probed_every_hour_and_recovers() -> None:
    """One POST each; a success enables it again, and everything goes."""
    desk = failing_for_days(5.2)
    notices(desk)

    gaps: list[float] = []
    for _ in range(4):
        gaps.append(desk.waits())
        probe = desk.next_send()
        assert desk.send() == []
        desk.answer(probe, FAILED)
    assert min(gaps) >= HOUR

    desk.answer(desk.next_send(), DELIVERED)

    assert notices(desk) == [NoticeType.RECOVERED]
    assert desk.ledger.statuses[-1].disabled_at is None
    assert len(desk.send()) == 2


@pytest.mark.parametrize("crashes", [True, False])
def test_disabled_endpoint_gets_single_probes_whoever_owns_it(*, crashes: bool) -> None:
    """Not all that has piled up at once: whether it was known when the line was opened, or is told of late."""
    desk = Desk(endpoint())
    desk.put(endpoint(paused=True))
    desk.place(*orders(5))
    desk.commit()
    desk.put(endpoint())
    if crashes:
        put(desk.registry, disabled())
        desk.crash()
    else:
        desk.put(disabled())
        desk.put(disabled())

    assert desk.waits() == HOUR
    desk.passes(HOUR)
    assert len(desk.send()) == 1


def test_failing_endpoint_is_probed_first_after_a_restart() -> None:
    """It is not met with all that has piled up."""
    failing = EndpointStatus(endpoint_id="ep_a", epoch=1, failing_since=NOW, changed=NOW)
    desk = Desk(endpoint(), failing)

    desk.place(*orders(5))

    assert desk.waits() == 4.0
    desk.passes(4.0)
    desk.answer(desk.send_one(), DELIVERED)
    assert len(desk.send()) == 4


def test_enabling_anew_forgets_what_spoke_against_an_endpoint() -> None:
    """All that waits goes at once, retries at their time."""
    desk = failing_for_days(5.2)

    desk.put(endpoint(epoch=2, retry_schedule_s=[HOUR] * 1_000))
    desk.place(*orders(3, job="new"))

    assert {"ep_a/new0.1", "ep_a/new1.1", "ep_a/new2.1"} <= set(names(desk.send()))


# ------------------------------------------------------------------------------------------------------------- too many


def test_line_that_is_full_turns_orders_away_with_one_notice() -> None:
    """They lie on the dead-letter topic with their events, for a replay; those that wait are kept."""
    desk = Desk(endpoint(paused=True))
    desk.place(*orders(13))

    changes = desk.commit()

    assert [(dead.delivery.event_id, dead.reason) for dead in changes.dead] == [
        (f"j{number}.1", DeadReason.BACKLOG_FULL) for number in (10, 11, 12)
    ]
    assert bytes(changes.dead[0].event) == value_of(event("j10"))
    assert [(each.after, each.attempt.outcome) for each in changes.attempts] == [(After.DEAD, Outcome.DROPPED)] * 3
    assert [notice.type for notice in changes.notices] == [NoticeType.BACKLOG_FULL]
    assert len(desk.ledger.deliveries) == len(desk.partition) == 10


def test_full_line_is_told_of_again_only_after_it_was_half_empty() -> None:
    """Or its owner would hear it for each event."""
    desk = Desk(endpoint())
    desk.place(*orders(11))
    sends = desk.send()
    assert notices(desk) == [NoticeType.BACKLOG_FULL]

    desk.answer_all(sends[:4])
    desk.place(*orders(5, job="k"))
    assert notices(desk) == []

    desk.answer_all([*sends[4:], *desk.send()][:5])
    desk.place(*orders(6, job="l"))
    assert notices(desk) == [NoticeType.BACKLOG_FULL]


def test_line_that_is_full_because_the_partition_is_crowded_is_told_of_once_too() -> None:
    """Not again for every delivery that leaves it: half of what it then held must have gone."""
    desk = Desk(endpoint(paused=True), policy=with_policy(max_pending=100, max_held=8))
    desk.place(*orders(9))
    assert notices(desk) == [NoticeType.BACKLOG_FULL]
    desk.put(endpoint(max_in_flight=3))
    desk.answer_all(desk.send())
    desk.put(endpoint(paused=True))

    desk.place(*orders(5, job="k"))

    assert notices(desk) == []


def test_full_line_of_one_endpoint_is_nothing_to_the_others() -> None:
    """Each has its own."""
    desk = Desk(endpoint(paused=True), endpoint("ep_b"))
    desk.place(*orders(15), order("ep_b"))

    assert names(desk.send()) == ["ep_b/a.1"]


# -------------------------------------------------------------------------------------------------------------- too old


def test_delivery_that_is_too_old_is_given_up() -> None:
    """Also of an endpoint that is paused; it can be replayed."""
    desk = Desk(endpoint(paused=True))
    desk.place(order(job="a"))
    desk.passes(DAY)
    desk.place(order(job="b"))

    desk.passes(6 * DAY - 1.0)
    assert len(desk.partition) == 2
    desk.passes(1.0)

    (dead,) = desk.commit().dead
    assert (dead.delivery.event_id, dead.reason, dead.time) == ("a.1", DeadReason.TOO_OLD, desk.now.now)
    assert dead.delivery.attempts[-1].outcome is Outcome.DROPPED
    assert len(desk.partition) == 1


def test_what_waited_behind_a_delivery_that_is_too_old_goes_on() -> None:
    """At once."""
    desk = Desk(endpoint(ordering="job", retry_schedule_s=[6.5 * DAY, 6.5 * DAY]))
    desk.place(order(sequence=1))
    desk.passes(DAY)
    desk.answer(desk.send_one(), FAILED)
    desk.place(order(sequence=2))

    desk.passes(6 * DAY)

    assert names(desk.send()) == ["ep_a/a.2"]


def test_age_counts_from_the_order_also_after_a_restart() -> None:
    """In whatever order the ledger holds them."""
    desk = Desk(endpoint(paused=True))
    desk.place(order(job="a"))
    desk.passes(HOUR)
    desk.place(order(job="b"))
    desk.commit()
    desk.ledger.deliveries = dict(reversed(desk.ledger.deliveries.items()))

    desk.crash(seconds=7 * DAY - HOUR)
    desk.passes(0.0)

    assert [dead.delivery.event_id for dead in desk.commit().dead] == ["a.1"]


def test_delivery_under_way_may_still_succeed_when_it_is_too_old() -> None:
    """It is given up after its attempt, if that fails."""
    desk = Desk(endpoint(retry_schedule_s=[HOUR] * 999))
    desk.place(*orders(2))
    first, second = desk.send()

    desk.passes(8 * DAY)
    assert len(desk.partition) == 2
    desk.answer(first, DELIVERED)
    desk.answer(second, FAILED)
    desk.passes(0.0)

    changes = desk.commit()
    assert [dead.reason for dead in changes.dead] == [DeadReason.TOO_OLD]
    assert [attempt.after for attempt in changes.attempts] == [After.DELIVERED, After.WAITING, After.DEAD]


def test_endpoint_whose_probe_is_too_old_is_not_shut_for_ever() -> None:
    """The probe's answer opens it all the same."""
    desk = Desk(endpoint(retry_schedule_s=[1.0] * 9))
    desk.place(order())
    for _ in range(3):
        desk.answer(desk.next_send(), FAILED)
    probe = desk.next_send()
    desk.passes(8 * DAY)
    desk.place(order(job="b"))

    desk.answer(probe, FAILED)
    desk.passes(0.0)

    assert desk.next_send().delivery.id == "ep_a/b.1"


def test_deliveries_that_have_ended_are_not_remembered_until_they_would_be_too_old() -> None:
    """A week of them would be many millions."""
    desk = Desk(endpoint(max_in_flight=100), policy=with_policy(max_pending=1_000))
    for _ in range(20):
        desk.place(*orders(50, job=f"j{desk.partition.position}-"))
        desk.answer_all(desk.send())
        desk.commit()

    sizes = [len(value) for value in vars(desk.partition).values() if isinstance(value, dict | list | set)]
    assert max(sizes) <= 1


# ----------------------------------------------------------------------------------------- endpoints that are not there


def test_deleted_endpoint_ends_its_deliveries() -> None:
    """They are not failures: nobody wants them any more."""
    desk = Desk(endpoint(), endpoint("ep_b"))
    desk.place(*orders(2), order("ep_b"))
    desk.send()

    desk.delete("ep_a")

    changes = desk.commit()
    assert [(each.after, each.attempt.outcome) for each in changes.attempts] == [(After.ENDED, Outcome.DROPPED)] * 2
    assert (changes.dead, list(desk.ledger.deliveries)) == ([], ["ep_b/a.1"])


def test_deleted_endpoint_is_forgotten_whatever_waited_for_it() -> None:
    """It loses its turn, too."""
    desk = Desk(endpoint())
    desk.place(*orders(2))

    desk.delete("ep_a")

    assert desk.partition.next_send_at() == NEVER
    assert what_is_kept(desk) == [{}] * 5


def what_is_kept(desk: Desk) -> list[object]:
    """By endpoint."""
    partition = desk.partition
    receivers = partition._receivers
    return [
        partition._queues, partition._unknown, partition._turns._turn_of, receivers._made_up, receivers._health,
    ]  # fmt: skip


def test_late_answer_for_a_deleted_endpoint_changes_nothing() -> None:
    """There is nothing it could change."""
    desk = Desk(endpoint())
    desk.place(order())
    send = desk.send_one()
    desk.delete("ep_a")
    desk.commit()

    desk.answer(send, FAILED)

    assert desk.partition.journal.is_empty
    assert nothing_is_left(desk)


def test_order_ahead_of_the_registry_waits_for_its_endpoint() -> None:
    """The worker has seen it already; it is sent the moment we do."""
    desk = Desk()
    desk.place(order())
    desk.passes(29.0)
    assert desk.partition.next_send_at() == NEVER

    desk.put(endpoint(max_in_flight=1, ordering="job"))
    desk.place(order(job="b"))

    assert [send.endpoint.max_in_flight for send in desk.send()] == [1]


def test_order_for_an_endpoint_that_nobody_knows_ends_after_a_while() -> None:
    """It was deleted while the order was under way, or while nobody owned the partition."""
    desk = Desk()
    desk.place(order())
    desk.commit()
    desk.crash()

    desk.passes(30.0)

    (attempt,) = desk.commit().attempts
    assert (attempt.after, attempt.attempt.error) == (After.ENDED, "no such endpoint is registered")
    assert nothing_is_left(desk)
    assert what_is_kept(desk) == [{}] * 5


def test_each_unknown_endpoint_has_a_grace_of_its_own() -> None:
    """A second order does not lengthen the first one's."""
    desk = Desk()
    desk.place(order("ep_a"))
    desk.passes(20.0)
    desk.place(order("ep_a", "b"), order("ep_b"))

    desk.passes(10.0)

    assert [each.delivery.id for each in desk.commit().attempts] == ["ep_a/a.1", "ep_a/b.1"]


def test_deliveries_of_an_endpoint_whose_record_cannot_be_read_are_kept() -> None:
    """A newer version has written it: after the upgrade they are sent."""
    desk = Desk()
    desk.registry.apply(endpoint_key("ep_a"), b"{}")
    desk.place(order())
    desk.partition.endpoint_changed("ep_a", desk.now)
    desk.passes(DAY)
    assert (len(desk.partition), desk.partition.next_send_at()) == (1, NEVER)

    desk.put(endpoint())

    assert names(desk.send()) == ["ep_a/a.1"]


def test_change_of_an_endpoint_without_deliveries_is_no_news() -> None:
    """Those of other partitions, for one."""
    desk = Desk()

    desk.put(endpoint())
    desk.delete("ep_a")

    assert desk.partition.journal.is_empty


# ------------------------------------------------------------------------------------------------------------- in order


def test_events_of_a_job_are_sent_one_after_the_other_if_asked_for() -> None:
    """Also while the first fails; other jobs go on."""
    desk = Desk(endpoint(ordering="job"))
    desk.place(order(sequence=1), order(sequence=2), order(job="b"))
    first, other = desk.send()
    assert names([first, other]) == ["ep_a/a.1", "ep_a/b.1"]

    desk.answer(other, DELIVERED)
    desk.answer(first, FAILED)
    assert desk.waits() == SCHEDULE[0]

    desk.answer(desk.next_send(), DELIVERED)
    assert names(desk.send()) == ["ep_a/a.2"]


def test_next_event_of_a_job_goes_when_the_one_before_is_dead() -> None:
    """An event that cannot be delivered does not hold the job for ever."""
    desk = Desk(endpoint(ordering="job", retry_schedule_s=[]))
    desk.place(order(sequence=1), order(sequence=2))

    desk.answer(desk.send_one(), FAILED)

    assert names(desk.send()) == ["ep_a/a.2"]


def test_order_is_kept_across_a_restart() -> None:
    """Whatever order the ledger gives them back in."""
    desk = Desk(endpoint(ordering="job"))
    desk.place(*(order(sequence=number) for number in (1, 2, 3)))
    desk.commit()
    desk.ledger.deliveries = dict(reversed(desk.ledger.deliveries.items()))

    desk.crash()

    sent: list[str] = []
    for _ in range(3):
        (send,) = desk.send()
        sent.append(send.delivery.event_id)
        desk.answer(send)
    assert sent == ["a.1", "a.2", "a.3"]


def test_ordering_that_is_switched_on_counts_what_is_under_way() -> None:
    """Two events may be from before; none is sent beside them."""
    desk = Desk(endpoint())
    desk.place(order(sequence=1), order(sequence=2))
    first, second = desk.send()

    desk.put(endpoint(ordering="job"))
    desk.place(order(sequence=3), order(job="b"))
    assert names(desk.send()) == ["ep_a/b.1"]
    desk.answer(first, DELIVERED)
    assert desk.send() == []
    desk.answer(second, FAILED)

    assert desk.waits() == SCHEDULE[0]
    assert desk.next_send().delivery.id == "ep_a/a.2"


def test_ordering_that_is_switched_off_lets_everything_go() -> None:
    """From then on."""
    desk = Desk(endpoint(ordering="job"))
    desk.place(order(sequence=1), order(sequence=2))
    desk.send()

    desk.put(endpoint(ordering="none"))

    assert names(desk.send()) == ["ep_a/a.2"]


def progress(*sequences: int, job: str = "a") -> list[Order]:
    return [order(job=job, sequence=number, type_=EventType.RUNNING) for number in sequences]


def test_progress_that_was_overtaken_is_left_out_if_asked_for() -> None:
    """It ends, and is on record."""
    desk = Desk(endpoint(ordering="job", drop_superseded=True))
    desk.place(*progress(1, 2, 3), order(sequence=4))

    assert names(desk.send()) == ["ep_a/a.4"]
    assert [each.delivery.event_id for each in desk.commit().attempts] == ["a.1", "a.2", "a.3"]


def test_progress_that_is_under_way_is_not_left_out() -> None:
    """What waits behind it is; other jobs' is not."""
    desk = Desk(endpoint(ordering="job", drop_superseded=True))
    desk.place(*progress(1))
    first = desk.send_one()

    desk.place(*progress(2, 3), *progress(1, job="b"), order(sequence=4))

    changes = desk.commit()
    assert [(each.delivery.event_id, each.after, each.attempt.outcome) for each in changes.attempts] == [
        ("a.2", After.ENDED, Outcome.SUPERSEDED),
        ("a.3", After.ENDED, Outcome.SUPERSEDED),
    ]
    assert "a.4" in changes.attempts[1].attempt.error
    assert names(desk.send()) == ["ep_a/b.1"]
    desk.answer(first)
    assert names(desk.send()) == ["ep_a/a.4"]


def test_only_progress_is_left_out() -> None:
    """What happened to the job is always told."""
    desk = Desk(endpoint(ordering="job", drop_superseded=True, paused=True))
    desk.place(order(sequence=1, type_=EventType.ACCEPTED), *progress(2), order(sequence=3, type_=EventType.RETRYING))

    desk.place(order(sequence=4))

    assert [each.delivery.event_id for each in desk.commit().attempts] == ["a.2"]


@pytest.mark.parametrize("fields", [{"ordering": "job"}, {"drop_superseded": True}])
def test_progress_is_kept_unless_it_is_ordered_and_may_be_left_out(fields: dict[str, object]) -> None:
    """Both must be asked for."""
    desk = Desk(endpoint(paused=True, **fields))
    desk.place(*progress(1, 2), order(sequence=3))

    assert (len(desk.partition), desk.commit().attempts) == (3, [])


def test_progress_that_comes_after_what_overtook_it_is_sent() -> None:
    """A replay brings old events: somebody has asked for them."""
    desk = Desk(endpoint(ordering="job", drop_superseded=True, paused=True))

    desk.place(order(sequence=4), *progress(2))

    assert len(desk.partition) == 2


# ----------------------------------------------------------------------------------------------------------- the limits


def test_no_more_posts_are_under_way_than_the_endpoint_allows() -> None:
    """And a change of that holds at once."""
    desk = Desk(endpoint(max_in_flight=2))
    desk.place(*orders(6))
    sends = desk.send()
    assert len(sends) == 2

    desk.put(endpoint(max_in_flight=4))
    sends += desk.send()
    assert len(sends) == 4

    desk.put(endpoint(max_in_flight=1))
    desk.answer_all(sends[:3])
    assert desk.send() == []
    desk.answer(sends[3])
    assert len(desk.send()) == 1


def test_rate_is_kept_by_endpoints_that_answer_at_once() -> None:
    """Their line is empty between two orders, and must not be forgotten with what was sent."""
    desk, sent = Desk(endpoint(rate=2.0)), 0
    for number in range(30):
        desk.place(order(job=f"j{number}"))
        desk.passes(0.1)
        for send in desk.send():
            desk.answer(send)
            sent += 1

    assert 6 <= sent <= 8


# ------------------------------------------------------------------------------------------------------------- fairness


def test_endpoint_that_hangs_holds_nobody_up() -> None:
    """It has its few POSTs under way for ever; every other endpoint is sent to at once, always."""
    desk = Desk(endpoint("ep_hang", max_in_flight=3), *(endpoint(f"ep_{number}") for number in range(9)))
    desk.place(*orders(10, "ep_hang"))
    assert len(desk.send()) == 3
    for turn in range(20):
        desk.place(*(order(f"ep_{number}", f"t{turn}") for number in range(9)))
        desk.passes(0.01)
        sends = desk.send()
        assert sorted(names(sends)) == [f"ep_{number}/t{turn}.1" for number in range(9)]
        desk.answer_all(sends)


def test_endpoint_with_a_backlog_shares_the_turns() -> None:
    """When only one POST can begin at a time, the endpoints take turns however much waits for each."""
    desk = Desk(endpoint("ep_big", max_in_flight=100), endpoint("ep_b"), endpoint("ep_c"))
    desk.place(*orders(10, "ep_big"))
    taken: list[str] = []
    for turn in range(4):
        desk.place(order("ep_b", f"t{turn}"), order("ep_c", f"t{turn}"))
        for _ in range(3):
            desk.passes(0.001)
            assert desk.waits() <= 0.0
            taken.append(desk.partition.take_send(desk.now).delivery.endpoint_id)

    assert [sorted(taken[place : place + 3]) for place in (0, 3, 6, 9)] == [["ep_b", "ep_big", "ep_c"]] * 4


def test_new_delivery_waits_at_most_one_turn_of_each_other_endpoint() -> None:
    """Even if five endpoints have ten each before it."""
    desk = Desk(*(endpoint(f"ep_{number}") for number in range(5)), endpoint("ep_new"))
    for number in range(5):
        desk.place(*orders(10, f"ep_{number}"))
    desk.passes(1.0)

    desk.place(order("ep_new"))

    begun = [desk.partition.take_send(desk.now).delivery.endpoint_id for _ in range(6) if desk.waits() <= 0.0]
    assert "ep_new" in begun


# --------------------------------------------------------------------------------------------- webhooks inside requests


def test_webhook_of_a_request_is_sent_to_its_url() -> None:
    """Signed with the tenant's secrets, under the default limits."""
    desk = Desk(secrets("acme"))
    desk.place(inline_order())

    send = desk.send_one()

    assert (send.endpoint.id, send.endpoint.url, send.endpoint.secrets) == (INLINE, ACME.url, secrets("acme").secrets)


def test_webhook_of_a_request_is_restored() -> None:
    """Where it leads lies in the ledger."""
    desk = Desk(secrets("acme"))
    desk.place(inline_order())
    desk.commit()

    desk.crash()

    assert desk.send_one().endpoint.url == ACME.url


def test_new_secret_of_a_tenant_signs_the_next_post() -> None:
    """And a tenant that had none can be sent to."""
    desk = Desk()
    desk.place(inline_order())
    desk.answer(desk.send_one(), UNSENDABLE)

    put(desk.registry, secrets("acme", "new"))
    desk.partition.tenant_changed(desk.now)

    assert [secret.sealed for secret in desk.next_send().endpoint.secrets] == ["new"]


def test_new_secret_of_a_tenant_does_not_cut_short_what_a_receiver_asked_for() -> None:
    """The pause had nothing to do with the secret."""
    desk = Desk(secrets("acme"))
    desk.place(inline_order())
    desk.answer(desk.send_one(), THROTTLED)

    put(desk.registry, secrets("acme", "new"))
    desk.partition.tenant_changed(desk.now)

    assert desk.waits() == 60.0


def test_new_secret_of_a_tenant_is_nothing_to_a_registered_endpoint() -> None:
    """It has secrets of its own, and what is wrong with them still is."""
    desk = Desk(endpoint(tenant="acme"))
    desk.place(order())
    desk.answer(desk.send_one(), UNSENDABLE)

    put(desk.registry, secrets("acme", "new"))
    desk.partition.tenant_changed(desk.now)

    assert desk.waits() == 60.0


def test_webhooks_of_requests_are_forgotten_once_nothing_waits() -> None:
    """There may be as many as requests, and many that never worked."""
    desk = Desk(secrets("acme"))
    for number in range(20):
        webhook = InlineWebhook(url=f"https://acme.example/{number}", tenant="acme")
        desk.place(inline_order(f"j{number}", webhook=webhook))
    sends, bad = desk.send(), 0
    desk.answer_all(sends[:10])
    desk.answer_all(sends[10:], FAILED)
    while desk.partition.next_send_at() < NEVER:
        desk.answer(desk.next_send(), FAILED)
        bad += 1

    assert nothing_is_left(desk)
    assert bad >= 20
    assert what_is_kept(desk) == [{}] * 5


def test_webhook_of_a_request_that_is_gone_is_not_written_to_the_registry() -> None:
    """It has no entry there; what waits for it is given up in the end."""
    desk = Desk(secrets("acme"))
    desk.place(inline_order())
    desk.answer(desk.send_one(), GONE)

    assert notices(desk) == [NoticeType.DISABLED]
    assert desk.ledger.statuses == []
    desk.passes(7 * DAY)
    assert [dead.reason for dead in desk.commit().dead] == [DeadReason.TOO_OLD]


# -------------------------------------------------------------------------------------------------------------- replays


def history(count: int) -> list[bytes]:
    return [value_of(event("h", number)) for number in range(1, count + 1)]


def replaying(desk: Desk, count: int = 4, **fields: object) -> Desk:
    """A replay over one place of some events."""
    desk.place(replay_order(**fields))
    desk.partition.replay_begun("rp_1", ({"t-0": 0}, {"t-0": count}), desk.now)
    return desk


def read(desk: Desk, values: list[bytes], until: int) -> None:
    desk.partition.replay_read("rp_1", values, {"t-0": until}, desk.now)


def state(desk: Desk) -> ReplayState | None:
    replay = desk.partition.replays.get("rp_1")
    return replay.state if replay is not None else None


def test_replayed_events_are_delivered_like_new_ones() -> None:
    """And name the replay; position and deliveries are one transaction."""
    desk = replaying(Desk(endpoint()))

    read(desk, history(4), 4)

    changes = desk.commit()
    replay = changes.replays["ep_a", "rp_1"]
    assert replay is not None
    assert (replay.state, replay.positions, replay.matched) == (ReplayState.DONE, {"t-0": 4}, 4)
    assert len(changes.deliveries) == 4
    assert {send.delivery.replay_id for send in desk.send()} == {"rp_1"}


def test_replay_that_is_interrupted_goes_on_where_it_was_written() -> None:
    """No event is lost, and none is put in line twice."""
    desk = replaying(Desk(endpoint(paused=True)))
    read(desk, history(4)[:2], 2)
    desk.commit()
    read(desk, history(4)[2:], 4)

    desk.crash()

    replay = desk.partition.replays.get("rp_1")
    assert replay is not None
    assert (replay.positions, len(desk.partition)) == ({"t-0": 2}, 2)
    read(desk, history(4)[2:], 4)
    desk.commit()
    assert len(desk.ledger.deliveries) == 4


def test_replay_does_not_put_in_line_what_waits_there() -> None:
    """It is going to be delivered anyway."""
    desk = replaying(Desk(endpoint(paused=True)))
    desk.place(order(job="h", sequence=1))

    read(desk, history(2), 2)

    assert sorted(desk.commit().deliveries) == ["ep_a/h.1", "ep_a/h.2"]


def test_replayed_dead_delivery_begins_with_all_its_attempts_left() -> None:
    """As if it were new."""
    desk = Desk(endpoint(retry_schedule_s=[]))
    desk.place(order())
    desk.answer(desk.send_one(), FAILED)
    (dead,) = desk.commit().dead

    replaying(desk, 1, failed_only=True)
    read(desk, [msgspec.json.encode(dead)], 1)

    send = desk.send_one()
    assert (send.delivery.used, send.delivery.attempts, send.event) == (0, (), value_of(event()))


def test_replay_waits_while_the_line_is_half_full() -> None:
    """So that new events find room."""
    desk = Desk(endpoint(paused=True))
    desk.place(*orders(4))
    assert desk.partition.room("ep_a") == 1

    desk.place(*orders(2, job="k"))

    assert desk.partition.room("ep_a") == -1


def test_replay_never_turns_its_own_events_away() -> None:
    """What it reads at once may be more than there is room for."""
    desk = replaying(Desk(endpoint(paused=True)), 30)

    read(desk, history(30), 30)

    assert (len(desk.partition), desk.commit().dead) == (30, [])
    desk.place(order(job="new"))
    assert len(desk.commit().dead) == 1


def test_replay_finds_room_however_few_may_wait() -> None:
    """Or it would never end."""
    desk = Desk(endpoint(), policy=with_policy(max_pending=1))

    assert desk.partition.room("ep_a") == 1


def test_replay_for_an_endpoint_that_is_ahead_of_the_registry_waits_for_it() -> None:
    """What it wants is not known before: reading on would lose all of it."""
    desk = replaying(Desk())
    desk.passes(29.0)
    assert (desk.partition.room("ep_a"), state(desk)) == (0, ReplayState.RUNNING)

    desk.put(endpoint())

    assert desk.partition.room("ep_a") > 0


def test_replay_for_a_webhook_of_a_request_finds_room() -> None:
    """It needs no registration."""
    assert Desk().partition.room(INLINE) > 0


def test_replay_for_a_deleted_endpoint_is_canceled_after_a_while() -> None:
    """Nobody waits for it."""
    desk = replaying(Desk(endpoint()))
    desk.delete("ep_a")
    desk.passes(29.0)
    assert state(desk) is ReplayState.RUNNING

    desk.passes(1.0)

    assert state(desk) is ReplayState.CANCELED
    assert desk.commit().replays.keys() == {("ep_a", "rp_1")}


def test_canceled_replay_leaves_what_it_put_in_line() -> None:
    """That is still delivered; no more is read."""
    desk = replaying(Desk(endpoint()))
    read(desk, history(2), 2)

    desk.place(ReplayCancel(replay_id="rp_1", endpoint_id="ep_a"))
    read(desk, history(4)[2:], 4)

    assert (state(desk), names(desk.send())) == (ReplayState.CANCELED, ["ep_a/h.1", "ep_a/h.2"])
    assert msgspec.json.decode(desk.ledger.replays.get(("ep_a", "rp_1"), b"null")) is None
    desk.commit()
    assert b"canceled" in desk.ledger.replays["ep_a", "rp_1"]


def test_cancel_of_a_replay_that_nobody_knows_is_passed_over() -> None:
    """It may have been forgotten."""
    desk = Desk(endpoint())

    desk.place(ReplayCancel(replay_id="rp_9", endpoint_id="ep_a"))

    assert desk.commit().replays == {}


def test_replay_that_ended_is_forgotten_in_the_ledger_too() -> None:
    """After a week."""
    desk = replaying(Desk(endpoint()), 1)
    read(desk, [], 1)
    desk.commit()

    desk.passes(7 * DAY)

    assert desk.commit().replays == {("ep_a", "rp_1"): None}
    assert desk.ledger.replays == {}


# -------------------------------------------------------------------------------------------------------------- crashes


def test_what_was_sent_and_not_written_is_sent_again() -> None:
    """At least once: the receiver knows the repeat by its id."""
    desk = Desk(endpoint())
    desk.place(*orders(2))
    sends = desk.send()
    desk.answer(sends[0])

    desk.crash()

    assert names(desk.send()) == names(sends)


def test_what_was_written_as_ended_is_never_sent_again() -> None:
    """However often the owner changes."""
    desk = Desk(endpoint(retry_schedule_s=[]))
    desk.place(*orders(3))
    first, second, _ = desk.send()
    desk.answer(first, DELIVERED)
    desk.answer(second, FAILED)
    desk.commit()

    for _ in range(3):
        desk.crash()
        assert names(desk.send()) == ["ep_a/j2.1"]


def test_answer_to_a_former_owner_is_nothing_to_the_new_one() -> None:
    """It has its own attempt under way."""
    desk = Desk(endpoint())
    desk.place(order())
    desk.commit()
    stale = desk.send_one()
    desk.crash()
    send = desk.send_one()

    desk.answer(stale, FAILED)
    assert desk.commit().attempts == []

    desk.answer(send, DELIVERED)
    assert nothing_is_left(desk)


def test_attempts_survive_a_crash() -> None:
    """All that were written."""
    desk = Desk(endpoint())
    desk.place(order())
    desk.answer(desk.send_one(), FAILED)
    desk.commit()
    desk.crash(seconds=SCHEDULE[0] * 2)
    desk.answer(desk.send_one(), FAILED)
    desk.commit()
    desk.crash(seconds=SCHEDULE[1] * 2)

    desk.answer(desk.send_one(), FAILED)

    (dead,) = desk.commit().dead
    assert [attempt.number for attempt in dead.delivery.attempts] == [1, 2, 3]
