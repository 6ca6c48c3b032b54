"""The topics: which there are, how they are made, and whether they are as they must be."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, TypeVar

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
_DAY_MS = 24 * 60 * 60 * 1000
_DAY = {"cleanup.policy": "delete", "retention.ms": str(_DAY_MS)}
_WEEK = {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS)}
_MONTH = {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY_MS)}

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
_T = TypeVar("_T")
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
        run_times: what workers have learned of how long jobs run.
        budget: how workers share the rate.
        events: for each event type, where it goes.
        endpoints, api_keys: the registry, written by the API alone.
        statuses: how endpoints do, written by forwarders.
        dispatch, deliveries, attempts, dead_deliveries, notices: topics of the forwarder.
    """

    requests: str
    jobs: str
    dead_letter: str
    run_times: str
    budget: str
    events: Mapping[EventType, str]
    endpoints: str
    api_keys: str
    statuses: str
    dispatch: str
    deliveries: str
    attempts: str
    dead_deliveries: str
    notices: str

    @classmethod
    def of(cls, topics: TopicSettings) -> "TopicNames":
        """The names that follow from the settings."""
        prefix = topics.prefix
        return cls(
            requests=f"{prefix}.requests",
            jobs=f"{prefix}.jobs",
            dead_letter=f"{prefix}.dead-letter",
            run_times=f"{prefix}.run-times",
            budget=f"{prefix}.budget",
            events={kind: f"{prefix}.{topics.routes.get(kind, _default_route(kind))}" for kind in EventType},
            endpoints=f"{prefix}.endpoints",
            api_keys=f"{prefix}.api-keys",
            statuses=f"{prefix}.endpoints.status",
            dispatch=f"{prefix}.dispatch",
            deliveries=f"{prefix}.deliveries",
            attempts=f"{prefix}.attempts",
            dead_deliveries=f"{prefix}.deliveries.dead",
            notices=f"{prefix}.endpoints.notices",
        )

    @property
    def results(self) -> tuple[str, ...]:
        """The topics that carry events, each once."""
        return tuple(dict.fromkeys(self.events.values()))

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic of the bridge, each once."""
        forwarder = (
            self.dispatch,
            self.deliveries,
            self.attempts,
            self.dead_deliveries,
            self.notices,
        )
        worker = (self.requests, self.jobs, *self.results, self.dead_letter, self.run_times, self.budget)
        return (*worker, *self.registry, *forwarder)

    @property
    def registry(self) -> tuple[str, ...]:
        """Those every process reads whole."""
        return (self.endpoints, self.statuses, self.api_keys)

    @property
    def undivided(self) -> tuple[str, ...]:
        """Those of one partition, since the order of all their records counts."""
        return (*self.registry, self.run_times, self.budget)

    @property
    def carriers(self) -> tuple[str, ...]:
        """Those whose records hold a whole event, or the job it tells of, beside the result topics."""
        return (self.jobs, self.dispatch, self.deliveries, self.dead_deliveries)

    @property
    def compacted(self) -> tuple[str, ...]:
        """Those that hold state."""
        return (self.jobs, self.deliveries, self.run_times, *self.registry)


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

        async def create(admin: _Admin) -> list[str]:
            present = await admin.partition_counts()
            count = present.get(self.names.requests, self._topics.partitions)
            replicas = self._topics.replication_factor or min(_REPLICAS, await admin.brokers())
            counts = {self.names.deliveries: present.get(self.names.dispatch, count)}
            absent = [name for name in self.names.all if name not in present]
            new = [self._new_topic(name, counts.get(name, count), replicas) for name in absent]
            created = await admin.create(new)
            await admin.await_leaders(self.names.all)
            return created

        return await _answered(self._kafka, create)

    async def check(self) -> list[TopicState]:
        """Compare every topic with what the bridge needs.

        Raises:
            CannotStart: no broker answers.
        """

        async def look(admin: _Admin) -> tuple[dict[str, int], dict[str, dict[str, str]]]:
            everything = await admin.partition_counts()
            present = {name: everything[name] for name in self.names.all if name in everything}
            return present, await admin.configs(list(present))

        present, configs = await _answered(self._kafka, look)
        return [
            TopicState(name, present.get(name, 0), self._problem(name, present, configs)) for name in self.names.all
        ]

    async def partition_counts(self) -> dict[str, int]:
        """How many partitions each of our topics has, of those that are there.

        Raises:
            CannotStart: no broker answers.
        """
        everything = await _answered(self._kafka, _Admin.partition_counts)
        return {name: everything[name] for name in self.names.all if name in everything}

    def _new_topic(self, name: str, partitions: int, replicas: int) -> NewTopic:
        longest = self._topics.max_message_bytes
        config = {"max.message.bytes": str(longest + _HEADER_ROOM if name == self.names.dead_letter else longest)}
        config |= _COMPACTED if name in self.names.compacted else _WEEK
        if name in {self.names.dead_deliveries, self.names.notices}:
            config |= _MONTH
        if name == self.names.budget:
            config |= _DAY
        partitions = 1 if name in self.names.undivided else partitions
        if replicas >= _REPLICAS:
            config["min.insync.replicas"] = str(replicas - 1)
        return NewTopic(name=name, num_partitions=partitions, replication_factor=replicas, topic_configs=config)

    def _problem(self, name: str, present: Mapping[str, int], configs: Mapping[str, Mapping[str, str]]) -> str | None:
        if name not in present:
            return "is absent: run `tams-bridge topics create`"
        problem = self._shape_problem(name, present)
        if problem is not None:
            return problem
        if name in self.names.compacted and configs[name].get("cleanup.policy") != "compact":
            return "is not compacted: set cleanup.policy=compact, or state will be deleted with time"
        longest = int(configs[name].get("max.message.bytes", "0"))
        needed = int(configs.get(self.names.requests, {}).get("max.message.bytes", "0"))
        if name in {self.names.dead_letter, self.names.jobs} and longest < needed:
            return f"takes records of {longest} bytes but {self.names.requests} of {needed}: raise max.message.bytes"
        if name in {*self.names.results, *self.names.carriers} and longest < self._longest_event:
            return (
                f"takes records of {longest} bytes but an event may have {self._longest_event}: "
                "raise max.message.bytes, or lower BRIDGE_TAMS__MAX_ANSWER_BYTES"
            )
        return None

    def _shape_problem(self, name: str, present: Mapping[str, int]) -> str | None:
        of, count = {self.names.jobs: self.names.requests, self.names.deliveries: self.names.dispatch}, present[name]
        input_topic = of.get(name, "")
        if input_topic in present and count != present[input_topic]:
            return f"has {count} partitions but {input_topic} has {present[input_topic]}: the two must agree"
        if name in self.names.undivided and count != 1:
            return f"has {count} partitions and must have 1"
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


async def _answered(kafka: KafkaSettings, ask: "Callable[[_Admin], Awaitable[_T]]") -> _T:
    """What the brokers say to something that may be asked twice; of several, one may be gone, or go meanwhile.

    Raises:
        CannotStart: none answers.
    """
    clock = SystemClock()
    until = clock.monotonic() + kafka.connect_timeout_s
    while True:
        try:
            async with _Admin(kafka) as admin:
                return await ask(admin)
        except KafkaError as error:
            if clock.monotonic() >= until:
                message = f"kafka: the brokers do not answer ({type(error).__name__}: {error}): is the cluster whole?"
                raise CannotStart(message) from error
        await clock.wait(asyncio.Event(), _RECONNECT_S)


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

    async def partition_counts(self, *, led: bool = False) -> dict[str, int]:
        """How many partitions each topic of the cluster has; if asked so, of those with a leader everywhere."""
        described = await self._client.describe_topics()  # all: naming one that is absent may create it
        return {
            topic["topic"]: len(topic["partitions"])
            for topic in described
            if not topic["error_code"] and not (led and any(part["leader"] < 0 for part in topic["partitions"]))
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
                while not set(names) <= set(await self.partition_counts(led=True)):
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
