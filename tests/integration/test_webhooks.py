"""Events as signed POSTs, through a real broker to real receivers: on good days, on bad ones, and with nothing leaking.

One worker and one forwarder serve most of the tests: whatever one of them registers, the next one finds them at work.
"""

import asyncio
import secrets
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import pytest_asyncio

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.topics import TopicNames
from bridge.adapters.vault import Vault, new_encryption_key
from bridge.core.fanout import inline_id, partition_of
from bridge.core.registry import endpoint_key, tenant_key
from bridge.core.signatures import new_secret
from bridge.shell import Process
from bridge.webhook_messages import (
    After,
    Attempt,
    DeadDelivery,
    Endpoint,
    EndpointStatus,
    InlineWebhook,
    Notice,
    NoticeType,
    Order,
    Outcome,
    Replay,
    ReplayOrder,
    ReplayState,
    SealedSecret,
    SignatureScheme,
    TenantSecrets,
)
from tests.adapters.topics import Record, committed
from tests.brokers import RunningBroker
from tests.integration.conftest import Stage, stage_on
from tests.integration.stack import KEY, PATIENCE_S, worker_here, worker_process
from tests.receivers import HANG, Receiver, receiving, reply

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTITIONS = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hooks:
    """A bridge, a receiver, and what the API would write for people."""

    stage: Stage
    receiver: Receiver
    vault: Vault
    registered: set[str] = field(default_factory=set)
    at_work: list[Process] = field(default_factory=list)

    @property
    def names(self) -> TopicNames:
        return TopicNames.of(self.stage.settings.topics)

    async def register(self, endpoint_id: str, **fields: Any) -> str:
        """Register an endpoint whose receiver trusts only what is signed with its secret; the secret."""
        path, now = f"/{endpoint_id}", SystemClock().now()
        secret = self.receiver.secrets[path] = fresh_secret()
        given = {"url": self.receiver.url + path, "labels": {"for": endpoint_id}, "retry_schedule_s": (0.2, 0.2)}
        sealed = SealedSecret(sealed=self.vault.seal(secret, owner=endpoint_id), created=now)
        await self.put(Endpoint(id=endpoint_id, created=now, changed=now, secrets=(sealed,), **{**given, **fields}))
        self.registered.add(endpoint_id)
        async with asyncio.timeout(PATIENCE_S):  # an event committed before a worker knows of it is not for it
            while any(_endpoints_known(process) != len(self.registered) for process in self.at_work):
                await SystemClock().wait(asyncio.Event(), 0.01)
        return secret

    async def put(self, record: Endpoint | TenantSecrets) -> None:
        """Write to the registry."""
        key = endpoint_key(record.id) if isinstance(record, Endpoint) else tenant_key(record.tenant)
        await self._write(self.names.endpoints, key, record, 0)

    async def place(self, order: Order | ReplayOrder) -> None:
        """Write to the dispatch topic."""
        partition = partition_of(order.endpoint_id, PARTITIONS)
        await self._write(self.names.dispatch, order.endpoint_id.encode(), order, partition)

    async def _write(self, topic: str, key: bytes, record: object, partition: int) -> None:
        await self.stage.user.producer.send_and_wait(topic, msgspec.json.encode(record), key=key, partition=partition)

    async def job(self, name: str, endpoint_id: str, fields: dict[str, object] | None = None, **script: Any) -> None:
        """Let a job run to its end whose events one endpoint wants."""
        await self.stage.user.request(name, {"labels": {"for": endpoint_id}, **(fields or {})}, images=0, **script)
        await self.stage.user.ended(name)

    async def told(self, topic: str, kind: type[T], endpoint_id: str) -> list[T]:
        """What the forwarder has written about an endpoint, in order."""
        records = [record for number in range(self.count(topic)) for record in await self.records(topic, number)]
        return [
            msgspec.json.decode(record.value or b"", type=kind)
            for record in records
            if (record.key or b"").partition(b"\x1f")[0] == endpoint_id.encode()
        ]

    def count(self, topic: str) -> int:
        """How many partitions a topic has."""
        return 1 if topic in self.names.undivided else PARTITIONS

    async def records(self, topic: str, partition: int) -> list[Record]:
        """What strangers find on a topic."""
        return await committed(self.stage.settings.kafka.bootstrap_servers, topic, partition)

    async def held(self, endpoint_id: str) -> set[bytes]:
        """The keys of the deliveries to an endpoint, and of their events, that the ledger has not forgotten."""
        records = await self.records(self.names.deliveries, partition_of(endpoint_id, PARTITIONS))
        latest = {record.key or b"": record.value for record in records}
        mine = endpoint_id.encode() + b"/"
        return {key for key, value in latest.items() if value is not None and key.startswith(mine)}

    async def until_told(
        self, topic: str, kind: type[T], endpoint_id: str, enough: Callable[[list[T]], bool]
    ) -> list[T]:
        """Wait until it has written this."""
        async with asyncio.timeout(PATIENCE_S):
            while not enough(found := await self.told(topic, kind, endpoint_id)):
                await SystemClock().wait(asyncio.Event(), 0.05)
        return found

    async def ends(self, endpoint_id: str, count: int) -> list[Attempt]:
        """All attempts at an endpoint, once so many deliveries have ended."""

        def enough(attempts: list[Attempt]) -> bool:
            return len([each for each in attempts if each.after is not After.WAITING]) >= count

        return await self.until_told(self.names.attempts, Attempt, endpoint_id, enough)


def _endpoints_known(process: Process) -> object:
    worker = process.state()["worker"]
    assert isinstance(worker, dict)
    return worker["endpoints"]


def fresh_secret() -> str:
    return new_secret(SignatureScheme.V1, secrets.token_bytes(32))


@asynccontextmanager
async def hooks_on(broker: RunningBroker) -> AsyncIterator[Hooks]:
    """All but the roles."""
    key, prefix = new_encryption_key(), f"t{secrets.token_hex(6)}"
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(receiving())
        settings = {"encryption_keys": [key], "allowed_networks": ["127.0.0.0/8"], "breaker_pause_s": 0.2}
        stage = await stack.enter_async_context(stage_on(broker.bootstrap_servers, prefix, webhooks=settings))
        yield Hooks(stage, receiver, Vault([key]))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def hooks(broker: RunningBroker) -> AsyncIterator[Hooks]:
    """A worker and a forwarder at work, and all around them."""
    async with hooks_on(broker) as hooks, worker_here(hooks.stage.settings, "worker", "forwarder") as here:
        hooks.at_work.append(here.process)
        yield hooks


@pytest.fixture
def name() -> str:
    """An id that no other test uses, for a job and for an endpoint."""
    return f"ep_{secrets.token_hex(6)}"


# ------------------------------------------------------------------------------------------------------- on good days
async def test_every_event_of_a_job_arrives_signed_and_in_order(hooks: Hooks, name: str) -> None:
    """The package `standardwebhooks` has verified each of them."""
    await hooks.register(name, ordering="job")

    await hooks.job(name, name, run_s=4)
    events = [event for event in hooks.stage.user.events if event.request_id == name]
    await hooks.receiver.until(lambda: len(hooks.receiver.at(f"/{name}")) == len(events))

    got = hooks.receiver.at(f"/{name}")
    assert [each.problem for each in got] == [""] * len(events)
    assert [each.event_id for each in got] == [event.id for event in sorted(events, key=lambda each: each.sequence)]
    assert len({each.webhook_id for each in got}) == len(events) >= 3
    assert {each.headers["content-type"] for each in got} == {"application/cloudevents+json; charset=UTF-8"}


async def test_the_data_of_a_post_is_the_event_as_it_lies_on_the_result_topic(hooks: Hooks, name: str) -> None:
    await hooks.register(name, event_types=("tams.job.success",))

    await hooks.job(name, name)
    await hooks.receiver.until(lambda: bool(hooks.receiver.at(f"/{name}")))

    (got,) = hooks.receiver.at(f"/{name}")
    (record,) = [
        record
        for record in hooks.stage.user.records
        if record.key == name.encode() and record.topic == hooks.names.events[hooks.stage.user.events[0].type.SUCCESS]
    ]
    assert record.value is not None
    assert got.body.endswith(b'"data":' + record.value + b"}")
    assert (got.event["type"], got.event["subject"], got.event["source"]) == ("tams.job.success", name, "/tams-bridge")


async def test_the_webhook_of_a_request_is_signed_with_the_secret_of_its_tenant(hooks: Hooks, name: str) -> None:
    tenant, path, secret = f"tenant-{name}", f"/{name}", fresh_secret()
    hooks.receiver.secrets[path] = secret
    sealed = SealedSecret(sealed=hooks.vault.seal(secret, owner=tenant), created=SystemClock().now())
    await hooks.put(TenantSecrets(tenant=tenant, secrets=(sealed,), changed=SystemClock().now()))
    webhook = {"url": hooks.receiver.url + path, "events": ["success"]}

    await hooks.job(name, name, {"labels": {"tenant": tenant}, "webhook": webhook})
    await hooks.receiver.until(lambda: bool(hooks.receiver.at(path)))

    (got,) = hooks.receiver.at(path)
    assert (got.event["type"], got.problem) == ("tams.job.success", "")
    (attempt,) = await hooks.ends(inline_id(InlineWebhook(url=hooks.receiver.url + path, tenant=tenant)), 1)
    assert attempt.after is After.DELIVERED


async def test_past_events_are_replayed_to_an_endpoint_that_was_registered_later(hooks: Hooks, name: str) -> None:
    began = SystemClock().now()
    await hooks.job(name, name)
    events = [event.id for event in hooks.stage.user.events if event.request_id == name]
    await hooks.register(name)

    await hooks.place(replay(name, began))
    await hooks.receiver.until(lambda: len(hooks.receiver.at(f"/{name}")) == len(events))

    assert sorted(hooks.receiver.events(f"/{name}")) == sorted(events)
    assert {got.problem for got in hooks.receiver.at(f"/{name}")} == {""}
    found = await replays(hooks, name)
    assert (found.state, found.matched) == (ReplayState.DONE, len(events))
    assert found.scanned >= len(events)


def replay(endpoint_id: str, since: datetime, *, failed_only: bool = False) -> ReplayOrder:
    """A wish for all events of an endpoint since then."""
    now = SystemClock().now()
    replay_id = f"rp_{endpoint_id}_{failed_only}"
    return ReplayOrder(
        replay_id=replay_id, endpoint_id=endpoint_id, since=since, until=now, failed_only=failed_only, created=now
    )


async def replays(hooks: Hooks, endpoint_id: str) -> Replay:
    """The endpoint's replay, once it is done."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            records = await hooks.records(hooks.names.deliveries, partition_of(endpoint_id, PARTITIONS))
            mark = endpoint_id.encode() + b"\x1freplay\x1f"
            values = [record.value for record in records if (record.key or b"").startswith(mark)]
            found = msgspec.json.decode(values[-1] or b"", type=Replay) if values else None
            if found is not None and found.state is ReplayState.DONE:
                return found


# -------------------------------------------------------------------------------------------------------- on bad days
async def test_a_failure_is_tried_again_and_the_receiver_knows_the_repeat(hooks: Hooks, name: str) -> None:
    await hooks.register(name, event_types=("tams.job.success",))
    hooks.receiver.answers[f"/{name}"].extend([reply(500, b"out of order"), reply(500)])

    await hooks.job(name, name)
    attempts = await hooks.ends(name, 1)

    assert len({got.webhook_id for got in hooks.receiver.at(f"/{name}")}) == 1
    assert len({got.body for got in hooks.receiver.at(f"/{name}")}) == 1
    assert [(each.attempt.number, each.attempt.status, each.after.value) for each in attempts] == [
        (1, 500, "waiting"),
        (2, 500, "waiting"),
        (3, 204, "delivered"),
    ]
    assert attempts[0].exchange is not None
    assert attempts[0].exchange.response_body == "out of order"


async def test_a_pause_that_the_receiver_asks_for_is_kept_and_costs_no_attempt(hooks: Hooks, name: str) -> None:
    await hooks.register(name, event_types=("tams.job.success",), retry_schedule_s=())
    hooks.receiver.answers[f"/{name}"].append(reply(429, b"", "retry-after: 1"))

    await hooks.job(name, name)
    attempts = await hooks.ends(name, 1)

    first, second = hooks.receiver.at(f"/{name}")
    assert second.at - first.at >= 0.99
    assert [(each.attempt.number, each.attempt.outcome) for each in attempts] == [
        (1, Outcome.THROTTLED),
        (1, Outcome.DELIVERED),
    ]


async def test_a_receiver_that_is_gone_is_disabled_with_a_notice_and_its_deliveries_are_kept(
    hooks: Hooks, name: str
) -> None:
    await hooks.register(name, max_in_flight=1)
    hooks.receiver.always[f"/{name}"] = reply(410)

    await hooks.job(name, name)
    (notice,) = await hooks.until_told(hooks.names.notices, Notice, name, bool)
    (status,) = await hooks.told(hooks.names.statuses, EndpointStatus, name)

    assert (notice.type, notice.url) == (NoticeType.DISABLED, f"{hooks.receiver.url}/{name}")
    assert (status.disabled_reason, status.epoch) == ("gone", 1)
    assert len(hooks.receiver.at(f"/{name}")) == 1

    hooks.receiver.always[f"/{name}"] = reply(204)
    await hooks.register(name, epoch=2)
    events = [event.id for event in hooks.stage.user.events if event.request_id == name]
    await hooks.receiver.until(lambda: len(hooks.receiver.at(f"/{name}")) == len(events) + 1)
    assert set(hooks.receiver.events(f"/{name}")) == set(events)


async def test_a_redirect_to_a_private_address_is_not_followed(hooks: Hooks, name: str) -> None:
    """What died of it can be replayed once the endpoint names the right address."""
    began = SystemClock().now()
    await hooks.register(name, event_types=("tams.job.success",), retry_schedule_s=(0.2,))
    async with receiving() as inside:
        hooks.receiver.always[f"/{name}"] = reply(307, b"", f"location: {inside.url}/secret")
        await hooks.job(name, name)
        (dead,) = await hooks.until_told(hooks.names.dead_deliveries, DeadDelivery, name, bool)

        assert inside.got == []
    assert [summary.status for summary in dead.delivery.attempts] == [307, 307]
    assert "redirects are not followed" in dead.delivery.attempts[0].error

    hooks.receiver.always[f"/{name}"] = reply(204)
    await hooks.place(replay(name, began - timedelta(minutes=1), failed_only=True))
    await hooks.ends(name, 2)
    assert hooks.receiver.events(f"/{name}") == 3 * [dead.delivery.event_id]


async def test_an_address_that_may_not_be_reached_is_not_dialled(hooks: Hooks, name: str) -> None:
    """The guard stands before the dial, whatever the registry says."""
    await hooks.register(name, url="http://192.168.3.4/hook", event_types=("tams.job.success",), retry_schedule_s=())

    await hooks.job(name, name)
    (attempt,) = await hooks.ends(name, 1)

    assert (attempt.attempt.outcome, attempt.after) == (Outcome.BLOCKED, After.DEAD)


async def test_an_endpoint_that_hangs_keeps_nobody_else_waiting(hooks: Hooks, name: str) -> None:
    await hooks.register(f"{name}_hangs", labels={"for": name}, timeout_s=0.5)
    hooks.receiver.always[f"/{name}_hangs"] = HANG
    await hooks.register(name)

    for number in range(5):
        await hooks.job(f"{name}.{number}", name)
    count = len([event for event in hooks.stage.user.events if event.labels.get("for") == name])
    await hooks.receiver.until(lambda: len(hooks.receiver.at(f"/{name}")) == count)

    assert len(await hooks.ends(name, count)) == count
    tried = await hooks.until_told(hooks.names.attempts, Attempt, f"{name}_hangs", bool)
    assert "timed out after 0.5 s" in tried[0].attempt.error


async def test_events_that_happen_while_no_forwarder_runs_are_delivered_by_the_next_one(broker: RunningBroker) -> None:
    """And what a forwarder that stops has not delivered is taken over."""
    async with hooks_on(broker) as hooks:
        settings, user, receiver = hooks.stage.settings, hooks.stage.user, hooks.receiver
        await hooks.register("ep_a")
        await hooks.register("ep_slow", labels={"for": "ep_a"}, retry_schedule_s=(0.5,) * 100)
        receiver.always["/ep_slow"] = reply(500)
        async with worker_here(settings, "worker", "forwarder"):
            await hooks.job("before", "ep_a")
            await receiver.until(lambda: bool(receiver.at("/ep_slow")))
        assert await hooks.held("ep_slow")
        async with worker_here(settings, "worker"):
            await hooks.job("between", "ep_a")
        assert "between" not in {got.event["subject"] for got in receiver.got}

        receiver.always["/ep_slow"] = reply(204)
        receiver.got.clear()
        expected = {event.id for event in user.events}
        async with worker_here(settings, "forwarder"):
            await receiver.until(lambda: expected <= set(receiver.events("/ep_slow")))
            await hooks.ends("ep_slow", len(expected))
            await hooks.ends("ep_a", len(expected))

        assert await hooks.held("ep_slow") == await hooks.held("ep_a") == set()


# ------------------------------------------------------------------------------------------------------------- secrets
async def test_no_secret_is_found_in_logs_health_metrics_or_topics(broker: RunningBroker, tmp_path: Path) -> None:
    """On good exchanges and bad ones, at the most talkative level."""
    token, inline_token, tenant_secret = secrets.token_hex(16), secrets.token_hex(16), fresh_secret()
    async with hooks_on(broker) as hooks:
        settings, receiver = hooks.stage.settings, hooks.receiver
        headers = hooks.vault.seal(msgspec.json.encode({"authorization": f"Bearer {token}"}).decode(), owner="ep_a")
        secret = await hooks.register("ep_a", sealed_headers=headers, header_names=("authorization",))
        unreadable = hooks.vault.seal("sealed for somebody else", owner="ep_x")
        await hooks.register("ep_b", labels={"for": "ep_a"}, sealed_headers=unreadable)
        sealed = SealedSecret(sealed=hooks.vault.seal(tenant_secret, owner=""), created=SystemClock().now())
        await hooks.put(TenantSecrets(tenant="", secrets=(sealed,), changed=SystemClock().now()))
        receiver.secrets["/inline"] = tenant_secret
        receiver.answers["/ep_a"].extend([reply(500), reply(429, b"", "retry-after: 0", "set-cookie: session=1")])
        async with worker_here(settings, "worker"), worker_process(settings, tmp_path, role="forwarder") as forwarder:
            webhook = {"url": f"{receiver.url}/inline?token={inline_token}"}
            await hooks.job("a", "ep_a", {"webhook": webhook})
            await hooks.ends("ep_a", len(hooks.stage.user.events))
            await receiver.until(lambda: bool(receiver.at("/inline")))
            await hooks.until_told(hooks.names.notices, Notice, "ep_b", bool)
            told = forwarder.log.read_text() + str(await forwarder.health()) + await forwarder.metrics()
            assert await forwarder.terminate() == 0
        told += forwarder.log.read_text()
        topics = await everything(hooks)

    assert {got.headers.get("authorization") for got in receiver.at("/ep_a")} == {f"Bearer {token}"}
    assert {got.problem for got in receiver.got} == {""}
    assert "webhook attempt" in told
    plain = [secret, tenant_secret, token, KEY, *(key.get_secret_value() for key in settings.webhooks.encryption_keys)]
    raw = [b64decode(each.removeprefix("whsec_")) for each in (secret, tenant_secret)]
    signatures = [got.headers["webhook-signature"].removeprefix("v1,") for got in receiver.got]
    for each in (*plain, *signatures):
        assert each.removeprefix("whsec_") not in told
        assert each.removeprefix("whsec_").encode() not in topics
    assert not [each for each in raw if each in topics]
    assert inline_token not in told


async def everything(hooks: Hooks) -> bytes:
    """Every byte of every topic of the bridge."""
    found = b""
    for topic in hooks.names.all:
        for partition in range(hooks.count(topic)):
            for record in await hooks.records(topic, partition):
                values = [value or b"" for _, value in record.headers]
                found += b"\n".join([record.key or b"", record.value or b"", *values, b""])
    return found
