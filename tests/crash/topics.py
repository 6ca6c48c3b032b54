"""The topics as a client sees them that was not written here: librdkafka, read_committed."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from typing_extensions import override

from tests.crash.judge import Event, Ledgered, is_ended

PARAMS_SUFFIX = "\x1fparams"
POSITION_KEY = "\x1fposition"


class Reader:
    """Reads topics from their beginning, as far as is wanted; `take` is for those who know what is in them.

    Args:
        bootstrap_servers: the broker.
        prefix: of the topics.
        names: last parts of the topics' names; they must exist.
    """

    def __init__(self, bootstrap_servers: str, prefix: str, names: Sequence[str]) -> None:
        self.prefix = prefix
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": f"{prefix}.outsider",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "log_level": 0,
            }
        )
        topics = [f"{prefix}.{name}" for name in names]
        present = self._consumer.list_topics(timeout=10).topics
        self._partitions = [TopicPartition(t, p, OFFSET_BEGINNING) for t in topics for p in present[t].partitions]
        self._consumer.assign(self._partitions)
        self._at_end: set[tuple[str, int]] = set()

    def take(self, name: str, message: Message) -> None:
        """Take in a record of the topic with this last part of its name."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def until(self, enough: Callable[[], bool], *, seconds: float, what: Callable[[], object]) -> None:
        """Read until it is enough.

        Raises:
            AssertionError: it was not in time.
        """
        until = time.monotonic() + seconds
        while not enough():
            assert time.monotonic() < until, f"not within {seconds} s: {what()}"
            self._take(self._consumer.consume(500, 0.1))

    def to_the_end(self) -> None:
        """Read all that there is; also proves that no transaction was left open, as nothing could be read beyond."""
        self._at_end.clear()
        everywhere = {(tp.topic, tp.partition) for tp in self._partitions}

        def complete() -> bool:
            return all(self._is_read(tp) for tp in self._partitions)

        self.until(complete, seconds=30, what=lambda: f"the end of {everywhere - self._at_end}")

    def _is_read(self, tp: TopicPartition) -> bool:
        if (tp.topic, tp.partition) in self._at_end:
            return True
        try:
            _, end = self._consumer.get_watermark_offsets(tp, timeout=10)
        except KafkaException:  # the leader is another one now, and this client has not heard of it yet
            return False
        position = self._consumer.position([tp])[0].offset
        if end == 0 or position >= end:
            self._at_end.add((tp.topic, tp.partition))
            return True
        return False

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            error = message.error()
            if error is None:
                self.take((message.topic() or "").removeprefix(f"{self.prefix}."), message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error.str()


class Follower(Reader):
    """Reads the result, dead-letter and ledger topics of a worker.

    Args:
        bootstrap_servers, prefix: see `Reader`.
    """

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        super().__init__(bootstrap_servers, prefix, ("progress", "success", "failed", "dead-letter", "jobs"))
        self._records: dict[str, dict[str, Any]] = {}
        self._keeps_params: set[str] = set()
        self.events: list[Event] = []
        self.stories: defaultdict[str, list[Event]] = defaultdict(list)
        self.dead_letters: list[str] = []

    def until_ended(self, request_ids: Iterable[str], *, seconds: float) -> None:
        """Read until each of these requests has a terminal event."""
        left = set(request_ids)

        def ended() -> bool:
            left.difference_update([name for name in left if is_ended(self.stories.get(name, []))])
            return not left

        def missing() -> object:
            return {name: [event.kind for event in self.stories.get(name, [])] for name in sorted(left)[:10]}

        self.until(ended, seconds=seconds, what=lambda: f"{len(left)} requests have not ended, such as {missing()}")

    def ledger(self) -> dict[str, Ledgered]:
        """What the ledger says last of each request."""
        return {
            name: Ledgered(
                phase=record["phase"], sequence=record.get("sequence", 0), keeps_params=name in self._keeps_params
            )
            for name, record in self._records.items()
        }

    @override
    def take(self, name: str, message: Message) -> None:
        match name:
            case "jobs":
                self._take_record(text(message.key()), message.value())
            case "dead-letter":
                headers = _headers(message)
                self.dead_letters.append(f"{headers['dlq-partition']}/{headers['dlq-offset']}")
            case _:
                event = _event(message)
                self.events.append(event)
                self.stories[event.request_id].append(event)

    def _take_record(self, key: str, value: str | bytes | None) -> None:
        if key == POSITION_KEY:
            return
        name = key.removesuffix(PARAMS_SUFFIX)
        if name != key:
            (self._keeps_params.discard if value is None else self._keeps_params.add)(name)
        elif value is None:
            self._records.pop(name, None)
        else:
            self._records[name] = json.loads(value)


def _event(message: Message) -> Event:
    document = json.loads(message.value() or b"")
    job = document.get("job", {})
    return Event(
        id=document["id"],
        kind=document["type"].removeprefix("tams.job."),
        request_id=document["request_id"],
        sequence=document["sequence"],
        attempt=document["attempt"],
        job_id=job.get("id", ""),
        status=job.get("status", ""),
        key=text(message.key()),
        headers=_headers(message),
    )


def _headers(message: Message) -> Mapping[str, str]:
    headers = message.headers()
    return {name: text(value) for name, value in headers} if isinstance(headers, list) else {}


def text(raw: str | bytes | None) -> str:
    """A key or header as text."""
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw or ""
