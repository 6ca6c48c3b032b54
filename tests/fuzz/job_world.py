"""One partition of jobs at work: its input, its ledger as bytes, and calls to TAMS that are answered with anything.

What is written goes through the real ledger's encoding, and what is restored through its decoding; Kafka and the
network alone are left out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from random import Random

import msgspec
from aiokafka.producer.message_accumulator import BatchBuilder

from bridge.adapters.kafka.ledger import KafkaLedger, Replay
from bridge.adapters.kafka.tolerant import TolerantRecords
from bridge.adapters.kafka.topics import Topics
from bridge.adapters.kafka.transactions import Record
from bridge.core.answers import Call
from bridge.core.fanout import fan_out
from bridge.core.partition import Cancel, Partition, Post, Rest, Submit, Track
from bridge.core.registry import Registry
from bridge.messages import EventType, JobEvent
from bridge.ports import Arrival, DeadLetter
from bridge.settings import KafkaSettings, Settings, TopicSettings
from tests.core.examples import NOW, POLICY
from tests.core.webhook_examples import endpoint, registry_of
from tests.fuzz.answers import Spoilt

LONGEST_REQUEST = 4_000
NUMBER = 4


@dataclass(frozen=True, slots=True)
class Answered:
    """The n-th of the calls under way gets this answer."""

    place: int
    answer: Spoilt


@dataclass(frozen=True, slots=True)
class Passes:
    """Time passes."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Commits:
    """What has happened is written down; then the owner may die."""

    dies: bool


Happening = Arrival | Answered | Passes | Commits


@cache
def settings() -> Settings:
    """The defaults, whatever the environment says."""
    return Settings.model_construct(**{name: each.default for name, each in Settings.model_fields.items()})


class JobsLedger:
    """A ledger partition, as bytes by key, and everything that was published beside."""

    def __init__(self) -> None:
        names = Topics(KafkaSettings(), TopicSettings()).names
        topics = {*names.events.values(), names.dispatch, names.dead_letter}
        self._ledger = KafkaLedger(
            None,  # type: ignore[arg-type]  # nothing is sent
            settings(),
            names,
            dict.fromkeys(topics, 3),
            NUMBER,
        )
        self._names = names
        self.state: dict[bytes, bytes] = {}
        self.events: list[JobEvent] = []
        self.parked: list[Record] = []

    def commit(self, partition: Partition, registry: Registry) -> Sequence[Submit | Post | Track | Cancel | Rest]:
        """Write what a partition wants written; gives what is to be done then."""
        changes, actions = partition.take()
        changes.orders = fan_out(changes.events, registry)
        records = list(self._ledger._records(changes))
        check_sendable(records)
        for record in records:
            if record.topic == self._names.jobs:
                self._keep(record)
            elif record.topic == self._names.dead_letter:
                self.parked.append(record)
        self.events += [event for event, _ in changes.events]
        _check_letters(changes.dead_letters, self.parked)
        return actions

    def _keep(self, record: Record) -> None:
        assert record.key
        if record.value is None:
            self.state.pop(record.key, None)
        else:
            self.state[record.key] = record.value

    def replay(self) -> Replay:
        """What a new owner reads."""
        replay = Replay()
        for key, value in self.state.items():
            replay.add(key, value)
        return replay


def check_sendable(records: Sequence[Record]) -> None:
    """Kafka's client takes them, and a consumer of ours gets them as they were."""
    batch = BatchBuilder(1 << 26, 0, is_transactional=1)
    for record in records:
        assert record.is_added_to(batch)
    if records:
        received = list(TolerantRecords(bytes(batch._build())).next_batch() or ())
        sent = [(record.key, record.value, tuple(record.headers)) for record in records]
        assert [(each.key, each.value, tuple(each.headers)) for each in received] == sent


def _check_letters(letters: Sequence[DeadLetter], parked: Sequence[Record]) -> None:
    for letter, record in zip(letters, parked[len(parked) - len(letters) :], strict=True):
        arrival = letter.arrival
        assert (record.key, record.value) == (arrival.key, arrival.value), "a dead letter is what arrived"
        assert tuple(record.headers[: len(arrival.headers)]) == arrival.headers


@dataclass
class JobWorld:
    """A partition and all around it."""

    registry: Registry = field(default_factory=lambda: registry_of(endpoint(), endpoint("ep_b", labels={"a": "b"})))
    ledger: JobsLedger = field(default_factory=JobsLedger)

    def __post_init__(self) -> None:
        self.now = NOW
        self.log: list[Arrival] = []
        self.posts: dict[str, Post] = {}
        self.tracked: dict[str, str] = {}
        self.cancels: dict[str, str] = {}
        self.partition = self._restored()

    def happens(self, happening: Happening) -> None:
        match happening:
            case Arrival():
                self.log.append(happening)
                self.partition.arrive(happening, self.now)
            case Answered(place, answer):
                self._answer(place, answer)
            case Passes(seconds):
                self.now += timedelta(seconds=seconds)
                self.partition.time_passed(self.now)
            case Commits(dies):
                self._act()
                if dies:
                    self._die()

    def drain(self) -> None:
        """Write the rest down."""
        self._act()
        self._act()

    def _act(self) -> None:
        for action in self.ledger.commit(self.partition, self.registry):
            match action:
                case Submit(request_id):
                    self.partition.grant(request_id, self.now)
                case Post():
                    self.posts[action.request_id] = action
                case Track(job_id, record):
                    self.tracked[record.request_id] = job_id
                case Cancel(request_id, job_id):
                    self.cancels[request_id] = job_id
                case Rest(request_id):
                    self.tracked.pop(request_id, None)

    def _die(self) -> None:
        self.posts.clear()
        self.tracked.clear()
        self.cancels.clear()
        self.partition = self._restored()
        for arrival in self.log:
            self.partition.arrive(arrival, self.now)

    def _restored(self) -> Partition:
        partition = Partition(topic="tams.requests", number=NUMBER, policy=POLICY, max_request_bytes=LONGEST_REQUEST)
        replay = self.ledger.replay()
        records, params = replay.decoded()
        partition.restore(records, params, replay.position or 0, self.now)
        assert partition.live() == sum(not record.phase.is_terminal for record in records)
        return partition

    def _answer(self, place: int, answer: Spoilt) -> None:
        calls = list(self._calls())
        if not calls:
            return
        call, request_id = calls[place % len(calls)]
        read = Spoilt(call, answer.status, answer.headers, answer.body).read(self.now)
        match call:
            case Call.CREATE:
                attempt = self.posts.pop(request_id).attempt
                self.partition.submitted(request_id, attempt, read, self.now, 0.5)
            case Call.LOOK:
                self.partition.looked(request_id, self.tracked[request_id], read, self.now, 0.5)
            case Call.CANCEL:
                self.partition.cancel_answered(request_id, self.cancels.pop(request_id), read)

    def _calls(self) -> Iterator[tuple[Call, str]]:
        yield from ((Call.CREATE, request_id) for request_id in self.posts)
        yield from ((Call.LOOK, request_id) for request_id in self.tracked)
        yield from ((Call.CANCEL, request_id) for request_id in self.cancels)


def check_story(events: Sequence[JobEvent]) -> None:
    """Each job: from accepted on without gap, with one end at the most, and nothing but duplicates behind it.

    An id may be used again once its job is forgotten, that is, long after its end.
    """
    lives: dict[str, list[JobEvent]] = {}
    for event in events:
        life = lives.setdefault(event.request_id, [])
        if event.type is EventType.ACCEPTED:
            assert not life or _ends(life), "it began anew before its end"
            life.clear()
        life.append(event)
        assert event.sequence == len(life)
        assert (event.type is EventType.ACCEPTED) == (event.sequence == 1)
        assert not _ends(life[:-1]) or event.type is EventType.DUPLICATE
        assert msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(event), type=JobEvent))


def _ends(life: Sequence[JobEvent]) -> bool:
    return any(event.type.is_terminal for event in life)


def counted(happenings: Sequence[Happening]) -> int:
    """How many of them are inputs."""
    return Counter(isinstance(each, Arrival | Answered) for each in happenings)[True]


def make_time(chance: Random) -> Passes | Commits:
    """Time passes, or what has happened is written down."""
    if chance.random() < 0.3:
        return Passes(chance.choice((0.5, 2.0, 30.0, 1_000.0, 100_000.0)))
    return Commits(dies=chance.random() < 0.25)
