"""What it costs a worker to write the orders of webhooks, beside its jobs."""

from dataclasses import dataclass

from bench.parts.load import Requests, Terminals
from bench.parts.stack import BRIDGE, emulator, measured, settings_for
from bench.parts.webhooks import WEBHOOKS, Subscribers

JOB_S = 0.2
POLL_S = 0.1
WARM_UP = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOut:
    """A worker whose every event goes to so many endpoints."""

    endpoints: int
    cpu_ms: float
    jobs_per_s: float
    orders: float


def measure_fan_out(servers: str, endpoints: int, jobs: int) -> FanOut:
    """The load of `bench/pipeline.py`, with endpoints registered; no forwarder runs."""
    with emulator(run_s=JOB_S) as tams:
        settings = settings_for(servers, tams, poll={"interval_s": POLL_S}, webhooks=WEBHOOKS)
        subscribers = Subscribers.of(settings)
        subscribers.register([f"http://127.0.0.1:9/hook/{number}" for number in range(endpoints)])
        requests, terminals = Requests(settings), Terminals(settings)
        with measured(BRIDGE, settings) as process:
            process.await_partitions(settings.topics.partitions, seconds=60)
            terminals.await_all(list(requests.publish("warm", WARM_UP)), seconds=60)
            before = process.usage()
            sent = requests.publish("job", jobs)
            terminals.await_all(list(sent), seconds=300)
            after = process.usage()
            took = max(terminals.seen[name] for name in sent) - min(sent.values())
            terminals.close()
        return FanOut(
            endpoints=endpoints,
            cpu_ms=(after.cpu_s - before.cpu_s) / jobs * 1e3,
            jobs_per_s=jobs / took,
            orders=subscribers.ordered() / (jobs + WARM_UP),
        )
