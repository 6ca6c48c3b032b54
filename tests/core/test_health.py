from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.health import FAILING, GONE, EndpointHealth, HealthPolicy, Told
from bridge.webhook_messages import EndpointStatus, NoticeType
from tests.core.examples import NOW

DAY = timedelta(days=1)
POLICY = HealthPolicy(warn_after=DAY, disable_after=5 * DAY)
ERROR = "the receiver answered 500"


def healthy(status: EndpointStatus | None = None) -> EndpointHealth:
    return EndpointHealth("ep_a", 1, status, POLICY)


def day(number: float) -> datetime:
    return NOW + number * DAY


def fails(health: EndpointHealth, on: float, *, repeatedly: bool = True) -> list[NoticeType]:
    return kinds(health.failed(ERROR, day(on), repeatedly=repeatedly))


def kinds(told: Told) -> list[NoticeType]:
    return [kind for kind, _ in told]


def failing() -> EndpointHealth:
    """Since day 0."""
    health = healthy()
    fails(health, 0)
    return health


def warned() -> EndpointHealth:
    health = failing()
    fails(health, 1)
    return health


def disabled() -> EndpointHealth:
    health = warned()
    fails(health, 5)
    return health


def gone() -> EndpointHealth:
    health = healthy()
    health.gone("410", NOW)
    return health


def known(health: EndpointHealth) -> EndpointStatus:
    """What the registry learns of it."""
    status = health.take_status()
    assert status is not None
    return status


# ------------------------------------------------------------------------------------------------ warned, then disabled


def test_single_failure_is_no_news() -> None:
    """Nothing is written for it."""
    health = healthy()

    assert fails(health, 0, repeatedly=False) == []
    assert (health.take_status(), health.is_failing) == (None, False)


def test_failures_in_a_row_are_known_since_the_first() -> None:
    """So that the API can show it."""
    health = healthy()
    fails(health, 0, repeatedly=False)

    fails(health, 0.5, repeatedly=True)

    assert health.is_failing
    assert known(health) == EndpointStatus(
        endpoint_id="ep_a", epoch=1, failing_since=day(0), last_error=ERROR, changed=day(0.5)
    )


def test_success_between_makes_the_next_failure_the_first() -> None:
    """Since when it fails is counted anew."""
    health = healthy()
    fails(health, 0, repeatedly=False)
    health.succeeded(day(1))

    fails(health, 2, repeatedly=True)

    assert known(health).failing_since == day(2)


def test_owner_is_warned_once() -> None:
    """After a day of failures, with the time until which it must work again."""
    health = failing()

    assert fails(health, 0.99) == []
    ((kind, text),) = health.failed(ERROR, day(1), repeatedly=True)
    assert fails(health, 1.01) == []

    assert kind is NoticeType.FAILING
    assert ERROR in text
    assert day(5).isoformat() in text
    assert (known(health).warned, health.disabled) == (True, "")


def test_endpoint_is_disabled_once_after_five_days_of_failures() -> None:
    """And its owner is told so, with why, and what becomes of the deliveries."""
    health = warned()

    assert fails(health, 4.99) == []
    ((kind, text),) = health.failed(ERROR, day(5), repeatedly=True)
    assert fails(health, 5.01) == []

    assert kind is NoticeType.DISABLED
    assert ERROR in text
    assert "kept" in text
    status = known(health)
    assert (status.disabled_at, status.disabled_reason, status.last_error) == (day(5), FAILING, ERROR)
    assert health.disabled == FAILING


def test_nobody_is_disabled_without_a_warning_before() -> None:
    """A single failure after a week without events must not be the end of it."""
    health = failing()

    ((kind, text),) = health.failed(ERROR, day(7), repeatedly=True)
    assert (kind, health.disabled) == (NoticeType.FAILING, "")
    assert day(7).isoformat() in text

    assert fails(health, 7.01) == [NoticeType.DISABLED]


def test_gone_disables_at_once() -> None:
    """410 needs no second time."""
    health = healthy()

    ((kind, text),) = health.gone("it answered 410", NOW)

    assert (kind, health.disabled, health.is_failing) == (NoticeType.DISABLED, GONE, False)
    assert "it answered 410" in text
    assert known(health) == EndpointStatus(
        endpoint_id="ep_a", epoch=1, disabled_at=NOW, disabled_reason=GONE, last_error="it answered 410", changed=NOW
    )


# ------------------------------------------------------------------------------------------------------------- recovery


def test_success_of_a_healthy_endpoint_is_no_news() -> None:
    """Nothing is written for each delivery."""
    health = healthy()

    assert health.succeeded(NOW) == []
    assert health.take_status() is None


def test_endpoint_that_was_failing_works_again_without_ado() -> None:
    """Nobody was told that it failed; the API forgets it."""
    health = failing()
    health.take_status()

    assert health.succeeded(day(0.5)) == []
    assert known(health) == EndpointStatus(endpoint_id="ep_a", epoch=1, changed=day(0.5))
    assert not health.is_failing


@pytest.mark.parametrize("state", [warned, disabled])
def test_owner_hears_that_an_endpoint_has_recovered(state: Callable[[], EndpointHealth]) -> None:
    """Who was warned is told; a probe that succeeds enables it again."""
    health = state()

    assert kinds(health.succeeded(day(6))) == [NoticeType.RECOVERED]
    assert (health.disabled, health.is_failing) == ("", False)
    assert kinds(health.succeeded(day(6))) == []


def test_late_answers_do_not_enable_what_is_gone() -> None:
    """POSTs that were under way when the 410 came: only the user may enable it again."""
    health = gone()
    known(health)

    assert health.succeeded(day(1)) == []
    assert health.gone("410", day(1)) == []
    assert fails(health, 1) == []

    assert (health.disabled, health.take_status()) == (GONE, None)


def test_gone_after_failing_is_gone() -> None:
    """The stronger word."""
    health = disabled()

    assert kinds(health.gone("410", day(6))) == [NoticeType.DISABLED]
    assert health.disabled == GONE


def test_unsendable_is_told_once_until_it_works() -> None:
    """Each delivery of a tenant without secret would tell it again."""
    health = healthy()

    assert kinds(health.unsendable("no secret")) == [NoticeType.FAILING]
    assert health.unsendable("no secret") == []

    health.succeeded(NOW)

    assert kinds(health.unsendable("no secret")) == [NoticeType.FAILING]
    assert health.take_status() is None


# -------------------------------------------------------------------------------------------- epochs, and former owners


@pytest.mark.parametrize("state", [failing, warned, disabled, gone])
def test_enabling_anew_forgets_everything(state: Callable[[], EndpointHealth]) -> None:
    """A new epoch begins as if the endpoint were new."""
    health = state()
    health.unsendable("x")
    health.take_status()

    assert not health.follow(1)
    assert health.follow(2)

    assert (health.disabled, health.is_failing, health.take_status()) == ("", False, None)
    assert kinds(health.unsendable("x")) == [NoticeType.FAILING]
    fails(health, 9)
    status = known(health)
    assert (status.epoch, status.failing_since) == (2, day(9))


def test_status_of_a_former_owner_holds() -> None:
    """It warned; we disable, and do not warn again."""
    former = known(warned())

    health = healthy(former)

    assert health.is_failing
    assert fails(health, 2) == []
    assert fails(health, 5) == [NoticeType.DISABLED]


def test_status_of_a_former_owner_is_adopted_when_it_comes_late() -> None:
    """The registry may learn of it after the partition has changed hands."""
    health = healthy()

    assert health.adopt(known(gone()))

    assert (health.disabled, health.take_status()) == (GONE, None)


def test_late_word_that_an_endpoint_is_gone_outweighs_what_was_seen_since() -> None:
    """A few POSTs may have been sent before it came."""
    former, health = known(gone()), healthy()
    fails(health, 1)

    assert health.adopt(former)

    assert health.disabled == GONE
    assert not health.adopt(former)


def test_that_an_endpoint_is_gone_is_written_once_more_if_other_word_of_it_lies_behind_that() -> None:
    """Else the registry would go on to say that a receiver fails which gets nothing, as it is gone."""
    former, health = known(gone()), failing()
    ours = known(health)

    assert health.adopt(former)
    assert health.take_status() is None

    assert not health.adopt(ours)
    assert health.take_status() == former
    assert not health.adopt(former)
    assert health.take_status() is None


def test_what_we_wrote_ourselves_is_no_news() -> None:
    """The registry brings every status back, the older ones while there is a newer one."""
    health = failing()
    first = known(health)
    assert not health.adopt(first)

    health.succeeded(day(0.1))

    assert not health.adopt(first)
    assert not health.adopt(known(health))
    assert not health.adopt(None)
    assert not health.is_failing


def happens(health: EndpointHealth, what: str, now: datetime) -> Told:
    if what == "ok":
        return health.succeeded(now)
    return health.gone("410", now) if what == "gone" else health.failed(ERROR, now, repeatedly=True)


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "fail", "gone"]), st.floats(0, 3)), max_size=25))
def test_notices_of_any_life_come_in_order(events: list[tuple[str, float]]) -> None:
    """Disabled for failing only after a warning, recovered only after either; what is gone stays gone."""
    health, now, last = healthy(), NOW, NoticeType.RECOVERED
    for what, days in events:
        now += days * DAY
        was_gone = health.disabled == GONE
        told = kinds(happens(health, what, now))
        assert len(told) <= (0 if was_gone else 1)
        for kind in told:
            if kind is NoticeType.DISABLED and what == "fail":
                assert last is NoticeType.FAILING
            assert kind is not last or what == "gone"
            last = kind
        assert (health.disabled == GONE) is (was_gone or what == "gone")
