from collections.abc import Callable

import msgspec
import pytest

from bridge.core.deliveries import ended
from bridge.core.dispatch_journal import DispatchJournal, Held, without_query
from bridge.core.replays import Replays
from bridge.core.signatures import webhook_id
from bridge.messages import DeadLetterReason
from bridge.ports import DeadLetter
from bridge.webhook_messages import (
    After,
    DeadReason,
    EndpointStatus,
    Exchange,
    NoticeType,
    Outcome,
)
from bridge.webhook_ports import DispatchChanges
from tests.core.examples import NOW
from tests.core.webhook_examples import arrival, delivery, endpoint, order, replay_order

EVENT = b'{"id": "a.1"}'


def held(*, is_written: bool = False, used: int = 0) -> Held:
    return Held(delivery("ep_a", "a", 1, used=used), EVENT, is_written=is_written)


def test_new_journal_is_empty() -> None:
    """Nothing to commit."""
    journal = DispatchJournal()

    assert (journal.is_empty, journal.take()) == (True, DispatchChanges())


@pytest.mark.parametrize(
    "step",
    [
        lambda journal: journal.moved_to(1),
        lambda journal: journal.changed(held()),
        lambda journal: journal.ended(held(is_written=True)),
    ],
)
def test_each_step_alone_is_something_to_write(step: Callable[[DispatchJournal], None]) -> None:
    """Or it would wait for the next one."""
    journal = DispatchJournal()

    step(journal)

    assert not journal.is_empty
    assert journal.take() != DispatchChanges()


def test_new_delivery_is_written_with_its_event() -> None:
    """Together with the position up to which everything was read."""
    journal, new = DispatchJournal(), held()
    journal.moved_to(42)
    journal.changed(new)
    assert not journal.is_empty

    changes = journal.take()

    assert (changes.deliveries, changes.events, changes.position) == (
        {"ep_a/a.1": new.delivery}, {"ep_a/a.1": EVENT}, 42,
    )  # fmt: skip
    assert (journal.is_empty, journal.take()) == (True, DispatchChanges())


def test_event_is_written_once() -> None:
    """It may be large, and never changes."""
    journal, new = DispatchJournal(), held()
    journal.changed(new)
    journal.take()

    journal.changed(new)

    changes = journal.take()
    assert (changes.deliveries, changes.events) == ({"ep_a/a.1": new.delivery}, {})


def test_delivery_is_written_as_it_is_when_taken() -> None:
    """Several steps between two commits are one record."""
    journal, new = DispatchJournal(), held()
    journal.changed(new)
    new.delivery = delivery("ep_a", "a", 1, used=2)
    journal.changed(new)

    assert [each.used for each in journal.take().deliveries.values() if each is not None] == [2]


def test_delivery_that_ends_before_it_was_written_leaves_no_record() -> None:
    """The common case: sent and done within one commit."""
    journal, new = DispatchJournal(), held()
    journal.changed(new)

    journal.ended(new)

    changes = journal.take()
    assert (changes.deliveries, changes.events) == ({}, {})


def test_delivery_that_was_written_is_dropped_with_its_event_once_it_has_ended() -> None:
    """Or the ledger would grow for ever."""
    journal, old = DispatchJournal(), held(is_written=True)
    journal.changed(old)

    journal.ended(old)

    changes = journal.take()
    assert (changes.deliveries, changes.events) == ({"ep_a/a.1": None}, {"ep_a/a.1": None})


def test_delivery_that_ends_and_begins_anew_between_two_commits_is_written() -> None:
    """A replay asks for what has just been given up."""
    journal, old, new = DispatchJournal(), held(is_written=True, used=3), held()
    journal.ended(old)
    journal.changed(new)

    changes = journal.take()

    assert (changes.deliveries, changes.events) == ({"ep_a/a.1": new.delivery}, {"ep_a/a.1": EVENT})


def test_delivery_that_ends_twice_between_two_commits_is_dropped() -> None:
    """The old record must not stay."""
    journal, old, new = DispatchJournal(), held(is_written=True, used=3), held()
    journal.ended(old)
    journal.changed(new)
    journal.ended(new)

    changes = journal.take()

    assert (changes.deliveries, changes.events) == ({"ep_a/a.1": None}, {"ep_a/a.1": None})


def test_attempt_tells_what_it_was_and_what_became_of_the_delivery() -> None:
    """By the id that receivers know it by."""
    journal, exchange = DispatchJournal(), Exchange(response_body="out of order")
    tried = ended(delivery("ep_a", "a", 1, used=2), Outcome.DROPPED, "too old", NOW)

    journal.attempt(tried, endpoint(url="https://x.example/hook?token=secret"), After.DEAD, exchange)

    assert not journal.is_empty
    (attempt,) = journal.take().attempts
    assert (attempt.delivery, attempt.attempt, attempt.after) == (tried, tried.attempts[-1], After.DEAD)
    assert (attempt.webhook_id, attempt.exchange) == (webhook_id("ep_a", "a.1"), exchange)
    assert attempt.url == "https://x.example/hook"


def test_dead_delivery_carries_its_event() -> None:
    """It can be replayed from there alone."""
    journal = DispatchJournal()

    journal.dead(held(used=3), DeadReason.EXHAUSTED, NOW)

    (dead,) = journal.take().dead
    assert (dead.delivery.used, dead.reason, dead.time, bytes(dead.event)) == (3, DeadReason.EXHAUSTED, NOW, EVENT)
    assert msgspec.json.encode(dead)


def test_notice_says_to_whom_and_what() -> None:
    """Its id is one of its own."""
    journal = DispatchJournal()

    journal.notice(NoticeType.DISABLED, endpoint(url="https://x.example/?token=secret"), "it answered 410", NOW)

    assert not journal.is_empty
    (notice,) = journal.take().notices
    assert (notice.type, notice.endpoint_id, notice.url) == (NoticeType.DISABLED, "ep_a", "https://x.example/")
    assert (notice.detail, notice.time) == ("it answered 410", NOW)
    assert notice.id == f"ep_a.disabled.{NOW.timestamp():.6f}"


def test_latest_status_of_an_endpoint_is_written() -> None:
    """One record, however often it changed."""
    journal = DispatchJournal()
    for error in ("first", "second"):
        journal.status(EndpointStatus(endpoint_id="ep_a", epoch=1, last_error=error, changed=NOW))

    assert not journal.is_empty
    assert [status.last_error for status in journal.take().statuses.values()] == ["second"]


@pytest.mark.parametrize("forgotten", [False, True])
def test_replay_is_written_until_it_is_forgotten(*, forgotten: bool) -> None:
    """Then its record is dropped."""
    journal = DispatchJournal()
    replay = Replays().begin(replay_order(), NOW)
    assert replay is not None

    journal.replay(replay, forgotten=forgotten)

    assert not journal.is_empty
    assert journal.take().replays == {("ep_a", "rp_1"): None if forgotten else replay}


def test_record_that_cannot_be_read_is_parked() -> None:
    """As received."""
    journal = DispatchJournal()
    letter = DeadLetter(arrival(order()), DeadLetterReason.INVALID_DISPATCH, "no JSON", NOW)

    journal.unreadable(letter)

    assert journal.take().dead_letters == [letter]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://x.example/hook", "https://x.example/hook"),
        ("https://x.example/hook?token=secret#part", "https://x.example/hook"),
        ("https://x.example/hook#part?token=secret", "https://x.example/hook"),
        ("https://x.example?token=secret", "https://x.example"),
        ("", ""),
    ],
)
def test_urls_are_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    """Queries often hold tokens."""
    assert without_query(url) == shown
