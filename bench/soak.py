"""Worker, forwarder and API at steady load for a while: what grows, and how much.

    python bench/soak.py [--minutes 20] [--jobs-per-second 10] [--broker apache|embedded|HOST:PORT]

Broker, emulator, receivers and each of the three are processes of their own on this machine. Requests come by topic and
by API; others list, read and follow through the API. What the bridge remembers of the past is set to be short (finished
jobs for 30 s, 2,000 attempts), so that it has levelled off when the warm-up is over: with the defaults it grows for a
day by design, by about 1 kB for each finished job. A figure is flat if the straight line through it rises by at most
2 % (memory: or 1 MB, others: or 2) over the time measured.
"""

import argparse
import asyncio
import logging
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts.load import Requests, Terminals
from bench.parts.receivers import Receivers, receivers
from bench.parts.soak_figures import Course, Sample, take_sample
from bench.parts.soak_load import Jobs, Visitors, await_ready, median
from bench.parts.stack import BRIDGE, FORWARDER, Measured, broker, emulator, measured, settings_for
from bench.parts.webhooks import WEBHOOKS, Subscribers
from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.api_keys import ApiKeyTopic
from bridge.core.keyring import ID_BYTES, SECRET_BYTES, make_key
from bridge.settings import HttpSettings, Settings
from bridge.webhook_messages import ApiKey, Scope

API = (*BRIDGE[:-1], "api")
JOB_S = 1.0
POLL_S = 0.25
ENDPOINTS = 3
EVERY_S = 5.0
FLAT_PART = 0.02
FLAT_MB = 1.0
FLAT_COUNT = 2.0
SHORT_MEMORY = {"jobs": {"dedupe_window_s": 30}, "api": {"history": 2_000}}


@dataclass(slots=True, kw_only=True)
class Role:
    """One of the processes, and how it went."""

    name: str
    process: Measured
    port: int
    samples: list[Sample] = field(default_factory=list)

    def course(self, of: Callable[[Sample], float]) -> Course:
        """How a figure of it went."""
        return Course.of([each.at for each in self.samples], [of(each) for each in self.samples])


@dataclass(slots=True, kw_only=True)
class Flow:
    """What went through all of them, from one sample to the next."""

    at: list[float] = field(default_factory=list)
    jobs_per_s: list[float] = field(default_factory=list)
    delay_ms: list[float] = field(default_factory=list)
    deliveries_per_s: list[float] = field(default_factory=list)


class Soak:
    """Everything that runs.

    Args:
        roles: worker, forwarder and API.
        jobs: the requests published.
        visitors: of the API.
        receiver: of webhooks.
    """

    def __init__(self, roles: Sequence[Role], jobs: Jobs, visitors: Visitors, receiver: Receivers) -> None:
        self._roles = roles
        self._jobs = jobs
        self._visitors = visitors
        self._receiver = receiver
        self.flow = Flow()

    def last(self, seconds: float, *, keep: bool) -> None:
        """Let it go on for so long; samples are kept if wanted."""
        until, before = time.perf_counter() + seconds, time.perf_counter()
        self._jobs.ended()
        delivered = self._receiver.count()
        while time.perf_counter() < until:
            time.sleep(EVERY_S)
            now, counted, delays = time.perf_counter(), self._receiver.count(), self._jobs.ended()
            for work in (self._jobs.work, *self._visitors.works):
                work.check()
            if keep:
                for role in self._roles:
                    role.samples.append(take_sample(role.process.pid, role.port))
                self.flow.at.append(now)
                self.flow.jobs_per_s.append(len(delays) / (now - before))
                self.flow.delay_ms.append(median(delays))
                self.flow.deliveries_per_s.append((counted - delivered) / (now - before))
            before, delivered = now, counted

    def stop(self) -> None:
        """No more load."""
        for work in (self._jobs.work, *self._visitors.works):
            work.stop()


@contextmanager
def running(servers: str, per_second: float) -> Iterator[tuple[Sequence[Role], Soak]]:
    """Everything, from its start to its end."""
    with ExitStack() as stack:
        tams = stack.enter_context(emulator(run_s=JOB_S))
        receiver = stack.enter_context(receivers())
        sections: Mapping[str, Mapping[str, object]] = {
            **SHORT_MEMORY,
            "poll": {"interval_s": POLL_S},
            "webhooks": WEBHOOKS,
            "forwarder": {"group": f"bench-{secrets.token_hex(4)}.forwarder"},
        }
        settings = settings_for(servers, tams, **sections)
        Subscribers.of(settings).register([receiver.hook(number) for number in range(ENDPOINTS)])
        key = _api_key(settings)
        roles = [
            Role(name=name, process=stack.enter_context(measured(command, _on(settings, port))), port=port)
            for (name, command), port in zip(_COMMANDS.items(), free_ports(len(_COMMANDS)), strict=True)
        ]
        for role in roles:
            await_ready(role.port, seconds=60)
        for role in roles[:2]:
            role.process.await_partitions(settings.topics.partitions, seconds=60)
        terminals = Terminals(settings)
        stack.callback(terminals.close)
        jobs = Jobs(Requests(settings), terminals, per_second=per_second, job_s=JOB_S)
        soak = Soak(roles, jobs, Visitors(roles[-1].port, key), receiver)
        yield roles, soak
        soak.stop()


_COMMANDS = {"worker": BRIDGE, "forwarder": FORWARDER, "api": API}


def _on(settings: Settings, port: int) -> Settings:
    return settings.model_copy(update={"http": HttpSettings(port=port)})


def _api_key(settings: Settings) -> str:
    made, clock = make_key(secrets.token_bytes(ID_BYTES + SECRET_BYTES)), SystemClock()
    key = ApiKey(id=made.id, name="soak", secret_hash=made.secret_hash, scopes=(Scope.ADMIN,), created=clock.now())
    asyncio.run(ApiKeyTopic(settings, clock=clock).write(key.id, key))
    return made.text


def show(console: Console, roles: Sequence[Role], flow: Flow, minutes: float) -> bool:
    """Print what was measured; whether all that should be flat is."""
    table = Table("", "start", "end", "an hour", "flat", title=f"{minutes:g} minutes after the warm-up")
    flat = True
    for role in roles:
        for name, digits, of in _FIGURES:
            course = role.course(of)
            slack = max(FLAT_PART * course.start, FLAT_MB if digits else FLAT_COUNT)
            is_flat = course.rise <= slack
            flat &= is_flat
            _row(table, f"{role.name}: {name}", course, digits, "yes" if is_flat else "NO")
    for name, values in (
        ("jobs a second, by topic", flow.jobs_per_s),
        ("deliveries a second", flow.deliveries_per_s),
        (f"ms from request to terminal event, beside the job's {JOB_S:g} s (median)", flow.delay_ms),
    ):
        _row(table, name, Course.of(flow.at, values), 1, "")
    for role, metric in ((roles[0], "requests_lag"), (roles[0], "jobs_live"), (roles[1], "dispatch_lag")):
        course = role.course(lambda sample, metric=metric: sample.metrics[f"tams_bridge_{metric}"])  # type: ignore[misc]
        _row(table, f"{role.name}: {metric}", course, 1, "")
    console.print(table)
    return flat


_FIGURES: Sequence[tuple[str, int, Callable[[Sample], float]]] = (
    ("resident MB", 1, lambda sample: sample.resident_mb),
    ("open files", 0, lambda sample: sample.files),
    ("sockets among them", 0, lambda sample: sample.sockets),
    ("threads", 0, lambda sample: sample.threads),
)


def _row(table: Table, name: str, course: Course, digits: int, flat: str) -> None:
    table.add_row(name, f"{course.start:.{digits}f}", f"{course.end:.{digits}f}", f"{course.per_hour:+.1f}", flat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="how long to measure")
    parser.add_argument("--warm-up", type=float, help="minutes before; a fifth of the others if not given, 3 at most")
    parser.add_argument("--jobs-per-second", type=float, default=10, help="requests published by topic")
    parser.add_argument("--broker", default="apache", help="apache, embedded or HOST:PORT")
    options = parser.parse_args()
    warm_up = min(3.0, options.minutes / 5) if options.warm_up is None else options.warm_up
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it retries is no figure
    with broker(options.broker) as servers, running(servers, options.jobs_per_second) as (roles, soak):
        soak.last(warm_up * 60, keep=False)
        soak.last(options.minutes * 60, keep=True)
    sys.exit(0 if show(Console(), roles, soak.flow, options.minutes) else 1)


if __name__ == "__main__":
    main()
