"""`tams-bridge webhooks`: the registered endpoints, over the HTTP API."""

from http import HTTPStatus
from typing import Annotated
from uuid import uuid4

import msgspec
import typer

from bridge.adapters.api_client import ApiRefused
from bridge.cli import deliveries
from bridge.cli.calls import api_at, ask, path_of, show, show_list
from bridge.cli.options import JsonOption, KeyOption, LimitOption, UrlOption, pairs, seconds
from bridge.cli.tables import Column
from bridge.cli.terminal import answers, note
from bridge.core.registry import EndpointState
from bridge.webhook_messages import Ordering, SignatureScheme

app = typer.Typer(
    help="Register URLs that get every event as a signed POST, and see what became of each.", no_args_is_help=True
)
app.add_typer(deliveries.app)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Of the endpoint, as `list` shows it.")]
TypeOption = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="PATTERN", help="Event type to send, such as `tams.job.*`; repeatable."),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="Only events of jobs with this label; repeatable."),
]
TenantOption = Annotated[str | None, typer.Option(help="Only events of jobs whose label `tenant` is this.")]
DescriptionOption = Annotated[str | None, typer.Option(help="For people.")]
HeaderOption = Annotated[
    list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="Header of every POST; repeatable.")
]
RateOption = Annotated[float | None, typer.Option(help="Most POSTs a second; no limit if not given.")]
MaxInFlightOption = Annotated[int | None, typer.Option(min=1, help="Most POSTs under way at once.")]
TimeoutOption = Annotated[str | None, typer.Option(metavar="TIME", help="Longest time for one POST: 15s.")]
RetryOption = Annotated[
    str | None, typer.Option("--retry-pauses", metavar="TIME,…", help="Pauses before each further attempt: 5s,5m,2h.")
]
OrderingOption = Annotated[Ordering | None, typer.Option(help="Whether events of one job wait for each other.")]
OverlapOption = Annotated[str, typer.Option(metavar="TIME", help="How long the old secret signs beside the new one.")]

_COLUMNS = (
    Column("id", "id"),
    Column("state", "state"),
    Column("url", "url", may_wrap=True),
    Column("types", "event_types", may_wrap=True),
    Column("tenant", "tenant"),
    Column("pending", "pending"),
    Column("failing since", "failing_since", is_time=True),
)
_SECRET_FIELDS = ("id", "tenant", "secret", "public_key")
_SHOWN_ONCE = "The secret is shown this once: give it to the receiver now. `rotate` makes a new one."


@app.command("create", epilog="Example:  tams-bridge webhooks create https://acme.example/hook --type 'tams.job.*'")
def create(
    target: Annotated[str, typer.Argument(metavar="URL", help="Where events are posted.")],
    types: TypeOption = None,
    label: LabelOption = None,
    tenant: TenantOption = None,
    description: DescriptionOption = None,
    header: HeaderOption = None,
    scheme: Annotated[
        SignatureScheme | None, typer.Option(help="How POSTs are signed: v1 (shared secret) or v1a (key pair).")
    ] = None,
    rate: RateOption = None,
    max_in_flight: MaxInFlightOption = None,
    timeout: TimeoutOption = None,
    retry: RetryOption = None,
    ordering: OrderingOption = None,
    drop_superseded: Annotated[
        bool | None, typer.Option("--drop-superseded", help="Leave out progress that a later event has overtaken.")
    ] = None,
    handshake: Annotated[
        bool | None, typer.Option("--handshake", help="Ask the receiver for consent first (CloudEvents, OPTIONS).")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The same text never creates two; random if not given.")
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a URL; prints the endpoint's id and, this once, the secret that signs its POSTs."""
    body = _given(
        url=target,
        event_types=types,
        labels=pairs(label),
        tenant=tenant,
        description=description,
        headers=pairs(header, option="--header", what="a header"),
        scheme=scheme,
        rate=rate,
        max_in_flight=max_in_flight,
        timeout_s=seconds(timeout, option="--timeout"),
        retry_schedule_s=_schedule(retry),
        ordering=ordering,
        drop_superseded=drop_superseded,
        handshake=handshake,
    )
    repeat_as = idempotency_key or uuid4().hex
    try:
        created = ask(api_at(url, key), "POST", path_of("endpoints"), body=body, repeat_as=repeat_as)
    except ApiRefused as error:
        if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        message = f"{error} (here: --idempotency-key {repeat_as})"
        raise ApiRefused(message, status=error.status) from error
    _show_secret(created, as_json=as_json)


@app.command("list", epilog="Example:  tams-bridge webhooks list --state disabled")
def list_all(
    state: Annotated[EndpointState | None, typer.Option(help="Only those in this state.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only those of this tenant.")] = None,
    limit: LimitOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the endpoints."""
    query = {"state": state, "tenant": tenant}
    show_list(api_at(url, key), path_of("endpoints"), _COLUMNS, query=query, limit=limit, as_json=as_json)


@app.command("show", epilog="Example:  tams-bridge webhooks show ep_1 --json")
def show_one(
    endpoint_id: IdArgument, url: UrlOption = None, key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Show one endpoint and how it does."""
    show(ask(api_at(url, key), "GET", path_of("endpoints", endpoint_id)), as_json=as_json)


@app.command("update", epilog="Example:  tams-bridge webhooks update ep_1 --rate 5 --unset description")
def update(
    endpoint_id: IdArgument,
    target: Annotated[str | None, typer.Option("--target", metavar="URL", help="Where events are posted.")] = None,
    types: TypeOption = None,
    label: LabelOption = None,
    tenant: TenantOption = None,
    description: DescriptionOption = None,
    header: HeaderOption = None,
    rate: RateOption = None,
    max_in_flight: MaxInFlightOption = None,
    timeout: TimeoutOption = None,
    retry: RetryOption = None,
    ordering: OrderingOption = None,
    drop_superseded: Annotated[
        bool | None, typer.Option(help="Whether progress that a later event has overtaken is left out.")
    ] = None,
    handshake: Annotated[
        bool | None, typer.Option(help="Whether the receiver is asked for consent (CloudEvents, OPTIONS).")
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Back to the default, as `show` names it: rate, labels, …; repeatable."),
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change an endpoint; what is not given stays. Types, labels and headers are replaced as a whole."""
    body = _given(
        url=target,
        event_types=types,
        labels=pairs(label),
        tenant=tenant,
        description=description,
        headers=pairs(header, option="--header", what="a header"),
        rate=rate,
        max_in_flight=max_in_flight,
        timeout_s=seconds(timeout, option="--timeout"),
        retry_schedule_s=_schedule(retry),
        ordering=ordering,
        drop_superseded=drop_superseded,
        handshake=handshake,
    )
    body |= dict.fromkeys(unset or ())
    show(ask(api_at(url, key), "PATCH", path_of("endpoints", endpoint_id), body=body), as_json=as_json)


@app.command("delete", epilog="Example:  tams-bridge webhooks delete ep_1 ep_2")
def delete(
    endpoint_ids: Annotated[list[str], typer.Argument(metavar="ID…")], url: UrlOption = None, key: KeyOption = None
) -> None:
    """Delete endpoints; what was waiting for them is not sent any more."""
    api = api_at(url, key)
    for endpoint_id in endpoint_ids:
        ask(api, "DELETE", path_of("endpoints", endpoint_id))
        answers.print(f"deleted {endpoint_id}", markup=False)


@app.command("rotate", epilog="Example:  tams-bridge webhooks rotate ep_1 --overlap 2d")
def rotate(
    endpoint_id: IdArgument,
    overlap: OverlapOption = "24h",
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new secret, printed this once; for a while POSTs are signed with the old one, too."""
    body = {"overlap_s": seconds(overlap, option="--overlap")}
    rotated = ask(api_at(url, key), "POST", path_of("endpoints", endpoint_id, "rotate"), body=body)
    _show_secret(rotated, as_json=as_json)


@app.command("test", epilog="Example:  tams-bridge webhooks test ep_1")
def send_test(
    endpoint_id: IdArgument, url: UrlOption = None, key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Send a test event to one endpoint, the way all events go."""
    sent = ask(api_at(url, key), "POST", path_of("endpoints", endpoint_id, "test"))
    show(sent, as_json=as_json)
    if not as_json:
        note(
            f"`tams-bridge webhooks attempts --endpoint {endpoint_id} --type tams.webhook.test` tells what came of it."
        )


@app.command("pause", epilog="Example:  tams-bridge webhooks pause ep_1")
def pause(endpoint_id: IdArgument, url: UrlOption = None, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Send nothing to an endpoint for now; events wait for it."""
    _turn(endpoint_id, "pause", url=url, key=key, as_json=as_json)


@app.command("resume", epilog="Example:  tams-bridge webhooks resume ep_1")
def resume(endpoint_id: IdArgument, url: UrlOption = None, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Send to an endpoint again, whether it was paused or has been disabled."""
    _turn(endpoint_id, "resume", url=url, key=key, as_json=as_json)


@app.command("tenant-secret", epilog="Example:  tams-bridge webhooks tenant-secret acme --rotate")
def tenant_secret(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="`-` stands for requests without a tenant.")],
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make the first or a new secret, printed this once.")
    ] = False,
    overlap: OverlapOption = "24h",
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or make what signs the webhooks given inside a tenant's requests."""
    api, path = api_at(url, key), path_of("tenants", tenant, "secret")
    if not rotate:
        show(ask(api, "GET", path), as_json=as_json)
        return
    body = {"overlap_s": seconds(overlap, option="--overlap")}
    _show_secret(ask(api, "POST", f"{path}/rotate", body=body), as_json=as_json)


def _turn(endpoint_id: str, way: str, *, url: str | None, key: str | None, as_json: bool) -> None:
    endpoint = ask(api_at(url, key), "POST", path_of("endpoints", endpoint_id, way))
    show(endpoint, as_json=as_json, names=("id", "state", "url"))


def _show_secret(document: msgspec.Raw, *, as_json: bool) -> None:
    show(document, as_json=as_json, names=_SECRET_FIELDS)
    note(_SHOWN_ONCE)


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _schedule(text: str | None) -> list[float | None] | None:
    """`--retry-pauses 5s,5m` in seconds; no further attempt for an empty text."""
    if text is None:
        return None
    return [seconds(each.strip(), option="--retry-pauses") for each in text.split(",") if each.strip()]
