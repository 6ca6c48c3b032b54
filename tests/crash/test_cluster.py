"""The cluster is one: what it has acknowledged outlives the loss of a node, and the node comes back with its data."""

import secrets
from random import Random

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.crash.cluster import Cluster

PATIENCE_S = 60.0

pytestmark = pytest.mark.apache


@pytest.fixture
def topic(cluster: Cluster) -> str:
    """Of one partition."""
    name = f"t{secrets.token_hex(6)}"
    cluster.create_topic(name)
    return name


def leader(cluster: Cluster, topic: str) -> int:
    admin = AdminClient({"bootstrap.servers": cluster.direct_servers, "log_level": 0})
    return int(admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions[0].leader)


def publish(servers: str, topic: str, value: bytes) -> None:
    """Returns once all replicas in sync have it."""
    producer = Producer({"bootstrap.servers": servers, "acks": "all", "log_level": 0})
    producer.produce(topic, value, partition=0)
    assert producer.flush(PATIENCE_S) == 0


def values(servers: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": topic, "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [bytes(message.value() or b"") for message in consumer.consume(count, PATIENCE_S)]
    finally:
        consumer.close()


@pytest.mark.timeout(300)
def test_a_record_that_was_acknowledged_survives_the_kill_of_its_leader(cluster: Cluster, topic: str) -> None:
    """Another node leads then and takes more; the one that was killed comes back, and has both."""
    publish(cluster.bootstrap_servers, topic, b"before")
    killed = cluster.nodes[leader(cluster, topic) - 1]
    killed.kill()

    assert not killed.is_up
    publish(cluster.bootstrap_servers, topic, b"meanwhile")
    assert values(cluster.bootstrap_servers, topic, 2) == [b"before", b"meanwhile"]
    assert leader(cluster, topic) != killed.number
    killed.start()
    cluster.await_whole(seconds=PATIENCE_S)
    assert values(killed.direct_address, topic, 2) == [b"before", b"meanwhile"]


def test_leaders_are_moved_to_other_replicas(cluster: Cluster, topic: str) -> None:
    """Often enough that it would show if they were not; those of other topics stay."""
    chance, leaders = Random(1), {leader(cluster, topic)}
    for _ in range(20):
        cluster.move_leaders(topic, chance)
        leaders.add(leader(cluster, topic))

    assert len(leaders) > 1


def test_clients_that_came_by_the_proxies_stay_with_them(cluster: Cluster, topic: str) -> None:
    """A node tells who came by its proxy to come again by that, or no fault would ever meet anybody."""
    open_before = [node.proxy.connections for node in cluster.nodes]
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "acks": "all", "log_level": 0})
    told = producer.list_topics(topic, timeout=PATIENCE_S).brokers
    producer.produce(topic, b"value", partition=0)

    assert producer.flush(PATIENCE_S) == 0
    assert {f"{broker.host}:{broker.port}" for broker in told.values()} == set(cluster.bootstrap_servers.split(","))
    assert cluster.nodes[leader(cluster, topic) - 1].proxy.connections > open_before[leader(cluster, topic) - 1]
