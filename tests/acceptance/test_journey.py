"""A person at a terminal with a broker, an emulator and a worker: submit, watch, cancel; and clients of others."""

import asyncio
import json
import secrets
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.adapters.brokers import embedded_obstacle, free_ports
from tests.adapters.topics import make_topic
from tests.brokers import RunningBroker, strict
from tests.integration.conftest import Stage, stage_on
from tests.integration.stack import COMMAND, as_environment, graph, worker_here

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_S = 40


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, object]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal:
    """Where a person types commands, with the variables that reach the bridge."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.environment = {**as_environment(stage.settings), "COLUMNS": "200"}

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        """Start `tams-bridge` and leave it running."""
        return await asyncio.create_subprocess_exec(
            *(*COMMAND, *arguments),
            env={**self.environment, **environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, typed: str = "", **environment: str) -> Said:
        """Run `tams-bridge` to its end."""
        return await said(await self.start(*arguments, **environment), typed)


async def said(process: asyncio.subprocess.Process, typed: str = "") -> Said:
    """Wait for the end of a program."""
    try:
        out, err = await asyncio.wait_for(process.communicate(typed.encode() if process.stdin else None), PATIENCE_S)
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def terminal(broker: RunningBroker) -> AsyncIterator[Terminal]:
    async with (
        stage_on(broker.bootstrap_servers, f"t{secrets.token_hex(6)}") as stage,
        worker_here(stage.settings),
    ):
        yield Terminal(stage)


@pytest.fixture
def name() -> str:
    return f"r-{secrets.token_hex(6)}"


async def test_submit_and_wait_ends_with_the_outputs_and_zero(terminal: Terminal, name: str, tmp_path: Path) -> None:
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(graph()))

    done = await terminal.run("submit", str(file), "--id", name, "--label", "tenant=acme", "--wait")

    assert done.code == 0, done.err
    ((request_id, url),) = [line.split() for line in done.out.splitlines()]
    assert request_id == name
    assert url.startswith("http://127.0.0.1")
    assert "accepted" in done.err
    assert "success, 1 output" in done.err
    assert "Traceback" not in done.err
    await terminal.stage.user.ended(name)
    assert terminal.stage.user.end(name).labels == {"tenant": "acme"}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "value",
    [{"params": graph(outcomes=["FATAL_ERROR"])}, {"params": {"5": {"classType": "A", "inputs": {"width": 500}}}}],
    ids=["failed", "rejected"],
)
async def test_submit_and_wait_of_a_job_that_does_not_succeed_exits_with_one(
    value: dict[str, object], terminal: Terminal, name: str
) -> None:
    done = await terminal.run("submit", "-", "--id", name, "--wait", "--json", typed=json.dumps(value))

    assert done.code == 1
    assert [event["request_id"] for event in done.documents] == [name] * len(done.documents)
    assert done.documents[-1]["type"] in {"tams.job.failed", "tams.job.rejected"}


async def test_a_list_and_json_lines_are_submitted_whole(terminal: Terminal, name: str, tmp_path: Path) -> None:
    lines = tmp_path / "requests.jsonl"
    requests = [{"request_id": f"{name}-{number}", "params": graph(images=0)} for number in range(3)]
    lines.write_text("\n".join(json.dumps(request) for request in requests) + "\n\n")

    by_line = await terminal.run("submit", str(lines))
    by_list = await terminal.run("submit", "-", typed=json.dumps([graph(images=0), graph(images=0)]))

    assert (by_line.code, by_list.code) == (0, 0)
    assert by_line.out.split() == [f"{name}-{number}" for number in range(3)]
    ids = by_list.out.split()
    assert len(set(ids)) == 2
    await terminal.stage.user.ended(*by_line.out.split(), *ids)


async def test_watch_shows_the_events_of_one_request_as_json_and_ends_after_so_many(
    terminal: Terminal, name: str
) -> None:
    await terminal.stage.user.request(name)
    await terminal.stage.user.ended(name)

    done = await terminal.run("watch", "--from-start", "--id", name, "--json", "--count", "3")

    assert done.code == 0
    assert len(done.documents) == 3
    assert {event["request_id"] for event in done.documents} == {name}
    assert "accepted" in str(done.documents[0]["type"])


async def test_watch_for_people_is_a_line_an_event_until_ctrl_c(terminal: Terminal, name: str) -> None:
    await terminal.stage.user.request(name, images=0)
    await terminal.stage.user.publish(b"{", key=f"{name}-bad")
    watching = await terminal.start("watch", "--from-start")
    assert watching.stdout is not None
    found = b""
    async with asyncio.timeout(PATIENCE_S):
        while not (f"{name} #1".encode() in found and f"{name}-bad parked: invalid_json".encode() in found):
            line = await watching.stdout.readline()
            assert line, (await said(watching)).err
            found += line

    watching.send_signal(signal.SIGINT)

    done = await said(watching)
    assert done.code == 130
    assert "Traceback" not in done.err


async def test_cancel_ends_a_job(terminal: Terminal, name: str) -> None:
    await terminal.stage.user.request(name, run_s=10_000)
    await terminal.stage.user.until(lambda: "submitted" in terminal.stage.user.types(name))

    done = await terminal.run("cancel", name)

    assert (done.code, done.out) == (0, f"asked to cancel {name}\n")
    (end,) = await terminal.stage.user.ended(name)
    assert end.type == "tams.job.canceled"


async def test_topics_are_created_and_checked(terminal: Terminal, topic_prefix: str) -> None:
    elsewhere = {"BRIDGE_TOPICS__PREFIX": topic_prefix}
    absent = await terminal.run("topics", "check", **elsewhere)
    created = await terminal.run("topics", "create", **elsewhere)
    checked = await terminal.run("topics", "check", **elsewhere)
    again = await terminal.run("topics", "create", **elsewhere)

    assert absent.code == 1
    assert f"{topic_prefix}.requests: is absent: run `tams-bridge topics create`" in absent.out
    assert created.code == 0
    assert f"created {topic_prefix}.jobs" in created.out
    assert checked.code == 0
    assert checked.out.count(": fine, 2 partitions") == 11
    assert checked.out.count(": fine, 1 partition") == 5
    assert again.out == "nothing to create: every topic is there\n"


async def test_a_worker_refuses_topics_that_are_wrong_in_one_line(terminal: Terminal, topic_prefix: str) -> None:
    await make_topic(terminal.environment["BRIDGE_KAFKA__BOOTSTRAP_SERVERS"], f"{topic_prefix}.jobs", 7)

    done = await terminal.run("worker", BRIDGE_TOPICS__PREFIX=topic_prefix)

    assert done.code == 2
    assert done.err.count("\n") == 1
    assert f"topic {topic_prefix}.jobs has 7 partitions but {topic_prefix}.requests has 2" in done.err


async def test_a_worker_whose_port_is_taken_says_so_in_one_line(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await terminal.run("worker", BRIDGE_HTTP__PORT=str(port))

    assert done.code == 2
    assert done.err.count("\n") == 1
    assert f"http: cannot listen on 127.0.0.1:{port}: Address already in use" in done.err


async def test_watch_without_topics_names_the_command_that_makes_them(terminal: Terminal, topic_prefix: str) -> None:
    done = await terminal.run("watch", BRIDGE_TOPICS__PREFIX=topic_prefix)

    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "tams-bridge topics create" in done.err


async def test_kcat_publishes_a_request_and_reads_its_events(terminal: Terminal, name: str) -> None:
    """A client we did not write."""
    if shutil.which("kcat") is None:
        assert not strict(), "a strict run needs kcat"
        pytest.skip("kcat is not installed")
    servers = terminal.environment["BRIDGE_KAFKA__BOOTSTRAP_SERVERS"]
    prefix = terminal.stage.settings.topics.prefix
    record = f"{name}|" + json.dumps({"params": graph(images=0), "labels": {"by": "kcat"}})

    published = await said(
        await asyncio.create_subprocess_exec(
            *("kcat", "-b", servers, "-P", "-t", f"{prefix}.requests", "-K", "|", "-H", "correlation_id=c-1"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        ),
        record,
    )
    assert published.code == 0, published.err
    await terminal.stage.user.ended(name)
    read = await said(
        await asyncio.create_subprocess_exec(
            *(
                "kcat",
                "-b",
                servers,
                "-C",
                "-t",
                f"{prefix}.success",
                "-e",
                "-q",
                "-X",
                "isolation.level=read_committed",
            ),
            *("-f", "%k\\t%h\\t%s\\n"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    )

    ((_, headers, value),) = [line.split("\t") for line in read.out.splitlines() if line.startswith(name)]
    assert "ce_type=tams.job.success" in headers
    assert "correlation_id=c-1" in headers
    assert json.loads(value)["labels"] == {"by": "kcat"}


async def test_dev_starts_everything_and_ends_it_on_ctrl_c(terminal: Terminal) -> None:
    """What it prints is what is to be typed next, and that works."""
    obstacle = embedded_obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)
    clean = {name: value for name, value in terminal.environment.items() if not name.startswith("BRIDGE_")}
    port = free_ports(1)[0]
    dev = await asyncio.create_subprocess_exec(
        *(*COMMAND, "dev", "--speed", "20"),
        env={**clean, "BRIDGE_HTTP__PORT": str(port), "BRIDGE_TOPICS__PARTITIONS": "2"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert dev.stdout is not None
    try:
        told = ""
        async with asyncio.timeout(PATIENCE_S):
            while "Ctrl-C ends all of it." not in told:
                line = await dev.stdout.readline()
                assert line, (await said(dev)).err
                told += line.decode()
        servers = told.split("Kafka")[1].split()[0]
        done = await said(
            await asyncio.create_subprocess_exec(
                *(*COMMAND, "submit", "--kafka", servers, "--wait", "-"),
                env=clean,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            ),
            json.dumps(graph()),
        )
        assert done.code == 0, done.err
        dev.send_signal(signal.SIGINT)
        ended = await said(dev)
    finally:
        if dev.returncode is None:
            dev.kill()
            await dev.wait()

    assert ended.code in {0, 130}
    assert "Traceback" not in ended.err
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(servers.rpartition(":")[2]))
