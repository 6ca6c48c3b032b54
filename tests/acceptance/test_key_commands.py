"""`tams-bridge keys` on a broker: what is printed opens the API, and what is kept does not."""

import asyncio
import json
from base64 import urlsafe_b64decode

import pytest

from bridge.core.keyring import Keyring
from bridge.webhook_messages import Scope
from tests.acceptance.commands import Run, assert_one_line
from tests.adapters.topics import committed, producing
from tests.brokers import RunningBroker


@pytest.fixture
def keys(run: Run, broker: RunningBroker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`tams-bridge keys` on a broker with topics."""
    monkeypatch.setenv("BRIDGE_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    monkeypatch.setenv("BRIDGE_TOPICS__PREFIX", topic_prefix)
    monkeypatch.setenv("BRIDGE_TOPICS__PARTITIONS", "2")
    run("topics", "create")
    return lambda *arguments: run("keys", *arguments)


async def keyring_of(broker: RunningBroker, prefix: str) -> Keyring:
    keyring = Keyring()
    for record in await committed(broker.bootstrap_servers, f"{prefix}.api-keys"):
        assert record.key is not None
        keyring.apply(record.key, record.value)
    return keyring


def test_a_key_is_printed_once_and_opens_the_api(keys: Run, broker: RunningBroker, topic_prefix: str) -> None:
    """The key alone is on standard output, so that a script can keep it."""
    made = keys("create", "--name", "shop", "--scope", "jobs:read", "--scope", "jobs:write", "--tenant", "acme")

    found = asyncio.run(keyring_of(broker, topic_prefix)).find(made.out.strip())

    assert made.code == 0
    assert found is not None
    assert (found.name, found.scopes, found.tenant) == ("shop", (Scope.JOBS_READ, Scope.JOBS_WRITE), "acme")
    assert "shown this once" in made.err
    assert made.out.strip() not in made.err


def test_keys_are_listed_in_the_order_they_were_made_without_what_opens(keys: Run) -> None:
    first = json.loads(keys("create", "--name", "first", "--scope", "admin", "--json").out)
    second = json.loads(keys("create", "--name", "second", "--scope", "jobs:read", "--json").out)

    table, documents = keys("list"), keys("list", "--json")

    assert [line.split()[2:4] for line in table.out.splitlines()[1:]] == [
        [first["id"], "first"],
        [second["id"], "second"],
    ]
    assert [json.loads(line)["id"] for line in documents.out.splitlines()] == [first["id"], second["id"]]
    assert "hash" not in documents.out
    assert first["key"].rpartition("_")[2] not in table.out + documents.out


def test_a_revoked_key_opens_nothing_any_more(keys: Run, broker: RunningBroker, topic_prefix: str) -> None:
    made = json.loads(keys("create", "--name", "lost", "--scope", "admin", "--json").out)

    revoked, again = keys("revoke", made["id"]), keys("revoke", made["id"])

    assert (revoked.code, revoked.out) == (0, f"revoked {made['id']}\n")
    assert_one_line(again, about=f"no API key '{made['id']}'", code=1)
    assert asyncio.run(keyring_of(broker, topic_prefix)).find(made["key"]) is None


def test_a_key_that_cannot_be_read_is_told_and_can_be_revoked(
    keys: Run, broker: RunningBroker, topic_prefix: str
) -> None:
    """It lets nobody in, but somebody may wonder why."""

    async def write() -> None:
        async with producing(broker.bootstrap_servers) as producer:
            await producer.send_and_wait(f"{topic_prefix}.api-keys", b"{", key=b"odd", partition=0)

    asyncio.run(write())

    assert "odd: its record cannot be read" in keys("list").err
    assert keys("revoke", "odd").code == 0
    assert "odd" not in keys("list").err


def test_without_its_topic_no_key_is_made(
    run: Run, broker: RunningBroker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_TOPICS__PREFIX", topic_prefix)

    said = run("keys", "create", "--name", "x", "--scope", "admin", "--kafka", broker.bootstrap_servers)

    assert_one_line(said, about=f"there is no topic {topic_prefix}.api-keys")


def test_an_unknown_scope_is_refused_with_the_known_ones(run: Run) -> None:
    said = run("keys", "create", "--name", "x", "--scope", "everything")

    assert said.code == 2
    assert "webhooks:write" in said.err


def test_an_encryption_key_is_new_each_time_and_long_enough(run: Run) -> None:
    first, second = run("keys", "encryption-key").out.strip(), run("keys", "encryption-key").out.strip()

    assert first != second
    assert len(urlsafe_b64decode(first)) == 32
