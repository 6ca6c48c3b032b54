"""`tams-bridge topics`: the topics as the bridge needs them."""

import typer

from bridge.adapters.kafka.topics import Topics
from bridge.cli.options import KafkaOption, settings_with
from bridge.cli.terminal import answers, run
from bridge.settings import Settings

app = typer.Typer(help="Create the topics, or check that they are as the bridge needs them.", no_args_is_help=True)


@app.command("create", epilog="Example:  tams-bridge topics create --kafka localhost:9092")
def create(kafka: KafkaOption = None) -> None:
    """Create the topics that are absent."""
    created = run(_topics(settings_with(kafka)).create())
    answers.print("\n".join(f"created {name}" for name in created) or "nothing to create: every topic is there")


@app.command("check", epilog="Example:  tams-bridge topics check && echo fine")
def check(kafka: KafkaOption = None) -> None:
    """Compare every topic with what the bridge needs; exits with 1 if one must be changed."""
    states = run(_topics(settings_with(kafka)).check())
    for state in states:
        fine = f"fine, {state.partitions} partition{'s' if state.partitions > 1 else ''}"
        answers.print(f"{state.name}: {state.problem or fine}", markup=False)
    raise typer.Exit(1 if any(state.problem for state in states) else 0)


def _topics(settings: Settings) -> Topics:
    return Topics(settings.kafka, settings.topics, longest_answer=settings.tams.max_answer_bytes)
