"""The emulator as a process of its own."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from bridge.emulator.__main__ import main

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "bridge.emulator"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_leaves_when_told(number: signal.Signals) -> None:
    options = ["--speed", "10", "--rate", "7", "--set", "repeat=error", "--set", "slots=3"]
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True, cwd=ROOT) as emulator:
        assert emulator.stdout
        url = json.loads(emulator.stdout.readline())["url"]
        with urlopen(f"{url}/_emulator/settings") as answer:  # noqa: S310 -- an emulator this test has started
            settings = json.load(answer)
        emulator.send_signal(number)
        assert emulator.wait(10) == 0
    assert {**settings, "speed": 10, "rate": 7, "repeat": "error", "slots": 3} == settings


def test_a_port_that_is_taken_is_one_line_and_status_2(
    unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", unused_tcp_port)):
        assert main(["--port", str(unused_tcp_port)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_settings_that_cannot_be_are_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rate", "-1"]) == 2
    assert "rate" in capsys.readouterr().err
