"""How the API is put together."""

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import TypeAlias

from aiokafka import ConsumerRecord

from bridge.adapters.kafka.publishing import KafkaOrders, KafkaPublisher, KafkaRegistryLog, KafkaRequests
from bridge.adapters.kafka.tail import Tail
from bridge.adapters.names import SystemResolver
from bridge.adapters.vault import Vault
from bridge.adapters.webhooks import HttpWebhookSender
from bridge.api.app import build_app
from bridge.api.hub import EventHub
from bridge.api.ports import ApiLimits, Services
from bridge.api.views import DeliveriesView, JobsView
from bridge.core.keyring import Keyring
from bridge.roles.ground import Ground, Role, address_policy, export, unconfirmed_problems
from bridge.settings import Settings
from bridge.shell import Part

_Record: TypeAlias = "ConsumerRecord[bytes | None, bytes | None]"


async def build_api(ground: Ground) -> Role:
    """Put the API together.

    Raises:
        CannotStart: no broker takes what it writes, or a setting cannot be used.
    """
    settings, names, counts, clock = ground.settings, ground.names, ground.counts, ground.clock
    limits = _limits(settings)
    keyring, hub = Keyring(), EventHub(room=limits.streams)
    jobs, deliveries = JobsView(limit=settings.api.jobs), DeliveriesView(history=settings.api.history)

    def tail(takers: Mapping[str, Callable[[_Record], None]], recent: int | None = None) -> Tail:
        return Tail(
            settings,
            {name: counts[name] for name in takers},
            take=lambda record: takers[record.topic](record),
            clock=clock,
            recent=recent,
        )

    state = tail(
        {
            names.api_keys: lambda record: keyring.apply(record.key or b"", record.value),
            names.jobs: jobs.take,
            names.deliveries: deliveries.take_ledger,
        }
    )
    history = tail(
        {names.attempts: deliveries.take_attempt, names.dead_deliveries: deliveries.take_dead}, settings.api.history
    )
    events = tail(dict.fromkeys(names.results, lambda record: hub.take(record.value)), 0)
    patience_s = settings.api.write_timeout_s
    publisher = await ground.stack.enter_async_context(KafkaPublisher(settings, confirmed_s=patience_s))
    sender, resolver = HttpWebhookSender(address_policy(settings), ca_file=settings.webhooks.ca_file), SystemResolver()
    ground.stack.push_async_callback(sender.aclose)
    ground.stack.callback(resolver.close)
    keys = [key.get_secret_value() for key in settings.webhooks.encryption_keys]
    services = Services(
        registry=ground.registry,
        keyring=keyring,
        jobs=jobs,
        deliveries=deliveries,
        hub=hub,
        registry_log=KafkaRegistryLog(publisher, names.endpoints, ground.registry_tail, patience_s=patience_s),
        status_log=KafkaRegistryLog(publisher, names.statuses, ground.registry_tail, patience_s=patience_s),
        key_log=KafkaRegistryLog(publisher, names.api_keys, state, patience_s=patience_s),
        orders=KafkaOrders(publisher, names.dispatch, counts[names.dispatch]),
        requests=KafkaRequests(publisher, names.requests),
        secret_box=Vault(keys) if keys else None,
        sender=sender,
        resolver=resolver,
        policy=address_policy(settings),
        clock=clock,
        random_bytes=os.urandom,
        limits=limits,
        is_ready=lambda: ground.registry_tail.caught_up.is_set() and state.caught_up.is_set(),
    )
    export(ground.metrics, {"api_jobs_held": ("Jobs that the API can show.", jobs.__len__)})
    return _role(services, publisher, [state, history, events])


def _limits(settings: Settings) -> ApiLimits:
    return ApiLimits(
        body_bytes=settings.api.max_body_bytes,
        request_bytes=settings.worker.max_request_bytes,
        page=settings.api.max_page,
        streams=settings.api.streams,
        keep_alive_s=settings.api.keep_alive_s,
        origin=settings.webhooks.user_agent,
    )


def _role(services: Services, publisher: KafkaPublisher, tails: list[Tail]) -> Role:
    stopped = asyncio.Event()

    async def work() -> None:
        await stopped.wait()

    def stop() -> None:
        services.hub.close()
        stopped.set()

    return Role(
        name="api",
        work=(Part("api", work, stop),),
        tails=tuple(Part(f"api tail {number}", tail.run, tail.stop) for number, tail in enumerate(tails)),
        problems=lambda: [
            *([] if services.is_ready() else ["kafka: the API is still reading its topics"]),
            *unconfirmed_problems([publisher.unconfirmed_since], now=asyncio.get_running_loop().time()),
        ],
        state=lambda: {"endpoints": len(services.registry.endpoints), "jobs": len(services.jobs)},
        api=build_app(services),
    )
