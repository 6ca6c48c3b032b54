"""Workers that share the rate through a topic, on a real broker, in real time but with short patience."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from bridge.adapters.brokers import embedded_broker, embedded_obstacle, free_ports
from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.slots import KafkaSlots
from bridge.core.budget import RateBudget
from bridge.core.slots import READ_BACK, SlotHolder, SlotTimes
from bridge.emulator.rate import RateLimit
from bridge.errors import CannotStart
from bridge.settings import Settings
from tests.adapters.topics import administering, make_topic, producing, settings_for
from tests.brokers import RunningBroker

PATIENCE_S = 20.0
RATE = 20.0
QUICK = SlotTimes(heartbeat=0.2, valid_for=0.8, expire_after=1.4)
ANSWER_S = 0.02
CLOCK = SystemClock()


async def pause(seconds: float) -> None:
    await CLOCK.wait(asyncio.Event(), seconds)


async def until(enough: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not enough():
            await pause(0.01)


@dataclass
class Tams:
    """Counts calls as strictly as the emulator does."""

    rate: float = RATE
    limit: RateLimit = field(default_factory=RateLimit)
    admitted: list[tuple[float, str]] = field(default_factory=list)
    refused: int = 0

    def call(self, worker: str) -> None:
        now = CLOCK.monotonic()
        if self.limit.wait("", self.rate, now):
            self.refused += 1
        else:
            self.admitted.append((now, worker))

    def since(self, time: float) -> list[str]:
        return [worker for at, worker in self.admitted if at >= time]


@dataclass
class Worker:
    """A worker that calls whenever it may, if it has work."""

    name: str
    slots: KafkaSlots
    holder: SlotHolder
    budget: RateBudget
    changes: list[int]
    running: asyncio.Task[None]
    calling: asyncio.Task[None] | None = None

    def has_work(self, tams: Tams) -> None:
        self.slots.set_demand(50, 100)
        self.calling = asyncio.create_task(self._call(tams))

    async def _call(self, tams: Tams) -> None:
        async with asyncio.TaskGroup() as calls:
            while True:
                now = CLOCK.monotonic()
                if self.budget.available_at(now=now) <= now:
                    self.budget.take()
                    calls.create_task(self._one_call(tams))
                else:
                    await pause(min(0.005, max(0.0, self.budget.available_at(now=now) - now)))

    async def _one_call(self, tams: Tams) -> None:
        sent_at = CLOCK.monotonic()
        if not self.budget.may_send(now=sent_at):
            self.budget.give_back(sent_at=None, now=sent_at)
            return
        await pause(ANSWER_S / 2)
        tams.call(self.name)
        await pause(ANSWER_S / 2)
        self.budget.give_back(sent_at=sent_at, now=CLOCK.monotonic())

    async def stop(self) -> None:
        self.slots.stop()
        await asyncio.wait_for(self.running, PATIENCE_S)

    async def die(self) -> None:
        """Without a word, as after a kill."""
        for task in (self.running, self.calling):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])


@dataclass
class Team:
    """Workers on one topic."""

    settings: Settings
    topic: str
    stack: AsyncExitStack
    count: int = 0

    def start(self, *, rate: float = RATE, times: SlotTimes = QUICK) -> Worker:
        self.count += 1
        budget, changes = RateBudget(rate), list[int]()
        holder = SlotHolder(f"w{self.count}", budget, times=times)
        slots = KafkaSlots(
            self.settings, self.topic, holder, clock=CLOCK, changed=lambda: changes.append(slots.usable())
        )
        worker = Worker(f"w{self.count}", slots, holder, budget, changes, asyncio.create_task(slots.run()))
        self.stack.push_async_callback(worker.die)
        return worker


@pytest.fixture
async def team(broker: RunningBroker, topic_prefix: str) -> AsyncIterator[Team]:
    topic = f"{topic_prefix}.budget"
    await make_topic(broker.bootstrap_servers, topic, 1)
    async with AsyncExitStack() as stack:
        yield Team(settings_for(broker, topic_prefix), topic, stack)


async def test_worker_alone_gets_every_slot(team: Team) -> None:
    worker = team.start()

    await until(lambda: worker.slots.usable() == 20)
    assert worker.changes == [20]


async def test_workers_share_and_who_gets_work_has_what_the_idle_had(team: Team) -> None:
    one, other = team.start(), team.start()
    await until(lambda: one.slots.usable() == other.slots.usable() == 10)

    other.slots.set_demand(7, 20)

    await until(lambda: (one.slots.usable(), other.slots.usable()) == (0, 20))


async def test_slots_of_who_stops_are_the_others_when_it_has_stopped(team: Team) -> None:
    one, other = team.start(), team.start()
    await until(lambda: one.slots.usable() == other.slots.usable() == 10)

    await one.stop()

    assert one.slots.usable() == 0
    await until(lambda: other.slots.usable() == 20)
    assert set(other.holder.table.members if other.holder.table else ()) == {other.holder.worker}


async def test_slots_of_who_dies_come_back(team: Team) -> None:
    one, other = team.start(), team.start()
    await until(lambda: one.slots.usable() == other.slots.usable() == 10)

    await one.die()

    await until(lambda: other.slots.usable() == 20)


async def test_newcomer_to_a_long_log_reads_only_its_end(team: Team) -> None:
    async with producing(team.settings.kafka.bootstrap_servers) as producer:
        for _ in range(2 * READ_BACK):
            await producer.send(team.topic, b"gossip", partition=0)
        await producer.flush()
    old = team.start()
    await until(lambda: old.slots.usable() == 20)

    newcomer = team.start()

    await until(lambda: newcomer.slots.usable() == 10)
    assert newcomer.holder.table == old.holder.table


async def test_loaded_workers_use_the_rate_and_never_exceed_it(team: Team) -> None:
    """Through a join, work that comes, a stop and a death; TAMS refuses not one call."""
    tams = Tams()
    workers = [team.start() for _ in range(3)]
    for worker in workers:
        worker.has_work(tams)
    await until(lambda: sum(worker.slots.usable() for worker in workers) == 20)
    await pause(1.5)
    since = CLOCK.monotonic()
    await pause(2.0)

    used = tams.since(since)
    assert len(used) >= 0.8 * RATE * 2
    assert min(used.count(worker.name) for worker in workers) >= 0.6 * len(used) / 3

    await workers[0].stop()
    await workers[1].die()
    workers.append(team.start())
    workers[-1].has_work(tams)
    await until(lambda: workers[2].slots.usable() == workers[3].slots.usable() == 10)
    await pause(1.5)
    assert tams.refused == 0


async def test_topic_that_was_made_anew_is_begun_again(team: Team) -> None:
    worker = team.start()
    await until(lambda: worker.holder.position >= 4)
    before = worker.holder.worker

    async with administering(team.settings.kafka.bootstrap_servers) as admin:
        await admin.delete_topics([team.topic])
        while team.topic in {topic["topic"] for topic in await admin.describe_topics()}:
            await pause(0.05)
    await make_topic(team.settings.kafka.bootstrap_servers, team.topic, 1)

    await until(lambda: worker.holder.worker != before)
    await until(lambda: worker.slots.usable() == 20)


@pytest.mark.skipif(embedded_obstacle() is not None, reason="needs a broker of its own that can be killed")
async def test_without_kafka_no_call_is_made_and_with_it_again_they_go_on(topic_prefix: str) -> None:
    async with embedded_broker() as process, AsyncExitStack() as stack:
        running = RunningBroker(name="embedded", bootstrap_servers=process.bootstrap_servers)
        settings = settings_for(running, topic_prefix, kafka={"request_timeout_s": 2})
        await make_topic(process.bootstrap_servers, "budget", 1)
        worker = Team(settings, "budget", stack).start()
        await until(lambda: worker.slots.usable() == 20)

        await process.stop()
        await until(lambda: worker.slots.usable() == 0)
        assert worker.budget.available_at(now=CLOCK.monotonic()) == float("inf")
        await until(lambda: worker.changes[-1] == 0)

        await process.start()
        await until(lambda: worker.slots.usable() == 20)
        await worker.stop()


@pytest.mark.skipif(embedded_obstacle() is not None, reason="needs a broker of its own that can be killed")
async def test_stop_waits_for_no_broker_that_is_gone(topic_prefix: str) -> None:
    async with embedded_broker() as process, AsyncExitStack() as stack:
        running = RunningBroker(name="embedded", bootstrap_servers=process.bootstrap_servers)
        settings = settings_for(running, topic_prefix, kafka={"request_timeout_s": 2})
        await make_topic(process.bootstrap_servers, "budget", 1)
        worker = Team(settings, "budget", stack).start()
        await until(lambda: worker.slots.usable() == 20)
        await process.kill()

        await worker.stop()

        assert worker.slots.usable() == 0


async def test_without_a_broker_it_cannot_start(broker: RunningBroker, topic_prefix: str) -> None:
    servers = f"127.0.0.1:{free_ports(1)[0]}"
    settings = settings_for(broker, topic_prefix, kafka={"bootstrap_servers": servers, "connect_timeout_s": 0.5})
    holder = SlotHolder("w", RateBudget(RATE))
    slots = KafkaSlots(settings, "t.budget", holder, clock=CLOCK, changed=lambda: None)

    with pytest.raises(CannotStart, match="BOOTSTRAP_SERVERS"):
        await asyncio.wait_for(slots.run(), PATIENCE_S)
    assert slots.usable() == 0
