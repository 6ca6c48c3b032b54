"""A partition of jobs stands whatever arrives for it, whatever TAMS says, and the death of its owner at any moment."""

from collections.abc import Sequence
from random import Random

import msgspec

from bridge.messages import EventType
from bridge.ports import Arrival
from tests.fuzz.answers import make_answer
from tests.fuzz.campaign import fuzz
from tests.fuzz.job_world import Answered, Commits, Happening, JobWorld, check_story, counted, make_time
from tests.fuzz.test_fuzz_requests import make_arrival

LAST = b'{"request_id": "the last one", "params": {"1": {"classType": "A"}}}'


def make_happenings(chance: Random) -> Sequence[Happening]:
    """Requests and answers, good and bad, and what may happen between."""
    happenings: list[Happening] = []
    offset = 0
    for _ in range(chance.randint(4, 24)):
        match chance.random():
            case luck if luck < 0.35:
                happenings.append(make_arrival(chance, offset))
                offset += chance.choice((1, 1, 1, 2))
            case luck if luck < 0.65:
                happenings.append(Answered(chance.randrange(8), make_answer(chance)))
            case _:
                happenings.append(make_time(chance))
    happenings.append(Arrival(offset=offset, key=b"the last one", value=LAST))
    return happenings


def check_partition(happenings: Sequence[Happening]) -> None:
    world = JobWorld()
    for happening in happenings:
        world.happens(happening)
    world.drain()

    check_story(world.ledger.events)
    assert any(
        event.request_id == "the last one" and event.type is EventType.ACCEPTED for event in world.ledger.events
    ), "a good request is taken whatever came before"
    parked, accepted = len(world.ledger.parked), sum(event.sequence == 1 for event in world.ledger.events)
    assert parked + accepted <= len(world.log)
    assert world.partition.position == world.log[-1].offset + 1
    world.happens(Commits(dies=True))
    restored = {record.request_id: record for record in world.ledger.replay().decoded()[0]}
    for request_id, record in restored.items():
        kept = world.partition.record(request_id)
        assert kept is not None
        assert kept.sequence >= record.sequence
        msgspec.json.encode(kept)


def test_a_partition_stands_any_request_and_any_answer() -> None:
    fuzz("jobs of a partition", make_happenings, check_partition, size=counted)
