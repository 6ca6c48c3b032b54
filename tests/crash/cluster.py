"""Three Apache Kafka nodes as child processes, each behind a proxy of ours, to be killed, paused and brought back.

Every record has three replicas, and is acknowledged by two of them at the least. Each node has three ports: one that is
advertised by the address of its proxy, for those who are to meet faults; one that is not, for those who must not, and
for the nodes among themselves; and one for the controllers.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from random import Random
from types import MappingProxyType
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest
from confluent_kafka import ElectionType, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from bridge.adapters.brokers import BrokerProcess, apache_broker, free_ports
from bridge.adapters.clock import SystemClock
from tests.crash.background import Background, background
from tests.crash.proxy import HOST, Proxy, proxy

NODES = 3
INTERNAL_TOPICS = ("__consumer_offsets", "__transaction_state")
_HEAP_MIB = 192
_ANSWER_S = 5.0
_LOOK_AGAIN_S = 0.1
_WHOLE_S = 60.0
_MOVED = 0.5
_QUICK = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "transaction.state.log.replication.factor": "3",
    "broker.session.timeout.ms": "2500",
    "group.min.session.timeout.ms": "500",
    "replica.lag.time.max.ms": "3000",
    # A leader that was moved by an outage goes back soon, as it would in earnest after some minutes.
    "leader.imbalance.check.interval.seconds": "5",
    "leader.imbalance.per.broker.percentage": "0",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),  # of the heap; 128 MiB unless told
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}
"""What makes failover quick and nodes small."""


class Node:
    """One of them, broker and controller at once; may be used by any thread, but by one at a time.

    Args:
        background: where its process is watched.
        number: from 1.
        process: runs now.
        proxy: in front of the port for those who are to meet faults.
    """

    def __init__(self, background: Background, number: int, process: BrokerProcess, proxy: Proxy) -> None:
        self._background = background
        self._process = process
        self._starting: asyncio.Task[None] | None = None
        self._is_paused = False
        self.number = number
        self.proxy = proxy

    @property
    def is_up(self) -> bool:
        """Whether it runs, has answered since it was started, and is not paused."""
        has_answered = self._starting is None or self._starting.done()
        return has_answered and self._process.pid is not None and not self._is_paused

    @property
    def direct_address(self) -> str:
        """Where it answers without a proxy."""
        return self._process.bootstrap_servers

    def start(self) -> None:
        """Start it again on the data it had; returns at once, as no node answers before another one is there."""

        async def start() -> None:
            if self._process.pid is None:
                self._starting = asyncio.create_task(self._process.start())

        self._background.call(start())

    def kill(self) -> None:
        """SIGKILL, paused or not; nothing if it does not run."""

        async def kill() -> None:
            if self._starting is not None and not self._starting.done():
                self._starting.cancel()
                await asyncio.wait([self._starting])
            await self._process.kill()

        self._background.call(kill())
        self._is_paused = False

    def pause(self) -> None:
        """SIGSTOP; nothing if it does not run."""
        self._is_paused = self._is_sent(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT; nothing if it is not paused."""
        if self._is_paused:
            self._is_sent(signal.SIGCONT)
            self._is_paused = False

    def problem(self) -> str:
        """Why it is not up; empty if it is."""
        if self.is_up:
            return ""
        failure = None
        if self._starting is not None and self._starting.done() and not self._starting.cancelled():
            failure = self._starting.exception()
        return f"node {self.number} is not up{f': {failure}' if failure else ''}"

    def _is_sent(self, number: signal.Signals) -> bool:
        pid = self._process.pid
        if pid is not None:
            os.kill(pid, number)
        return pid is not None


class Cluster:
    """All of them.

    Args:
        background: where we wait.
        nodes: run now.
    """

    def __init__(self, background: Background, nodes: Sequence[Node]) -> None:
        self._background = background
        self._clock = SystemClock()
        self.nodes = nodes
        self.bootstrap_servers = ",".join(node.proxy.address for node in nodes)
        self.direct_servers = ",".join(node.direct_address for node in nodes)
        self._admin = AdminClient({"bootstrap.servers": self.direct_servers, "log_level": 0})

    def await_whole(self, *, seconds: float) -> None:
        """Return once all nodes are up, and every partition has a leader and all its replicas in sync.

        Raises:
            AssertionError: that is not so in time.
        """
        until = time.monotonic() + seconds
        while problem := self._problem():
            assert time.monotonic() < until, f"the cluster is not whole within {seconds} s: {problem}"
            self._background.call(self._clock.wait(asyncio.Event(), _LOOK_AGAIN_S))

    def create_topic(self, name: str, replicas: Sequence[Sequence[int]] = ((1, 2, 3),)) -> None:
        """Create a topic; returns once it can be written.

        Args:
            name: of the topic.
            replicas: for each of its partitions, the nodes that hold it; the first leads it.
        """
        partitions = {number: list(nodes) for number, nodes in enumerate(replicas)}

        async def create() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.direct_servers)
            await admin.start()
            try:
                await admin.create_topics([NewTopic(name, -1, -1, replica_assignments=partitions)])
            finally:
                await admin.close()

        self._background.call(create())
        self.await_whole(seconds=_WHOLE_S)

    def move_leaders(self, prefix: str, chance: Random) -> None:
        """Make another replica the leader of about half the partitions of topics that begin so, and of internal topics.

        Args:
            prefix: of the topics.
            chance: decides which partitions, and who leads them then; a replica that is not in sync never does.
        """
        orders: dict[TopicPartition, list[int]] = {}
        for name, topic in self._admin.list_topics(timeout=_ANSWER_S).topics.items():
            if not name.startswith(prefix) and name not in INTERNAL_TOPICS:
                continue
            for number, partition in topic.partitions.items():
                others = [node for node in partition.isrs if node != partition.leader]
                if others and chance.random() < _MOVED:
                    first = chance.choice(others)
                    rest = [node for node in partition.replicas if node != first]
                    orders[TopicPartition(name, number)] = [first, *rest]
        if orders:
            self._background.call(self._reorder(orders))
            self._admin.elect_leaders(ElectionType.PREFERRED, list(orders)).result(_ANSWER_S)

    async def _reorder(self, orders: Mapping[TopicPartition, Sequence[int]]) -> None:
        """Say who is to lead: the first of a partition's replicas is the one that is elected if it can be."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.direct_servers)
        await admin.start()
        try:
            by_topic: dict[str, list[tuple[int, Sequence[int], dict[int, bytes]]]] = {}
            for tp, replicas in orders.items():
                by_topic.setdefault(tp.topic, []).append((tp.partition, replicas, {}))
            topics: list[Any] = [(name, partitions, {}) for name, partitions in by_topic.items()]
            request = AlterPartitionReassignmentsRequest(int(_ANSWER_S * 1000), topics, {})
            answer = await admin._send_to_controller(request)  # no client for Python can move replicas
            assert not answer.error_code, answer
        finally:
            await admin.close()

    def _problem(self) -> str:
        for node in self.nodes:
            if problem := node.problem():
                return problem
        try:
            known = self._admin.list_topics(timeout=_ANSWER_S)
        except KafkaException as error:
            return str(error)
        if len(known.brokers) < NODES:
            return f"only nodes {sorted(known.brokers)} have joined"
        for name, topic in known.topics.items():
            for number, partition in topic.partitions.items():
                if partition.leader < 0 or set(partition.isrs) != set(partition.replicas):
                    return (
                        f"{name}/{number}: leader {partition.leader}, in sync {partition.isrs} of {partition.replicas}"
                    )
        return ""


@contextmanager
def running_cluster(properties: Mapping[str, str] = MappingProxyType({})) -> Iterator[Cluster]:
    """Such a cluster, all three nodes up; gone at the end, with its data.

    Args:
        properties: settings of every node that differ from those here.

    Raises:
        BrokerUnavailable: Java or Maven is missing, or a node did not come up.
    """
    ports = free_ports(3 * NODES)
    direct, proxied, controllers = ports[:NODES], ports[NODES : 2 * NODES], ports[2 * NODES :]
    voters = ",".join(f"{number}@{HOST}:{port}" for number, port in enumerate(controllers, start=1))
    with ExitStack() as stack:
        proxies = [stack.enter_context(proxy(port)) for port in proxied]
        loop = stack.enter_context(background())
        brokers = [
            apache_broker(
                port=direct[at],
                controller_port=controllers[at],
                heap_mib=_HEAP_MIB,
                properties={
                    **_QUICK,
                    "node.id": str(at + 1),
                    "controller.quorum.voters": voters,
                    **_listeners(direct[at], proxied[at], controllers[at], proxies[at].port),
                    **properties,
                },
            )
            for at in range(NODES)
        ]
        started = AsyncExitStack()
        stack.callback(lambda: loop.call(started.aclose()))

        async def start() -> list[BrokerProcess]:
            return await asyncio.gather(*(started.enter_async_context(broker) for broker in brokers))

        processes = loop.call(start())
        nodes = [Node(loop, at + 1, processes[at], proxies[at]) for at in range(NODES)]
        cluster = Cluster(loop, nodes)
        cluster.await_whole(seconds=_WHOLE_S)
        yield cluster


def _listeners(direct: int, proxied: int, controller: int, advertised: int) -> dict[str, str]:
    return {
        "listeners": f"PLAINTEXT://{HOST}:{direct},PROXIED://{HOST}:{proxied},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{direct},PROXIED://{HOST}:{advertised}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }
