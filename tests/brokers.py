"""Which Kafka broker the tests run on, and how they get it."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Literal, assert_never

import pytest

from bridge.adapters.brokers import (
    BrokerProcess,
    apache_broker,
    apache_obstacle,
    embedded_broker,
    embedded_obstacle,
)

CHOICE_VARIABLE = "BRIDGE_TEST_BROKER"
STRICT_VARIABLE = "BRIDGE_TEST_STRICT"

Kind = Literal["apache", "embedded", "given"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerChoice:
    """The broker of this test run."""

    kind: Kind
    reason: str
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningBroker:
    """A broker that answers."""

    name: str
    bootstrap_servers: str


def strict() -> bool:
    """Whether this run must prove everything: on Apache Kafka, and with no test skipped."""
    return os.environ.get(STRICT_VARIABLE, "") not in {"", "0"}


def choose_broker() -> BrokerChoice:
    """The broker named by BRIDGE_TEST_BROKER; else Apache Kafka where it can be had, else the embedded one.

    Raises:
        pytest.UsageError: the one asked for cannot be had, or none can.
    """
    named = os.environ.get(CHOICE_VARIABLE, "")
    if strict() and named not in {"", "apache"}:
        raise pytest.UsageError(f"{STRICT_VARIABLE} proves things on Apache Kafka: unset {CHOICE_VARIABLE}={named}")
    no_apache, no_embedded = asyncio.run(apache_obstacle()), embedded_obstacle()
    if named:
        return _named(named, no_apache=no_apache, no_embedded=no_embedded)
    if no_apache is None:
        return BrokerChoice(kind="apache", reason=f"Java and Maven are here; {CHOICE_VARIABLE} chooses another")
    if strict() or no_embedded is not None:
        raise pytest.UsageError(no_apache if no_embedded is None else f"{no_apache}; and {no_embedded}")
    return BrokerChoice(kind="embedded", reason=no_apache)


def _named(named: str, *, no_apache: str | None, no_embedded: str | None) -> BrokerChoice:
    reason = f"{CHOICE_VARIABLE} says so"
    obstacle = {"apache": no_apache, "embedded": no_embedded}.get(named)
    if obstacle is not None:
        raise pytest.UsageError(f"{CHOICE_VARIABLE}={named}: {obstacle}")
    if named == "apache":
        return BrokerChoice(kind="apache", reason=reason)
    if named == "embedded":
        return BrokerChoice(kind="embedded", reason=reason)
    if re.fullmatch(r"\S+:\d+", named) is None:
        raise pytest.UsageError(f"{CHOICE_VARIABLE}={named}: expected embedded, apache or HOST:PORT")
    return BrokerChoice(kind="given", reason=reason, address=named)


@contextlib.asynccontextmanager
async def started(kind: Literal["apache", "embedded"]) -> AsyncIterator[BrokerProcess]:
    """A fresh broker of that kind on a free port, gone afterwards."""
    match kind:
        case "apache":
            broker = apache_broker()
        case "embedded":
            broker = embedded_broker()
        case _:
            assert_never(kind)
    async with broker as process:
        yield process


@contextlib.contextmanager
def broker_of_the_session(choice: BrokerChoice) -> Iterator[RunningBroker]:
    """The chosen broker, from now to the end of the run.

    It has an event loop of its own, idle while tests run: theirs come and go.
    """
    if choice.kind == "given":
        yield RunningBroker(name=choice.address, bootstrap_servers=choice.address)
        return
    with asyncio.Runner() as runner:
        context = started(choice.kind)
        process = runner.run(context.__aenter__())
        try:
            yield RunningBroker(name=choice.kind, bootstrap_servers=process.bootstrap_servers)
        finally:
            runner.run(context.__aexit__(None, None, None))
