"""What a former release left in Kafka, and ledgers that go on with it: real records, by the real adapters' code."""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bridge.adapters.kafka.deliveries import DispatchReplay, KafkaDispatchLedger
from bridge.adapters.kafka.ledger import KafkaLedger, Replay
from bridge.adapters.kafka.topics import TopicNames
from bridge.adapters.kafka.transactions import Record
from bridge.ports import OpenLedger
from bridge.settings import read_settings
from bridge.webhook_ports import OpenDispatch
from tests.upgrade.story import Paper

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ledgers"


@dataclass(frozen=True, slots=True)
class MadeJob:
    """A job that TAMS had made.

    Args:
        tams_request_id: the `requestId` of its create.
        request_id: of our request.
        job_id: TAMS' id.
    """

    tams_request_id: str
    request_id: str
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Topics of one partition each, and the world around them.

    Args:
        records: all there is, in order; what is written from now on comes after it.
        made: what TAMS had made.
        encryption_key: of the registry's secrets.
        secrets: what signs POSTs, by owner.
        api_keys: as people hold them, by name.
    """

    records: list[Record]
    made: list[MadeJob]
    encryption_key: str
    secrets: dict[str, str]
    api_keys: dict[str, str]
    names: TopicNames = field(default_factory=lambda: TopicNames.of(read_settings(topics={"prefix": "t"}).topics))

    def of(self, topic: str) -> list[Record]:
        """The records of a topic."""
        return [record for record in self.records if record.topic == topic]

    def values(self, topic: str) -> list[bytes]:
        """Their values, but for nulls."""
        return [record.value for record in self.of(topic) if record.value is not None]

    def state(self, topic: str) -> dict[str, bytes]:
        """The latest value under each key."""
        state: dict[str, bytes] = {}
        for record in self.of(topic):
            key = (record.key or b"").decode()
            if record.value is None:
                state.pop(key, None)
            else:
                state[key] = record.value
        return state


def snapshot(release: Path) -> Snapshot:
    """What is kept of a release."""
    world = json.loads((release / "world.json").read_text())
    lines = [json.loads(line) for line in (release / "records.jsonl").read_text().splitlines()]
    return Snapshot(
        records=[Record(line["topic"], line["partition"], _raw(line["key"]), _raw(line["value"])) for line in lines],
        made=[MadeJob(**made) for made in world["tams"]],
        encryption_key=world["encryption_key"],
        secrets=world["secrets"],
        api_keys=world["api_keys"],
    )


def _raw(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


class PaperLedgers:
    """Implements `bridge.ports.Ledgers` over a snapshot."""

    def __init__(self, kept: Snapshot) -> None:
        self._kept = kept

    def open(self, partition: int) -> AbstractAsyncContextManager[OpenLedger]:
        """See the port."""
        return self._open(partition)

    @asynccontextmanager
    async def _open(self, partition: int) -> AsyncIterator[OpenLedger]:
        names, replay = self._kept.names, Replay()
        for record in self._kept.of(names.jobs):
            replay.add(record.key or b"", record.value)
        records, params = replay.decoded()
        counts = dict.fromkeys(names.all, 1)
        ledger = KafkaLedger(Paper(self._kept.records), read_settings(), names, counts, partition)
        yield OpenLedger(ledger=ledger, records=records, params=params, position=replay.position)


class PaperDispatchLedgers:
    """Implements `bridge.webhook_ports.DispatchLedgers` over a snapshot."""

    def __init__(self, kept: Snapshot) -> None:
        self._kept = kept

    def open(self, partition: int) -> AbstractAsyncContextManager[OpenDispatch]:
        """See the port."""
        return self._open(partition)

    @asynccontextmanager
    async def _open(self, partition: int) -> AsyncIterator[OpenDispatch]:
        names, replay = self._kept.names, DispatchReplay()
        for record in self._kept.of(names.deliveries):
            replay.add(record.key or b"", record.value)
        counts = dict.fromkeys(names.all, 1)
        yield replay.opened(KafkaDispatchLedger(Paper(self._kept.records), names, counts, partition))
