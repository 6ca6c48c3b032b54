import asyncio
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import pytest

from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.api_keys import ApiKeyTopic
from bridge.adapters.kafka.topics import Topics
from bridge.adapters.vault import new_encryption_key
from bridge.core.keyring import ID_BYTES, SECRET_BYTES, make_key
from bridge.settings import Settings, read_settings
from bridge.webhook_messages import ApiKey, Scope
from tests.crash.processes import TAMS_BRIDGE, Child, child
from tests.crash.system import QuickBroker

RUNS = int(os.environ.get("BRIDGE_CRASH_RUNS", "5"))
PATIENCE_S = 30

pytestmark = pytest.mark.apache


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """An API process and how it is asked."""

    process: Child
    port: int
    key: str

    def ask(self, method: str, path: str, body: object = None, *, idempotency_key: str = "") -> tuple[int, Any]:
        """One call: status and document; 0 while nothing answers."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            with connection.getresponse() as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except OSError:
            return 0, None
        finally:
            connection.close()

    def await_answer(self, path: str, status: int) -> Any:
        """The document, once it is answered with this status."""
        until = time.monotonic() + PATIENCE_S
        while (said := self.ask("GET", path))[0] != status:
            assert time.monotonic() < until, f"{path}: {said} after {PATIENCE_S} s"
            self.process.live_for(0.05)
        return said[1]


@pytest.fixture
def settings(quick_broker: QuickBroker) -> Settings:
    return read_settings(
        kafka={"bootstrap_servers": quick_broker.bootstrap_servers},
        topics={"prefix": f"t{secrets.token_hex(6)}", "partitions": 2},
        webhooks={"encryption_keys": [new_encryption_key()], "allowed_networks": ["127.0.0.0/8"]},
    )


@pytest.fixture
def key(settings: Settings) -> str:
    made, clock = make_key(secrets.token_bytes(ID_BYTES + SECRET_BYTES)), SystemClock()
    key = ApiKey(id=made.id, name="t", secret_hash=made.secret_hash, scopes=(Scope.ADMIN,), created=clock.now())

    async def write() -> None:
        await Topics(settings.kafka, settings.topics).create()
        await ApiKeyTopic(settings, clock=clock).write(key.id, key)

    asyncio.run(write())
    return made.text


@contextmanager
def running_api(settings: Settings, key: str) -> Iterator[Api]:
    """The command `tams-bridge api`, ready."""
    port = free_ports(1)[0]
    environment = {
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "BRIDGE_TOPICS__PREFIX": settings.topics.prefix,
        "BRIDGE_WEBHOOKS__ENCRYPTION_KEYS": json.dumps(
            [key.get_secret_value() for key in settings.webhooks.encryption_keys]
        ),
        "BRIDGE_WEBHOOKS__ALLOWED_NETWORKS": json.dumps(settings.webhooks.allowed_networks),
        "BRIDGE_HTTP__PORT": str(port),
        "BRIDGE_LOG__FORMAT": "json",
    }
    with child([*TAMS_BRIDGE, "api"], environment) as process:
        api = Api(process=process, port=port, key=key)
        api.await_answer("/v1/endpoints", 200)
        yield api


@pytest.mark.timeout(0)  # every wait in here has a time-out of its own
def test_an_endpoint_is_there_though_the_api_was_killed_right_after_its_201(settings: Settings, key: str) -> None:
    """A change is acknowledged only when the brokers have it; so the next process has it, and all before it."""
    made: list[str] = []
    for number in range(min(RUNS, 20)):
        with running_api(settings, key) as api:
            assert sorted(each["id"] for each in api.ask("GET", "/v1/endpoints")[1]["data"]) == sorted(made)
            status, endpoint = api.ask("POST", "/v1/endpoints", {"url": f"http://127.0.0.1:9/{number}"})
            api.process.kill()
        assert status == 201, endpoint
        assert endpoint["secret"].startswith("whsec_")
        made.append(endpoint["id"])
    with running_api(settings, key) as api:
        for number, endpoint_id in enumerate(made):
            assert api.await_answer(f"/v1/endpoints/{endpoint_id}", 200)["url"] == f"http://127.0.0.1:9/{number}"


@pytest.mark.timeout(0)
def test_a_repeat_with_the_same_idempotency_key_finds_what_a_killed_process_made(settings: Settings, key: str) -> None:
    """Whoever lost the answer to the crash asks again, elsewhere, and gets the same endpoint with its secret."""
    body = {"url": "http://127.0.0.1:9/once"}
    answers = []
    for _ in range(2):
        with running_api(settings, key) as api:
            answers.append(api.ask("POST", "/v1/endpoints", body, idempotency_key="k1")[1])
            api.process.kill()

    first, second = answers
    assert (first["id"], first["secret"]) == (second["id"], second["secret"])
