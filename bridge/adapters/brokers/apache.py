"""The real broker: Apache Kafka in KRaft mode, from jars that Maven fetches once into a cache."""

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType

from bridge.adapters.brokers.process import (
    HOST,
    BrokerProcess,
    BrokerUnavailable,
    directory_of,
    free_ports,
    last_lines,
    run_leashed,
    running,
)

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
JARS_DIR_VARIABLE = "BRIDGE_KAFKA_JARS_DIR"
OLDEST_JAVA = 17
READY_TIMEOUT_S = 90.0
# A cluster id is a base64url UUID; one that began with '-' would be read as an option.
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAQ"
INSTALL = (
    "On Debian and Ubuntu: apt-get install -y openjdk-17-jre-headless maven. "
    "Without it: use the embedded broker, or give the address of a broker of yours"
)
# Small and quick to start; a broker on one's own machine serves one application.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
HEAP_MIB = 512


async def apache_obstacle() -> str | None:
    """Why Apache Kafka cannot be started here and what to do about it; None when it can. Fetches nothing."""
    try:
        await _java()
        if not _cached(_jars_dir()):
            _maven()
    except BrokerUnavailable as unavailable:
        return str(unavailable)
    return None


@contextlib.asynccontextmanager
async def apache_broker(
    data_dir: Path | None = None,
    port: int = 0,
    *,
    controller_port: int = 0,
    heap_mib: int = HEAP_MIB,
    properties: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[BrokerProcess]:
    """A running Apache Kafka, stopped at the end.

    Args:
        data_dir: where its data, its settings and its log go; None is a temporary directory, removed at the end.
        port: the port of the loopback address that clients use; 0 is a free one.
        controller_port: the port the nodes of a cluster use among themselves; 0 is a free one.
        heap_mib: most memory of the Java heap.
        properties: settings of the server that differ from the single quick node this starts. For a cluster, give each
            node its `node.id` and all the same `controller.quorum.voters`, and start them together.

    The first call on a machine fetches about 55 MB of jars.

    Raises:
        BrokerUnavailable: Java or Maven is missing, the jars could not be fetched, or the broker did not come up.
    """
    java, jars = await _java(), await kafka_jars()
    async with directory_of(data_dir) as directory:
        ports = free_ports(2)
        port, controller_port = port or ports[0], controller_port or ports[1]
        settings = _single_node(directory, port, controller_port) | dict(properties)
        broker = BrokerProcess(
            name="apache",
            port=port,
            data_dir=directory,
            command=_command(java, jars, heap_mib, "kafka.Kafka", str(_written(settings, directory))),
            ready_timeout_s=READY_TIMEOUT_S,
            log_file=directory / "broker.log",
        )
        await _format(java, jars, directory)
        async with running(broker, keeps_data=data_dir is not None):
            yield broker


async def kafka_jars() -> Path:
    """The directory with the jars of Apache Kafka, fetched when it is not there yet.

    Two processes may do this at once: each fetches into a directory of its own, and the first to finish names it.

    Raises:
        BrokerUnavailable: Maven is missing or could not fetch them.
    """
    directory = _jars_dir()
    if _cached(directory):
        return directory
    maven = _maven()
    await asyncio.to_thread(directory.parent.mkdir, parents=True, exist_ok=True)
    fetched = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=f"{directory.name}.part-", dir=directory.parent))
    try:
        await _fetch(maven, fetched)
        with contextlib.suppress(OSError):  # another process was first: its jars are as good
            fetched.rename(directory)
    finally:
        await asyncio.to_thread(shutil.rmtree, fetched, ignore_errors=True)
    if not _cached(directory):
        raise BrokerUnavailable(f"{directory} holds no jars of Apache Kafka: remove it, and start again")
    return directory


async def _fetch(maven: str, fetched: Path) -> None:
    log = fetched.with_suffix(".log")
    goal = ("dependency:copy-dependencies", f"-DoutputDirectory={fetched}", "-DincludeScope=runtime")
    try:
        if await run_leashed((maven, "-q", "-B", "-f", str(POM), *goal), log_file=log) != 0:
            raise BrokerUnavailable(f"Maven could not fetch the jars of Apache Kafka. It says:\n{last_lines(log)}")
    finally:
        log.unlink(missing_ok=True)


def _jars_dir() -> Path:
    chosen = os.environ.get(JARS_DIR_VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    version = re.search(r"<kafka.version>(.+)</kafka.version>", POM.read_text())
    if version is None:
        raise BrokerUnavailable(f"{POM} names no kafka.version: install tams-bridge again")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tams-bridge" / f"kafka-{version[1]}"


def _cached(directory: Path) -> bool:
    return any(directory.glob("kafka_2.13-*.jar"))


def _maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailable(f"Apache Kafka is fetched with Maven, and there is no mvn on the PATH. {INSTALL}")
    return maven


async def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if java is None:
        place = f"in JAVA_HOME={home}" if home else "on the PATH"
        raise BrokerUnavailable(f"Apache Kafka needs Java {OLDEST_JAVA} or later, and no java is {place}. {INSTALL}")
    process = await asyncio.create_subprocess_exec(
        java, "-version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    version = re.search(rb'version "(\d+)', said)
    if version is None or int(version[1]) < OLDEST_JAVA:
        first = said.decode(errors="replace").partition("\n")[0]
        raise BrokerUnavailable(f"Apache Kafka needs Java {OLDEST_JAVA} or later; {java} says: {first}. {INSTALL}")
    return java


def _command(java: str, jars: Path, heap_mib: int, main_class: str, *arguments: str) -> tuple[str, ...]:
    logging = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"
    heap = (f"-Xms{heap_mib // 4}m", f"-Xmx{heap_mib}m")
    return (java, *heap, *JVM, logging, "-cp", f"{jars}/*", main_class, *arguments)


async def _format(java: str, jars: Path, directory: Path) -> None:
    """Write the identity of the cluster into the data directory; one that has it keeps it."""
    if (directory / "data" / "meta.properties").exists():
        return
    log = directory / "format.log"
    arguments = ("format", "-t", CLUSTER_ID, "-c", str(directory / "server.properties"))
    if await run_leashed(_command(java, jars, HEAP_MIB, "kafka.tools.StorageTool", *arguments), log_file=log) != 0:
        raise BrokerUnavailable(f"Apache Kafka could not prepare {directory} for its data. It says:\n{last_lines(log)}")


def _written(settings: Mapping[str, str], directory: Path) -> Path:
    file = directory / "server.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return file


def _single_node(directory: Path, port: int, controller_port: int) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(directory / "data"),
        "auto.create.topics.enable": "false",
        # After a kill the new process waits until the session of the old one has run out: 9 s unless told.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "4000",
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.backoff.ms": "1000",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
    }
