"""A running bridge, seen from outside: broker, emulator, workers, load, and the judgement at the end."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random

from tests.crash.judge import Call, Evidence, judge
from tests.crash.load import Load
from tests.crash.processes import TAMS_BRIDGE, Child, Emulator, child, emulator, opened
from tests.crash.topics import Follower

PARTITIONS = 4
CREATE = "POST /v1/jobs/workflow"

QUICK = {
    "HTTP__PORT": "0",
    "LOG__FORMAT": "json",
    "KAFKA__HEARTBEAT_INTERVAL_S": "0.3",
    "KAFKA__REBALANCE_TIMEOUT_S": "5",
    "TOPICS__PARTITIONS": f"{PARTITIONS}",
    "TAMS__API_KEY": "emulator-key",
    "TAMS__RATE": "0",
    "TAMS__CONCURRENCY": "32",
    "TAMS__TIMEOUT_S": "1",
    "JOBS__SUBMIT_LEASE_S": "0.5",
    "JOBS__RETRY_PAUSE_S": "0.2",
    "JOBS__RESUBMIT_PAUSE_S": "0.1",
    "JOBS__RESUBMIT_PAUSE_LIMIT_S": "1",
    "POLL__INTERVAL_S": "0.2",
}
"""Settings under which what takes minutes in earnest takes a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickBroker:
    """A broker, how soon it may forget a silent worker, and so how many kills a test can afford.

    Args:
        bootstrap_servers: how the bridge reaches it.
        session_s: longest silence.
        runs: how many kills.
        direct_servers: how tests reach it, if that is another way.
    """

    bootstrap_servers: str
    session_s: float
    runs: int
    direct_servers: str = ""

    @property
    def servers_for_tests(self) -> str:
        """How tests reach it."""
        return self.direct_servers or self.bootstrap_servers


class System:
    """One bridge with topics of its own; `worker` may be called as often as workers are wanted.

    Args:
        stack: what ends with it.
        broker: where its topics lie.
        tams: the emulator.
        chance: what the load is made by.
    """

    def __init__(self, stack: ExitStack, broker: QuickBroker, tams: Emulator, chance: Random) -> None:
        self._stack = stack
        self._broker = broker
        self._follower: Follower | None = None
        self.prefix = f"t{secrets.token_hex(6)}"
        self.tams = tams
        self.load = Load(broker.servers_for_tests, f"{self.prefix}.requests", chance)

    def worker(self, *, command: Sequence[str] = TAMS_BRIDGE, **settings: str) -> Child:
        """Start another worker, perhaps by another command than that of a person."""
        own = {
            "KAFKA__BOOTSTRAP_SERVERS": self._broker.bootstrap_servers,
            "KAFKA__SESSION_TIMEOUT_S": f"{self._broker.session_s}",
            "TOPICS__PREFIX": self.prefix,
            "WORKER__GROUP": f"{self.prefix}.worker",
            "TAMS__BASE_URL": self.tams.url,
        }
        environment = {f"BRIDGE_{name}": value for name, value in {**QUICK, **own, **settings}.items()}
        return self._stack.enter_context(child([*command, "worker"], environment))

    def follower(self) -> Follower:
        """Who reads the topics from their beginning; they exist once a worker works."""
        if self._follower is None:
            self._follower = Follower(self._broker.servers_for_tests, self.prefix)
            self._stack.callback(self._follower.close)
        return self._follower

    def judged(self) -> list[str]:
        """What is wrong, once all workers have been stopped and everything has ended."""
        return judge(self.evidence(self.follower(), frozenset(self.load.accepted), self.load.unreadable))

    def evidence(self, follower: Follower, accepted: frozenset[str], unreadable: Sequence[str]) -> Evidence:
        """All that is known, once all workers have been stopped.

        Args:
            follower: reads to the end of the topics.
            accepted, unreadable: see `Evidence`.
        """
        follower.to_the_end()
        journal = self.tams.journal()
        return Evidence(
            accepted=accepted,
            unreadable=unreadable,
            events=follower.events,
            dead_letters=follower.dead_letters,
            calls=[
                Call(
                    request_id=line["request_id"],
                    job_id=line["job_id"],
                    is_create=line["route"] == CREATE,
                    time=line["real_at"],
                )
                for line in journal
            ],
            owners=self.tams.groups(sorted({line["job_id"] for line in journal} - {""})),
            ledger=follower.ledger(),
        )


@contextmanager
def running_system(broker: QuickBroker, chance: Random, **emulated: object) -> Iterator[System]:
    """An emulator with these settings, and a bridge without workers as yet; all gone at the end."""
    with ExitStack() as stack:
        tams = stack.enter_context(emulator(**emulated))
        system = System(stack, broker, tams, chance)
        stack.callback(system.load.finish)
        yield system


def await_partitions(worker: Child, *, count: int = PARTITIONS, seconds: float = 30, kind: str = "partition") -> None:
    """Return once a worker works on so many partitions; of a forwarder, if they are of its kind (see `opened`)."""
    worker.await_lines(lambda lines: len(opened(lines, kind)) == count, seconds=seconds, what=f"{count} open {kind}s")
