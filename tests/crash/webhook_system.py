"""A bridge with webhooks, seen from outside: receivers, forwarders, orders, and the judgement at the end."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_bytes, token_hex

import msgspec
from confluent_kafka import Producer
from msgspec.structs import replace

from bridge.adapters.kafka.topics import Topics
from bridge.adapters.vault import Vault, new_encryption_key
from bridge.core.fanout import fan_out, partition_of
from bridge.core.registry import Registry, endpoint_key, tenant_key
from bridge.core.signatures import SEED_BYTES, new_secret
from bridge.messages import EventType, JobEvent, JobRecord, Phase
from bridge.settings import KafkaSettings, TopicSettings
from bridge.webhook_messages import Endpoint, Ordering, SealedSecret, SignatureScheme, TenantSecrets
from tests.crash.processes import TAMS_BRIDGE, Child, child
from tests.crash.receivers import ALLOWED, receivers
from tests.crash.system import PARTITIONS, QUICK, QuickBroker
from tests.crash.webhook_judge import Place, Receiver, WebhookEvidence
from tests.crash.webhook_topics import Document, EventReader, WebhookFollower

QUICK_WEBHOOKS = {
    "FORWARDER__COMMIT_INTERVAL_S": "0.05",
    "WEBHOOKS__ALLOWED_NETWORKS": json.dumps([f"{ALLOWED}/32"]),
    "WEBHOOKS__BREAKER_PAUSE_S": "0.05",
    "WEBHOOKS__BREAKER_PAUSE_LIMIT_S": "0.2",
}
"""Beside `QUICK`: what takes minutes in earnest takes a fraction of a second."""

KINDS = (
    EventType.ACCEPTED,
    EventType.SUBMITTED,
    EventType.WAITING,
    EventType.RUNNING,
    EventType.SUCCESS,
)
"""The events of a made-up job, one after the other."""

_HEALTHY_PAUSES_S = (0.2,) * 20
_HEALTHY_TIMEOUT_S = 5.0
_SICK_PAUSES_S: Mapping[str, tuple[float, ...]] = {
    "closes": (),
    "fails": (0.05,),
}  # while a breaker is open, few deliveries get as far as their end
_OTHER_PAUSES_S = (0.05, 0.1)
_SICK_TIMEOUT_S = 1.0
_INLINE_ATTEMPTS = 10  # by the schedule of Standard Webhooks, which inline webhooks follow

OUTCOMES: Mapping[str, frozenset[str]] = {
    "healthy": frozenset({"delivered", "failed"}),  # a machine that stalls makes time-outs
    "fails": frozenset({"failed"}),
    "throttles": frozenset({"throttled", "failed"}),
    "redirects": frozenset({"failed"}),
    "hangs": frozenset({"failed"}),
    "drips": frozenset({"failed"}),
    "closes": frozenset({"failed"}),
}
"""What may be recorded of a receiver, by how it behaves."""

SICK = tuple(behaviour for behaviour in OUTCOMES if behaviour != "healthy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """Somebody who gets events.

    Args:
        name: the endpoint's id, and the path of its receiver.
        behaviour: one of `OUTCOMES`.
        is_ordered: whether events of one job come one after the other.
        is_rotating: whether two secrets sign; the receiver knows the older one only.
        is_inline: it is no endpoint, but a webhook given inside requests.
        kinds: last words of the types of the events it wants; all if there are none.
        labels: those events must carry.
        patience_s: its retry schedule, if it is to differ.
    """

    name: str
    behaviour: str = "healthy"
    is_ordered: bool = False
    is_rotating: bool = False
    is_inline: bool = False
    kinds: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    patience_s: tuple[float, ...] = ()

    @property
    def is_healthy(self) -> bool:
        """Whether it takes what it gets."""
        return self.behaviour == "healthy"

    @property
    def pauses_s(self) -> tuple[float, ...]:
        """Its retry schedule."""
        if self.patience_s:
            return self.patience_s
        return _HEALTHY_PAUSES_S if self.is_healthy else _SICK_PAUSES_S.get(self.behaviour, _OTHER_PAUSES_S)

    def wants(self, event: Document) -> bool:
        """Whether it is to get an event, by the event's JSON."""
        kind: str = event["type"].rpartition(".")[2]
        return kind in (self.kinds or {kind}) and self.labels.items() <= event["labels"].items()

    def endpoint(self, url: str, secrets: tuple[SealedSecret, ...], now: datetime) -> Endpoint:
        """As it is registered."""
        return Endpoint(
            id=self.name,
            url=url,
            event_types=tuple(f"tams.job.{kind}" for kind in sorted(self.kinds)) or ("tams.job.*",),
            labels=dict(self.labels),
            secrets=secrets,
            retry_schedule_s=self.pauses_s,
            timeout_s=_HEALTHY_TIMEOUT_S if self.is_healthy else _SICK_TIMEOUT_S,
            ordering=Ordering.JOB if self.is_ordered else Ordering.NONE,
            created=now,
            changed=now,
        )

    def seen_by_the_judge(self) -> Receiver:
        """What may be recorded of it."""
        return Receiver(
            outcomes=OUTCOMES[self.behaviour],
            attempts=_INLINE_ATTEMPTS if self.is_inline else len(self.pauses_s) + 1,
            is_healthy=self.is_healthy,
            is_ordered=self.is_ordered,
        )


class WebhookSystem:
    """Webhooks of one bridge; `forwarder` may be called as often as forwarders are wanted.

    Args:
        stack: what ends with it.
        broker: where its topics lie.
        prefix: of its topics, which are created.
        subscribers: who gets events.
        log: what the receivers write down.
        door: told where the receivers are, gives the URL by which forwarders are to reach them.
    """

    def __init__(
        self,
        stack: ExitStack,
        broker: QuickBroker,
        prefix: str,
        subscribers: Sequence[Subscriber],
        log: Path,
        *,
        door: Callable[[str], str] = str,
    ) -> None:
        self._stack = stack
        self._broker = broker
        self._prefix = prefix
        self._subscribers = subscribers
        self._encryption_key = new_encryption_key()
        self._registry = Registry()
        self._producer = Producer(
            {"bootstrap.servers": broker.servers_for_tests, "linger.ms": 5, "enable.idempotence": True, "log_level": 0}
        )
        self._published = 0
        self._follower: WebhookFollower | None = None
        secrets = {each.name: _new_secret() for each in subscribers}
        self.receivers = stack.enter_context(
            receivers(
                log, {each.name: {"behaviour": each.behaviour, "secret": secrets[each.name]} for each in subscribers}
            )
        )
        self._url = door(self.receivers.url)
        self.secrets = [self._encryption_key, *secrets.values()]
        kafka = KafkaSettings(bootstrap_servers=broker.servers_for_tests)
        asyncio.run(Topics(kafka, TopicSettings(prefix=prefix, partitions=PARTITIONS)).create())
        self._register(secrets)

    @property
    def encryption_key(self) -> str:
        """What seals the secrets of the registry."""
        return self._encryption_key

    def forwarder(self, **settings: str) -> Child:
        """Start another forwarder."""
        own = {
            "KAFKA__BOOTSTRAP_SERVERS": self._broker.bootstrap_servers,
            "KAFKA__SESSION_TIMEOUT_S": f"{self._broker.session_s}",
            "TOPICS__PREFIX": self._prefix,
            "FORWARDER__GROUP": f"{self._prefix}.forwarder",
            "WEBHOOKS__ENCRYPTION_KEYS": json.dumps([self._encryption_key]),
        }
        environment = {
            f"BRIDGE_{name}": value for name, value in {**QUICK, **QUICK_WEBHOOKS, **own, **settings}.items()
        }
        return self._stack.enter_context(child([*TAMS_BRIDGE, "forwarder"], environment))

    def url(self, name: str) -> str:
        """Where a receiver is."""
        return f"{self._url}/{name}"

    def publish(self, count: int) -> None:
        """Order the next so many events of made-up jobs, as a worker would; returns once the broker has them."""
        for number in range(self._published, self._published + count):
            event, record = _made_up(number)
            for order in fan_out([(event, record)], self._registry):
                partition = partition_of(order.endpoint_id, PARTITIONS)
                value = msgspec.json.encode(order)
                self._producer.produce(
                    f"{self._prefix}.dispatch", value, key=order.endpoint_id.encode(), partition=partition
                )
            self._producer.poll(0)
        self._published += count
        self._flush()

    def follower(self) -> WebhookFollower:
        """Who reads the topics from their beginning."""
        if self._follower is None:
            self._follower = WebhookFollower(self._broker.servers_for_tests, self._prefix)
            self._stack.callback(self._follower.close)
        return self._follower

    def published(self) -> list[Place]:
        """All that was ordered by `publish`."""
        return [(each.name, _made_up_id(number)) for number in range(self._published) for each in self._subscribers]

    def events(self) -> dict[str, Document]:
        """Every event that a worker has published, by its id."""
        reader = EventReader(self._broker.servers_for_tests, self._prefix)
        try:
            reader.to_the_end()
            return reader.events
        finally:
            reader.close()

    def wanted(self, events: Iterable[Document]) -> list[Place]:
        """Who is to get which of these events."""
        return [(each.name, event["id"]) for event in events for each in self._subscribers if each.wants(event)]

    def until_delivered(self, orders: Iterable[Place], forwarder: Child, *, seconds: float) -> None:
        """Read until every one of these orders whose receiver takes it is delivered by this forwarder."""
        healthy = {each.name for each in self._subscribers if each.is_healthy}
        left, follower = {place for place in orders if place[0] in healthy}, self.follower()

        def delivered() -> bool:
            forwarder.live_for(0)
            left.difference_update(follower.delivered)
            return not left

        def missing() -> object:
            return f"{len(left)} are left, such as {sorted(left)[:3]}; it said last: {forwarder.lines[-15:]}"

        follower.until(delivered, seconds=seconds, what=missing)

    def evidence(self, orders: Sequence[Place]) -> WebhookEvidence:
        """All that is known, once all forwarders have been stopped."""
        follower = self.follower()
        follower.to_the_end()
        return WebhookEvidence(
            receivers={each.name: each.seen_by_the_judge() for each in self._subscribers},
            orders=orders,
            receipts=self.receivers.receipts(),
            recorded=follower.recorded,
            dead=follower.dead,
            ledger=follower.ledger(),
            leftovers=follower.leftovers(),
            contacts=self.receivers.contacts(),
            positions=follower.positions,
            ends=follower.ends,
        )

    def _register(self, secrets: Mapping[str, str]) -> None:
        vault, now = Vault([self._encryption_key]), datetime.now(UTC)  # noqa: TID251  real processes, real time
        for each in self._subscribers:
            owner = "" if each.is_inline else each.name
            sealed = [SealedSecret(sealed=vault.seal(secrets[each.name], owner=owner), created=now)]
            self.secrets.append(sealed[0].sealed)
            if each.is_rotating:
                expiring = replace(sealed[0], expires=now + timedelta(days=1))
                sealed = [SealedSecret(sealed=vault.seal(_new_secret(), owner=owner), created=now), expiring]
            if each.is_inline:
                self._write(tenant_key(""), TenantSecrets(tenant="", secrets=tuple(sealed), changed=now))
            else:
                self._write(endpoint_key(each.name), each.endpoint(self.url(each.name), tuple(sealed), now))
        self._flush()

    def _write(self, key: bytes, record: Endpoint | TenantSecrets) -> None:
        value = msgspec.json.encode(record)
        self._registry.apply(key, value)
        self._producer.produce(f"{self._prefix}.endpoints", value, key=key)

    def _flush(self) -> None:
        left = self._producer.flush(30)
        assert not left, f"{left} records are still not delivered"


@contextmanager
def running_webhooks(broker: QuickBroker, subscribers: Sequence[Subscriber], log: Path) -> Iterator[WebhookSystem]:
    """Webhooks without forwarders as yet, and without a worker; all gone at the end."""
    with ExitStack() as stack:
        yield WebhookSystem(stack, broker, f"t{token_hex(6)}", subscribers, log)


def _new_secret() -> str:
    return new_secret(SignatureScheme.V1, token_bytes(SEED_BYTES))


def _made_up_id(number: int) -> str:
    job, place = divmod(number, len(KINDS))
    return f"order-{job}.{place + 1}"


def _made_up(number: int) -> tuple[JobEvent, JobRecord]:
    """An event of a made-up job; five of them, one after the other, make a job."""
    event_id, now = _made_up_id(number), datetime.now(UTC)  # noqa: TID251  real processes, real time
    request_id, _, sequence = event_id.partition(".")
    event = JobEvent(
        id=event_id,
        type=KINDS[int(sequence) - 1],
        time=now,
        request_id=request_id,
        sequence=int(sequence),
        attempt=1,
        labels={},
        job=msgspec.Raw(msgspec.json.encode({"id": f"{number}", "credits": 0.8, "note": "as TAMS tells it: ☃"})),
    )
    return event, JobRecord(request_id=request_id, phase=Phase.TRACKING, accepted_at=now)
