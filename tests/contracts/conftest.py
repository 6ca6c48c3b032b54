"""The fake and the real of each port, under one roof."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import pytest

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.deliveries import KafkaDispatchLedgers
from bridge.adapters.kafka.ledger import KafkaLedgers
from bridge.adapters.kafka.topics import Topics
from bridge.adapters.tams import TamsClient, authorization, fast_transport
from bridge.emulator import EmulatorSettings, serve
from bridge.messages import JobEvent
from bridge.ports import Ledgers, Tams
from bridge.settings import Settings, read_settings
from bridge.webhook_messages import Attempt
from bridge.webhook_ports import DispatchLedgers
from tests.adapters.topics import committed, settings_for
from tests.brokers import RunningBroker
from tests.roles.fakes import FakeLedgers, FakeTams
from tests.roles.forwarder_fakes import FakeDispatchLedgers


@dataclass(frozen=True, slots=True)
class Outbox:
    """A ledger, and what strangers see of it."""

    ledgers: Ledgers
    settings: Settings | None

    async def events(self) -> list[str]:
        """The ids of all events that were published, by partition and in order."""
        if isinstance(self.ledgers, FakeLedgers):
            return [event.id for event in self.ledgers.events]
        assert self.settings is not None
        found = []
        for topic in ("progress", "success", "failed"):
            for partition in range(self.settings.topics.partitions):
                name = f"{self.settings.topics.prefix}.{topic}"
                for record in await committed(self.settings.kafka.bootstrap_servers, name, partition):
                    assert record.value is not None
                    found.append(msgspec.json.decode(record.value, type=JobEvent).id)
        return found


@dataclass(frozen=True, slots=True)
class DispatchOutbox:
    """A deliveries ledger, and what strangers see of it."""

    ledgers: DispatchLedgers
    settings: Settings | None

    async def attempts(self) -> list[str]:
        """The deliveries of all attempts that were written, by partition and in order."""
        if isinstance(self.ledgers, FakeDispatchLedgers):
            return [attempt.delivery.id for attempt in self.ledgers.attempts]
        assert self.settings is not None
        found = []
        for partition in range(self.settings.topics.partitions):
            name = f"{self.settings.topics.prefix}.attempts"
            for record in await committed(self.settings.kafka.bootstrap_servers, name, partition):
                assert record.value is not None
                found.append(msgspec.json.decode(record.value, type=Attempt).delivery.id)
        return found


@pytest.fixture(params=["fake", "kafka"])
def kafka(request: pytest.FixtureRequest) -> RunningBroker | None:
    """The broker, for the real ledger; not an async fixture, as the broker is started by an event loop of its own."""
    return request.getfixturevalue("broker") if request.param == "kafka" else None


@pytest.fixture
async def outbox(kafka: RunningBroker | None, topic_prefix: str) -> Outbox:
    if kafka is None:
        return Outbox(FakeLedgers(), None)
    settings = settings_for(kafka, topic_prefix)
    topics = Topics(settings.kafka, settings.topics)
    await topics.create()
    counts = {state.name: state.partitions for state in await topics.check()}
    return Outbox(KafkaLedgers(settings, topics.names, counts), settings)


@pytest.fixture
async def dispatch_outbox(kafka: RunningBroker | None, topic_prefix: str) -> DispatchOutbox:
    if kafka is None:
        return DispatchOutbox(FakeDispatchLedgers(), None)
    settings = settings_for(kafka, topic_prefix)
    topics = Topics(settings.kafka, settings.topics)
    await topics.create()
    counts = {state.name: state.partitions for state in await topics.check()}
    return DispatchOutbox(KafkaDispatchLedgers(settings, topics.names, counts), settings)


@pytest.fixture(params=["fake", "emulator"])
async def tams(request: pytest.FixtureRequest) -> AsyncIterator[Tams]:
    if request.param == "fake":
        yield FakeTams()
        return
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(EmulatorSettings(rate=0), ready=url.set_result))
    clock = SystemClock()
    settings = read_settings(tams={"base_url": await url, "api_key": "emulator-key"}).tams
    client = TamsClient(
        settings, scheme=authorization(settings, clock=clock), transport=fast_transport(settings), clock=clock
    )
    try:
        yield client
    finally:
        await client.aclose()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
