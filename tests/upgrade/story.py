"""A bridge whose core and Kafka adapters write on paper, for what a release leaves behind; see `write_fixture`.

Nothing in here is used but names of `bridge` that every release has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import msgspec
from typing_extensions import override

from bridge.adapters.kafka.deliveries import KafkaDispatchLedger
from bridge.adapters.kafka.ledger import KafkaLedger
from bridge.adapters.kafka.topics import TopicNames
from bridge.adapters.kafka.transactions import Record, TransactionalWriter
from bridge.adapters.vault import Vault
from bridge.core.deliveries import Unsendable
from bridge.core.dispatch import DispatchPartition, DispatchPolicy, Moment
from bridge.core.documents import read_job
from bridge.core.fanout import fan_out
from bridge.core.jobs import JobPolicy
from bridge.core.keyring import make_key
from bridge.core.partition import Partition, Post
from bridge.core.registry import Registry, endpoint_key, status_key
from bridge.core.signatures import new_secret
from bridge.messages import Answer, Failure, Seen
from bridge.ports import Arrival
from bridge.settings import Settings, read_settings
from bridge.webhook_messages import (
    ApiKey,
    Endpoint,
    EndpointStatus,
    ReplayCancel,
    ReplayOrder,
    Scope,
    SealedSecret,
    SignatureScheme,
)
from bridge.webhook_ports import NoResponse, Response

STOPPED_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ENCRYPTION_KEY = "Zml4dHVyZSBvZiBsZWRnZXJzLCBub3QgYSBzZWNyZXQ="
FAILURE = Failure(code="fixture", message="as the fixture wants it", retryable=True, http_status=503)


class Paper(TransactionalWriter):
    """A writer that keeps what it is to send to the brokers."""

    def __init__(self, log: list[Record]) -> None:
        self._log = log

    @override
    async def commit(self, records: Iterable[Record]) -> None:
        self._log.extend(records)


@dataclass
class Story:
    """A bridge of one partition, and the world around it.

    Args:
        log: all that was written, in order.
        tams: jobs that TAMS has made, by `requestId`: of which request, and under which id.
        secrets: what signs POSTs, by owner; API keys, by name.
    """

    now: datetime = STOPPED_AT - timedelta(days=2)
    log: list[Record] = field(default_factory=list)
    registry: Registry = field(default_factory=Registry)
    tams: dict[str, tuple[str, str]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    api_keys: dict[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=lambda: read_settings(topics={"prefix": "t", "partitions": 1}))
    vault: Vault = field(default_factory=lambda: Vault([ENCRYPTION_KEY]))

    def __post_init__(self) -> None:
        self.names = TopicNames.of(self.settings.topics)
        counts = dict.fromkeys(self.names.all, 1)
        self.ledger = KafkaLedger(Paper(self.log), self.settings, self.names, counts, 0)
        self.deliveries = KafkaDispatchLedger(Paper(self.log), self.names, counts, 0)
        self.jobs = Partition(topic=self.names.requests, number=0, policy=JobPolicy(), max_request_bytes=100_000)
        self.dispatch = DispatchPartition(number=0, registry=self.registry, policy=DispatchPolicy())

    # ---- jobs

    async def request(
        self, name: str, value: object, headers: Sequence[tuple[str, bytes]] = (), *, read: bool = True
    ) -> None:
        raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
        offset = sum(1 for record in self.log if record.topic == self.names.requests)
        self.log.append(Record(self.names.requests, 0, name.encode(), raw, list(headers)))
        if read:
            self.jobs.arrive(Arrival(offset=offset, key=name.encode(), value=raw, headers=tuple(headers)), self.now)
            await self.commit()

    async def job(self, name: str, **fields: object) -> None:
        graph = {"1": {"classType": "KSampler", "inputs": {"seed": 7, "of": name}}}
        await self.request(name, {"params": graph, **fields})

    async def submit(self, name: str, *, is_done: bool = True) -> str:
        """The intent is written, and the POST is made, or not; gives the job's id."""
        self.jobs.grant(name, self.now)
        post = next(post for post in await self.commit() if post.request_id == name)
        job_id = f"88141794730894{len(self.tams):04}"
        if is_done:
            self.tams[post.tams_request_id] = (name, job_id)
        return job_id

    async def answer(self, name: str, answer: Answer, *, attempt: int = 1) -> None:
        self.jobs.submitted(name, attempt, answer, self.now, 0.5)
        await self.commit()

    async def track(self, name: str, **fields: object) -> str:
        """A job that TAMS holds; gives its id."""
        await self.job(name, **fields)
        job_id = await self.submit(name)
        await self.answer(name, seen(job_id, "CREATED"))
        return job_id

    async def look(self, name: str, job_id: str, answer: Answer) -> None:
        self.jobs.looked(name, job_id, answer, self.now, 0.5)
        await self.commit()

    async def cancel(self, name: str) -> None:
        await self.request(name, {"cancel": name})

    async def commit(self) -> list[Post]:
        """Write down what has come together; gives the POSTs that may be made now."""
        changes, actions = self.jobs.take()
        changes.orders = fan_out(changes.events, self.registry)
        await self.ledger.commit(changes)
        return [action for action in actions if isinstance(action, Post)]

    # ---- webhooks

    def keep(self, topic: str, key: bytes, value: object) -> None:
        """A record of the registry, or of the API keys."""
        raw = None if value is None else msgspec.json.encode(value)
        self.log.append(Record(topic, 0, key, raw))
        if topic != self.names.api_keys:
            self.registry.apply(key, raw)

    def sealed(
        self, owner: str, scheme: SignatureScheme = SignatureScheme.V1, *, then: datetime | None = None
    ) -> SealedSecret:
        """A new secret of an owner; its former one if it expires."""
        secret = new_secret(scheme, sha256(f"{owner} {then}".encode()).digest())
        self.secrets.setdefault(owner, secret)
        return SealedSecret(sealed=self.vault.seal(secret, owner=owner), created=self.now, expires=then)

    def endpoint(self, endpoint_id: str, **fields: object) -> None:
        """An endpoint that wants the ends of jobs."""
        known = {
            "id": endpoint_id,
            "url": f"https://{endpoint_id.removeprefix('ep_')}.example/hook?token=secret",
            "event_types": ("tams.job.success", "tams.job.failed"),
            "secrets": (self.sealed(endpoint_id),),
            "created": self.now,
            "changed": self.now,
        }
        self.keep(self.names.endpoints, endpoint_key(endpoint_id), msgspec.convert({**known, **fields}, Endpoint))

    def status(self, endpoint_id: str, **fields: object) -> None:
        """How an endpoint does."""
        known = {
            "endpoint_id": endpoint_id,
            "epoch": 1,
            "failing_since": self.now,
            "last_error": "500",
            "changed": self.now,
        }
        self.keep(self.names.statuses, status_key(endpoint_id), msgspec.convert({**known, **fields}, EndpointStatus))

    def api_key(self, name: str, *scopes: Scope, tenant: str | None = None) -> str:
        """An API key; gives its id."""
        made = make_key(sha256(name.encode()).digest() + sha256(name.encode()).digest()[:8])
        self.api_keys[name] = made.text
        key = ApiKey(
            id=made.id, name=name, secret_hash=made.secret_hash, scopes=scopes, tenant=tenant, created=self.now
        )
        self.keep(self.names.api_keys, made.id.encode(), key)
        return made.id

    async def read_orders(self, count: int) -> None:
        """The forwarder takes in so many records of the dispatch topic."""
        orders = [record for record in self.log if record.topic == self.names.dispatch]
        for offset in range(self.dispatch.position, min(len(orders), self.dispatch.position + count)):
            self.dispatch.arrive(
                Arrival(offset=offset, key=orders[offset].key, value=orders[offset].value), self.moment
            )
        await self.write_deliveries()

    async def post_all(self, answers: dict[str, Response | NoResponse | Unsendable]) -> None:
        """All POSTs that may be made now are made; those without an answer here stay under way."""
        while self.dispatch.next_send_at() <= self.moment.monotonic:
            send = self.dispatch.take_send(self.moment)
            answer = answers.get(send.endpoint.id)
            if answer is not None:
                self.dispatch.sent(send, answer, None, self.moment, 0.5)
        await self.write_deliveries()

    async def write_deliveries(self) -> None:
        await self.deliveries.commit(self.dispatch.journal.take())

    def order(self, record: ReplayOrder | ReplayCancel) -> None:
        """A wish for a replay, or for its end."""
        self.log.append(Record(self.names.dispatch, 0, record.endpoint_id.encode(), msgspec.json.encode(record)))

    @property
    def moment(self) -> Moment:
        return Moment(self.now, self.now.timestamp())


def seen(job_id: str, status: str, **fields: object) -> Seen:
    """What TAMS says of a job."""
    return Seen(read_job(msgspec.json.encode({"job": {"id": job_id, "status": status, "credits": 0.8, **fields}})))
