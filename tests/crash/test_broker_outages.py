"""Kafka is away while the bridge is at work, wholly or by two of three nodes; then it comes back, and so must the rest.

Two workers, a forwarder and an API live through all outages as processes of their own, with the rate of calls limited.
Where nodes are killed, connections are refused; where they are paused, connections stay open, new ones are accepted,
and nobody answers. Each test holds one promise against what was seen.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from bridge.settings import read_settings
from tests.crash.api_process import Api, environment_of_api, write_key
from tests.crash.cluster import Cluster, Node
from tests.crash.load import graph
from tests.crash.processes import TAMS_BRIDGE, Child, child
from tests.crash.system import PARTITIONS, QuickBroker, await_partitions, running_system
from tests.crash.webhook_judge import judge_orders, judge_webhooks
from tests.crash.webhook_system import Subscriber, WebhookSystem

OUTAGE_S = float(os.environ.get("BRIDGE_OUTAGE_S", "20"))
THOROUGH_S = 60
"""Outages of this length are wanted by those who have time: they get all of them, at full length."""
SHORT_S = 12.0
RATE = 20
PER_SECOND = 4
SESSION_S = 3.0

CALLS_END_S = 3.0
"""A worker that has lost touch with Kafka makes no call after that, as its part of the rate may be others' by then."""
STALL_S = 1.0
"""What a busy machine may add."""
RED_AFTER_S = 18.0
"""What is not confirmed for 5 s is a problem, and while no broker answers the question takes 3 s for each process."""
GREEN_AFTER_S = 60.0
"""Once the brokers are whole: the longest pause before a partition is opened once more is 15 s."""
LINES_A_MINUTE = 300

ALL: Mapping[str, Callable[[Node], None]] = {"killed": Node.kill, "paused": Node.pause}
FULL = ("killed", "paused") if OUTAGE_S >= THOROUGH_S else ("killed",)
PARTIAL = ("killed", "paused") if OUTAGE_S >= THOROUGH_S else ("paused",)

SUBSCRIBERS = (
    Subscriber(name="plain", patience_s=(0.5,) * 200),
    Subscriber(name="ordered", is_ordered=True, patience_s=(0.5,) * 200),
    Subscriber(name="sick", behaviour="fails", patience_s=(0.5,) * 1000),  # there is always an attempt to write down
)

pytestmark = [pytest.mark.apache, pytest.mark.timeout(0)]  # an outage is as long as is wanted; each wait has its bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What was seen of one; each moment is in seconds, before the nodes' return from their loss, and after it from it.

    Args:
        away_s: how long it was.
        problems: what each process said of its health meanwhile, once all said something.
        asked: the statuses of an API's answers when it was asked for a job, meanwhile and after it.
        last_call_s: when TAMS was called last before the nodes' return.
        lines: how many each process wrote to its log meanwhile.
        whole_s, green_s, first_call_s: when all nodes were in sync, all processes were ready, and TAMS was called.
    """

    away_s: float
    problems: Mapping[str, Sequence[str]]
    asked: tuple[int, int]
    last_call_s: float
    lines: Mapping[str, int]
    whole_s: float
    green_s: float
    first_call_s: float


@dataclass(slots=True, kw_only=True)
class Life:
    """What was seen of all of it: outages by how many nodes were lost and how, exit codes, and what judges said."""

    outages: dict[tuple[int, str], Outage] = field(default_factory=dict)
    codes: Sequence[int] = ()
    complaints: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of the bridge, and where its health is asked for."""

    name: str
    child: Child
    health: Api

    def problems(self) -> tuple[int, Sequence[str]]:
        """The status of `/health/ready`, and what keeps it from its work; 0 if it does not answer."""
        status, document = self.health.ask("GET", "/health/ready")
        return status, document["problems"] if document else ()


class Bridge:
    """All its processes, what they work on, and what is said of them.

    Args:
        stack: what ends with it.
        broker: where its topics lie.
        log: what receivers write down.
    """

    def __init__(self, stack: ExitStack, broker: QuickBroker, log: Path) -> None:
        self.system = stack.enter_context(running_system(broker, Random(7), queue_s=0.5, run_s=1.0))
        self.webhooks = WebhookSystem(stack, broker, self.system.prefix, SUBSCRIBERS, log)
        ports, rate = [str(port) for port in free_ports(3)], {"TAMS__RATE": f"{RATE}"}
        self.workers = [self.system.worker(HTTP__PORT=port, **rate) for port in ports[:2]]
        self.forwarder = self.webhooks.forwarder(HTTP__PORT=ports[2])
        settings = read_settings(
            kafka={"bootstrap_servers": broker.bootstrap_servers},
            topics={"prefix": self.system.prefix},
            webhooks={"encryption_keys": [self.webhooks.encryption_key]},
        )
        self.api = Api(port=free_ports(1)[0], key=write_key(settings), patience_s=20)
        api = stack.enter_context(child([*TAMS_BRIDGE, "api"], environment_of_api(settings, self.api.port)))
        children = {"worker 1": self.workers[0], "worker 2": self.workers[1], "forwarder": self.forwarder}
        self.processes = [
            *(
                Process(name=name, child=started, health=Api(port=int(port), key=""))
                for (name, started), port in zip(children.items(), ports, strict=True)
            ),
            Process(name="api", child=api, health=self.api),
        ]

    def begin(self) -> None:
        """Return once jobs are under way and some have ended."""
        for worker in self.workers:
            await_partitions(worker, count=PARTITIONS // 2, seconds=60)
        await_partitions(self.forwarder, kind="dispatch partition", seconds=60)
        self.all_green(seconds=60)
        self.system.load.start(PER_SECOND)
        follower = self.system.follower()
        follower.until(
            lambda: sum(event.kind == "success" for event in follower.events) >= 2 * PER_SECOND,
            seconds=60,
            what=lambda: f"jobs that ended: {[event.kind for event in follower.events]}",
        )

    def live_for(self, seconds: float) -> None:
        """Let all processes work for so long; none may end by itself."""
        self.processes[0].child.live_for(max(0.0, seconds))
        for process in self.processes:
            process.child.live_for(0)

    def ask_for(self, request_id: str) -> int:
        """Ask the API for a job; the status of its answer."""
        status, _ = self.api.ask("POST", "/v1/jobs", {"request_id": request_id, "params": graph(request_id)})
        if status == 202:
            self.system.load.accepted.append(request_id)
        return status

    def all_red(self, *, seconds: float) -> dict[str, Sequence[str]]:
        """What each says is wrong with it, once each says something."""
        return self._until(lambda status: status == 503, seconds)

    def all_green(self, *, seconds: float) -> None:
        """Return once each is ready."""
        self._until(lambda status: status == 200, seconds)

    def count_lines(self) -> dict[str, int]:
        """How many lines each has written to its log."""
        return {process.name: len(process.child.lines) for process in self.processes}

    def await_call(self, *, after: float, seconds: float) -> None:
        """Return once TAMS was called after this moment of the wall clock."""
        self.system.tams.await_journal(
            lambda lines: any(line["real_at"] > after and line["path"].startswith("/v1/") for line in lines),
            seconds=seconds,
        )

    def calls(self) -> list[float]:
        """When TAMS got a request, by the wall clock."""
        return [line["real_at"] for line in self.system.tams.journal() if line["path"].startswith("/v1/")]

    def end(self) -> tuple[list[int], list[str]]:
        """End everything; the exit codes, and what judges complain of."""
        load, webhooks = self.system.load, self.webhooks
        load.finish()
        self.system.follower().until_ended(load.accepted, seconds=120)
        codes = [each.stop(seconds=15) for each in self.workers]
        complaints = self.system.judged()
        events = webhooks.events()
        wanted = webhooks.wanted(events.values())
        webhooks.until_delivered(wanted, self.forwarder, seconds=60)
        codes += [each.child.stop(seconds=15) for each in self.processes[2:]]
        complaints += judge_orders(wanted, events, webhooks.follower().orders)
        return codes, complaints + judge_webhooks(webhooks.evidence(wanted))

    def _until(self, is_so: Callable[[int], bool], seconds: float) -> dict[str, Sequence[str]]:
        said: dict[str, Sequence[str]] = {}
        until = time.monotonic() + seconds
        for process in self.processes:
            status, said[process.name] = process.problems()
            while not is_so(status):
                late = f"{process.name} after {seconds} s: {status} {said}; it said last:\n{process.child.lines[-15:]}"
                assert time.monotonic() < until, late
                process.child.live_for(0.1)
                status, said[process.name] = process.problems()
        return said


def live_through(bridge: Bridge, cluster: Cluster, nodes: Sequence[Node], how: str) -> Outage:
    """An outage, from work to work."""
    seconds = OUTAGE_S if OUTAGE_S >= THOROUGH_S or len(nodes) == len(cluster.nodes) else min(OUTAGE_S, SHORT_S)
    request_id, lines, began = f"asked-while-{len(nodes)}-{how}", bridge.count_lines(), wall_clock()
    for node in nodes:
        ALL[how](node)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(bridge.ask_for, request_id)
        problems = bridge.all_red(seconds=RED_AFTER_S)
        asked = asking.result()
    bridge.live_for(seconds - (wall_clock() - began))
    said = {name: count - lines[name] for name, count in bridge.count_lines().items()}
    returned = wall_clock()
    bring_back(cluster)
    whole = wall_clock()
    bridge.all_green(seconds=GREEN_AFTER_S)
    green = wall_clock()
    bridge.await_call(after=returned, seconds=GREEN_AFTER_S)
    calls = bridge.calls()
    outage = Outage(
        away_s=returned - began,
        problems=problems,
        asked=(asked, bridge.ask_for(request_id)),
        last_call_s=max(at for at in calls if at < returned) - began,
        lines=said,
        whole_s=whole - returned,
        green_s=green - returned,
        first_call_s=min(at for at in calls if at > returned) - returned,
    )
    sys.stdout.write(f"{len(nodes)} nodes {how}: {outage}\n")
    return outage


def bring_back(cluster: Cluster) -> None:
    """Return once all nodes run, and are in sync."""
    for node in cluster.nodes:
        node.go_on()
        node.start()
    cluster.await_whole(seconds=90)


def wall_clock() -> float:
    """Seconds, as in TAMS' journal."""
    return SystemClock().now().timestamp()


@pytest.fixture(scope="module")
def life(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """Lived through once, by the first test that asks for it; the cluster is left whole."""
    broker = QuickBroker(bootstrap_servers=cluster.direct_servers, session_s=SESSION_S, runs=1)
    seen = Life()
    cluster.await_whole(seconds=60)
    with ExitStack() as stack:
        stack.callback(bring_back, cluster)
        bridge = Bridge(stack, broker, tmp_path_factory.mktemp("outages") / "receipts")
        bridge.begin()
        for count, hows in ((3, FULL), (2, PARTIAL)):
            for how in hows:
                seen.outages[count, how] = live_through(bridge, cluster, cluster.nodes[:count], how)
        seen.codes, seen.complaints = bridge.end()
        yield seen


def check(outage: Outage) -> None:
    """What holds in any outage, once everybody is back at work."""
    assert all(any("kafka:" in problem for problem in problems) for problems in outage.problems.values())
    assert outage.last_call_s <= CALLS_END_S + STALL_S, "a call that the worker's part of the rate may not allow"
    assert outage.asked == (503, 202), "what cannot be confirmed is not accepted, and can be asked for again"
    assert max(outage.lines.values()) <= LINES_A_MINUTE * outage.away_s / 60, outage.lines


@pytest.mark.parametrize("how", FULL)
def test_while_all_brokers_are_away_all_waits_and_says_so_and_then_goes_on(life: Life, how: str) -> None:
    """No process ends by itself, and no call is made beyond what a worker surely owns of the rate."""
    check(life.outages[3, how])


@pytest.mark.parametrize("how", PARTIAL)
def test_while_two_of_three_brokers_are_lost_all_waits_and_says_so_and_then_goes_on(life: Life, how: str) -> None:
    """The one that is left still answers, but takes nothing: health must tell that, too."""
    check(life.outages[2, how])


def test_by_outages_of_brokers_nothing_is_lost_and_no_job_is_paid_twice(life: Life) -> None:
    """Judged by the topics, TAMS' journal and the receivers; and every process ends as asked."""
    assert list(life.complaints) == []
    assert list(life.codes) == [0, 0, 0, 0]
