"""How many looks at jobs the emulator answers, beside a uvicorn application that answers without thinking.

    python bench/emulator.py [seconds]

The server runs in a process of its own; this process sends it pipelined requests over a few connections, so cheaply
that the server is what is measured. "per CPU second" is the honest figure of what one core answers.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil
import uvloop
from typing_extensions import override

CONNECTIONS = 8
PIPELINED = 8
JOBS = 1000
AUTHORIZATION = {"Authorization": "Bearer emulator-key"}
GRAPH = {
    "3": {"classType": "KSampler", "inputs": {"seed": 7, "steps": 20, "model": ["4", 0], "latent_image": ["5", 0]}},
    "4": {"classType": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "model"}},
    "5": {"classType": "EmptyLatentImage", "inputs": {"width": 768, "height": 768, "batch_size": 1}},
    "6": {"classType": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["4", 1]}},
    "8": {"classType": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"classType": "SaveImage", "inputs": {"images": ["8", 0]}},
}
TRIVIAL_APPLICATION = """
import json, socket, uvicorn

BODY = b'{"job":{"id":"881417947308949275","status":"WAITING","waitingInfo":{"queueRank":"3","queueLen":"4"}}}'

async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(BODY))]})
    await send({"type": "http.response.body", "body": BODY})

listener = socket.create_server(("127.0.0.1", 0))
print(json.dumps({"url": "http://127.0.0.1:%d" % listener.getsockname()[1]}), flush=True)
config = uvicorn.Config(application, http="httptools", loop="uvloop", lifespan="off", log_level="warning",
                        access_log=False)
uvicorn.Server(config).run([listener])
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a server did in the time it was loaded."""

    answers: int
    seconds: float
    cpu_seconds: float
    resident_bytes: int

    def row(self, name: str) -> str:
        """One line of the table."""
        return (
            f"{name:<34}{self.answers / self.seconds:>12,.0f}{self.answers / self.cpu_seconds:>16,.0f}"
            f"{self.cpu_seconds / self.answers * 1e6:>14.1f}{self.resident_bytes / 1e6:>10.0f}"
        )


class Load(asyncio.Protocol):
    """A connection that always has some requests under way; answers are counted, not read."""

    def __init__(self, requests: list[bytes]) -> None:
        self._requests = requests
        self._next = 0
        self._transport: asyncio.Transport
        self.answers = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send(PIPELINED)

    @override
    def data_received(self, data: bytes) -> None:
        answered = data.count(b"HTTP/1.1 200 ")
        self.answers += answered
        self._send(answered)

    def _send(self, count: int) -> None:
        for _ in range(count):
            self._transport.write(self._requests[self._next % len(self._requests)])
            self._next += 1


async def load(url: str, requests: list[bytes], seconds: float) -> int:
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    loop = asyncio.get_running_loop()
    loads = [
        (await loop.create_connection(lambda: Load(requests), host=address.hostname, port=address.port))[1]
        for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(seconds)  # noqa: TID251 -- a bench measures real time
    return sum(each.answers for each in loads)


def measure(process: psutil.Process, url: str, requests: list[bytes], seconds: float) -> Measured:
    before, began = process.cpu_times(), time.perf_counter()
    answers = uvloop.run(load(url, requests, seconds))
    after, ended = process.cpu_times(), time.perf_counter()
    assert answers, "the server did not answer"
    cpu_seconds = after.user + after.system - before.user - before.system
    return Measured(answers, ended - began, cpu_seconds, process.memory_info().rss)


def bench(command: list[str], *, seconds: float, script: dict[str, object] | None) -> Measured:
    """Start a server and load it; with a script, with looks at jobs made to it, else with the same path every time."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as server:
        assert server.stdout
        url = json.loads(server.stdout.readline())["url"]
        ids = ["881417947308949275"] if script is None else [create_job(url, script) for _ in range(JOBS)]
        head = "".join(
            f"{name}: {value}\r\n" for name, value in {"Host": urlsplit(url).netloc, **AUTHORIZATION}.items()
        )
        requests = [f"GET /v1/jobs/{job_id} HTTP/1.1\r\n{head}\r\n".encode() for job_id in ids]
        try:
            return measure(psutil.Process(server.pid), url, requests, seconds)
        finally:
            server.terminate()


def create_job(url: str, script: dict[str, object]) -> str:
    params = {**GRAPH, "script": {"classType": "EmulatorScript", "inputs": script}}
    request = Request(f"{url}/v1/jobs/workflow", json.dumps({"params": params}).encode(), AUTHORIZATION)  # noqa: S310
    with urlopen(request) as answer:  # noqa: S310 -- a server this bench has started
        return str(json.load(answer)["job"]["id"])


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    emulator = [sys.executable, "-m", "bridge.emulator", "--rate", "0"]
    trivial = [sys.executable, "-c", TRIVIAL_APPLICATION]
    print(f"{'GET /v1/jobs/{id}':<34}{'per second':>12}{'per CPU second':>16}{'CPU µs each':>14}{'MB':>10}")
    print(bench(emulator, seconds=seconds, script={"queue_s": 1e6}).row("emulator, waiting jobs"))
    print(bench(emulator, seconds=seconds, script={"queue_s": 0, "run_s": 60}).row("emulator, running, 7 nodes"))
    print(bench(emulator, seconds=seconds, script={"queue_s": 0, "run_s": 0}).row("emulator, succeeded"))
    print(bench(trivial, seconds=seconds, script=None).row("uvicorn, trivial application"))


if __name__ == "__main__":
    main()
