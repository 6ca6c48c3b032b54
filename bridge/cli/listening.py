"""`tams-bridge listen`: a webhook receiver for people who write theirs."""

from typing import Annotated

import msgspec
import typer
from rich.text import Text

from bridge.cli.options import JsonOption
from bridge.cli.terminal import answers, note, print_json, run
from bridge.listen import Received, listen

app = typer.Typer()

_VERDICTS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}


@app.command("listen", epilog="Example:  tams-bridge listen --secret whsec_… --forward-to http://127.0.0.1:3000/hook")
def listen_here(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 for any.")] = 9000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    path: Annotated[str | None, typer.Option(help="The only path that is listened to; all if not given.")] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="WEBHOOK_SECRET",
            metavar="SECRET",
            help="Verify with this, whsec_… or whpk_…; nothing is verified if not given.",
        ),
    ] = None,
    forward_to: Annotated[
        str | None, typer.Option(metavar="URL", help="Pass what fits on to here, and answer what it answers.")
    ] = None,
    status: Annotated[int, typer.Option(min=200, max=599, help="What POSTs that fit are answered with.")] = 204,
    as_json: JsonOption = False,
) -> None:
    """Receive webhooks, verify them, and show each on a line, until Ctrl-C."""
    run(
        listen(
            secret=secret or None,
            host=host,
            port=port,
            path=path,
            forward_to=forward_to,
            show=_print_document if as_json else _print_line,
            ready=lambda url: note(f"listening at {url}{'' if secret else ', verifying nothing (no --secret)'}"),
            answer_status=status,
        )
    )


def _print_line(received: Received) -> None:
    answers.print(as_line(received))


def _print_document(received: Received) -> None:
    print_json(as_document(received))


def as_line(received: Received) -> Text:
    """One POST for eyes: when, what, of which job, whether it fits, what was answered."""
    return Text.assemble(
        (f"{received.time.astimezone():%H:%M:%S} ", "dim"),
        (received.type or f"POST {received.path}", "bold"),
        f" {received.request_id}" if received.request_id else "",
        " ",
        _VERDICTS[received.verified],
        (f" {received.status}", "dim"),
        (" repeat", "magenta") if received.repeat else "",
        (f" {received.problem}", "red") if received.problem else "",
    )


def as_document(received: Received) -> dict[str, object]:
    """One POST for programs; the body as JSON if it is JSON, else as text."""
    document: dict[str, object] = {
        name: getattr(received, name)
        for name in ("time", "path", "webhook_id", "type", "request_id", "verified", "problem", "repeat", "status")
    }
    try:
        msgspec.json.decode(received.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {**document, "body": received.body.decode(errors="replace")}
    return {**document, "body": msgspec.Raw(received.body)}
