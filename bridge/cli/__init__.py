"""The command `tams-bridge`. Commands only read arguments and show answers; the work is elsewhere.

Exit codes: 0 done · 1 a job did not succeed, a check found a problem, or the API refused · 2 could not start, or reach
what it needs · 130 interrupted.
"""

import logging
import sys
from collections.abc import Sequence

import typer

from bridge.adapters.api_client import ApiRefused
from bridge.cli import configuration, jobs, keys, listening, processes, requests, topics, webhooks
from bridge.cli.terminal import note
from bridge.errors import CannotStart

app = typer.Typer(
    name="tams-bridge",
    help="Job requests on a Kafka topic become TAMS jobs, and every change of a job an event.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(processes.app)
app.add_typer(requests.app)
app.add_typer(listening.app)
app.add_typer(configuration.app)
app.add_typer(topics.app, name="topics")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; whatever cannot start, or is refused, says so in one line and exits with 2, or 1."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a process' own log hears it, see configure_logging
    try:
        app(arguments)
    except (CannotStart, ApiRefused) as error:
        note(f"tams-bridge: {error}")
        sys.exit(1 if isinstance(error, ApiRefused) else 2)
