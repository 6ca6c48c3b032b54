"""Reading a ledger back while the brokers fall silent."""

import asyncio
import secrets

import pytest
from aiokafka import AIOKafkaProducer

from bridge.adapters.kafka.transactions import replayed
from bridge.errors import LedgerUnavailable
from bridge.settings import read_settings
from tests.adapters.topics import make_topic
from tests.crash.cluster import Cluster

RECORDS = 24
RECORD_BYTES = 512 * 1024
"""Of which two come in one answer, so that most of them are still to be fetched when the first is read."""

pytestmark = pytest.mark.apache


async def test_a_replay_whose_brokers_fall_silent_says_so_in_time_instead_of_waiting_for_ever(cluster: Cluster) -> None:
    """Its owner then takes the partition over anew, by fresh clients, and health says why it is not open."""
    topic = f"t{secrets.token_hex(6)}.jobs"
    await make_topic(cluster.direct_servers, topic, partitions=1)
    await _fill(cluster.direct_servers, topic)
    settings = read_settings(kafka={"bootstrap_servers": cluster.bootstrap_servers, "request_timeout_s": 1})
    read = 0
    try:
        async with asyncio.timeout(30):
            with pytest.raises(LedgerUnavailable, match="replay: no answer from the brokers in time"):  # noqa: PT012
                async for _ in replayed(settings, topic, 0, mark=RECORDS - 1):
                    read += 1
                    for node in cluster.nodes if read == 1 else ():
                        node.proxy.stall()
    finally:
        for node in cluster.nodes:
            node.proxy.cut()
            node.proxy.heal()

    assert 1 <= read < RECORDS


async def _fill(servers: str, topic: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, max_request_size=2 * RECORD_BYTES)
    await producer.start()
    try:
        for _ in range(RECORDS):
            await producer.send_and_wait(topic, bytes(RECORD_BYTES), key=b"k", partition=0)
    finally:
        await producer.stop()
