"""Many owners of one partition, on the fake ledger and on Kafka alike: the last one to open it is the only one.

Owners open the partition one after the other and commit in any order, until they learn that they have lost it; the
model is the list of commits that must have worked. What the next owner finds, and what strangers see, must be these and
nothing else.
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from bridge.errors import OwnershipLost
from bridge.messages import Phase
from bridge.ports import Changes, OpenLedger
from bridge.webhook_ports import OpenDispatch
from tests.contracts.conftest import DispatchOutbox, Outbox
from tests.contracts.test_dispatch_ledgers import delivery, ended, pending
from tests.contracts.test_dispatch_ledgers import held as held_deliveries
from tests.contracts.test_ledgers import acceptance, event, held, record

STEPS = 14
MOST_OWNERS = 3
"""Beside the one that holds the partition: more would be the same again, and on Kafka each costs a producer."""


@dataclass
class Expected:
    """What the commits that worked add up to."""

    live: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)
    position: int | None = None
    published: list[str] = field(default_factory=list)


def job_changes(chance: Random, expected: Expected, number: int) -> Changes:
    """A job accepted, ended, or forgotten; followed in what is expected once it is committed."""
    if expected.live and chance.random() < 0.4:
        request_id = chance.choice(sorted(expected.live))
        after = record(request_id, Phase.SUCCESS, 2)
        return Changes(records={request_id: after}, params={request_id: None}, events=[(event(request_id, 2), after)])
    gone = expected.jobs - expected.live
    if gone and chance.random() < 0.3:
        return Changes(records={min(gone): None})
    return acceptance(f"r{number}", number + 1)


def follow(expected: Expected, changes: Changes) -> None:
    """Take a commit that has worked into the model."""
    for request_id, after in changes.records.items():
        (expected.jobs.discard if after is None else expected.jobs.add)(request_id)
    for request_id, params in changes.params.items():
        (expected.live.discard if params is None else expected.live.add)(request_id)
    expected.published += [told.id for told, _ in changes.events]
    expected.position = expected.position if changes.position is None else changes.position


@pytest.mark.parametrize("seed", range(2))
async def test_of_all_owners_of_a_partition_only_the_last_one_changes_anything(outbox: Outbox, seed: int) -> None:
    chance, expected = Random(seed), Expected()
    async with AsyncExitStack() as stack:
        owners = [await stack.enter_async_context(outbox.ledgers.open(0))]
        for number in range(STEPS):
            if len(owners) <= MOST_OWNERS and chance.random() < 0.3:
                owners.append(await stack.enter_async_context(outbox.ledgers.open(0)))
                assert_finds(owners[-1], expected)
            owner, changes = chance.choice([owners[-1], *owners]), job_changes(chance, expected, number)
            if owner is owners[-1]:
                await owner.ledger.commit(changes)
                follow(expected, changes)
            else:
                with pytest.raises(OwnershipLost):
                    await owner.ledger.commit(changes)
                owners.remove(owner)

    async with outbox.ledgers.open(0) as opened:
        assert_finds(opened, expected)
    assert sorted(await outbox.events()) == sorted(expected.published)


def assert_finds(opened: OpenLedger, expected: Expected) -> None:
    """An owner finds what is expected, and nothing of those that were fenced."""
    ids, params, position = held(opened)
    assert (ids, set(params), position) == (expected.jobs, expected.live, expected.position)


@pytest.mark.parametrize("seed", range(2))
async def test_of_all_owners_of_deliveries_only_the_last_one_changes_anything(
    dispatch_outbox: DispatchOutbox, seed: int
) -> None:
    chance, waiting, attempts = Random(seed), set[str](), list[str]()
    position: int | None = None
    async with AsyncExitStack() as stack:
        owners: list[OpenDispatch] = []
        for number in range(STEPS):
            if not owners or (len(owners) <= MOST_OWNERS and chance.random() < 0.3):
                owners.append(await stack.enter_async_context(dispatch_outbox.ledgers.open(0)))
                assert_holds(owners[-1], waiting, position)
            owner, each = chance.choice([owners[-1], *owners]), delivery(f"a.{number}")
            ends = bool(waiting) and chance.random() < 0.4
            if ends:
                each = delivery(chance.choice(sorted(waiting)).partition("/")[2])
            changes = replace(ended(each) if ends else pending(each), position=number + 1)
            if owner is not owners[-1]:
                with pytest.raises(OwnershipLost):
                    await owner.ledger.commit(changes)
                owners.remove(owner)
                continue
            await owner.ledger.commit(changes)
            position, attempts = number + 1, attempts + [each.id] * ends
            waiting = waiting - {each.id} if ends else waiting | {each.id}

    async with dispatch_outbox.ledgers.open(0) as opened:
        assert_holds(opened, waiting, position)
    assert await dispatch_outbox.attempts() == attempts


def assert_holds(opened: OpenDispatch, waiting: set[str], position: int | None) -> None:
    """An owner finds exactly the deliveries that wait, each with its event."""
    ids, events, found = held_deliveries(opened)
    assert (ids, set(events), found) == (waiting, waiting, position)
