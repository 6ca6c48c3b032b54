"""How a forwarder is put together."""

from collections.abc import Callable
from datetime import timedelta
from random import Random

from bridge.adapters.kafka.deliveries import KafkaDispatchLedgers
from bridge.adapters.kafka.feed import KafkaFeed
from bridge.adapters.kafka.history import KafkaEventHistory
from bridge.adapters.telemetry import ForwarderTelemetry
from bridge.adapters.vault import Vault
from bridge.adapters.webhooks import HttpWebhookSender
from bridge.core.dispatch import DispatchPolicy
from bridge.core.health import HealthPolicy
from bridge.forwarder import Forwarder, ForwarderPlan
from bridge.poster import Poster
from bridge.roles.ground import (
    Ground,
    Role,
    address_policy,
    back_off,
    export,
    ownership_plan,
    ownership_problems,
    unconfirmed_problems,
)
from bridge.settings import Settings
from bridge.shell import Part
from bridge.webhook_ports import ForwarderSurroundings

_LEAST_HELD = 1_000


def build_forwarder(ground: Ground) -> Role:
    """Put a forwarder together.

    Raises:
        CannotStart: there is no encryption key, or a setting cannot be used.
    """
    settings, clock = ground.settings, ground.clock
    sender = HttpWebhookSender(address_policy(settings), ca_file=settings.webhooks.ca_file)
    ground.stack.push_async_callback(sender.aclose)
    poster = Poster(
        sender,
        secret_box=Vault([key.get_secret_value() for key in settings.webhooks.encryption_keys]),
        clock=clock,
        source=settings.source,
        user_agent=settings.webhooks.user_agent,
        answer_bytes=settings.webhooks.answer_bytes,
    )
    feed = KafkaFeed(settings, topic=ground.names.dispatch, group=settings.forwarder.group, clock=clock)
    forwarder = Forwarder(
        ledgers=KafkaDispatchLedgers(settings, ground.names, ground.counts),
        feed=feed,
        history=KafkaEventHistory(settings, ground.names, ground.counts),
        poster=poster,
        registry=ground.registry,
        plan=_plan(settings, ground.counts[ground.names.dispatch]),
        surroundings=ForwarderSurroundings(clock, Random(), ForwarderTelemetry(ground.metrics)),  # noqa: S311  jitter
    )
    ground.on_registry.append(_listener(forwarder))
    export(
        ground.metrics,
        {
            "deliveries_pending": ("Deliveries of this process that have not ended.", forwarder.pending),
            "deliveries_under_way": ("POSTs under way.", lambda: forwarder.under_way),
            "dispatch_lag": ("Orders read so far behind the topic's end.", lambda: sum(feed.lag().values())),
        },
    )
    return _role(ground, forwarder, feed)


def _role(ground: Ground, forwarder: Forwarder, feed: KafkaFeed) -> Role:
    ownership = forwarder.ownership

    async def work() -> None:
        await ground.registry_tail.caught_up.wait()  # an order is worth nothing without its endpoint
        await forwarder.run()

    async def read() -> None:
        await ground.registry_tail.caught_up.wait()
        await feed.run(ownership)

    return Role(
        name="forwarder",
        work=(Part("forwarder", work, forwarder.stop),),
        feeds=(Part("dispatch feed", read, feed.stop),),
        problems=lambda: [
            *ownership_problems(
                ownership.assigned_partitions, ownership.open_partitions, ownership.reasons, "dispatch"
            ),
            *unconfirmed_problems((owner.commit_began for owner in ownership.owners), now=ground.clock.monotonic()),
        ],
        state=lambda: {
            "partitions": {
                "assigned": len(ownership.assigned_partitions),
                "open": len(ownership.open_partitions),
            },
            "deliveries": {"pending": forwarder.pending(), "under_way": forwarder.under_way},
            "endpoints": len(ground.registry.endpoints),
        },
    )


def _listener(forwarder: Forwarder) -> Callable[[str | None], None]:
    def tell(endpoint_id: str | None) -> None:
        if endpoint_id is None:
            forwarder.tenant_changed()
        else:
            forwarder.endpoint_changed(endpoint_id)

    return tell


def _plan(settings: Settings, partitions: int) -> ForwarderPlan:
    webhooks, forwarder = settings.webhooks, settings.forwarder
    return ForwarderPlan(
        policy=DispatchPolicy(
            max_pending=webhooks.max_pending,
            max_held=max(_LEAST_HELD, forwarder.max_held // partitions),
            max_age=timedelta(seconds=webhooks.max_age_s),
            longest_pause=timedelta(seconds=webhooks.throttle_limit_s),
            breaker_threshold=webhooks.breaker_threshold,
            breaker=back_off(webhooks.breaker_pause_s, webhooks.breaker_pause_limit_s),
            disabled_probe=timedelta(seconds=webhooks.disabled_probe_s),
            health=HealthPolicy(
                warn_after=timedelta(seconds=webhooks.warn_after_s),
                disable_after=timedelta(seconds=webhooks.disable_after_s),
            ),
        ),
        concurrency=forwarder.concurrency,
        read_ahead=forwarder.read_ahead,
        commit_interval=timedelta(seconds=forwarder.commit_interval_s),
        ownership=ownership_plan(settings, forwarder.closing_time_s),
    )
