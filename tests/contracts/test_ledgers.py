"""What every ledger does, the fake of the role tests and the one on Kafka alike."""

import pytest

from bridge.adapters.clock import SystemClock
from bridge.errors import OwnershipLost
from bridge.messages import EventType, JobEvent, JobRecord, Phase
from bridge.ports import Changes, OpenLedger
from tests.contracts.conftest import Outbox

NOW = SystemClock().now()


def record(request_id: str, phase: Phase = Phase.ACCEPTED, sequence: int = 1) -> JobRecord:
    return JobRecord(request_id=request_id, phase=phase, sequence=sequence, accepted_at=NOW)


def event(request_id: str, sequence: int = 1) -> JobEvent:
    return JobEvent(
        id=f"{request_id}.{sequence}",
        type=EventType.ACCEPTED,
        time=NOW,
        request_id=request_id,
        sequence=sequence,
        attempt=1,
        labels={},
    )


def acceptance(request_id: str, position: int) -> Changes:
    """What is written when a request is accepted."""
    return Changes(
        records={request_id: record(request_id)},
        params={request_id: b'{"1": {}}'},
        events=[(event(request_id), record(request_id))],
        position=position,
    )


def held(opened: OpenLedger) -> tuple[set[str], dict[str, bytes], int | None]:
    """What an owner finds."""
    return {record.request_id for record in opened.records}, dict(opened.params), opened.position


async def test_a_ledger_never_written_is_empty_and_has_no_position(outbox: Outbox) -> None:
    async with outbox.ledgers.open(0) as opened:
        assert held(opened) == (set(), {}, None)


async def test_what_was_committed_is_there_when_opened_again(outbox: Outbox) -> None:
    async with outbox.ledgers.open(0) as opened:
        await opened.ledger.commit(acceptance("a", 1))
        await opened.ledger.commit(acceptance("b", 2))

    async with outbox.ledgers.open(0) as opened:
        assert held(opened) == ({"a", "b"}, {"a": b'{"1": {}}', "b": b'{"1": {}}'}, 2)


async def test_the_latest_record_counts(outbox: Outbox) -> None:
    async with outbox.ledgers.open(0) as opened:
        await opened.ledger.commit(acceptance("a", 1))
        await opened.ledger.commit(Changes(records={"a": record("a", Phase.TRACKING, 2)}))

    async with outbox.ledgers.open(0) as opened:
        assert list(opened.records) == [record("a", Phase.TRACKING, 2)]


async def test_what_was_forgotten_is_gone(outbox: Outbox) -> None:
    async with outbox.ledgers.open(0) as opened:
        await opened.ledger.commit(acceptance("a", 1))
        await opened.ledger.commit(Changes(records={"a": record("a", Phase.SUCCESS)}, params={"a": None}))
        await opened.ledger.commit(acceptance("b", 2))
        await opened.ledger.commit(Changes(records={"b": None}, params={"b": None}))

    async with outbox.ledgers.open(0) as opened:
        assert held(opened) == ({"a"}, {}, 2)


async def test_partitions_know_nothing_of_each_other(outbox: Outbox) -> None:
    async with outbox.ledgers.open(0) as zero, outbox.ledgers.open(1) as one:
        await zero.ledger.commit(acceptance("a", 1))
        await one.ledger.commit(acceptance("b", 7))

    async with outbox.ledgers.open(1) as opened:
        assert held(opened) == ({"b"}, {"b": b'{"1": {}}'}, 7)


async def test_a_second_owner_fences_the_first_and_nothing_of_it_becomes_visible(outbox: Outbox) -> None:
    async with outbox.ledgers.open(0) as former:
        await former.ledger.commit(acceptance("a", 1))
        async with outbox.ledgers.open(0) as latter:
            assert held(latter)[0] == {"a"}
            with pytest.raises(OwnershipLost):
                await former.ledger.commit(acceptance("zombie", 2))
            await latter.ledger.commit(acceptance("b", 2))

    async with outbox.ledgers.open(0) as opened:
        assert held(opened)[0] == {"a", "b"}
    assert await outbox.events() == ["a.1", "b.1"]


async def test_events_are_published_with_the_state_and_in_order(outbox: Outbox) -> None:
    changes = Changes(
        records={"a": record("a", sequence=3)}, events=[(event("a", number), record("a")) for number in (1, 2, 3)]
    )
    async with outbox.ledgers.open(0) as opened:
        await opened.ledger.commit(changes)

    assert await outbox.events() == ["a.1", "a.2", "a.3"]
