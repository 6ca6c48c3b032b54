"""A broker as a child process: start, readiness, stop, and what to say when it does not come up."""

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")
HOST = "127.0.0.1"
# Below the range systems take outgoing ports from, so that a port is still free when a killed broker comes back to it.
PORTS = range(20_000, 32_000)
READY_POLL_S = 0.05
STOP_TIMEOUT_S = 30.0
# A Kafka request: length, api key 3 (metadata), version 1, correlation id, no client id, an empty list of topics.
METADATA_REQUEST = struct.pack(">ihhihi", 14, 3, 1, 1, -1, 0)
# Its answer begins: length, correlation id, number of brokers.
METADATA_ANSWER = struct.Struct(">iii")


class BrokerUnavailable(Exception):
    """A broker cannot be started; the message says why and what to do next."""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address, all different, that nobody listened on a moment ago."""
    free = (port for port in random.sample(PORTS, k=len(PORTS)) if is_free(port))
    found = list(itertools.islice(free, count))
    if len(found) < count:
        raise BrokerUnavailable(
            f"no free port between {PORTS.start} and {PORTS.stop} on {HOST}: stop what listens there"
        )
    return found


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now; what a former one left in TIME_WAIT is no hindrance."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextlib.asynccontextmanager
async def directory_of(data_dir: Path | None) -> AsyncIterator[Path]:
    """The directory given, made if need be; or a temporary one that is gone afterwards."""
    if data_dir is not None:
        await asyncio.to_thread(data_dir.mkdir, parents=True, exist_ok=True)
        yield data_dir.absolute()
        return
    temporary = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="tams-bridge-broker-"))
    try:
        yield temporary
    finally:
        await asyncio.to_thread(shutil.rmtree, temporary, ignore_errors=True)


async def start_leashed(command: Sequence[str], *, log_file: Path) -> asyncio.subprocess.Process:
    """Start a program whose output goes to the end of a file, and which does not outlive the thread that calls this.

    It gets a session of its own: Ctrl-C in a terminal reaches only our process, which may still need its broker then.
    """
    with log_file.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )


async def run_leashed(command: Sequence[str], *, log_file: Path) -> int:
    """Run such a program to its end; its exit code. Cancelled, it takes the program with it."""
    process = await start_leashed(command, log_file=log_file)
    try:
        return await process.wait()
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill the process if it still runs."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def last_lines(log_file: Path, count: int = 12) -> str:
    """The end of a log, indented, for an error message."""
    text = log_file.read_text(errors="replace") if log_file.exists() else ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-count:])


@dataclass(kw_only=True)
class BrokerProcess:
    """A broker that can be stopped, killed and started again, on the same port and the same data.

    None of the methods may run at the same time as another; each may be called twice in a row.
    """

    name: str
    port: int
    data_dir: Path
    command: Sequence[str]
    ready_timeout_s: float
    log_file: Path
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)

    @property
    def bootstrap_servers(self) -> str:
        """What a Kafka client is told."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id while the broker runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it and return once it answers requests.

        Raises:
            BrokerUnavailable: it ended, or did not answer in time; it does not run then.
        """
        if self.pid is not None:
            return
        if not is_free(self.port):
            raise BrokerUnavailable(
                f"something else listens on {self.bootstrap_servers}: stop it, or choose another port"
            )
        self._process = await start_leashed(self.command, log_file=self.log_file)
        try:
            await self._ready(self._process)
        except BaseException:
            await end(self._process)
            raise

    async def stop(self) -> None:
        """Ask it to end, and make it end if it takes too long."""
        if self._process is None or self.pid is None:
            return
        self._process.terminate()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
        finally:
            await end(self._process)

    async def kill(self) -> None:
        """End it at once, as a power failure would."""
        if self._process is not None:
            await end(self._process)

    async def ended(self) -> int:
        """Wait until the broker ends for whatever reason; its exit code (0 when it never ran)."""
        return 0 if self._process is None else await self._process.wait()

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self.ready_timeout_s):
                while process.returncode is None and not await answers(self.port):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(process.wait(), READY_POLL_S)
        except TimeoutError:
            raise BrokerUnavailable(self._report(f"did not answer within {self.ready_timeout_s:.0f} s")) from None
        if process.returncode is not None:
            raise BrokerUnavailable(self._report(f"ended with code {process.returncode} instead of answering"))

    def _report(self, trouble: str) -> str:
        return (
            f"the {self.name} broker at {self.bootstrap_servers} {trouble}. "
            f"The end of its log, {self.log_file}:\n{last_lines(self.log_file)}"
        )


async def answers(port: int) -> bool:
    """Whether a broker answers a metadata request and names a broker, itself: an open port proves nothing."""
    try:
        async with asyncio.timeout(2):
            return await _brokers_known(port) > 0
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def _brokers_known(port: int) -> int:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(METADATA_REQUEST)
        answer = await reader.readexactly(METADATA_ANSWER.size)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    _length, _correlation, brokers = METADATA_ANSWER.unpack(answer)
    return int(brokers)


@contextlib.asynccontextmanager
async def running(broker: BrokerProcess, *, keeps_data: bool) -> AsyncIterator[BrokerProcess]:
    """Start the broker, and end it at the end: gently where its data is kept, at once where nobody wants it."""
    await broker.start()
    try:
        yield broker
    finally:
        await (broker.stop() if keeps_data else broker.kill())
