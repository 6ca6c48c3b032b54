"""`tams-bridge config`: the settings in force."""

import json

import typer
from pydantic import BaseModel
from rich.text import Text

from bridge.cli.options import JsonOption, KafkaOption, settings_with
from bridge.cli.terminal import answers

app = typer.Typer()


@app.command("config", epilog="Example:  tams-bridge config --json")
def config(kafka: KafkaOption = None, as_json: JsonOption = False) -> None:
    """Show the settings in force, with their variables; secrets are masked."""
    settings = settings_with(kafka)
    if as_json:
        print(settings.model_dump_json(indent=2))  # noqa: T201  this is the answer
        return
    values = settings.model_dump(mode="json")
    for section, described in type(settings).model_fields.items():
        value = getattr(settings, section)
        if isinstance(value, BaseModel):
            for name, field in type(value).model_fields.items():
                _print_setting(f"{section}__{name}", values[section][name], field.description)
        else:
            _print_setting(section, value, described.description)


def _print_setting(name: str, value: object, meaning: str | None) -> None:
    shown = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    answers.print(Text.assemble(f"BRIDGE_{name.upper()}={shown}", (f"   # {meaning}", "dim")))
