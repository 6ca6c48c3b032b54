"""`python -m bridge.emulator`: run until SIGINT or SIGTERM, having said on standard output where."""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence

import uvloop

from bridge.emulator.server import serve
from bridge.emulator.settings import EmulatorSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the emulator; give the exit status, 2 if it cannot start."""
    options = _parser().parse_args(arguments)
    try:
        given = {name: value for name, value in vars(options).items() if name in EmulatorSettings.model_fields}
        chosen = {name: value for name, value in given.items() if value is not None}
        settings = EmulatorSettings.model_validate(dict(options.set) | chosen)
        uvloop.run(_run(settings, options.host, options.port))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"emulator: {' '.join(str(error).split())}\n")
        return 2
    return 0


async def _run(settings: EmulatorSettings, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(settings, host, port, ready=_announce, stop=stop)


def _announce(url: str) -> None:
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bridge.emulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    for name in ("speed", "rate", "slots", "public_key_file", "journal_file"):
        meaning = EmulatorSettings.model_fields[name].description
        parser.add_argument(f"--{name.replace('_', '-')}", help=meaning)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=JSON",
        help="any other setting; may be repeated",
    )
    return parser


def _setting(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


if __name__ == "__main__":
    sys.exit(main())
