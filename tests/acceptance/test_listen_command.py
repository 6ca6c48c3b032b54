"""`tams-bridge listen` as a person uses it: one line a webhook, and whether it fits."""

import hmac
import json
import signal
import socket
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256

import httpx
import msgspec
import pytest

from bridge.adapters.clock import SystemClock
from bridge.cli.listening import as_document, as_line
from bridge.listen import Received
from tests.acceptance.commands import Run, assert_one_line

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"specversion": "1.0", "id": "o.3", "type": "tams.job.success", "subject": "order-1"}'


def received(**changes: object) -> Received:
    fields: dict[str, object] = {
        "time": datetime(2026, 11, 24, 10, 15, 4, tzinfo=UTC),
        "path": "/",
        "webhook_id": "msg_1",
        "type": "tams.job.success",
        "request_id": "order-1",
        "verified": True,
        "problem": "",
        "repeat": False,
        "body": BODY,
        "status": 204,
    }
    return Received(**{**fields, **changes})  # type: ignore[arg-type]  # the fields are those of the class


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "tams.job.success order-1 ✓ 204"),
        ({"repeat": True}, "tams.job.success order-1 ✓ 204 repeat"),
        ({"verified": None}, "tams.job.success order-1 ? 204"),
        ({"verified": False, "status": 401, "problem": "too old"}, "tams.job.success order-1 ✗ 401 too old"),
        ({"type": "", "request_id": "", "path": "/hook"}, "POST /hook ✓ 204"),
    ],
)
def test_a_webhook_is_a_line(changes: dict[str, object], line: str) -> None:
    assert as_line(received(**changes)).plain[len("10:15:04 ") :] == line


@pytest.mark.parametrize(("body", "shown"), [(b'{"a": 1}', {"a": 1}), (b"{", "{"), (b"\xff", "\ufffd"), (b"", "")])
def test_a_body_is_shown_as_json_if_it_is_json(body: bytes, shown: object) -> None:
    """Whatever a stranger posts, the line is one JSON document."""
    document = as_document(received(body=body))

    assert json.loads(msgspec.json.encode(document))["body"] == shown
    assert document["webhook_id"] == "msg_1"


@contextmanager
def listening(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command on a free port, and where it listens."""
    program = [sys.executable, "-c", "from bridge.cli import main; main()", "listen", "--port", "0", *options]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield process, process.stderr.readline().removeprefix("listening at ").split(",")[0].strip()
        finally:
            process.kill()


def post(url: str, *, secret: str = SECRET, webhook_id: str = "msg_1") -> int:
    """A POST signed as the standard says (Standard Webhooks 1.0.0, "Signature scheme")."""
    timestamp = str(int(SystemClock().now().timestamp()))
    signed = f"{webhook_id}.{timestamp}.".encode() + BODY
    signature = b64encode(hmac.digest(b64decode(secret.removeprefix("whsec_")), signed, sha256)).decode()
    headers = {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}
    with httpx.Client(trust_env=False) as client:
        return client.post(url, content=BODY, headers=headers).status_code


def test_webhooks_are_verified_shown_and_answered_until_ctrl_c() -> None:
    with listening("--secret", SECRET, "--path", "/hook", "--status", "202") as (process, url):
        answers = [post(url), post(url), post(url, secret="whsec_" + b64encode(bytes(32)).decode(), webhook_id="x")]
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)

    assert url.endswith("/hook")
    assert answers == [202, 202, 401], out
    first, second, third = out.splitlines()
    assert "tams.job.success order-1 ✓ 202" in first
    assert second.endswith("✓ 202 repeat")
    assert "✗ 401" in third
    assert process.returncode == 130


def test_without_a_secret_everything_is_shown_as_json_and_said_to_be_unverified() -> None:
    with listening("--json") as (process, url):
        assert post(url) == 204
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)

    shown = json.loads(out)
    assert shown["verified"] is None
    assert shown["body"] == json.loads(BODY)


def test_what_cannot_listen_says_why_in_one_line(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_one_line(run("listen", "--port", port), about=f"cannot listen on 127.0.0.1:{port}")
    assert_one_line(run("listen", "--port", "0", "--secret", "nonsense"), about="--secret")
    assert_one_line(run("listen", "--port", "0", "--forward-to", "nonsense"), about="--forward-to")
