"""The topics of a plan as an outsider sees them, while brokers come and go."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from typing_extensions import override

from tests.crash.judge import is_ended
from tests.crash.plan_judge import Header, Letter
from tests.crash.topics import Follower, Reader

OPEN_TO_READERS = (
    *("requests", "progress", "success", "failed", "dead-letter", "jobs", "run-times", "budget", "dispatch"),
    *("deliveries", "attempts", "deliveries.dead", "endpoints.status", "endpoints.notices"),
)
"""Last parts of the names of all topics but those that hold secrets, sealed or hashed, by design."""

_TICK_S = 0.05


class PlanFollower(Follower):
    """Reads on through broken connections, keeps dead letters whole, and remembers when a cancel was confirmed.

    Args:
        bootstrap_servers, prefix: see `Reader`.
    """

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        super().__init__(bootstrap_servers, prefix)
        self.letters: list[tuple[str, Letter]] = []
        self.canceled: dict[str, float] = {}

    def unended(self) -> list[str]:
        """Requests that have begun, and have not ended."""
        return [name for name, story in self.stories.items() if not is_ended(story)]

    def read_while(self, goes_on: Callable[[], bool]) -> None:
        """Read for as long as that is so; it is asked every 50 ms or so."""
        while goes_on():
            self._take(self._consumer.consume(500, _TICK_S))

    @override
    def take(self, name: str, message: Message) -> None:
        super().take(name, message)
        if name == "dead-letter":
            self.letters.append((self.dead_letters[-1], _letter(message)))
        elif name == "failed" and self.events[-1].kind == "canceled":
            self.canceled[self.events[-1].request_id] = datetime.now(UTC).timestamp()  # noqa: TID251  real processes

    @override
    def _take(self, messages: list[Message]) -> None:
        super()._take([message for message in messages if not _will_pass(message.error())])

    @override
    def _is_read(self, tp: TopicPartition) -> bool:
        try:
            return super()._is_read(tp)
        except KafkaException:  # the brokers are busy with themselves
            return False


class Everything(Reader):
    """Collects what anybody can read.

    Args:
        bootstrap_servers, prefix: see `Reader`.
    """

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        super().__init__(bootstrap_servers, prefix, OPEN_TO_READERS)
        self.told: list[tuple[str, bytes]] = []

    @override
    def take(self, name: str, message: Message) -> None:
        headers = b" ".join(value or b"" for _, value in _headers(message))
        parts = (_bytes(message.key()), _bytes(message.value()), headers)
        where = f"{name} {message.partition()}/{message.offset()}"
        self.told.append((where, b" ".join(part or b"" for part in parts)))


def _letter(message: Message) -> Letter:
    return Letter(key=_bytes(message.key()), value=_bytes(message.value()), headers=tuple(_headers(message)))


def _headers(message: Message) -> Sequence[Header]:
    headers = message.headers()
    return [(name, _bytes(value)) for name, value in headers] if isinstance(headers, list) else []


def _bytes(raw: str | bytes | None) -> bytes | None:
    return raw.encode() if isinstance(raw, str) else raw


def _will_pass(error: KafkaError | None) -> bool:
    return error is not None and error.code() != KafkaError._PARTITION_EOF
