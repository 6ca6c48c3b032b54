"""What all roles of a process share, and what a role is when it is put together."""

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from aiokafka import ConsumerRecord
from faststream.asgi.types import ASGIApp
from prometheus_client import CollectorRegistry, Gauge

from bridge.adapters.kafka.tail import Tail
from bridge.adapters.kafka.topics import TopicNames, Topics
from bridge.core.addresses import AddressPolicy
from bridge.core.registry import Registry
from bridge.core.schedule import BackOff
from bridge.errors import CannotStart
from bridge.ownership import OwnershipPlan
from bridge.ports import Clock
from bridge.settings import Settings
from bridge.shell import Part

_SLOW_S = 5.0
"""What takes longer to be confirmed than this is a problem, whatever becomes of it; it takes milliseconds as a rule."""

RoleName = Literal["worker", "forwarder", "api"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all roles of a process share.

    Args:
        settings: in force.
        names, counts: of the topics.
        clock: time.
        metrics: of the whole process.
        registry: who is to be told of what, as of `registry_tail`.
        registry_tail: feeds the registry.
        on_registry: called with the id of an endpoint that has changed, or None for a tenant's secrets.
        stack: what is closed when the process ends.
    """

    settings: Settings
    names: TopicNames
    counts: dict[str, int]
    clock: Clock
    metrics: CollectorRegistry
    registry: Registry
    registry_tail: Tail
    on_registry: list[Callable[[str | None], None]]
    stack: AsyncExitStack


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role, put together but not yet running.

    Args:
        name: of the role.
        work: what ends first.
        feeds: what feeds the work, and ends after it.
        tails: what the work looks things up in, and ends last.
        problems: see `bridge.shell.Process`.
        state: see `bridge.shell.Process`.
        api: see `bridge.shell.Process`.
    """

    name: RoleName
    work: tuple[Part, ...] = ()
    feeds: tuple[Part, ...] = ()
    tails: tuple[Part, ...] = ()
    problems: Callable[[], list[str]]
    state: Callable[[], Mapping[str, object]]
    api: ASGIApp | None = None


async def lay_ground(settings: Settings, stack: AsyncExitStack, *, clock: Clock) -> Ground:
    """Create topics that are absent, and make what the roles share.

    Raises:
        CannotStart: no broker answers, or topics are not as they must be.
    """
    names, counts = await _prepare_topics(settings)
    registry = Registry()
    on_registry: list[Callable[[str | None], None]] = []

    def take(record: "ConsumerRecord[bytes | None, bytes | None]") -> None:
        changed = registry.apply(record.key or b"", record.value)
        for tell in on_registry:
            tell(changed)

    return Ground(
        settings=settings,
        names=names,
        counts=counts,
        clock=clock,
        metrics=CollectorRegistry(),
        registry=registry,
        registry_tail=Tail(
            settings,
            {name: counts[name] for name in (names.endpoints, names.statuses)},
            take=take,
            clock=clock,
            check=lambda: refuse_newer(registry),
        ),
        on_registry=on_registry,
        stack=stack,
    )


def refuse_newer(registry: Registry) -> None:
    """Do nothing on a guess: whom an event is for, and how it is signed, is only known once all of it can be read.

    Raises:
        CannotStart: the registry holds records of a later release.
    """
    for key, what in registry.newer.items():
        message = f"kafka: the registry holds, under {key!r}, {what}"
        raise CannotStart(message)


async def _prepare_topics(settings: Settings) -> tuple[TopicNames, dict[str, int]]:
    topics = Topics(settings.kafka, settings.topics, longest_answer=settings.tams.max_answer_bytes)
    if settings.topics.create:
        await topics.create()
    states = await topics.check()
    problems = [f"topic {state.name} {state.problem}" for state in states if state.problem]
    if problems:
        raise CannotStart("kafka: " + "; ".join(problems))
    return topics.names, {state.name: state.partitions for state in states}


def address_policy(settings: Settings) -> AddressPolicy:
    """Where webhooks may lead.

    Raises:
        CannotStart: an allowed network cannot be read.
    """
    webhooks = settings.webhooks
    try:
        networks = tuple(ipaddress.ip_network(network) for network in webhooks.allowed_networks)
    except ValueError as error:
        message = f"settings: BRIDGE_WEBHOOKS__ALLOWED_NETWORKS: {error}: give networks such as 10.1.0.0/16"
        raise CannotStart(message) from None
    return AddressPolicy(
        allowed_networks=networks, allowed_ports=frozenset(webhooks.allowed_ports), allow_http=webhooks.allow_http
    )


def ownership_plan(settings: Settings, closing_time_s: float) -> OwnershipPlan:
    """How a role holds its partitions."""
    return OwnershipPlan(
        closing_time=timedelta(seconds=closing_time_s),
        fenced_pause=timedelta(seconds=settings.kafka.session_timeout_s),
        reopen=back_off(settings.kafka.reopen_pause_s, settings.kafka.reopen_pause_limit_s),
    )


def ownership_problems(
    assigned: Collection[int], opened: Collection[int], reasons: Mapping[int, str], of_what: str
) -> list[str]:
    """What is wrong while partitions that are ours are not open.

    Args:
        assigned, opened: the numbers of those partitions.
        reasons: why some of them could not be opened, or were lost.
        of_what: of which topic they are.
    """
    by_reason: dict[str, list[int]] = {}
    for number in sorted(set(assigned) - set(opened)):
        by_reason.setdefault(reasons.get(number, "being restored"), []).append(number)
    return [
        f"kafka: {of_what} partitions {numbers} are assigned but not open: {reason}"
        for reason, numbers in by_reason.items()
    ]


def unconfirmed_problems(began: Iterable[float | None], *, now: float) -> list[str]:
    """What is wrong while the brokers answer, but do not take what is written.

    Args:
        began: when what has not been confirmed yet was given to them, on the monotonic clock.
        now: on the same clock.
    """
    longest = max((now - moment for moment in began if moment is not None), default=0.0)
    if longest < _SLOW_S:
        return []
    return [f"kafka: what was written {longest:.0f} s ago is not confirmed: are enough brokers up and in sync?"]


def back_off(initial_s: float, limit_s: float) -> BackOff:
    """A back-off from settings."""
    return BackOff(initial=timedelta(seconds=initial_s), limit=timedelta(seconds=limit_s))


def export(metrics: CollectorRegistry, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
    """Export figures as gauges, by name: what they mean, and how they are read."""
    for name, (meaning, read) in gauges.items():
        Gauge(f"tams_bridge_{name}", meaning, registry=metrics).set_function(read)
