import os
import secrets

import pytest

from bridge.adapters.vault import new_encryption_key
from bridge.settings import Settings, read_settings
from tests.crash.api_process import running_api, write_key
from tests.crash.system import QuickBroker

RUNS = int(os.environ.get("BRIDGE_CRASH_RUNS", "5"))

pytestmark = pytest.mark.apache


@pytest.fixture
def settings(quick_broker: QuickBroker) -> Settings:
    return read_settings(
        kafka={"bootstrap_servers": quick_broker.bootstrap_servers},
        topics={"prefix": f"t{secrets.token_hex(6)}", "partitions": 2},
        webhooks={"encryption_keys": [new_encryption_key()], "allowed_networks": ["127.0.0.0/8"]},
    )


@pytest.fixture
def key(settings: Settings) -> str:
    return write_key(settings)


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
