"""From our settings to what aiokafka's clients take; and their end, which must come with the brokers gone, too."""

import asyncio
import ssl
from collections.abc import Coroutine
from itertools import chain
from typing import TypedDict

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.helpers import create_ssl_context
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from bridge.adapters.kafka import steady
from bridge.errors import CannotStart
from bridge.settings import KafkaSettings

STOP_S = 3.0
"""Longest time for a client to end in good order."""

_BREAK_OFF_S = 1.0
_CANCELS = 20
_CANCEL_S = 0.1


class ConnectionOptions(TypedDict):
    """Arguments shared by aiokafka's consumer, producer and admin client."""

    bootstrap_servers: str
    client_id: str
    request_timeout_ms: int
    security_protocol: str
    sasl_mechanism: str
    sasl_plain_username: str | None
    sasl_plain_password: str | None
    ssl_context: ssl.SSLContext | None


def connection_options(kafka: KafkaSettings) -> ConnectionOptions:
    """How to reach the brokers.

    Raises:
        CannotStart: a certificate file cannot be used.
    """
    steady.install()
    return ConnectionOptions(
        bootstrap_servers=kafka.bootstrap_servers,
        client_id=kafka.client_id,
        request_timeout_ms=milliseconds(kafka.request_timeout_s),
        security_protocol=kafka.security_protocol,
        sasl_mechanism=kafka.sasl_mechanism,
        sasl_plain_username=kafka.sasl_username,
        sasl_plain_password=kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
        ssl_context=_ssl_context(kafka) if kafka.security_protocol.endswith("SSL") else None,
    )


def broker_security(kafka: KafkaSettings) -> BaseSecurity:
    """The same, as FastStream wants it.

    Raises:
        CannotStart: a certificate file cannot be used.
    """
    context = _ssl_context(kafka) if kafka.security_protocol.endswith("SSL") else None
    if not kafka.security_protocol.startswith("SASL"):
        return BaseSecurity(ssl_context=context, use_ssl=context is not None)
    password = kafka.sasl_password.get_secret_value() if kafka.sasl_password else ""
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return kinds[kafka.sasl_mechanism](
        username=kafka.sasl_username or "", password=password, ssl_context=context, use_ssl=context is not None
    )


async def stop_client(client: AIOKafkaConsumer | AIOKafkaProducer, *, seconds: float = STOP_S) -> None:
    """Close a consumer or producer, started or not; raises nothing, whatever has become of it or of the brokers.

    With brokers gone, aiokafka's `stop` hangs, or ends as if it had been cancelled itself, hence the task of its own.
    What it leaves behind then would look for the brokers for ever and send what was given up: it is ended as well.

    Args:
        client: not to be used any more.
        seconds: longest time for it to end in good order.
    """
    has_stopped = False
    try:
        has_stopped = await _ends_well(client.stop(), seconds=seconds)
    finally:
        if not has_stopped:
            await _ends_well(_break_off(client), seconds=_CANCELS * _CANCEL_S + _BREAK_OFF_S)


async def _ends_well(work: Coroutine[object, object, None], *, seconds: float) -> bool:
    """Whether it came to its end in time and without an error; it is cancelled if not."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        is_late = task.cancel()
    return not is_late and not task.cancelled() and task.exception() is None


async def _break_off(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """End what is left of a client: what waits to be sent, what works in its background, its connections."""
    is_producer = isinstance(client, AIOKafkaProducer)
    connections = client.client if is_producer else client._client  # noqa: SLF001  there is no other way to all these
    worker = client._sender if is_producer else client._fetcher  # noqa: SLF001
    routine = worker and (worker.sender_task if is_producer else worker._fetch_task)  # noqa: SLF001
    for _ in range(_CANCELS):  # the first asks it to finish what is under way, each further one ends a part of that
        if routine is None or routine.done():
            break
        routine.cancel()
        await asyncio.wait([routine], timeout=_CANCEL_S)
    if is_producer:
        unsent = client._message_accumulator  # noqa: SLF001
        pending = unsent._pending_batches  # noqa: SLF001  from where a batch that has ended takes itself away
        pending |= set(chain.from_iterable(unsent._batches.values()))  # noqa: SLF001
        for batch in set(pending):
            _forget(batch.future)
            _forget(batch._drain_waiter)  # noqa: SLF001
    await connections.close()


def _forget(answer: "asyncio.Future[object]") -> None:
    """End a wait; an error that has come counts as told, which asyncio would else report."""
    if not answer.cancel() and not answer.cancelled():
        answer.exception()


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, as Kafka's clients count."""
    return max(1, round(seconds * 1000))


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext:
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=str(kafka.ssl_cafile) if kafka.ssl_cafile else None,
            certfile=str(kafka.ssl_certfile) if kafka.ssl_certfile else None,
            keyfile=str(kafka.ssl_keyfile) if kafka.ssl_keyfile else None,
            password=kafka.ssl_key_password.get_secret_value() if kafka.ssl_key_password else None,
        )
    except (OSError, ssl.SSLError) as error:
        message = f"kafka: the TLS files cannot be used: {error} (check BRIDGE_KAFKA__SSL_…)"
        raise CannotStart(message) from error
    context.check_hostname = kafka.ssl_check_hostname
    return context
