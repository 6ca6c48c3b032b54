"""What the API writes, on a real broker: it is there when a write returns, and a broker that is gone hangs nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest
from aiokafka import ConsumerRecord

from bridge.adapters.brokers import embedded_broker, embedded_obstacle, free_ports
from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.publishing import KafkaOrders, KafkaPublisher, KafkaRegistryLog, KafkaRequests
from bridge.adapters.kafka.tail import Tail
from bridge.adapters.kafka.topics import Topics
from bridge.core.fanout import partition_of
from bridge.core.keyring import Keyring
from bridge.core.registry import Registry, endpoint_key
from bridge.core.requests import JobArrival, read_request
from bridge.errors import CannotStart, NotConfirmed
from bridge.ports import Arrival
from bridge.settings import Settings
from bridge.webhook_messages import DispatchRecord, Endpoint, ReplayCancel
from tests.adapters.topics import PARTITIONS, committed, producing, settings_for
from tests.brokers import RunningBroker

NOW = SystemClock().now()
PATIENCE_S = 10.0


@dataclass(slots=True)
class Followed:
    """The registry topics of one process."""

    settings: Settings
    topics: Topics
    tail: Tail = field(init=False)
    registry: Registry = field(default_factory=Registry)
    keyring: Keyring = field(default_factory=Keyring)

    def __post_init__(self) -> None:
        counts = dict.fromkeys(self.topics.names.registry, 1)
        self.tail = Tail(self.settings, counts, take=self.take, clock=SystemClock())

    def take(self, record: "ConsumerRecord[bytes | None, bytes | None]") -> None:
        view = self.registry if record.topic == self.topics.names.endpoints else self.keyring
        view.apply(record.key or b"", record.value)

    @asynccontextmanager
    async def following(self) -> AsyncIterator["Followed"]:
        running = asyncio.create_task(self.tail.run())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.tail.caught_up.wait()
            yield self
        finally:
            self.tail.stop()
            await asyncio.wait_for(running, PATIENCE_S)


@pytest.fixture
async def followed(broker: RunningBroker, topic_prefix: str) -> AsyncIterator[Followed]:
    settings = settings_for(broker, topic_prefix)
    topics = Topics(settings.kafka, settings.topics)
    await topics.create()
    async with Followed(settings, topics).following() as view:
        yield view


@pytest.fixture
async def publisher(followed: Followed) -> AsyncIterator[KafkaPublisher]:
    async with KafkaPublisher(followed.settings) as opened:
        yield opened


def log_of(followed: Followed, publisher: KafkaPublisher, *, patience_s: float = PATIENCE_S) -> KafkaRegistryLog:
    return KafkaRegistryLog(publisher, followed.topics.names.endpoints, followed.tail, patience_s=patience_s)


def endpoint(number: int = 1, description: str = "") -> Endpoint:
    return Endpoint(id=f"ep_{number}", url="https://acme.example/", description=description, created=NOW, changed=NOW)


async def test_what_was_written_is_in_our_own_view_on_return(followed: Followed, publisher: KafkaPublisher) -> None:
    log = log_of(followed, publisher)
    for text in ("first", "second"):
        record = endpoint(description=text)
        await log.write(endpoint_key(record.id), msgspec.json.encode(record))

        assert followed.registry.endpoints == {"ep_1": record}
    await log.write(b"ep_1", None)

    assert followed.registry.endpoints == {}


async def test_what_was_written_is_there_for_every_process_that_starts_later(
    followed: Followed, publisher: KafkaPublisher
) -> None:
    await log_of(followed, publisher).write(b"ep_1", msgspec.json.encode(endpoint()))

    async with Followed(followed.settings, followed.topics).following() as other:
        assert other.registry.endpoints == {"ep_1": endpoint()}


async def test_many_writes_at_once_are_all_confirmed(followed: Followed, publisher: KafkaPublisher) -> None:
    log = log_of(followed, publisher)

    await asyncio.gather(
        *(log.write(f"ep_{number}".encode(), msgspec.json.encode(endpoint(number))) for number in range(100))
    )

    assert len(followed.registry.endpoints) == 100


async def test_keys_go_to_a_topic_of_their_own(followed: Followed, publisher: KafkaPublisher) -> None:
    names = followed.topics.names
    log = KafkaRegistryLog(publisher, names.api_keys, followed.tail, patience_s=PATIENCE_S)

    await log.write(b"abcdefabcdef", b'{"id": 7}')

    assert followed.keyring.unreadable == {"abcdefabcdef"}
    assert followed.registry.endpoints == {}


async def test_a_write_behind_an_open_transaction_is_not_confirmed_before_it_can_be_seen(
    followed: Followed, publisher: KafkaPublisher
) -> None:
    """A dispatcher that died in the middle of one: the record is there, and shown only once the other has ended."""
    names, servers = followed.topics.names, followed.settings.kafka.bootstrap_servers
    async with producing(servers, transactional_id=names.endpoints) as stranger:
        await stranger.begin_transaction()
        await stranger.send_and_wait(names.endpoints, b"{}", key=b"ep_2", partition=0)

        with pytest.raises(NotConfirmed, match="does not show it yet"):
            await log_of(followed, publisher, patience_s=0.3).write(b"ep_1", msgspec.json.encode(endpoint()))
        assert followed.registry.endpoints == {}

        await stranger.abort_transaction()
        await log_of(followed, publisher).write(b"ep_3", msgspec.json.encode(endpoint(3)))

    assert followed.registry.endpoints.keys() == {"ep_1", "ep_3"}


async def test_an_order_lies_in_the_partition_of_its_endpoint(followed: Followed, publisher: KafkaPublisher) -> None:
    names = followed.topics.names
    orders = KafkaOrders(publisher, names.dispatch, PARTITIONS)
    asked = [ReplayCancel(replay_id="rp_1", endpoint_id=f"ep_{number}") for number in range(8)]

    for order in asked:
        await orders.place(order)

    found = {}
    for partition in range(PARTITIONS):
        records = await committed(followed.settings.kafka.bootstrap_servers, names.dispatch, partition)
        found[partition] = [msgspec.json.decode(record.value or b"", type=DispatchRecord) for record in records]
        assert all(
            record.key == order.endpoint_id.encode() for record, order in zip(records, found[partition], strict=True)
        )
    assert found == {
        partition: [order for order in asked if partition_of(order.endpoint_id, PARTITIONS) == partition]
        for partition in range(PARTITIONS)
    }


async def test_a_request_reaches_a_worker_as_it_was_sent(followed: Followed, publisher: KafkaPublisher) -> None:
    topic, servers = followed.topics.names.requests, followed.settings.kafka.bootstrap_servers
    value = b'{"params": {"a" : 7.50}, "request_id": "bestellung-\xc3\xbc"}'

    await KafkaRequests(publisher, topic).publish("bestellung-ü", value, {"traceparent": "00-1"})

    (record,) = [record for number in range(PARTITIONS) for record in await committed(servers, topic, number)]
    arrival = Arrival(offset=0, key=record.key, value=record.value, headers=tuple(record.headers))
    read = read_request(arrival, topic=topic, partition=0, max_bytes=1_000)
    assert isinstance(read, JobArrival)
    assert record.key == "bestellung-ü".encode()
    assert (read.request_id, read.params, read.headers) == ("bestellung-ü", b'{"a" : 7.50}', {"traceparent": "00-1"})


async def test_a_request_goes_to_the_partition_that_holds_its_job(
    followed: Followed, publisher: KafkaPublisher
) -> None:
    topic, servers = followed.topics.names.requests, followed.settings.kafka.bootstrap_servers
    requests = KafkaRequests(publisher, topic)

    for partition in range(PARTITIONS):
        await requests.publish("order-1", b"{}", {}, partition=partition)

    assert [len(await committed(servers, topic, number)) for number in range(PARTITIONS)] == [1] * PARTITIONS


async def test_after_an_error_the_next_record_is_written_all_the_same(
    followed: Followed, publisher: KafkaPublisher
) -> None:
    """The producer may have failed for good: it is replaced."""
    before = publisher._producer
    too_long = b"x" * (3 * followed.settings.topics.max_message_bytes)

    with pytest.raises(NotConfirmed, match="does not take it"):
        await publisher.publish(followed.topics.names.endpoints, b"ep_1", too_long, partition=0)
    await log_of(followed, publisher).write(b"ep_1", msgspec.json.encode(endpoint()))

    assert publisher._producer is not before
    assert followed.registry.endpoints == {"ep_1": endpoint()}


@pytest.mark.skipif(embedded_obstacle() is not None, reason="needs a broker of its own that can be killed")
async def test_a_broker_that_is_gone_hangs_nobody(topic_prefix: str) -> None:
    async with embedded_broker() as process:
        running = RunningBroker(name="embedded", bootstrap_servers=process.bootstrap_servers)
        settings = settings_for(running, topic_prefix)
        topics = Topics(settings.kafka, settings.topics)
        await topics.create()
        async with KafkaPublisher(settings, confirmed_s=0.5) as publisher:
            await publisher.publish(topics.names.endpoints, b"ep_1", b"{}", partition=0)
            await process.kill()

            async with asyncio.timeout(PATIENCE_S):
                for _ in range(2):
                    with pytest.raises(NotConfirmed):
                        await publisher.publish(topics.names.endpoints, b"ep_2", b"{}", partition=0)


async def test_no_broker_at_the_start_is_one_line_that_names_the_variable(
    broker: RunningBroker, topic_prefix: str
) -> None:
    servers = f"127.0.0.1:{free_ports(1)[0]}"
    settings = settings_for(broker, topic_prefix, kafka={"bootstrap_servers": servers, "connect_timeout_s": 0.5})

    with pytest.raises(CannotStart, match=rf"^kafka: no broker answers at {servers}: [^\n]*BOOTSTRAP_SERVERS[^\n]*$"):
        async with KafkaPublisher(settings):
            pytest.fail("started")
