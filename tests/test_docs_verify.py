"""Every program of docs/verify.md, run as a reader would run it, against POSTs signed by the bridge."""

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import httpx
import pytest

from bridge.adapters.clock import SystemClock
from bridge.core.posts import body_of
from bridge.core.signatures import new_secret, public_key, sign
from bridge.listen import Received, listen
from bridge.webhook_messages import RETRY_SCHEDULE_S, Delivery, SignatureScheme

PAGE = (Path(__file__).parent.parent / "docs" / "verify.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
TESTED = {"receiver.py", "app.py", "receiver.mjs", "receiver.go", "verify.sh", "send.sh", "v1a.py", "v1a.mjs"}

SECRET = new_secret(SignatureScheme.V1, b"\xfb" * 32)
OTHER = new_secret(SignatureScheme.V1, b"o" * 24)
PRIVATE = new_secret(SignatureScheme.V1A, b"p" * 32)
OTHER_PRIVATE = new_secret(SignatureScheme.V1A, b"q" * 32)
DELIVERY = Delivery(
    endpoint_id="ep_1",
    event_id="bestellung-ä.3",
    type="tams.job.success",
    request_id="bestellung-ä",
    sequence=3,
    time=datetime(2026, 3, 1, tzinfo=UTC),
    ordered=datetime(2026, 3, 1, tzinfo=UTC),
)
BODY = body_of(DELIVERY, b'{"request_id":"bestellung-\xc3\xa4","labels":{}}', source="/tams-bridge")

# Where Go or the shell's programs are missing, their tests are not there at all. JavaScript is promised: without node
# its tests are skipped, which a strict run does not let pass.
HAS_GO = shutil.which("go") is not None
HAS_SHELL = all(shutil.which(name) for name in ("bash", "openssl", "curl"))
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not on the PATH (Debian: nodejs)")


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A POST as it arrives; the defaults are a proper one."""

    secrets: tuple[str, ...] = (SECRET,)
    body: bytes = BODY
    age: timedelta = timedelta(0)
    webhook_id: str = "msg_1"
    changes: dict[str, str | None] = field(default_factory=dict)

    def headers(self) -> dict[str, str]:
        """Those that were signed, then changed; None takes one away."""
        timestamp = int((SystemClock().now() - self.age).timestamp())
        signature = sign(self.secrets, webhook_id=self.webhook_id, timestamp=timestamp, body=BODY)
        made = {
            "content-type": "application/cloudevents+json; charset=UTF-8",
            "webhook-id": self.webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature,
            **self.changes,
        }
        return {name: value for name, value in made.items() if value is not None}


GENUINE = {
    "as it came": Sent(),
    "a bit late": Sent(age=timedelta(minutes=4)),
    "a bit early": Sent(age=timedelta(minutes=-4)),
    "rotation, new secret first": Sent(secrets=(OTHER, SECRET)),
    "rotation, new secret last": Sent(secrets=(SECRET, OTHER)),
    "change of scheme": Sent(secrets=(PRIVATE, SECRET)),
}

FORGED = {
    "tampered": Sent(body=BODY.replace(b"success", b"failed.")),
    "longer": Sent(body=BODY + b" "),
    "other id": Sent(changes={"webhook-id": "msg_2"}),
    "old": Sent(age=timedelta(minutes=6)),
    "early": Sent(age=timedelta(minutes=-6)),
    "wrong secret": Sent(secrets=(OTHER,)),
    "other scheme": Sent(secrets=(PRIVATE,)),
    "no timestamp": Sent(changes={"webhook-timestamp": None}),
    "no number": Sent(changes={"webhook-timestamp": "soon"}),
    "no signature": Sent(changes={"webhook-signature": None}),
    "garbage": Sent(changes={"webhook-signature": "v1 v1, , v1a,! v1,AAAA"}),
    "unsigned": Sent(changes=dict.fromkeys(("webhook-id", "webhook-timestamp", "webhook-signature"))),
}


class Receiver:
    """A receiver of the page that runs: POST to it, and read what its work printed."""

    def __init__(self, post: Callable[[Sent], int], line: Callable[[], str]) -> None:
        self.post = post
        self.line = line


def test_every_program_of_the_page_is_run_by_a_test() -> None:
    """And none of the fences is without the name of one."""
    assert set(PROGRAMS) == TESTED
    assert PAGE.count("\n```") == 2 * len(TESTED)


def test_the_page_tells_the_schedule_that_is_followed() -> None:
    """Who plans for an outage reads it there."""
    pauses = [timedelta(seconds=seconds) for seconds in RETRY_SCHEDULE_S]
    units = ((timedelta(hours=1), "h"), (timedelta(minutes=1), "min"), (timedelta(seconds=1), "s"))
    told = [next(f"{pause // unit} {name}" for unit, name in units if pause >= unit) for pause in pauses]

    assert f"tries again after {', '.join(told[:-1])} and {told[-1]}" in PAGE


# ------------------------------------------------------------------------------------------------------------ receivers
@pytest.fixture(
    params=[
        "python",
        "standardwebhooks",
        pytest.param("node", marks=needs_node),
        *(["go"] if HAS_GO else []),
    ]
)
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    """Each receiver of the page, with SECRET."""
    match request.param:
        case "standardwebhooks":
            yield from _app()
            return
        case "python":
            command = [sys.executable, written("receiver.py", tmp_path)]
        case "node":
            command = ["node", written("receiver.mjs", tmp_path)]
        case _:
            command = [request.getfixturevalue("go_program")]
    yield from _process(command)


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Go receiver, compiled once; with the standard library there is nothing to fetch."""
    folder = tmp_path_factory.mktemp("go")
    program = str(folder / "receiver")
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "", "GO111MODULE": "off"}
    command = ["go", "build", "-o", program, written("receiver.go", folder)]
    subprocess.run(command, check=True, env=environment, cwd=folder)
    return program


def written(name: str, folder: Path) -> str:
    """A program of the page as a file."""
    file = folder / name
    file.write_text(PROGRAMS[name], encoding="utf-8")
    return str(file)


def _process(command: list[str]) -> Iterator[Receiver]:
    environment = {**os.environ, "WEBHOOK_SECRET": SECRET, "PORT": "0"}
    with (
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
        httpx.Client(trust_env=False) as client,
    ):
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            port = said.removeprefix("listening on port ").strip()
            assert port.isdecimal(), said

            def post(sent: Sent) -> int:
                url = f"http://127.0.0.1:{port}/hook"
                return client.post(url, content=sent.body, headers=sent.headers()).status_code

            yield Receiver(post, process.stdout.readline)
        finally:
            process.kill()


def _app() -> Iterator[Receiver]:
    lines: SimpleQueue[str] = SimpleQueue()
    transport = httpx.ASGITransport(module("app.py", WEBHOOK_SECRET=SECRET).app)
    client = httpx.AsyncClient(transport=transport, base_url="http://app")
    with asyncio.Runner() as runner:

        def post(sent: Sent) -> int:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                answer = runner.run(client.post("/hook", content=sent.body, headers=sent.headers()))
            for line in printed.getvalue().splitlines():
                lines.put(line)
            return answer.status_code

        yield Receiver(post, lines.get_nowait)


def module(name: str, **environment: str) -> Any:
    """A program of the page as a module."""
    made = ModuleType(name.partition(".")[0])
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        exec(compile(PROGRAMS[name], name, "exec"), made.__dict__)  # noqa: S102  our own page
    return made


def test_the_receivers_accept_what_the_bridge_signs(receiver: Receiver) -> None:
    """Through a rotation and a change of scheme as well."""
    assert {name: receiver.post(sent) for name, sent in GENUINE.items()} == dict.fromkeys(GENUINE, 204)


def test_the_receivers_refuse_everything_else(receiver: Receiver) -> None:
    assert {name: receiver.post(sent) for name, sent in FORGED.items()} == dict.fromkeys(FORGED, 401)


def test_the_receivers_do_the_work_once_however_often_it_is_sent(receiver: Receiver) -> None:
    for webhook_id in ("msg_1", "msg_1", "msg_2"):
        assert receiver.post(Sent(webhook_id=webhook_id)) == 204

    assert receiver.line().split()[:2] == ["msg_1", "tams.job.success"]
    assert receiver.line().split()[:2] == ["msg_2", "tams.job.success"]


# ------------------------------------------------------------------------------------------------------------- v1a
def python_fits(public: str, content: bytes, signatures: str, folder: Path) -> bool:
    del folder
    return bool(module("v1a.py").fits(public, content, signatures))


def node_fits(public: str, content: bytes, signatures: str, folder: Path) -> bool:
    written("v1a.mjs", folder)
    arguments = json.dumps([public, content.hex(), signatures])
    script = (
        "import { fits } from './v1a.mjs';"
        f"const [key, content, signatures] = {arguments};"
        "console.log(fits(key, Buffer.from(content, 'hex'), signatures));"
    )
    command = ["node", "--input-type=module", "--eval", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    return {"true": True, "false": False}[done.stdout.strip()]


@pytest.mark.parametrize("fits", [python_fits, pytest.param(node_fits, marks=needs_node)])
@pytest.mark.parametrize(
    ("secrets", "content", "expected"),
    [
        ((PRIVATE,), b"msg_1.7." + BODY, True),
        ((SECRET, PRIVATE), b"msg_1.7." + BODY, True),
        ((OTHER_PRIVATE, PRIVATE), b"msg_1.7." + BODY, True),
        ((PRIVATE,), b"msg_1.8." + BODY, False),
        ((PRIVATE,), b"msg_1.7." + BODY + b" ", False),
        ((OTHER_PRIVATE,), b"msg_1.7." + BODY, False),
        ((SECRET,), b"msg_1.7." + BODY, False),
        ((), b"msg_1.7." + BODY, False),
    ],
    ids=["fits", "both schemes", "rotation", "timestamp", "tampered", "wrong key", "only v1", "garbage"],
)
def test_signatures_with_a_key_pair_are_told_apart(
    fits: Callable[[str, bytes, str, Path], bool],
    secrets: tuple[str, ...],
    content: bytes,
    expected: bool,  # noqa: FBT001  a parameter of the test
    tmp_path: Path,
) -> None:
    signatures = sign(secrets, webhook_id="msg_1", timestamp=7, body=BODY) if secrets else "v1a v1a, v1a,! v2,AAAA"

    assert fits(public_key(PRIVATE), content, signatures, tmp_path) is expected


# ---------------------------------------------------------------------------------------------------------------- shell
if HAS_SHELL:

    def run_verify(sent: Sent, folder: Path) -> subprocess.CompletedProcess[str]:
        """verify.sh with what was received."""
        (folder / "body.json").write_bytes(sent.body)
        headers = sent.headers()
        values = [headers.get(f"webhook-{word}", "") for word in ("id", "timestamp", "signature")]
        command = ["bash", written("verify.sh", folder), *values, "body.json"]
        environment = {**os.environ, "WEBHOOK_SECRET": SECRET}
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=environment)

    @pytest.mark.parametrize("sent", GENUINE.values(), ids=GENUINE.keys())
    def test_the_shell_finds_that_a_genuine_post_fits(sent: Sent, tmp_path: Path) -> None:
        done = run_verify(sent, tmp_path)

        assert (done.returncode, done.stdout, done.stderr) == (0, "it fits\n", "")

    @pytest.mark.parametrize("sent", FORGED.values(), ids=FORGED.keys())
    def test_the_shell_finds_that_a_forged_post_does_not_fit(sent: Sent, tmp_path: Path) -> None:
        done = run_verify(sent, tmp_path)

        assert done.returncode == 1
        assert re.search("no signature fits|the timestamp is", done.stderr)

    @pytest.mark.parametrize(("secret", "status"), [(SECRET, 204), (OTHER, 401)], ids=["its own", "another"])
    async def test_the_test_post_of_the_shell_is_what_the_bridge_would_send(
        secret: str, status: int, tmp_path: Path
    ) -> None:
        """`tams-bridge listen` judges it."""
        shown: list[Received] = []
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(
            listen(
                secret=SECRET,
                host="127.0.0.1",
                port=0,
                path="/hook",
                forward_to=None,
                show=shown.append,
                ready=url.set_result,
            )
        )
        try:
            command = ["bash", written("send.sh", tmp_path), await url]
            environment = {**os.environ, "WEBHOOK_SECRET": secret, "no_proxy": "*"}
            process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.PIPE)
            said, _ = await process.communicate()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        assert said.startswith(f"HTTP/1.1 {status} ".encode())
        assert (shown[0].verified, shown[0].type, shown[0].request_id) == (
            status == 204,
            "tams.job.success",
            "order-1041",
        )
