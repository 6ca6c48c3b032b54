from collections.abc import Iterable
from datetime import timedelta

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from bridge.core.deliveries import Step, Unsendable, Verdict, attempted, ended, judge, read_retry_after, take_in
from bridge.webhook_messages import After, DeadReason, Delivery, InlineWebhook, Outcome
from bridge.webhook_ports import NoResponse, Response
from tests.core.examples import NOW, SECOND
from tests.core.webhook_examples import (
    BLOCKED,
    DELIVERED,
    FAILED,
    GONE,
    NO_RESPONSE,
    SCHEDULE,
    THROTTLED,
    UNSENDABLE,
    delivery,
    instant,
    order,
)

ANSWERS: dict[str, Response | NoResponse | Unsendable] = {
    "delivered": DELIVERED,
    "failed": FAILED,
    "no response": NO_RESPONSE,
    "blocked": BLOCKED,
    "gone": GONE,
    "throttled": THROTTLED,
    "unsendable": UNSENDABLE,
}


def verdict(answer: Response | NoResponse | Unsendable, longest_pause: timedelta = timedelta(hours=1)) -> Verdict:
    return judge(answer, NOW, longest_pause=longest_pause)


def response(status: int, retry_after: str | None = None) -> Response:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return Response(status=status, headers=headers, body=b"")


def step(before: Delivery, name: str, *, chance: float = 0.5, began: float = 0.0, now: float = 2.0) -> Step:
    return attempted(
        before, verdict(ANSWERS[name]), began=instant(began), now=instant(now), pauses=SCHEDULE, chance=chance
    )


def after(names: Iterable[str], before: Delivery | None = None) -> Step:
    """What some attempts, one after the other, come to."""
    reached = Step(before or delivery(), After.WAITING)
    for name in names:
        assert reached.after is After.WAITING
        reached = step(reached.delivery, name)
    return reached


# ---------------------------------------------------------------------------------------------------------- the answers


@pytest.mark.parametrize(
    ("answer", "outcome", "status"),
    [
        (response(200), Outcome.DELIVERED, 200),
        (response(204), Outcome.DELIVERED, 204),
        (response(299), Outcome.DELIVERED, 299),
        (response(199), Outcome.FAILED, 199),
        (response(300), Outcome.FAILED, 300),
        (response(301), Outcome.FAILED, 301),
        (response(400), Outcome.FAILED, 400),
        (response(404), Outcome.FAILED, 404),
        (response(410), Outcome.GONE, 410),
        (response(410, "60"), Outcome.GONE, 410),
        (response(429), Outcome.FAILED, 429),
        (response(429, "60"), Outcome.THROTTLED, 429),
        (response(429, "soon"), Outcome.FAILED, 429),
        (response(500), Outcome.FAILED, 500),
        (response(500, "60"), Outcome.FAILED, 500),
        (response(502, "60"), Outcome.FAILED, 502),
        (response(503), Outcome.FAILED, 503),
        (response(503, "60"), Outcome.THROTTLED, 503),
        (response(504, "60"), Outcome.FAILED, 504),
        (NO_RESPONSE, Outcome.FAILED, 0),
        (BLOCKED, Outcome.BLOCKED, 0),
        (UNSENDABLE, Outcome.THROTTLED, 0),
    ],
)
def test_every_answer_means_what_the_standard_says(
    answer: Response | NoResponse | Unsendable, outcome: Outcome, status: int
) -> None:
    """2xx alone is success, redirects are not followed, and a pause is granted to who says how long."""
    found = verdict(answer)

    assert (found.outcome, found.status) == (outcome, status)
    assert bool(found.error) is (outcome is not Outcome.DELIVERED)
    assert (found.pause is not None) is (outcome is Outcome.THROTTLED)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_failures_use_up_attempts(outcome: Outcome) -> None:
    """Also those of an address that may not be dialled: only the user can change that."""
    assert Verdict(outcome=outcome).is_failure is (outcome in {Outcome.FAILED, Outcome.BLOCKED})


@pytest.mark.parametrize(("status", "is_redirect"), [(199, False), (300, True), (308, True), (399, True), (400, False)])
def test_redirect_says_what_to_do(status: int, *, is_redirect: bool) -> None:
    """A person has to register the other address."""
    assert ("redirects are not followed" in verdict(response(status)).error) is is_redirect


def test_pause_says_how_long() -> None:
    """People wonder why nothing is sent."""
    assert verdict(response(429, "60")).error == "the receiver answered 429 and asked for 60 s"


def test_endless_error_is_cut() -> None:
    """Every record of the delivery carries it."""
    assert len(verdict(NoResponse(error="x" * 9_000)).error) == 300


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("60", 60), ("0", 1), ("-5", 1), ("0.2", 1), ("3600", 3600), ("3601", 3600), ("9" * 40, 3600)],
)
def test_pause_that_was_asked_for_is_kept_within_reason(asked: str, seconds: int) -> None:
    """Never none, or who says so again and again would be hammered; never longer than the operator allows."""
    assert verdict(response(429, asked)).pause == seconds * SECOND


def test_pause_of_our_own_is_taken_as_it_is() -> None:
    """And its error says what to do."""
    found = verdict(UNSENDABLE)

    assert (found.pause, found.error) == (60 * SECOND, "the tenant has no secret: make one")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-5", 0.0),
        ("nan", 0.0),
        ("inf", 86_400.0),
        ("9" * 400, 86_400.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30.0),
        ("Sun, 01 Mar 2026 13:00:30 +0100", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 -1200", 86_400.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    """Both forms of RFC 9110, section 10.2.3, a day at the most; a time gone by is no pause."""
    assert read_retry_after(value, NOW) == timedelta(seconds=seconds)


@given(st.text(max_size=40) | st.from_regex(r"[A-Za-z]{3}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [+-]?\d+", fullmatch=True))
@example("")
@example("1 1 1")
@example("\x00")
@example("Sun, 99 Mar 2026 12:00:30 GMT")
@example("Sun, 01 Mar 2026 12:00:30 +99999999999999999999")
@example("Sun, 01 Mar 99999999999999999999 12:00:30 GMT")
def test_any_retry_after_is_a_pause_or_nothing(value: str) -> None:
    """Whatever a receiver says, nothing is raised."""
    found = read_retry_after(value, NOW)

    assert found is None or timedelta(0) <= found <= timedelta(days=1)


# ------------------------------------------------------------------------------------------------------- the life of it


def test_delivery_begins_as_ordered() -> None:
    """Nothing of the order is lost, and all else is fresh."""
    placed = order(job="b", sequence=3, inline=InlineWebhook(url="https://x.example/", tenant="acme"))

    begun = take_in(placed, NOW, replay_id="rp_1")

    assert begun == Delivery(
        endpoint_id="ep_a",
        event_id="b.3",
        type="tams.job.success",
        request_id="b",
        sequence=3,
        time=placed.time,
        inline=placed.inline,
        ordered=NOW,
        replay_id="rp_1",
    )
    assert begun.id == "ep_a/b.3"


@pytest.mark.parametrize("name", ANSWERS)
def test_attempt_is_remembered_as_it_went(name: str) -> None:
    """When it began, how long it took, and what it came to."""
    found = step(delivery(), name, began=5.0, now=6.23456).delivery.attempts[-1]

    assert (found.number, found.time, found.duration_s) == (1, instant(5.0), 1.2346)
    assert (found.outcome, found.error) == (verdict(ANSWERS[name]).outcome, verdict(ANSWERS[name]).error)


def test_clock_that_was_set_back_makes_no_negative_duration() -> None:
    """People would wonder."""
    assert step(delivery(), "delivered", began=5.0, now=3.0).delivery.attempts[-1].duration_s == 0.0


@pytest.mark.parametrize(
    ("names", "became", "used"),
    [
        (["delivered"], After.DELIVERED, 1),
        (["failed"], After.WAITING, 1),
        (["blocked"], After.WAITING, 1),
        (["no response"], After.WAITING, 1),
        (["throttled"], After.WAITING, 0),
        (["unsendable"], After.WAITING, 0),
        (["gone"], After.WAITING, 0),
        (["failed", "failed"], After.WAITING, 2),
        (["failed", "failed", "failed"], After.DEAD, 3),
        (["failed", "failed", "blocked"], After.DEAD, 3),
        (["failed", "throttled", "failed", "gone", "unsendable", "failed"], After.DEAD, 3),
        (["failed", "failed", "throttled", "throttled"], After.WAITING, 2),
        (["failed", "failed", "delivered"], After.DELIVERED, 3),
    ],
)
def test_attempts_are_used_up_by_failures_alone(names: list[str], became: After, used: int) -> None:
    """Three of them by this schedule; a pause or a 410 costs none."""
    reached = after(names)

    assert (reached.after, reached.delivery.used) == (became, used)
    assert reached.reason is (DeadReason.EXHAUSTED if became is After.DEAD else None)


def test_attempts_that_cost_none_share_the_number_of_the_next() -> None:
    """So that people can count."""
    reached = after(["throttled", "failed", "throttled", "throttled", "delivered"])

    assert [attempt.number for attempt in reached.delivery.attempts] == [1, 1, 2, 2, 2]


def test_dead_delivery_holds_all_its_attempts() -> None:
    """Whoever looks at the dead-letter topic must see why."""
    reached = after(["failed", "blocked", "no response"])

    assert [(each.number, each.outcome, each.status) for each in reached.delivery.attempts] == [
        (1, Outcome.FAILED, 500),
        (2, Outcome.BLOCKED, 0),
        (3, Outcome.FAILED, 0),
    ]


def test_endpoint_without_schedule_gets_one_attempt() -> None:
    """Who wants no second try gets none."""
    found = attempted(delivery(), verdict(FAILED), began=NOW, now=NOW, pauses=(), chance=0.5)

    assert (found.after, found.reason) == (After.DEAD, DeadReason.EXHAUSTED)


def test_schedule_that_became_shorter_ends_deliveries_that_are_beyond_it() -> None:
    """The endpoint may be changed while they wait."""
    found = attempted(delivery(used=5), verdict(FAILED), began=NOW, now=NOW, pauses=SCHEDULE, chance=0.5)

    assert found.after is After.DEAD


@pytest.mark.parametrize(
    ("failures", "chance", "pause"),
    [(1, 0.5, 10.0), (1, 0.0, 9.0), (1, 1.0, 11.0), (2, 0.5, 100.0), (2, 0.0, 90.0)],
)
def test_pauses_follow_the_schedule_with_jitter(failures: int, chance: float, pause: float) -> None:
    """A tenth to either side, from the end of the attempt."""
    before = after(["failed"] * (failures - 1)).delivery

    assert step(before, "failed", chance=chance, now=7.0).delivery.next_at == instant(7.0 + pause)


@pytest.mark.parametrize("name", ["throttled", "unsendable", "gone"])
def test_attempt_that_cost_none_does_not_move_the_next_one(name: str) -> None:
    """The endpoint is paused, not the delivery."""
    before = after(["failed"]).delivery

    assert step(before, name).delivery.next_at == before.next_at


def test_receiver_that_throttles_for_days_does_not_make_deliveries_grow() -> None:
    """The latest twenty of those attempts are remembered, and all that counted."""
    reached = after(["failed", "failed", *["throttled"] * 50])

    kept = [attempt.outcome for attempt in reached.delivery.attempts]
    assert (kept.count(Outcome.THROTTLED), kept.count(Outcome.FAILED)) == (20, 2)


def test_of_throttled_attempts_the_latest_are_remembered() -> None:
    """Those are the ones somebody asks about."""
    before = delivery()
    for number in range(30):
        before = step(before, "throttled", began=float(number), now=float(number)).delivery

    assert [attempt.time for attempt in before.attempts] == [instant(float(number)) for number in range(10, 30)]


def test_delivery_that_ends_without_attempt_remembers_why() -> None:
    """It is the last thing people see of it."""
    before = after(["failed"]).delivery

    found = ended(before, Outcome.DROPPED, "the endpoint was deleted", instant(9))

    last = found.attempts[-1]
    assert (last.number, last.outcome, last.error, last.time) == (
        1,
        Outcome.DROPPED,
        "the endpoint was deleted",
        instant(9),
    )
    assert replace(found, attempts=before.attempts) == before


@given(
    st.lists(st.sampled_from(list(ANSWERS)), max_size=40),
    st.lists(st.floats(1, 1e6), max_size=4).map(tuple),
    st.floats(0, 1, exclude_max=True),
)
def test_any_history_keeps_the_books(names: list[str], pauses: tuple[float, ...], chance: float) -> None:
    """Failures are counted one by one, the end comes when they are used up, and all of it survives the ledger."""
    current, became, failures = delivery(), After.WAITING, 0
    for name in names:
        found = attempted(current, verdict(ANSWERS[name]), began=NOW, now=NOW, pauses=pauses, chance=chance)
        current, became = found.delivery, found.after
        failures += verdict(ANSWERS[name]).is_failure
        assert msgspec.json.decode(msgspec.json.encode(current), type=Delivery) == current
        assert (became is After.DEAD) is (failures == len(pauses) + 1)
        assert (became is After.DELIVERED) is (name == "delivered")
        if became is not After.WAITING:
            break

    assert current.used == failures + (became is After.DELIVERED)
    assert len([each for each in current.attempts if each.outcome in {Outcome.FAILED, Outcome.BLOCKED}]) == failures
