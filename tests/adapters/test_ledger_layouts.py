"""Ledgers that another release has written: what is refused, and in which words; no broker is needed to read them."""

from collections.abc import Callable

import msgspec
import pytest

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.deliveries import DispatchReplay, KafkaDispatchLedger
from bridge.adapters.kafka.ledger import Replay
from bridge.adapters.kafka.topics import TopicNames
from bridge.adapters.kafka.transactions import Record, TransactionalWriter
from bridge.errors import LedgerUnavailable
from bridge.messages import JobRecord, Phase
from bridge.settings import read_settings
from bridge.webhook_messages import Delivery, ReplayOrder
from bridge.webhook_messages import Replay as PastReplay
from tests.upgrade.story import Paper

NOW = SystemClock().now()
US = b"\x1f"
JOB = JobRecord(request_id="a", phase=Phase.ACCEPTED, accepted_at=NOW)
DELIVERY = Delivery(
    endpoint_id="ep_a", event_id="a.1", type="tams.job.success", request_id="a", sequence=1, time=NOW, ordered=NOW
)
PAST = PastReplay(
    order=ReplayOrder(replay_id="rp_1", endpoint_id="ep_a", since=NOW, until=NOW, created=NOW), changed=NOW
)
JOB_KEY, DELIVERY_KEY, PAST_KEY = b"a", b"ep_a/a.1", b"ep_a" + US + b"replay" + US + b"rp_1"

Read = Callable[[dict[bytes, bytes | None]], object]


def jobs_of(records: dict[bytes, bytes | None]) -> object:
    replay = Replay()
    replay.add(JOB_KEY + US + b"params", b"{}")
    for key, value in records.items():
        replay.add(key, value)
    return replay.decoded()[0]


def deliveries_of(records: dict[bytes, bytes | None]) -> object:
    replay = DispatchReplay()
    replay.add(DELIVERY_KEY + US + b"event", b"{}")
    for key, value in records.items():
        replay.add(key, value)
    names = TopicNames.of(read_settings().topics)
    writer: TransactionalWriter = Paper(list[Record]())
    opened = replay.opened(KafkaDispatchLedger(writer, names, dict.fromkeys(names.all, 1), 0))
    return [*opened.deliveries, *opened.replays]


KINDS: dict[str, tuple[Read, bytes, msgspec.Struct]] = {
    "job": (jobs_of, JOB_KEY, JOB),
    "delivery": (deliveries_of, DELIVERY_KEY, DELIVERY),
    "replay": (deliveries_of, PAST_KEY, PAST),
}

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_record_of_this_layout_is_read(kind: str) -> None:
    read, key, record = KINDS[kind]

    assert read({key: msgspec.json.encode(record)}) == [record]


@kinds
def test_record_of_a_later_layout_keeps_the_partition_closed_though_it_seems_to_fit(kind: str) -> None:
    """With words for health: to pass over it would be to lose it, to read it would be a guess."""
    read, key, record = KINDS[kind]
    later = msgspec.json.encode(msgspec.structs.replace(record, version=2))

    with pytest.raises(
        LedgerUnavailable, match=r"ledger holds a record \(\w+\) of layout 2, written by a later release"
    ):
        read({key: later})


@kinds
def test_record_that_is_damaged_keeps_the_partition_closed_and_is_named(kind: str) -> None:
    read, key, _ = KINDS[kind]

    with pytest.raises(LedgerUnavailable, match=rf"cannot be read, under .*{key[:4].decode()}"):
        read({key: b'{"phase": "dreaming"}'})


@pytest.mark.parametrize(("read", "key"), [(jobs_of, b"a"), (deliveries_of, b"ep_a/a.1")])
def test_kind_of_record_that_is_not_known_keeps_the_partition_closed(read: Read, key: bytes) -> None:
    """A later release keeps something that this one would not carry on."""
    record = msgspec.json.encode(JOB if read is jobs_of else DELIVERY)

    with pytest.raises(LedgerUnavailable, match="a kind of record that this release does not know: run the release"):
        read({key: record, key + US + b"later": record})


@pytest.mark.parametrize("read", [jobs_of, deliveries_of])
def test_what_a_later_release_has_taken_back_does_no_harm(read: Read) -> None:
    assert read({b"a": None, b"a" + US + b"later": None, US + b"position": b"7"}) == []


@pytest.mark.parametrize("read", [jobs_of, deliveries_of])
@pytest.mark.parametrize("value", [b"", b"seven", b'{"offset": 7}', b"\xff"])
def test_position_that_cannot_be_read_keeps_the_partition_closed(read: Read, value: bytes) -> None:
    """From where else to read on? From the start, all jobs would be submitted again."""
    with pytest.raises(LedgerUnavailable, match="a position that cannot be read"):
        read({US + b"position": value})
