"""Where a replay ends: at a mark of its owner's own, whatever a broker tells of the end of the partition."""

import asyncio

import pytest

from bridge.adapters.kafka.deliveries import KafkaDispatchLedgers
from bridge.adapters.kafka.ledger import KafkaLedgers
from bridge.adapters.kafka.topics import Topics
from bridge.adapters.kafka.transactions import MARK_KEY, fenced_writer, replayed
from bridge.errors import LedgerUnavailable
from bridge.settings import Settings
from tests.adapters.topics import committed, make_topic, producing, settings_for
from tests.brokers import RunningBroker

IMPATIENT = {"request_timeout_s": 1.5}


async def replay(settings: Settings, topic: str, mark: int) -> list[bytes | None]:
    """The values of a partition, up to a mark."""
    return [record.value async for record in replayed(settings, topic, 0, mark=mark)]


async def test_a_replay_by_a_broker_that_has_missed_records_is_none(broker: RunningBroker, topic_prefix: str) -> None:
    """One that slept tells of an older end: an owner that believed it would submit once more what is paid."""
    settings = settings_for(broker, topic_prefix, kafka=IMPATIENT)
    await make_topic(broker.bootstrap_servers, topic_prefix)
    async with producing(broker.bootstrap_servers) as producer:
        await producer.send_and_wait(topic_prefix, b"known to it", partition=0)

    with pytest.raises(LedgerUnavailable, match="replay: no answer from the brokers in time"):
        await replay(settings, topic_prefix, mark=1)


async def test_a_replay_goes_on_until_the_broker_has_learned_what_it_missed(
    broker: RunningBroker, topic_prefix: str
) -> None:
    settings = settings_for(broker, topic_prefix)
    await make_topic(broker.bootstrap_servers, topic_prefix)
    async with producing(broker.bootstrap_servers) as producer:
        await producer.send_and_wait(topic_prefix, b"known to it", partition=0)
        reading = asyncio.create_task(replay(settings, topic_prefix, mark=1))
        await asyncio.wait([reading], timeout=0.5)
        await producer.send_and_wait(topic_prefix, b"missed", partition=0)

    assert await reading == [b"known to it", b"missed"]


async def test_a_mark_lies_behind_all_that_was_committed_and_what_was_not_is_no_part_of_the_replay(
    broker: RunningBroker, topic_prefix: str
) -> None:
    """A former owner's open transaction holds nothing up: fencing has ended it."""
    settings = settings_for(broker, topic_prefix)
    await make_topic(broker.bootstrap_servers, topic_prefix)
    async with producing(broker.bootstrap_servers, transactional_id=topic_prefix) as former:
        async with former.transaction():
            await former.send_and_wait(topic_prefix, b"committed", partition=0)
        await former.begin_transaction()
        await former.send_and_wait(topic_prefix, b"never committed", partition=0)
        async with fenced_writer(settings, topic_prefix) as writer:
            mark = await writer.mark(topic_prefix, 0)

            assert await replay(settings, topic_prefix, mark) == [b"committed", None]
    assert [record.offset for record in await committed(broker.bootstrap_servers, topic_prefix)][-1] == mark


async def test_every_owner_of_either_role_marks_its_ledger_before_it_reads(
    broker: RunningBroker, topic_prefix: str
) -> None:
    """By a tombstone under a key of its own, which whoever reads the ledger passes over, earlier releases too."""
    settings = settings_for(broker, topic_prefix)
    topics = Topics(settings.kafka, settings.topics)
    await topics.create()
    counts = {state.name: state.partitions for state in await topics.check()}
    for _ in range(2):
        async with KafkaLedgers(settings, topics.names, counts).open(1) as jobs:
            assert (jobs.records, jobs.position) == ([], None)
        async with KafkaDispatchLedgers(settings, topics.names, counts).open(1) as dispatch:
            assert (dispatch.deliveries, dispatch.position) == ([], None)

    for ledger in (topics.names.jobs, topics.names.deliveries):
        found = await committed(broker.bootstrap_servers, ledger, 1)
        assert [(record.key, record.value) for record in found] == [(MARK_KEY, None)] * 2
