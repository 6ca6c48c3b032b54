"""`tams-bridge keys`: who may use the HTTP API, written to Kafka directly; and keys for the registry's secrets."""

import secrets
from typing import Annotated

import msgspec
import typer

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.api_keys import ApiKeyTopic
from bridge.adapters.vault import new_encryption_key
from bridge.cli.options import JsonOption, KafkaOption, settings_with
from bridge.cli.tables import Column, print_table
from bridge.cli.terminal import answers, note, print_json, run
from bridge.core.keyring import ID_BYTES, SECRET_BYTES, make_key
from bridge.webhook_messages import ApiKey, Scope

app = typer.Typer(
    help="Make, list and revoke API keys, over Kafka: so the first one comes to be.", no_args_is_help=True
)

_SCOPES = f"What it may do: {', '.join(Scope)}; repeatable. `admin` may do everything."

_COLUMNS = (
    Column("created", "created", is_time=True),
    Column("id", "id"),
    Column("name", "name", may_wrap=True),
    Column("scopes", "scopes", may_wrap=True),
    Column("tenant", "tenant"),
)


@app.command("create", epilog="Example:  tams-bridge keys create --name shop --scope jobs:write --scope jobs:read")
def create(
    name: Annotated[str, typer.Option(help="For people: who holds it.")],
    scope: Annotated[list[Scope], typer.Option(metavar="SCOPE", help=_SCOPES)],
    tenant: Annotated[
        str | None, typer.Option(help="Whose jobs and endpoints it sees; those of all tenants if not given.")
    ] = None,
    kafka: KafkaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key and print it, this once."""
    made = make_key(secrets.token_bytes(ID_BYTES + SECRET_BYTES))
    clock = SystemClock()
    key = ApiKey(
        id=made.id,
        name=name,
        secret_hash=made.secret_hash,
        scopes=tuple(dict.fromkeys(scope)),
        tenant=tenant,
        created=clock.now(),
    )
    run(ApiKeyTopic(settings_with(kafka), clock=clock).write(key.id, key))
    if as_json:
        print_json({**_document(key), "key": made.text})
    else:
        answers.print(made.text, markup=False)
    note(f"Key {made.id} is shown this once: only a hash of it is kept. `tams-bridge keys revoke {made.id}` ends it.")


@app.command("list", epilog="Example:  tams-bridge keys list --json")
def list_all(kafka: KafkaOption = None, as_json: JsonOption = False) -> None:
    """List the API keys in force; the keys themselves are not kept, so they cannot be shown."""
    keyring = run(ApiKeyTopic(settings_with(kafka), clock=SystemClock()).read())
    documents = [_document(key) for key in sorted(keyring.keys.values(), key=lambda key: key.created)]
    if as_json:
        for document in documents:
            print_json(document)
    else:
        print_table(_COLUMNS, [msgspec.Raw(msgspec.json.encode(document)) for document in documents])
    for key_id in sorted(keyring.unreadable):
        note(
            f"{key_id}: its record cannot be read, so it lets nobody in; `tams-bridge keys revoke {key_id}` removes it"
        )


@app.command("revoke", epilog="Example:  tams-bridge keys revoke abcdefghijkl")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Second part of the key, as `list` shows it.")],
    kafka: KafkaOption = None,
) -> None:
    """End an API key; every process knows within a second."""
    topic = ApiKeyTopic(settings_with(kafka), clock=SystemClock())
    keyring = run(topic.read())
    if key_id not in keyring.keys and key_id not in keyring.unreadable:
        note(f"tams-bridge: there is no API key {key_id!r}: `tams-bridge keys list` shows those in force")
        raise typer.Exit(1)
    run(topic.write(key_id, None))
    answers.print(f"revoked {key_id}", markup=False)


@app.command(
    "encryption-key", epilog="Example:  tams-bridge keys encryption-key   # for BRIDGE_WEBHOOKS__ENCRYPTION_KEYS"
)
def encryption_key() -> None:
    """Make a key that the registry's secrets can be encrypted with; it is written nowhere."""
    answers.print(new_encryption_key(), markup=False)


def _document(key: ApiKey) -> dict[str, object]:
    return {"id": key.id, "name": key.name, "scopes": key.scopes, "tenant": key.tenant, "created": key.created}
