"""A whole bridge on the cluster, in several processes, with a proxy before each thing that it talks to."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from bridge.adapters.brokers import free_ports
from bridge.settings import read_settings
from tests.crash import stepped
from tests.crash.api_process import Api, environment_of_api, write_key
from tests.crash.cluster import Cluster
from tests.crash.faults import APIS, FORWARDERS, KAFKA_LINKS, RECEIVERS_LINK, TAMS_LINK, WORKERS
from tests.crash.plan_load import PlanLoad
from tests.crash.plan_topics import PlanFollower
from tests.crash.processes import TAMS_BRIDGE, Child, child, emulator
from tests.crash.proxy import Proxy, proxy
from tests.crash.receivers import ALLOWED
from tests.crash.system import PARTITIONS, QuickBroker, System
from tests.crash.webhook_system import Subscriber, WebhookSystem

SESSION_S = 3.0
_SECRET_CHARACTERS = 43
"""Of an API key, `tbk_<id>_<secret>`."""
PROCESSES = (*WORKERS, *FORWARDERS, *APIS)

_PATIENCE_S = (0.3,) * 200
SUBSCRIBERS = (
    Subscriber(name="plain", patience_s=_PATIENCE_S),
    Subscriber(name="ordered", is_ordered=True, patience_s=_PATIENCE_S),
    Subscriber(name="rotating", is_rotating=True, patience_s=_PATIENCE_S),
    Subscriber(name="acme", labels={"tenant": "acme"}, kinds=frozenset({"success", "failed"}), patience_s=_PATIENCE_S),
    Subscriber(name="fails", behaviour="fails"),
    Subscriber(name="hangs", behaviour="hangs", kinds=frozenset({"failed", "expired"})),
    Subscriber(name="throttles", behaviour="throttles", kinds=frozenset({"success"})),
    Subscriber(name="redirects", behaviour="redirects", kinds=frozenset({"rejected"})),
)

_SETTINGS = {
    "KAFKA__HEARTBEAT_INTERVAL_S": "0.5",
    "KAFKA__REQUEST_TIMEOUT_S": "5",
    "KAFKA__TRANSACTION_TIMEOUT_S": "10",
}


class PlanSystem:
    """All of it; the processes are started by name.

    Args:
        stack: what ends with it.
        cluster: where its topics lie.
        chance: what the load is made by.
        rate: calls to TAMS a second; 0 for no limit.
        directory: for files.
    """

    def __init__(self, stack: ExitStack, cluster: Cluster, chance: Random, *, rate: int, directory: Path) -> None:
        self._stack = stack
        self._rate = rate
        self._directory = directory
        self.cluster = cluster
        self._tams_key = f"tams-{secrets.token_urlsafe(24)}"
        self.tams = stack.enter_context(emulator(bearer_keys={self._tams_key: "app"}))
        self._tams_link = self._link(self.tams.url)
        broker = QuickBroker(
            bootstrap_servers=cluster.bootstrap_servers,
            session_s=SESSION_S,
            runs=0,
            direct_servers=cluster.direct_servers,
        )
        self.system = System(stack, broker, self.tams, chance)
        self._receivers_links: list[Proxy] = []
        self.webhooks = WebhookSystem(
            stack, broker, self.prefix, SUBSCRIBERS, directory / "receipts.jsonl", door=self._door
        )
        self._api_settings = read_settings(
            kafka={"bootstrap_servers": cluster.bootstrap_servers},
            topics={"prefix": self.prefix, "partitions": PARTITIONS},
            webhooks={"encryption_keys": [self.webhooks.encryption_key], "allowed_networks": [f"{ALLOWED}/32"]},
        )
        self._api_key, self._api_port = write_key(self._api_settings), free_ports(1)[0]
        self.started: list[tuple[str, Child]] = []
        self.running: dict[str, Child] = {}
        self.follower = PlanFollower(cluster.direct_servers, self.prefix)
        stack.callback(self.follower.close)
        self.load = PlanLoad(cluster.direct_servers, f"{self.prefix}.requests", self._api(), chance)

    @property
    def prefix(self) -> str:
        """Of all its topics."""
        return self.system.prefix

    @property
    def secrets(self) -> Sequence[str]:
        """All that may be told nowhere."""
        return [self._tams_key, self._api_key, self._api_key[-_SECRET_CHARACTERS:], *self.webhooks.secrets]

    def start(self, name: str) -> None:
        """Start a process of the role that its name begins with."""
        role = name.partition("-")[0]
        starts: Mapping[str, Callable[[str], Child]] = {
            "worker": self._worker,
            "forwarder": lambda _: self.webhooks.forwarder(**_SETTINGS),
            "api": self._api_process,
        }
        self.running[name] = starts[role](name)
        self.started.append((name, self.running[name]))

    def api_answers(self) -> bool:
        """Whether the API is ready."""
        return self._api().ask("GET", "/v1/endpoints")[0] == 200

    def clock_file(self, name: str) -> Path:
        """What a worker's clock follows."""
        return self._directory / f"clock of {name}"

    def links(self, target: str) -> Sequence[Proxy]:
        """The proxies of a link by its name in `faults`."""
        if target == TAMS_LINK:
            return [self._tams_link]
        if target == RECEIVERS_LINK:
            return self._receivers_links
        nodes = self.cluster.nodes
        return [nodes[KAFKA_LINKS.index(target)].proxy] if target in KAFKA_LINKS[:-1] else [n.proxy for n in nodes]

    def _worker(self, name: str) -> Child:
        file = self.clock_file(name)
        if not file.exists():
            stepped.step(file, 0.0)
        return self.system.worker(
            command=stepped.command(file),
            TAMS__BASE_URL=f"http://{self._tams_link.address}",
            TAMS__API_KEY=self._tams_key,
            TAMS__RATE=f"{self._rate}",
            **_SETTINGS,
        )

    def _api_process(self, _: str) -> Child:
        own = {f"BRIDGE_{name}": value for name, value in _SETTINGS.items()}
        environment = {**environment_of_api(self._api_settings, self._api_port), **own}
        return self._stack.enter_context(child([*TAMS_BRIDGE, "api"], environment))

    def _api(self) -> Api:
        return Api(port=self._api_port, key=self._api_key, patience_s=4.0)

    def _link(self, url: str) -> Proxy:
        return self._stack.enter_context(proxy(urlsplit(url).port or 0))

    def _door(self, url: str) -> str:
        self._receivers_links.append(self._link(url))
        return f"http://{self._receivers_links[-1].address}"


@contextmanager
def running_plan_system(cluster: Cluster, chance: Random, *, rate: int, directory: Path) -> Iterator[PlanSystem]:
    """Such a bridge, without processes as yet; all gone at the end."""
    with ExitStack() as stack:
        yield PlanSystem(stack, cluster, chance, rate=rate, directory=directory)


def written(system: PlanSystem, directory: Path) -> None:
    """Write the whole log of every process that ever ran into a directory of the name."""
    for number, (name, process) in enumerate(system.started):
        lines = "".join(json.dumps(line) + "\n" for line in process.lines)
        (directory / f"{number:02d} {name}.log").write_text(lines)
