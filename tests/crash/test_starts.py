import secrets

import pytest

from bridge.adapters.kafka.topics import Topics
from bridge.settings import KafkaSettings, TopicSettings
from tests.crash.cluster import Cluster

ROUNDS = 4
"""Clients ask any broker they know of: one that is not there is not met each time."""

pytestmark = pytest.mark.apache


@pytest.mark.timeout(120)
async def test_topics_are_made_and_found_though_one_of_three_brokers_is_out_of_reach(cluster: Cluster) -> None:
    """A process that starts on a bad day starts all the same, whichever broker its questions go to."""
    kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers, request_timeout_s=5)
    topics = Topics(kafka, TopicSettings(prefix=f"t{secrets.token_hex(6)}", partitions=2, replication_factor=3))
    for node in cluster.nodes:
        node.proxy.refuse()
        try:
            for _ in range(ROUNDS):
                await topics.create()
                states = await topics.check()
                assert [state for state in states if state.problem] == []
        finally:
            node.proxy.heal()
