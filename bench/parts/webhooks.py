"""Registered endpoints and orders for them, as the API and the worker write them."""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.parts.stack import settings_for
from bridge.adapters.vault import Vault, new_encryption_key
from bridge.core.fanout import fan_out, partition_of
from bridge.core.registry import Registry, endpoint_key
from bridge.core.signatures import SEED_BYTES, new_secret
from bridge.messages import EventType, JobEvent, JobRecord, Phase
from bridge.settings import Settings
from bridge.webhook_messages import Endpoint, Order, SealedSecret, SignatureScheme

JOB = msgspec.json.encode(
    {
        "id": "881417947308949275",
        "status": "RUNNING",
        "credits": 0.8,
        "runningInfo": {
            "startedAt": "1760000000000",
            "elapsed": "1830",
            "remain": "2400",
            "progress": 0.43,
            "nodes": [
                {"nodeId": str(number), "status": "SUCCESS", "progress": 1, "elapsed": "312", "classType": name}
                for number, name in enumerate(("CheckpointLoaderSimple", "EmptyLatentImage", "CLIPTextEncode"))
            ],
        },
    }
)
"""About as much as TAMS tells of a job that runs."""


WEBHOOKS: Mapping[str, object] = {"encryption_keys": [new_encryption_key()], "allowed_networks": ["127.0.0.0/8"]}


def webhook_settings(servers: str) -> Settings:
    """Settings of a forwarder with topics of its own, which may reach this machine."""
    group = f"bench-{secrets.token_hex(4)}.forwarder"
    return settings_for(servers, None, webhooks=WEBHOOKS, forwarder={"group": group})


@dataclass(slots=True)
class Subscribers:
    """Endpoints, and what is ordered for them."""

    settings: Settings
    producer: Producer
    registry: Registry

    @classmethod
    def of(cls, settings: Settings) -> "Subscribers":
        """None as yet."""
        servers = settings.kafka.bootstrap_servers
        producer = Producer({"bootstrap.servers": servers, "linger.ms": 0, "log_level": 0, "acks": "all"})
        return cls(settings, producer, Registry())

    def register(self, urls: Sequence[str], *, paused: bool = False) -> list[Endpoint]:
        """Register endpoints that want every event."""
        vault = Vault([key.get_secret_value() for key in self.settings.webhooks.encryption_keys])
        now, topic, made = datetime.now(UTC), f"{self.settings.topics.prefix}.endpoints", []  # noqa: TID251  real time
        for number, url in enumerate(urls):
            name = f"ep_{number}"
            secret = new_secret(SignatureScheme.V1, secrets.token_bytes(SEED_BYTES))
            sealed = SealedSecret(sealed=vault.seal(secret, owner=name), created=now)
            made.append(Endpoint(id=name, url=url, secrets=(sealed,), paused=paused, created=now, changed=now))
            value = msgspec.json.encode(made[-1])
            self.registry.apply(endpoint_key(name), value)
            self.producer.produce(topic, value, key=endpoint_key(name))
        assert not self.producer.flush(30)
        return made

    def publish(self, first: int, count: int, *, per_second: float = 0) -> dict[str, float]:
        """Order so many events for every endpoint; when each was handed over, by event id, on the monotonic clock."""
        topic, partitions = f"{self.settings.topics.prefix}.dispatch", self.settings.topics.partitions
        sent, began = {}, time.monotonic()
        for number in range(count):
            if per_second:
                time.sleep(max(0.0, began + number / per_second - time.monotonic()))
            orders = list(orders_of(first + number, self.registry))
            sent[orders[0].event_id] = time.monotonic()
            for order in orders:
                key = order.endpoint_id
                value = msgspec.json.encode(order)
                self.producer.produce(topic, value, key=key.encode(), partition=partition_of(key, partitions))
            self.producer.poll(0)
        assert not self.producer.flush(60)
        return sent

    def ordered(self) -> int:
        """How many records the dispatch topic holds, those that end transactions included."""
        topic = f"{self.settings.topics.prefix}.dispatch"
        consumer = Consumer({"bootstrap.servers": self.settings.kafka.bootstrap_servers, "group.id": topic})
        try:
            places = [TopicPartition(topic, number) for number in range(self.settings.topics.partitions)]
            return sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
        finally:
            consumer.close()


def orders_of(number: int, registry: Registry) -> Iterator[Order]:
    """The orders that follow from one event, which is one of five of its job."""
    job, sequence = divmod(number, 5)
    now, name = datetime.now(UTC), f"order-{job:06d}"  # noqa: TID251  a bench takes the real time
    event = JobEvent(
        id=f"{name}.{sequence + 1}",
        type=EventType.RUNNING,
        time=now,
        request_id=name,
        sequence=sequence + 1,
        attempt=1,
        labels={"tenant": "acme"},
        job=msgspec.Raw(JOB),
    )
    yield from fan_out([(event, JobRecord(request_id=name, phase=Phase.TRACKING, accepted_at=now))], registry)
