"""The ledger on a real broker: what it writes, in which form, and that nothing is lost on the way."""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.v1.kafka import KafkaMessage as OldKafkaMessage
from cloudevents.v1.kafka import from_binary as old_from_binary

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.ledger import KafkaLedgers, Replay
from bridge.adapters.kafka.topics import Topics
from bridge.core.documents import read_job
from bridge.core.jobs import JobPolicy
from bridge.core.partition import Partition
from bridge.errors import LedgerUnavailable
from bridge.messages import DeadLetterReason, EventType, Failure, JobEvent, JobRecord, Phase, Seen, Stop
from bridge.ports import Arrival, Changes, DeadLetter
from bridge.settings import Settings
from tests.adapters.documents import PAGE_EXAMPLE, REAL_SUCCESS
from tests.adapters.topics import Record, committed, producing, settings_for
from tests.brokers import RunningBroker

NOW = SystemClock().now()


@dataclass(frozen=True, slots=True)
class Outbox:
    """Ledgers on topics of their own."""

    ledgers: KafkaLedgers
    settings: Settings

    async def commit(self, *changes: Changes, partition: int = 0) -> None:
        """Write these, one transaction each, as an owner that goes away afterwards."""
        async with self.ledgers.open(partition) as opened:
            for change in changes:
                await opened.ledger.commit(change)

    async def records(self, topic: str, partition: int = 0) -> list[Record]:
        """All committed records of one of our topics."""
        servers = self.settings.kafka.bootstrap_servers
        return await committed(servers, f"{self.settings.topics.prefix}.{topic}", partition)


@pytest.fixture
async def outbox(broker: RunningBroker, topic_prefix: str) -> Outbox:
    settings = settings_for(broker, topic_prefix)
    topics = Topics(settings.kafka, settings.topics)
    await topics.create()
    counts = {state.name: state.partitions for state in await topics.check()}
    return Outbox(KafkaLedgers(settings, topics.names, counts), settings)


def event(kind: EventType = EventType.ACCEPTED, request_id: str = "order-1", **fields: Any) -> JobEvent:
    return JobEvent(
        **{
            "id": f"{request_id}.1",
            "type": kind,
            "time": NOW,
            "request_id": request_id,
            "sequence": 1,
            "attempt": 1,
            "labels": {},
            **fields,
        }
    )


def telling(*events: JobEvent, copied: dict[str, str] | None = None) -> Changes:
    job = JobRecord(request_id="order-1", phase=Phase.ACCEPTED, accepted_at=NOW, headers=copied)
    return Changes(position=1, events=[(told, job) for told in events])


FULL_RECORD = JobRecord(
    request_id="bestellung-ü",
    phase=Phase.TRACKING,
    sequence=7,
    attempt=2,
    max_attempts=3,
    accepted_at=NOW,
    seed="t-0-1@5",
    tries=3,
    not_before=NOW + timedelta(seconds=1),
    lease_until=NOW + timedelta(microseconds=1),
    deadline=NOW + timedelta(days=1),
    doubt=True,
    stop=Stop.DEADLINE,
    stop_told=True,
    missing_since=NOW,
    job_id="881417947308949275",
    status="PAUSED",
    queue_rank=0,
    progress=0.123456789,
    finished_nodes=4,
    job=msgspec.Raw(b'{"credits":0.80,"new":[1e3]}'),
    error=Failure(code="x", message="y", retryable=True, http_status=500, details=msgspec.Raw(b"[1.50]")),
    expires_at=NOW,
    labels={"tenant": "ü"},
    headers={"traceparent": "00-1"},
    webhook=msgspec.Raw(b'{"url":"https://x"}'),
)


async def test_every_field_of_a_record_comes_back_as_it_was(outbox: Outbox) -> None:
    request_id = FULL_RECORD.request_id
    await outbox.commit(Changes(records={request_id: FULL_RECORD}, params={request_id: b"{}"}))

    async with outbox.ledgers.open(0) as opened:
        (restored,) = opened.records

    assert msgspec.structs.asdict(restored) == msgspec.structs.asdict(FULL_RECORD)


async def test_forgetting_writes_tombstones(outbox: Outbox) -> None:
    await outbox.commit(
        Changes(records={"a": FULL_RECORD}, params={"a": b"{}"}), Changes(records={"a": None}, params={"a": None})
    )

    found = await outbox.records("jobs")

    assert [(record.key, record.value) for record in found[-2:]] == [(b"a", None), (b"a\x1fparams", None)]


async def test_a_commit_far_larger_than_a_batch_is_one_transaction(outbox: Outbox) -> None:
    """Events, state and graphs of several megabytes; each topic gets them over several batches."""
    params: dict[str, bytes | None] = {f"r{number}": b'{"prompt":"%s"}' % (b"x" * 100_000) for number in range(60)}
    events = [event(request_id=f"r{number}", labels={"filler": "y" * 20_000}) for number in range(60)]

    await outbox.commit(Changes(params=params, events=telling(*events).events, position=60))

    async with outbox.ledgers.open(0) as opened:
        assert opened.params == params
        assert opened.position == 60
    assert [record.key for record in await outbox.records("progress")] == [f"r{n}".encode() for n in range(60)]


async def test_a_graph_of_the_longest_size_is_kept(outbox: Outbox) -> None:
    longest = b'{"p":"%s"}' % (b"x" * outbox.settings.worker.max_request_bytes)

    await outbox.commit(Changes(params={"a": longest}))

    async with outbox.ledgers.open(0) as opened:
        assert opened.params == {"a": longest}


async def test_an_aborted_owner_leaves_nothing_behind(outbox: Outbox) -> None:
    """The last state before a crash in the middle of a transaction is the last one that was committed."""
    async with outbox.ledgers.open(0) as former:
        await former.ledger.commit(Changes(position=1))
        producer = former.ledger._writer._producer  # type: ignore[attr-defined]
        await producer.begin_transaction()
        jobs = f"{outbox.settings.topics.prefix}.jobs"
        await producer.send_and_wait(jobs, b"99", key=b"\x1fposition", partition=0)
        async with outbox.ledgers.open(0) as latter:
            assert latter.position == 1


async def test_a_record_of_an_unknown_layout_stops_the_partition_loudly(outbox: Outbox) -> None:
    jobs = f"{outbox.settings.topics.prefix}.jobs"
    async with producing(outbox.settings.kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(jobs, b'{"phase": "dreaming"}', key=b"a", partition=0)

    with pytest.raises(LedgerUnavailable, match="cannot be read"):
        async with outbox.ledgers.open(0):
            pytest.fail("opened")


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (b"order-1", b'{"request_id":"order-1","phase":"tracking","accepted_at":"2026-03-01T12:00:00Z"}', "graph"),
        (b"order-1", b'{"request_id":"order-1","phase":"success","accepted_at":"2026-03-01T12:00:00"}', "timezone"),
        (b"order-1", b'{"request_id":"order-1","phase":"success","accepted_at":"9999-12-31T23:59:59Z"}', "year 9999"),
        (b"order-1", b'{"request_id":"order-1","phase":"success","accepted_at":"0001-01-01T00:00:00Z"}', "year 1"),
        (b"order-1", b'{"request_id":"order-1","phase":"%s"}' % (b"x" * 100_000), "cannot be read"),
        (b"order-2", b'{"request_id":"order-1","phase":"success","accepted_at":"2026-03-01T12:00:00Z"}', "id"),
        (
            b"order-1",
            b'{"request_id":"order-1","phase":"success","accepted_at":"2026-03-01T12:00:00Z","webhook":{"url":7}}',
            "webhook",
        ),
        (b"order-1", b'{"request_id":"order-1","priority":10,"phase":"success","accepted_at":"0"}', "cannot be read"),
        (b"order-1", b'{"request_id":' + b"[" * 100_000, "cannot be read"),
        (b"\x1fposition", b"9" * 5_000, "position"),
    ],
)
def test_a_ledger_that_nobody_could_work_on_is_refused_in_a_few_words(key: bytes, value: bytes, why: str) -> None:
    """An owner that took it over would stumble later, and its process with it."""
    with pytest.raises(LedgerUnavailable, match=why) as refused:
        _restored(key, value)

    assert len(str(refused.value)) < 1_000


def _restored(key: bytes, value: bytes) -> list[JobRecord]:
    replay = Replay()
    replay.add(key, value)
    return replay.decoded()[0]


def test_a_graph_under_no_readable_key_harms_nobody() -> None:
    assert _restored(b"\xff\x1fparams", b"{}") == []


@pytest.mark.parametrize("kind", EventType)
async def test_each_event_goes_to_its_topic(kind: EventType, outbox: Outbox) -> None:
    await outbox.commit(telling(event(kind)))

    progress = {"accepted", "submitted", "waiting", "running", "retrying", "duplicate"}
    word = kind.rpartition(".")[2]
    expected = "progress" if word in progress else "success" if word == "success" else "failed"
    found = {topic: len(await outbox.records(topic)) for topic in ("progress", "success", "failed")}
    assert found == {topic: int(topic == expected) for topic in found}


async def test_an_event_is_a_cloud_event_in_binary_mode(outbox: Outbox) -> None:
    told = event(EventType.SUCCESS, "bestellung-ü", id="bestellung-ü.12", sequence=12)

    await outbox.commit(telling(told, copied={"traceparent": "00-abc-01", "correlation_id": "c"}))

    (record,) = await outbox.records("success")
    assert record.key == "bestellung-ü".encode()
    assert list(record.headers) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", "bestellung-ü.12".encode()),
        ("ce_source", b"/tams-bridge"),
        ("ce_type", b"tams.job.success"),
        ("ce_time", NOW.isoformat().encode()),
        ("ce_subject", "bestellung-ü".encode()),
        ("ce_sequence", b"0000000012"),
        ("content-type", b"application/json"),
        ("traceparent", b"00-abc-01"),
        ("correlation_id", b"c"),
    ]
    assert abs(record.timestamp / 1000 - NOW.timestamp()) < 0.01


async def test_the_cloudevents_package_reads_an_event(outbox: Outbox) -> None:
    """Version 2 of its Kafka binding, and the one that its users have known until now."""
    await outbox.commit(telling(event(labels={"tenant": "acme"})))
    (record,) = await outbox.records("progress")
    headers = {name: value for name, value in record.headers if value is not None}
    assert record.value is not None

    read = from_binary(KafkaMessage(headers=headers, key=record.key, value=record.value), JSONFormat())
    old = old_from_binary(OldKafkaMessage(headers=headers, key=record.key, value=record.value))

    assert (read.get_id(), read.get_type(), read.get_source()) == ("order-1.1", "tams.job.accepted", "/tams-bridge")
    assert (read.get_subject(), read.get_extension("sequence")) == ("order-1", "0000000001")
    assert read.get_time() == NOW
    data = read.get_data()
    assert isinstance(data, dict)
    assert data["labels"] == {"tenant": "acme"}
    assert old["id"] == "order-1.1"


async def test_events_of_a_request_lie_in_the_partition_of_its_ledger(outbox: Outbox) -> None:
    await outbox.commit(telling(event()), partition=1)

    assert len(await outbox.records("progress", 1)) == 1
    assert await outbox.records("progress", 0) == []


ODD: dict[str, Arrival] = {
    "no value": Arrival(offset=4, key=b"k", value=None),
    "no key": Arrival(offset=4, key=None, value=b"{"),
    "neither": Arrival(offset=4, key=None, value=None),
    "empty": Arrival(offset=4, key=b"", value=b""),
    "binary": Arrival(offset=4, key=bytes(range(256)), value=bytes(range(256))),
    "headers": Arrival(
        offset=4,
        key=b"k",
        value=b"{",
        headers=(("a", None), ("a", b"\xff\x00"), ("", b""), ("ü", b"1"), ("dlq-reason", b"theirs")),
    ),
}


@pytest.mark.parametrize("name", ODD)
async def test_a_dead_letter_is_parked_as_received_with_the_reason(name: str, outbox: Outbox) -> None:
    arrival = ODD[name]
    letter = DeadLetter(arrival, DeadLetterReason.EMPTY, "because; ü", NOW)

    await outbox.commit(Changes(dead_letters=[letter], position=5), partition=1)

    (record,) = await outbox.records("dead-letter", 1)
    assert (record.key, record.value) == (arrival.key, arrival.value)
    theirs, ours = record.headers[: len(arrival.headers)], record.headers[len(arrival.headers) :]
    assert tuple(theirs) == arrival.headers
    assert dict(ours) == {
        "dlq-reason": b"empty",
        "dlq-error": "because; ü".encode(),
        "dlq-topic": f"{outbox.settings.topics.prefix}.requests".encode(),
        "dlq-partition": b"1",
        "dlq-offset": b"4",
        "dlq-time": NOW.isoformat().encode(),
    }


async def test_a_dead_letter_as_long_as_the_topic_allows_is_parked(outbox: Outbox) -> None:
    longest = Arrival(offset=0, key=b"k", value=b"x" * (outbox.settings.topics.max_message_bytes - 200))

    await outbox.commit(Changes(dead_letters=[DeadLetter(longest, DeadLetterReason.TOO_LARGE, "d" * 500, NOW)]))

    (record,) = await outbox.records("dead-letter")
    assert record.value == longest.value


@pytest.mark.parametrize("document", [REAL_SUCCESS, PAGE_EXAMPLE], ids=["real success", "page example"])
async def test_a_document_of_tams_goes_through_models_and_events_with_nothing_lost_or_changed(
    document: bytes, outbox: Outbox
) -> None:
    """From the answer's bytes over core and ledger to the event, and back from the ledger of a successor."""
    name = f"{outbox.settings.topics.prefix}.requests"
    partition = Partition(topic=name, number=0, policy=JobPolicy(), max_request_bytes=10_000)
    partition.arrive(Arrival(offset=0, key=b"order-1", value=b'{"params": {"1": {}}}'), NOW)
    partition.grant("order-1", NOW)
    partition.submitted("order-1", 1, Seen(read_job(document)), NOW, 0.0)

    await outbox.commit(partition.take()[0])

    expected = json.loads(document)["job"]
    events = [*(await outbox.records("progress")), *(await outbox.records("success"))]
    told = [json.loads(record.value or b"") for record in events]
    assert [told_event["job"] for told_event in told if "job" in told_event] == [expected] * (len(told) - 1)
    raw = msgspec.json.decode(document, type=dict[str, msgspec.Raw])["job"]
    assert all(bytes(raw) in (record.value or b"") for record in events[1:])
    async with outbox.ledgers.open(0) as opened:
        (restored,) = opened.records
    assert bytes(restored.job) == bytes(raw)
