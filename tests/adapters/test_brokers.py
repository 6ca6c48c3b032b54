"""Brokers as child processes: they start, keep the guarantees the bridge stands on, come back after a kill, and go."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import ProducerFenced

from bridge.adapters.brokers import (
    BrokerProcess,
    BrokerUnavailable,
    apache_broker,
    apache_obstacle,
    embedded_broker,
    embedded_obstacle,
    free_ports,
)
from bridge.adapters.brokers.apache import JARS_DIR_VARIABLE, kafka_jars
from tests.brokers import RunningBroker, started

Kind = Literal["apache", "embedded"]
KINDS: tuple[Kind, ...] = ("apache", "embedded")


async def skip_unless_here(kind: Kind) -> None:
    obstacle = await apache_obstacle() if kind == "apache" else embedded_obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)


@pytest.fixture(params=KINDS)
async def process(request: pytest.FixtureRequest) -> AsyncIterator[BrokerProcess]:
    await skip_unless_here(request.param)
    async with started(request.param) as process:
        yield process


async def make_topic(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


@contextlib.asynccontextmanager
async def producer(servers: str, transactional_id: str) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=transactional_id, acks="all")
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@contextlib.asynccontextmanager
async def reader(servers: str, isolation_level: str) -> AsyncIterator[AIOKafkaConsumer]:
    client = AIOKafkaConsumer(
        bootstrap_servers=servers,
        isolation_level=isolation_level,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def committed_values(servers: str, topic: str) -> list[bytes | None]:
    """All a reader of committed records sees in the topic.

    Its end must be asked as a reader of all records: a commit is confirmed before its markers are in the partitions,
    and until they are, the end that a reader of committed records is told lies before the transaction.
    """
    partition = TopicPartition(topic, 0)
    async with reader(servers, "read_uncommitted") as everything:
        end = (await everything.end_offsets([partition]))[partition]
    async with reader(servers, "read_committed") as committed, asyncio.timeout(20):
        committed.assign([partition])
        values: list[bytes | None] = []
        while await committed.position(partition) < end:
            for records in (await committed.getmany(timeout_ms=200)).values():
                values += [record.value for record in records]
        return values


async def commit(client: AIOKafkaProducer, topic: str, value: bytes) -> None:
    async with client.transaction():
        await client.send_and_wait(topic, value, partition=0)


async def test_what_is_committed_is_read_and_what_is_aborted_is_not(process: BrokerProcess) -> None:
    servers = process.bootstrap_servers
    await make_topic(servers, "transactions")
    async with producer(servers, "writer") as client:
        await commit(client, "transactions", b"one")
        await client.begin_transaction()
        await client.send_and_wait("transactions", b"aborted", partition=0)
        await client.abort_transaction()
        await commit(client, "transactions", b"two")

    assert await committed_values(servers, "transactions") == [b"one", b"two"]


async def test_a_second_producer_of_the_same_id_fences_the_first(process: BrokerProcess) -> None:
    """The ground the ownership of a ledger partition stands on."""
    servers = process.bootstrap_servers
    await make_topic(servers, "fencing")
    async with producer(servers, "owner") as former:
        await former.begin_transaction()
        await former.send_and_wait("fencing", b"left open", partition=0)
        async with producer(servers, "owner") as latter:
            await commit(latter, "fencing", b"latter")
            with pytest.raises(ProducerFenced):
                await former.commit_transaction()

    assert await committed_values(servers, "fencing") == [b"latter"]


@pytest.mark.apache
async def test_apache_comes_back_after_a_kill_with_all_that_was_committed() -> None:
    await skip_unless_here("apache")
    async with apache_broker() as process:
        servers = process.bootstrap_servers
        await make_topic(servers, "kept")
        async with producer(servers, "writer") as client:
            await commit(client, "kept", b"before")
        await process.kill()
        assert process.pid is None

        await process.start()

        assert process.bootstrap_servers == servers
        async with producer(servers, "writer") as client:
            await commit(client, "kept", b"after")
        assert await committed_values(servers, "kept") == [b"before", b"after"]


@pytest.mark.parametrize("kind", KINDS)
async def test_data_given_a_directory_is_there_the_next_time(kind: Kind, tmp_path: Path) -> None:
    await skip_unless_here(kind)
    make = apache_broker if kind == "apache" else embedded_broker
    async with make(tmp_path / "broker") as process:
        await make_topic(process.bootstrap_servers, "kept")
        async with producer(process.bootstrap_servers, "writer") as client:
            await commit(client, "kept", b"first time")

    async with make(tmp_path / "broker") as process:
        assert await committed_values(process.bootstrap_servers, "kept") == [b"first time"]


async def test_stop_ends_the_process_and_may_be_called_twice(process: BrokerProcess) -> None:
    pid = process.pid
    assert pid is not None

    await process.stop()
    await process.stop()

    assert process.pid is None
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_left_behind(kind: Kind) -> None:
    await skip_unless_here(kind)
    async with started(kind) as process:
        pid, directory = process.pid, process.data_dir
        assert pid is not None

    assert not psutil.pid_exists(pid)
    assert not directory.exists()


ORPHAN = """
import asyncio
from pathlib import Path
from sys import argv
from bridge.adapters.brokers import embedded_broker

async def main():
    async with embedded_broker(Path(argv[1])) as broker:
        print(broker.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
async def test_the_broker_dies_with_a_process_that_is_killed(tmp_path: Path) -> None:
    await skip_unless_here("embedded")
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ORPHAN, str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    broker = psutil.Process(int(await parent.stdout.readline()))

    parent.kill()
    await parent.communicate()

    with contextlib.suppress(psutil.NoSuchProcess):
        broker.wait(timeout=10)
    assert not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE


async def test_its_output_is_in_a_file_and_not_on_the_screen(
    process: BrokerProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    await process.stop()
    await process.start()

    assert capfd.readouterr() == ("", "")
    assert process.log_file.stat().st_size > 0


async def test_a_port_in_use_is_named() -> None:
    await skip_unless_here("embedded")
    async with embedded_broker() as first:
        with pytest.raises(BrokerUnavailable, match=f"something else listens on 127.0.0.1:{first.port}"):
            async with embedded_broker(port=first.port):
                pytest.fail("two brokers on one port")


async def test_a_broker_that_ends_at_once_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    said = "the disk is on fire"
    process = BrokerProcess(
        name="burning",
        port=free_ports(1)[0],
        data_dir=tmp_path,
        command=("sh", "-c", f"echo {said}; exit 3"),
        ready_timeout_s=20,
        log_file=tmp_path / "broker.log",
    )

    with pytest.raises(BrokerUnavailable, match=rf"ended with code 3[\s\S]+{said}"):
        await process.start()


async def test_a_broker_that_never_answers_is_given_up_and_ended(tmp_path: Path) -> None:
    process = BrokerProcess(
        name="mute",
        port=free_ports(1)[0],
        data_dir=tmp_path,
        command=("sleep", "60"),
        ready_timeout_s=0.3,
        log_file=tmp_path / "broker.log",
    )

    with pytest.raises(BrokerUnavailable, match="did not answer within"):
        await process.start()

    assert process.pid is None
    assert await process.ended() == -signal.SIGKILL


async def test_without_the_extra_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "noida_db", None)

    with pytest.raises(BrokerUnavailable, match=r"pip install 'tams-bridge\[embedded\]'"):
        async with embedded_broker():
            pytest.fail("there is no embedded broker")


async def test_without_java_the_packages_to_install_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    with pytest.raises(BrokerUnavailable, match=r"no java is on the PATH.+openjdk-17-jre-headless maven"):
        async with apache_broker():
            pytest.fail("there is no java")


@pytest.mark.parametrize("said", ['openjdk version "11.0.2" 2019-01-15', 'java version "1.8.0_371"', "nonsense"])
async def test_a_java_too_old_is_named(said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))

    obstacle = await apache_obstacle()

    assert obstacle is not None
    assert f"{java} says: {said}" in obstacle


async def test_without_maven_and_jars_maven_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(JARS_DIR_VARIABLE, str(tmp_path / "jars"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BrokerUnavailable, match="no mvn on the PATH"):
        await kafka_jars()


async def test_two_processes_that_fetch_jars_at_once_end_with_one_whole_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A Maven of our own stands in for the real one, which takes its time."""
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text(
        '#!/bin/sh\nfor a; do case $a in -DoutputDirectory=*) touch "${a#*=}/kafka_2.13-1.jar";; esac; done\n'
    )
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", str(maven.parent), prepend=os.pathsep)
    monkeypatch.setenv(JARS_DIR_VARIABLE, str(tmp_path / "cache" / "jars"))

    found = await asyncio.gather(kafka_jars(), kafka_jars())

    assert set(found) == {tmp_path / "cache" / "jars"}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["jars"]


async def test_a_maven_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho no route to the jars\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv(JARS_DIR_VARIABLE, str(tmp_path / "cache" / "jars"))

    with pytest.raises(BrokerUnavailable, match="no route to the jars"):
        await kafka_jars()

    assert list((tmp_path / "cache").iterdir()) == []


async def test_the_broker_of_this_run_serves_each_test_apart(broker: RunningBroker, topic_prefix: str) -> None:
    await make_topic(broker.bootstrap_servers, topic_prefix)
    async with producer(broker.bootstrap_servers, topic_prefix) as client:
        await commit(client, topic_prefix, b"mine")

    assert await committed_values(broker.bootstrap_servers, topic_prefix) == [b"mine"]


@pytest.mark.apache
async def test_three_nodes_make_a_cluster() -> None:
    """Started together, as none answers before two of them have agreed."""
    await skip_unless_here("apache")
    ports = free_ports(3)
    voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(ports, start=1))
    async with contextlib.AsyncExitStack() as stack:
        nodes = [
            apache_broker(controller_port=port, properties={"node.id": str(node), "controller.quorum.voters": voters})
            for node, port in enumerate(ports, start=1)
        ]
        started_nodes = await asyncio.gather(*(stack.enter_async_context(node) for node in nodes))
        admin = AIOKafkaAdminClient(bootstrap_servers=started_nodes[0].bootstrap_servers)
        await admin.start()
        stack.push_async_callback(admin.close)

        assert len((await admin.describe_cluster())["brokers"]) == 3


async def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20
