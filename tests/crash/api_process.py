"""A process of the HTTP API, as a person would start it, and how it is asked."""

import asyncio
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.api_keys import ApiKeyTopic
from bridge.adapters.kafka.topics import Topics
from bridge.core.keyring import ID_BYTES, SECRET_BYTES, make_key
from bridge.settings import Settings
from bridge.webhook_messages import ApiKey, Scope
from tests.crash.processes import TAMS_BRIDGE, Child, child

PATIENCE_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """How the API is asked, whichever process answers.

    Args:
        port: where it listens.
        key: an API key.
        patience_s: longest wait for an answer.
    """

    port: int
    key: str
    patience_s: float = 10.0

    def ask(self, method: str, path: str, body: object = None, *, idempotency_key: str = "") -> tuple[int, Any]:
        """One call: status and document; 0 while nothing answers."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=self.patience_s)
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            with connection.getresponse() as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except (OSError, HTTPException):
            return 0, None
        finally:
            connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiProcess(Api):
    """The same, of one process."""

    process: Child

    def await_answer(self, path: str, status: int) -> Any:
        """The document, once it is answered with this status."""
        until = time.monotonic() + PATIENCE_S
        while (said := self.ask("GET", path))[0] != status:
            assert time.monotonic() < until, f"{path}: {said} after {PATIENCE_S} s"
            self.process.live_for(0.05)
        return said[1]


def write_key(settings: Settings) -> str:
    """Create the topics and an API key that may do everything; the key."""
    made, clock = make_key(secrets.token_bytes(ID_BYTES + SECRET_BYTES)), SystemClock()
    key = ApiKey(id=made.id, name="t", secret_hash=made.secret_hash, scopes=(Scope.ADMIN,), created=clock.now())

    async def write() -> None:
        await Topics(settings.kafka, settings.topics).create()
        await ApiKeyTopic(settings, clock=clock).write(key.id, key)

    asyncio.run(write())
    return made.text


def environment_of_api(settings: Settings, port: int) -> dict[str, str]:
    """What the command `tams-bridge api` is to be told."""
    return {
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "BRIDGE_TOPICS__PREFIX": settings.topics.prefix,
        "BRIDGE_WEBHOOKS__ENCRYPTION_KEYS": json.dumps(
            [key.get_secret_value() for key in settings.webhooks.encryption_keys]
        ),
        "BRIDGE_WEBHOOKS__ALLOWED_NETWORKS": json.dumps(settings.webhooks.allowed_networks),
        "BRIDGE_HTTP__PORT": str(port),
        "BRIDGE_LOG__FORMAT": "json",
    }


@contextmanager
def running_api(settings: Settings, key: str) -> Iterator[ApiProcess]:
    """The command `tams-bridge api`, ready."""
    port = free_ports(1)[0]
    with child([*TAMS_BRIDGE, "api"], environment_of_api(settings, port)) as process:
        api = ApiProcess(process=process, port=port, key=key)
        api.await_answer("/v1/endpoints", 200)
        yield api
