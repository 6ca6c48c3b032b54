"""What aiokafka needs to live through connections that break at any moment, and how to tell that it has not.

A write to a connection that has just been reset raises `RuntimeError` on uvloop ("the handler is closed"), where
asyncio's own loop says nothing. aiokafka expects an `OSError`. What it does not expect ends whichever of its tasks was
writing, and most of them in silence: a consumer gets no record any more, a client never again learns who leads a
partition. So the error is translated where it is raised; and whoever reads or writes asks from time to time whether
such a task has ended all the same, which nothing else would tell.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import wraps

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

from bridge.errors import ClientDied

_Answer = asyncio.Future[object]
_Send = Callable[..., _Answer]


def install() -> None:
    """Make every connection of this process such; safe to repeat."""
    for name in ("send", "_send_sasl_token"):
        send = getattr(AIOKafkaConnection, name)
        if not hasattr(send, "__wrapped__"):
            setattr(AIOKafkaConnection, name, _steady(send))


def check(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Make sure that a started client can work.

    Raises:
        ClientDied: one of its tasks has ended.
    """
    problem = death(client)
    if problem:
        raise ClientDied(f"kafka: {problem}: the process must be started again")


def death(client: AIOKafkaConsumer | AIOKafkaProducer) -> str:
    """Which task of a started client has ended, and why; empty while it can work."""
    if client._closed:  # noqa: SLF001  there is no other way to all these
        return ""
    for name, task in _tasks(client):
        if task is not None and task.done():
            error = None if task.cancelled() else task.exception()
            return f"the client's {name} has ended ({type(error).__name__}: {error})"
    return ""


def _steady(send: _Send) -> _Send:
    @wraps(send)
    def steady(connection: AIOKafkaConnection, *args: object, **options: object) -> _Answer:
        try:
            return send(connection, *args, **options)
        except RuntimeError as error:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            message = f"Connection at {connection.host}:{connection.port} broken: {error}"
            raise KafkaConnectionError(message) from error

    return steady


def _tasks(client: AIOKafkaConsumer | AIOKafkaProducer) -> Iterator[tuple[str, "asyncio.Task[None] | None"]]:
    if isinstance(client, AIOKafkaProducer):
        yield "look-out for leaders", client.client._sync_task  # noqa: SLF001  as above
        yield "sender", client._sender.sender_task  # noqa: SLF001
        return
    yield "look-out for leaders", client._client._sync_task  # noqa: SLF001
    yield "fetcher", client._fetcher._fetch_task  # noqa: SLF001
    yield "group member", getattr(client._coordinator, "_coordination_task", None)  # noqa: SLF001
