"""The commands that need a broker and nothing else, as a person meets them."""

import asyncio
import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from bridge.cli import main
from tests.brokers import RunningBroker

EVENT = {
    "id": "order-1.1",
    "type": "tams.job.accepted",
    "time": "2026-11-24T10:15:04Z",
    "request_id": "order-1",
    "sequence": 1,
    "attempt": 1,
    "labels": {},
}


class Shell:
    """Runs commands in this process, each as if typed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str]:
        """Give the exit code and what came on standard output."""
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        code = ended.value.code
        return (code if isinstance(code, int) else 0), self._capsys.readouterr().out


@pytest.fixture
def shell(
    broker: RunningBroker,
    topic_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    monkeypatch.setenv("BRIDGE_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    monkeypatch.setenv("BRIDGE_TOPICS__PREFIX", topic_prefix)
    monkeypatch.setenv("BRIDGE_TOPICS__PARTITIONS", "2")
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(capsys)


async def produce(servers: str, topic: str, value: bytes, headers: list[tuple[str, bytes]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, key=b"order-1", headers=headers)
    finally:
        await producer.stop()


def test_topics_are_missed_created_and_found_fine(shell: Shell, topic_prefix: str) -> None:
    """What `check` finds wrong, `create` mends; a second `create` has nothing to do."""
    missed = shell.run("topics", "check")
    created = shell.run("topics", "create")
    again = shell.run("topics", "create")
    fine = shell.run("topics", "check")

    assert (missed[0], created[0], again[0], fine[0]) == (1, 0, 0, 0)
    assert f"{topic_prefix}.requests: is absent: run `tams-bridge topics create`" in missed[1]
    assert f"created {topic_prefix}.jobs" in created[1]
    assert "nothing to create" in again[1]
    assert f"{topic_prefix}.requests: fine, 2 partitions" in fine[1]


def test_submit_without_wait_prints_ids_and_cancel_says_what_it_did(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids are the whole answer, so that a script can use them."""
    shell.run("topics", "create")
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps([{"request_id": f"order-{number}", "params": {}} for number in range(2)]))
    monkeypatch.setattr(sys, "stdin", StringIO('{"3": {"classType": "KSampler", "inputs": {}}}'))

    many = shell.run("submit", str(file))
    one = shell.run("submit", "-", "--id", "order-9", "--label", "tenant=acme")
    canceled = shell.run("cancel", "order-9")

    assert many == (0, "order-0\norder-1\n")
    assert one == (0, "order-9\n")
    assert canceled == (0, "asked to cancel order-9\n")


@pytest.mark.parametrize("as_json", [True, False])
def test_watch_shows_events_and_parked_requests(
    *, as_json: bool, shell: Shell, broker: RunningBroker, topic_prefix: str
) -> None:
    """Both kinds of news come from one command, for eyes or for scripts."""
    shell.run("topics", "create")
    why = [("dlq-reason", b"invalid_json"), ("dlq-error", b"not JSON")]
    asyncio.run(
        produce(broker.bootstrap_servers, f"{topic_prefix}.progress", json.dumps(EVENT).encode(), [("ce_id", b"x")])
    )
    asyncio.run(produce(broker.bootstrap_servers, f"{topic_prefix}.dead-letter", b"{", why))

    code, shown = shell.run(
        "watch", "--from-start", "--id", "order-1", "--count", "2", *(["--json"] if as_json else [])
    )

    assert code == 0
    if as_json:
        parked = {"type": "parked", "request_id": "order-1", "reason": "invalid_json", "detail": "not JSON"}
        assert sorted((json.loads(line) for line in shown.splitlines()), key=len) == [parked, EVENT]
    else:
        assert "order-1 #1 accepted" in shown
        assert "order-1 parked: invalid_json: not JSON" in shown
