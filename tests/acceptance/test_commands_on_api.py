"""The commands against the API itself, its topics in memory: what one side writes the other side reads."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from bridge.messages import JobRecord, Phase
from bridge.webhook_messages import (
    After,
    Attempt,
    AttemptSummary,
    Delivery,
    Exchange,
    Outcome,
    ReplayCancel,
    ReplayOrder,
    Scope,
)
from tests.acceptance.commands import Run, assert_one_line
from tests.acceptance.fake_api import serving_app
from tests.api.fakes import HOOK, World, Written
from tests.roles.fakes import START


@pytest.fixture
def world(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An API that the commands find, with a key for everything."""
    del run  # has cleared the settings
    world = World()
    with serving_app(world.app) as url:
        monkeypatch.setenv("BRIDGE_API__URL", url)
        monkeypatch.setenv("BRIDGE_API__KEY", world.key())
        yield world


def document(run: Run, *command: str) -> dict[str, object]:
    """What a command answers with --json, if it answers well."""
    said = run(*command, "--json")
    assert said.code == 0, said.err
    return msgspec.json.decode(said.out, type=dict[str, object])


def failed_delivery() -> Attempt:
    attempt = AttemptSummary(number=1, time=START, outcome=Outcome.FAILED, status=500, error="no good", duration_s=0.25)
    delivery = Delivery(
        endpoint_id="ep_1",
        event_id="a/b.3",
        type="tams.job.success",
        request_id="a/b",
        sequence=3,
        time=START,
        ordered=START,
        attempts=(attempt,),
        used=1,
    )
    exchange = Exchange(request_headers={"webhook-id": "msg_1"}, response_headers={"server": "x"}, response_body="oops")
    return Attempt(
        delivery=delivery, webhook_id="msg_1", url=HOOK, attempt=attempt, after=After.DEAD, exchange=exchange
    )


def finished(request_id: str, phase: Phase) -> Written:
    job = JobRecord(
        request_id=request_id,
        phase=phase,
        sequence=4,
        accepted_at=START,
        labels={"tenant": "acme"},
        job=msgspec.Raw(b'{"id": "12345678901234567890123"}'),
    )
    return Written(request_id.encode(), msgspec.json.encode(job))


def test_an_endpoint_lives_from_its_creation_to_its_end(run: Run, world: World) -> None:
    wishes = ("--type", "tams.job.success", "--label", "paid=yes", "--header", "x-token=t", "--rate", "2", "--ordering")
    made = document(run, "webhooks", "create", HOOK, *wishes, "job", "--retry-pauses", "5s,5m", "--timeout", "20s")
    name = str(made["id"])

    changed = document(run, "webhooks", "update", name, "--drop-superseded", "--unset", "rate", "--unset", "labels")
    rotated = document(run, "webhooks", "rotate", name, "--overlap", "1h")
    sent = document(run, "webhooks", "test", name)
    paused, listed = run("webhooks", "pause", name), run("webhooks", "list", "--state", "paused")
    resumed, shown = run("webhooks", "resume", name), document(run, "webhooks", "show", name)
    gone = run("webhooks", "delete", name)

    assert (made["rate"], made["ordering"], made["retry_schedule_s"], made["timeout_s"]) == (2.0, "job", [5, 300], 20.0)
    assert (changed["rate"], changed["labels"], changed["drop_superseded"]) == (None, {}, True)
    assert made["secret"] != rotated["secret"]
    assert sent["delivery_id"] == f"{name}/{sent['event_id']}"
    assert "paused" in paused.out
    assert name in listed.out
    assert "enabled" in resumed.out
    assert "secret" not in shown
    assert gone.out == f"deleted {name}\n"
    assert world.registry.endpoints == {}


def test_a_creation_repeated_under_one_key_brings_the_same_endpoint_and_secret(run: Run, world: World) -> None:
    first = document(run, "webhooks", "create", HOOK, "--idempotency-key", "once")
    again = document(run, "webhooks", "create", HOOK, "--idempotency-key", "once")
    other = run("webhooks", "create", HOOK, "--idempotency-key", "once", "--rate", "1")

    assert (first["id"], first["secret"]) == (again["id"], again["secret"])
    assert_one_line(other, about="used with another body", code=1)
    assert len(world.registry.endpoints) == 1


def test_what_became_of_a_delivery_is_found_in_every_way(run: Run, world: World) -> None:
    document(run, "webhooks", "create", HOOK)
    world.deliveries.take_attempt(Written(b"ep_1", msgspec.json.encode(failed_delivery())))
    since = (START - timedelta(hours=1)).isoformat()

    deliveries = run("webhooks", "deliveries", "--state", "dead", "--type", "tams.job.*", "--since", since)
    delivery = document(run, "webhooks", "delivery", "ep_1", "a/b.3")
    attempts = run("webhooks", "attempts", "--endpoint", "ep_1", "--request", "a/b", "--event", "a/b.3")
    attempt = run("webhooks", "attempt", "0-0")

    assert deliveries.out.splitlines()[1].split()[2:] == [
        "dead",
        "ep_1",
        "a/b.3",
        "tams.job.success",
        "1",
        "no",
        "good",
    ]
    assert len(msgspec.convert(delivery["attempts"], list[object])) == 1
    assert attempts.out.splitlines()[1].split()[2:] == [
        *("0-0", "ep_1", "a/b.3", "1", "failed", "500", "0.25", "no", "good"),
    ]
    assert ["request.headers.webhook-id", "msg_1"] in [line.split() for line in attempt.out.splitlines()]
    assert ["response.body", "oops"] in [line.split() for line in attempt.out.splitlines()]


def test_a_replay_is_ordered_listed_and_canceled(run: Run, world: World) -> None:
    name = str(document(run, "webhooks", "create", HOOK)["id"])
    since = (START - timedelta(hours=1)).isoformat()

    replay = document(run, "webhooks", "replay", name, "--since", since, "--failed-only")
    listed, canceled = run("webhooks", "replays", name), run("webhooks", "replay-cancel", str(replay["id"]))

    order, end = world.orders.orders
    assert isinstance(order, ReplayOrder)
    assert (order.replay_id, order.since, order.failed_only) == (replay["id"], START - timedelta(hours=1), True)
    assert str(replay["id"]) in listed.out
    assert canceled.code == 0
    assert end == ReplayCancel(replay_id=str(replay["id"]), endpoint_id=name)


def test_a_dead_delivery_is_ordered_again(run: Run, world: World) -> None:
    name = str(document(run, "webhooks", "create", HOOK)["id"])
    dead = failed_delivery()
    dead = msgspec.structs.replace(dead, delivery=msgspec.structs.replace(dead.delivery, endpoint_id=name))
    world.deliveries.take_attempt(Written(name.encode(), msgspec.json.encode(dead)))

    document(run, "webhooks", "redeliver", name, "a/b.3")

    (order,) = world.orders.orders
    assert isinstance(order, ReplayOrder)
    assert (order.event_id, order.failed_only) == ("a/b.3", True)


def test_a_tenant_gets_a_secret(run: Run, world: World) -> None:
    none = run("webhooks", "tenant-secret", "acme")
    made = document(run, "webhooks", "tenant-secret", "acme", "--rotate")
    shown = document(run, "webhooks", "tenant-secret", "acme")
    nobody = document(run, "webhooks", "tenant-secret", "-", "--rotate")

    assert_one_line(none, about="there is no secret of this tenant", code=1)
    assert str(made["secret"]).startswith("whsec_")
    assert "secret" not in shown
    assert nobody["tenant"] == "-"
    assert set(world.registry.tenants) == {"acme", ""}


def test_a_job_is_submitted_followed_and_found(run: Run, world: World, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text('{"request_id": "a/b c", "params": {}}')

    submitted = run("jobs", "submit", str(file), "--label", "tenant=acme")
    requested = document(run, "jobs", "show", "a/b c")
    canceled = run("jobs", "cancel", "a/b c")
    world.jobs.take(finished("a/b c", Phase.SUCCESS))
    followed, listed = (
        run("jobs", "follow", "a/b c"),
        run("jobs", "list", "--label", "tenant=acme", "--state", "success"),
    )
    shown = document(run, "jobs", "show", "a/b c")

    assert submitted.out == "a/b c\n"
    assert requested["phase"] == "requested"
    assert [json.loads(value or b"") for _, value in world.requests.records] == [
        {"request_id": "a/b c", "labels": {"tenant": "acme"}, "params": {}},
        {"cancel": "a/b c"},
    ]
    assert canceled.code == 0
    assert (followed.code, followed.out) == (0, "a/b c is success\n")
    assert "a/b c" in listed.out
    assert shown["job"] == {"id": "12345678901234567890123"}


def test_a_key_without_the_scope_is_told_which_one_it_lacks(run: Run, world: World) -> None:
    said = run("webhooks", "list", "--key", world.key(Scope.JOBS_READ))

    assert_one_line(said, about=Scope.WEBHOOKS_READ.value, code=1)


def test_every_wrong_field_is_named_in_one_line(run: Run, world: World) -> None:
    said = run("webhooks", "create", HOOK, "--rate", "-1", "--timeout", "2h")

    assert_one_line(said, about="rate: ", code=1)
    assert "timeout_s: " in said.err
    assert world.registry.endpoints == {}
