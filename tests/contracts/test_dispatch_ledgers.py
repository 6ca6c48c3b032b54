"""What every deliveries ledger does, the fake of the role tests and the one on Kafka alike."""

from dataclasses import replace as changed

import msgspec
import pytest
from msgspec.structs import replace

from bridge.adapters.clock import SystemClock
from bridge.errors import OwnershipLost
from bridge.webhook_messages import (
    After,
    Attempt,
    AttemptSummary,
    Delivery,
    Outcome,
    Replay,
    ReplayOrder,
    ReplayState,
)
from bridge.webhook_ports import DispatchChanges, OpenDispatch
from tests.contracts.conftest import DispatchOutbox

NOW = SystemClock().now()


def delivery(event_id: str = "a.1", endpoint_id: str = "ep_a", used: int = 0) -> Delivery:
    return Delivery(
        endpoint_id=endpoint_id,
        event_id=event_id,
        type="tams.job.success",
        request_id="a",
        sequence=1,
        time=NOW,
        ordered=NOW,
        used=used,
    )


def attempt(of: Delivery) -> Attempt:
    return Attempt(
        delivery=of,
        webhook_id="msg_1",
        url="https://acme.example/hook",
        attempt=AttemptSummary(number=1, time=NOW, outcome=Outcome.DELIVERED),
        after=After.DELIVERED,
    )


def replay(replay_id: str, state: ReplayState = ReplayState.RUNNING, **fields: object) -> Replay:
    order = ReplayOrder(replay_id=replay_id, endpoint_id="ep_a", since=NOW, until=NOW, created=NOW)
    return msgspec.convert({"order": order, "state": state, "changed": NOW, **fields}, Replay)


def pending(*those: Delivery, position: int | None = None) -> DispatchChanges:
    """What is written when deliveries are to wait."""
    return DispatchChanges(
        deliveries={each.id: each for each in those},
        events={each.id: b'{"of":"%s"}' % each.event_id.encode() for each in those},
        position=position,
    )


def ended(of: Delivery) -> DispatchChanges:
    """What is written when a delivery has ended."""
    return DispatchChanges(deliveries={of.id: None}, events={of.id: None}, attempts=[attempt(of)])


def held(opened: OpenDispatch) -> tuple[set[str], dict[str, bytes], int | None]:
    """What an owner finds."""
    return {each.id for each in opened.deliveries}, dict(opened.events), opened.position


async def test_a_ledger_never_written_is_empty_and_has_no_position(dispatch_outbox: DispatchOutbox) -> None:
    async with dispatch_outbox.ledgers.open(0) as opened:
        assert held(opened) == (set(), {}, None)
        assert list(opened.replays) == []


async def test_what_was_committed_is_there_when_opened_again(dispatch_outbox: DispatchOutbox) -> None:
    async with dispatch_outbox.ledgers.open(0) as opened:
        await opened.ledger.commit(pending(delivery("a.1"), delivery("a.2"), position=2))
        await opened.ledger.commit(pending(delivery("a.1", "ep_b"), position=3))

    async with dispatch_outbox.ledgers.open(0) as opened:
        ids, events, position = held(opened)
        assert ids == {"ep_a/a.1", "ep_a/a.2", "ep_b/a.1"}
        assert events == {"ep_a/a.1": b'{"of":"a.1"}', "ep_a/a.2": b'{"of":"a.2"}', "ep_b/a.1": b'{"of":"a.1"}'}
        assert position == 3


async def test_the_latest_state_of_a_delivery_counts_and_its_event_is_written_once(
    dispatch_outbox: DispatchOutbox,
) -> None:
    first = delivery()
    latest = replace(first, used=2, attempts=(AttemptSummary(number=1, time=NOW, outcome=Outcome.FAILED),))
    async with dispatch_outbox.ledgers.open(0) as opened:
        await opened.ledger.commit(pending(first))
        await opened.ledger.commit(DispatchChanges(deliveries={first.id: latest}))

    async with dispatch_outbox.ledgers.open(0) as opened:
        assert list(opened.deliveries) == [latest]
        assert opened.events == {first.id: b'{"of":"a.1"}'}


async def test_what_has_ended_is_gone(dispatch_outbox: DispatchOutbox) -> None:
    async with dispatch_outbox.ledgers.open(0) as opened:
        await opened.ledger.commit(pending(delivery("a.1"), delivery("a.2"), position=2))
        await opened.ledger.commit(ended(delivery("a.1")))

    async with dispatch_outbox.ledgers.open(0) as opened:
        assert held(opened) == ({"ep_a/a.2"}, {"ep_a/a.2": b'{"of":"a.2"}'}, 2)


async def test_a_delivery_may_come_again_after_its_end(dispatch_outbox: DispatchOutbox) -> None:
    """As a replay."""
    again = replace(delivery(), replay_id="rp_1")
    async with dispatch_outbox.ledgers.open(0) as opened:
        await opened.ledger.commit(pending(delivery()))
        await opened.ledger.commit(ended(delivery()))
        await opened.ledger.commit(pending(again))

    async with dispatch_outbox.ledgers.open(0) as opened:
        assert list(opened.deliveries) == [again]
        assert opened.events.keys() == {again.id}


async def test_replays_are_kept_until_they_are_forgotten(dispatch_outbox: DispatchOutbox) -> None:
    done = replay("rp_2", ReplayState.DONE, positions={"t.success-0": 9}, ends={"t.success-0": 9}, scanned=9)
    async with dispatch_outbox.ledgers.open(0) as opened:
        await opened.ledger.commit(
            DispatchChanges(replays={("ep_a", "rp_1"): replay("rp_1"), ("ep_a", "rp_2"): replay("rp_2")})
        )
        await opened.ledger.commit(DispatchChanges(replays={("ep_a", "rp_1"): None, ("ep_a", "rp_2"): done}))

    async with dispatch_outbox.ledgers.open(0) as opened:
        assert list(opened.replays) == [done]


async def test_partitions_know_nothing_of_each_other(dispatch_outbox: DispatchOutbox) -> None:
    async with dispatch_outbox.ledgers.open(0) as zero, dispatch_outbox.ledgers.open(1) as one:
        await zero.ledger.commit(pending(delivery("a.1"), position=1))
        await one.ledger.commit(pending(delivery("b.1"), position=7))

    async with dispatch_outbox.ledgers.open(1) as opened:
        assert held(opened) == ({"ep_a/b.1"}, {"ep_a/b.1": b'{"of":"b.1"}'}, 7)


async def test_a_second_owner_fences_the_first_and_nothing_of_it_becomes_visible(
    dispatch_outbox: DispatchOutbox,
) -> None:
    async with dispatch_outbox.ledgers.open(0) as former:
        await former.ledger.commit(pending(delivery("a.1"), position=1))
        async with dispatch_outbox.ledgers.open(0) as latter:
            assert held(latter)[0] == {"ep_a/a.1"}
            with pytest.raises(OwnershipLost):
                await former.ledger.commit(changed(ended(delivery("a.1")), position=9))
            await latter.ledger.commit(changed(ended(delivery("a.1")), position=2))

    async with dispatch_outbox.ledgers.open(0) as opened:
        assert held(opened) == (set(), {}, 2)
    assert await dispatch_outbox.attempts() == ["ep_a/a.1"]


async def test_attempts_are_told_with_the_state_and_in_order(dispatch_outbox: DispatchOutbox) -> None:
    tried = [attempt(delivery(f"a.{number}")) for number in (1, 2, 3)]
    async with dispatch_outbox.ledgers.open(0) as opened:
        await opened.ledger.commit(DispatchChanges(attempts=tried, position=3))

    assert await dispatch_outbox.attempts() == ["ep_a/a.1", "ep_a/a.2", "ep_a/a.3"]
