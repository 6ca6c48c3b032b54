"""The topics: which there are, how they are made, and whether they are as they must be."""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaError,
    NoError,
    TopicAlreadyExistsError,
    UnsupportedSaslMechanismError,
    for_code,
)

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.connection import connection_options
from bridge.errors import CannotStart
from bridge.messages import EventType
from bridge.settings import KafkaSettings, TopicSettings

_COMPACTED = {
    "cleanup.policy": "compact",
    "segment.bytes": str(64 * 1024 * 1024),
    "segment.ms": str(30 * 60 * 1000),
    "min.cleanable.dirty.ratio": "0.05",
    "max.compaction.lag.ms": str(30 * 60 * 1000),
    "delete.retention.ms": str(24 * 60 * 60 * 1000),
}
_WEEK = {"cleanup.policy": "delete", "retention.ms": str(7 * 24 * 60 * 60 * 1000)}

_PROGRESS_TYPES = frozenset(
    {
        EventType.ACCEPTED,
        EventType.SUBMITTED,
        EventType.WAITING,
        EventType.RUNNING,
        EventType.RETRYING,
        EventType.DUPLICATE,
    }
)
_REPLICAS = 3
_RECONNECT_S = 0.2
_EVENT_ROOM = 64 * 1024
"""An event or job record is longer than the TAMS document it carries: by labels, headers and the rest."""
_HEADER_ROOM = 64 * 1024
"""A dead letter is longer than the record it parks by its `dlq-` headers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicNames:
    """The names in force.

    Args:
        requests, jobs, dead_letter: topics of the worker.
        events: for each event type, where it goes.
    """

    requests: str
    jobs: str
    dead_letter: str
    events: Mapping[EventType, str]

    @classmethod
    def of(cls, topics: TopicSettings) -> "TopicNames":
        """The names that follow from the settings."""
        prefix = topics.prefix
        return cls(
            requests=f"{prefix}.requests",
            jobs=f"{prefix}.jobs",
            dead_letter=f"{prefix}.dead-letter",
            events={kind: f"{prefix}.{topics.routes.get(kind, _default_route(kind))}" for kind in EventType},
        )

    @property
    def results(self) -> tuple[str, ...]:
        """The topics that carry events, each once."""
        return tuple(dict.fromkeys(self.events.values()))

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic of the worker, each once."""
        return (self.requests, self.jobs, *self.results, self.dead_letter)


def _default_route(kind: EventType) -> str:
    if kind in _PROGRESS_TYPES:
        return "progress"
    return "success" if kind is EventType.SUCCESS else "failed"


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic as the broker has it.

    Args:
        name: of the topic.
        partitions: how many it has; 0 if it is absent.
        problem: what must be changed before a worker can use it; None if nothing.
    """

    name: str
    partitions: int
    problem: str | None


class Topics:
    """The topics of one bridge, on one cluster.

    Args:
        kafka: how to reach it.
        topics: names and shapes.
        longest_answer: bytes of the longest answer of TAMS that is read; events and job records must hold it.
    """

    def __init__(self, kafka: KafkaSettings, topics: TopicSettings, *, longest_answer: int = 0) -> None:
        self.names = TopicNames.of(topics)
        self._kafka = kafka
        self._topics = topics
        self._longest_event = longest_answer + _EVENT_ROOM

    async def create(self) -> list[str]:
        """Create what is absent; safe to repeat and to run from several processes at once.

        Returns:
            The names that were created.

        Raises:
            CannotStart: no broker answers, or it refuses.
        """
        async with _Admin(self._kafka) as admin:
            present = await admin.partition_counts()
            count = present.get(self.names.requests, self._topics.partitions)
            replicas = self._topics.replication_factor or min(_REPLICAS, await admin.brokers())
            absent = [name for name in self.names.all if name not in present]
            created = await admin.create([self._new_topic(name, count, replicas) for name in absent])
            await admin.await_leaders(self.names.all)
            return created

    async def check(self) -> list[TopicState]:
        """Compare every topic with what the bridge needs.

        Raises:
            CannotStart: no broker answers.
        """
        async with _Admin(self._kafka) as admin:
            everything = await admin.partition_counts()
            present = {name: everything[name] for name in self.names.all if name in everything}
            configs = await admin.configs(list(present))
        return [
            TopicState(name, present.get(name, 0), self._problem(name, present, configs)) for name in self.names.all
        ]

    async def partition_counts(self) -> dict[str, int]:
        """How many partitions each of our topics has, of those that are there.

        Raises:
            CannotStart: no broker answers.
        """
        async with _Admin(self._kafka) as admin:
            everything = await admin.partition_counts()
        return {name: everything[name] for name in self.names.all if name in everything}

    def _new_topic(self, name: str, partitions: int, replicas: int) -> NewTopic:
        longest = self._topics.max_message_bytes
        config = {"max.message.bytes": str(longest + _HEADER_ROOM if name == self.names.dead_letter else longest)}
        config |= _COMPACTED if name == self.names.jobs else _WEEK
        if replicas >= _REPLICAS:
            config["min.insync.replicas"] = str(replicas - 1)
        return NewTopic(name=name, num_partitions=partitions, replication_factor=replicas, topic_configs=config)

    def _problem(self, name: str, present: Mapping[str, int], configs: Mapping[str, Mapping[str, str]]) -> str | None:
        if name not in present:
            return "is absent: run `tams-bridge topics create`"
        requests = present.get(self.names.requests)
        if name == self.names.jobs and requests is not None and present[name] != requests:
            return f"has {present[name]} partitions but {self.names.requests} has {requests}: the two must agree"
        if name == self.names.jobs and "compact" not in configs[name].get("cleanup.policy", ""):
            return "is not compacted: set cleanup.policy=compact, or finished state will be deleted with time"
        longest = int(configs[name].get("max.message.bytes", "0"))
        needed = int(configs.get(self.names.requests, {}).get("max.message.bytes", "0"))
        if name in {self.names.dead_letter, self.names.jobs} and longest < needed:
            return f"takes records of {longest} bytes but {self.names.requests} of {needed}: raise max.message.bytes"
        if name in {*self.names.results, self.names.jobs} and longest < self._longest_event:
            return (
                f"takes records of {longest} bytes but an event may have {self._longest_event}: "
                "raise max.message.bytes, or lower BRIDGE_TAMS__MAX_ANSWER_BYTES"
            )
        return None


@contextmanager
def _unheard(library: str) -> Iterator[None]:
    """While a broker is waited for, the library would tell of every refused connection; we tell once, at the end."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Admin:
    """An admin client with errors and answers in our words."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._client = AIOKafkaAdminClient(**connection_options(kafka))

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._kafka.connect_timeout_s):
                with _unheard("aiokafka"):
                    await self._connect()
        except TimeoutError:
            message = (
                f"kafka: no broker answers at {self._kafka.bootstrap_servers}: "
                "check BRIDGE_KAFKA__BOOTSTRAP_SERVERS and how connections are secured, and that the broker runs"
            )
            raise CannotStart(message) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def _connect(self) -> None:
        while True:
            try:
                await self._client.start()
            except (AuthenticationFailedError, UnsupportedSaslMechanismError) as error:
                await self._client.close()
                message = f"kafka: the broker refuses our credentials ({error}): check BRIDGE_KAFKA__SASL_…"
                raise CannotStart(message) from error
            except KafkaError:
                await self._client.close()
                self._client = AIOKafkaAdminClient(**connection_options(self._kafka))
                await SystemClock().wait(asyncio.Event(), _RECONNECT_S)
            else:
                return

    async def partition_counts(self) -> dict[str, int]:
        """How many partitions each topic of the cluster has, of those with a leader everywhere."""
        described = await self._client.describe_topics()  # all: naming one that is absent may create it
        return {
            topic["topic"]: len(topic["partitions"])
            for topic in described
            if not topic["error_code"] and all(part["leader"] >= 0 for part in topic["partitions"])
        }

    async def brokers(self) -> int:
        """How many brokers the cluster has."""
        return len((await self._client.describe_cluster())["brokers"])

    async def create(self, topics: Sequence[NewTopic]) -> list[str]:
        """Create topics; one that another process has just created is no error."""
        if not topics:
            return []
        response = await self._client.create_topics(list(topics))
        created = []
        for name, code, *said in response.topic_errors:
            error = for_code(code)
            if error is NoError:
                created.append(name)
            elif error is not TopicAlreadyExistsError:
                reason = (said and said[0]) or error.__name__
                message = f"kafka: topic {name} cannot be created: {reason}"
                raise CannotStart(message)
        return created

    async def await_leaders(self, names: Sequence[str]) -> None:
        """Return once every partition of these topics can be written."""
        try:
            async with asyncio.timeout(self._kafka.connect_timeout_s):
                while not set(names) <= set(await self.partition_counts()):
                    await SystemClock().wait(asyncio.Event(), _RECONNECT_S)
        except TimeoutError:
            message = (
                f"kafka: the topics have no leader after {self._kafka.connect_timeout_s:.0f} s: is the cluster whole?"
            )
            raise CannotStart(message) from None

    async def configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """The configuration of each topic."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        responses = await self._client.describe_configs(resources)
        return {
            resource[3]: {entry[0]: entry[1] or "" for entry in resource[4]}
            for response in responses
            for resource in response.resources
        }
