"""What a former release left in Kafka goes on under this one: fixtures of each release, see `write_fixture`."""

import json
import tomllib
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.adapters.kafka.transactions import Record
from bridge.core.keyring import Keyring
from bridge.core.registry import EndpointState
from bridge.core.signatures import public_key, verify
from bridge.messages import JobEvent, JobRecord
from bridge.webhook_messages import (
    After,
    ApiKey,
    Attempt,
    Delivery,
    DispatchRecord,
    Endpoint,
    EndpointStatus,
    Order,
    Replay,
    ReplayState,
    Scope,
    TenantSecrets,
)
from tests.roles.fakes import START
from tests.roles.forwarder_fakes import Posted
from tests.upgrade.snapshots import FIXTURES, Snapshot, snapshot
from tests.upgrade.story import STOPPED_AT
from tests.upgrade.worlds import RememberingTams, forwarding, registry_of, working
from tests.upgrade.write_fixture import write

RELEASES = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())
THIS_RELEASE = tomllib.loads((FIXTURES.parents[2] / "pyproject.toml").read_text())["project"]["version"]

ENDED = {
    "succeeded": "success",
    "failed": "failed",
    "canceled": "canceled",
    "rejected": "rejected",
    "expired": "expired",
    "unknown": "unknown",
    "forgotten": "canceled",
}
"""Jobs that had ended."""

TO_END = {
    "accepted": "success",
    "accepted ünï": "success",
    "put back": "success",
    "not sent": "success",
    "tried again": "success",
    "in hand": "success",
    "ambiguous, done": "success",
    "ambiguous, not done": "success",
    "ambiguous, canceled": "canceled",
    "interrupted, done": "success",
    "interrupted, not done": "success",
    "interrupted, canceled": "canceled",
    "created": "success",
    "waiting": "success",
    "running": "success",
    "of another status": "success",
    "missing for now": "success",
    "to be canceled": "canceled",
    "cancel told": "canceled",
    "past its deadline": "expired",
    "second attempt": "success",
    "not read yet": "success",
}
"""Jobs under way, and how each is to end."""

NOT_MADE = 8
"""Those of them of whose present attempt TAMS had made no job: each is submitted, and makes one."""

release = pytest.mark.parametrize("release", RELEASES)


def kept_of(release: str) -> Snapshot:
    return snapshot(FIXTURES / release)


def stories(kept: Snapshot) -> dict[str, list[JobEvent]]:
    """All events by request, in the order of their sequence."""
    events: dict[str, list[JobEvent]] = {}
    for topic in kept.names.results:
        for value in kept.values(topic):
            event = msgspec.json.decode(value, type=JobEvent)
            events.setdefault(event.request_id, []).append(event)
    return {name: sorted(told, key=lambda event: event.sequence) for name, told in events.items()}


def pending(kept: Snapshot) -> dict[str, Delivery]:
    """What the deliveries ledger holds, by id."""
    return {
        key: msgspec.json.decode(value, type=Delivery)
        for key, value in kept.state(kept.names.deliveries).items()
        if "\x1f" not in key
    }


def unread_orders(kept: Snapshot) -> set[str]:
    """Ids of the deliveries that were ordered and not read yet."""
    position = int(kept.state(kept.names.deliveries)["\x1fposition"])
    orders = [msgspec.json.decode(value, type=Order) for value in kept.values(kept.names.dispatch)[position:]]
    return {f"{order.endpoint_id}/{order.event_id}" for order in orders}


def test_this_release_has_a_fixture() -> None:
    """Else the next one would not be held to what this one writes."""
    assert THIS_RELEASE in RELEASES
    assert len(RELEASES) >= 2


async def test_the_fixture_of_this_release_is_what_it_writes(tmp_path: Path) -> None:
    """If not: write it anew (`python tests/upgrade/write_fixture.py` and the version), unless it was released."""
    await write(THIS_RELEASE, tmp_path)
    written, kept = snapshot(tmp_path / THIS_RELEASE), kept_of(THIS_RELEASE)

    for topic in kept.names.all:
        if topic != kept.names.endpoints:  # holds what is sealed by chance
            assert written.of(topic) == kept.of(topic), topic
    assert registry_of(written).endpoints.keys() == registry_of(kept).endpoints.keys()


@release
def test_nothing_of_what_a_former_release_has_written_is_lost_in_reading(release: str) -> None:
    """A field under another name would be passed over, like one that is not known."""
    kept, read = kept_of(release), Counter[str]()
    for record in kept.records:
        kind = _kind_of(record, kept)
        if kind is not None and record.value is not None:
            written = json.loads(record.value)
            again = json.loads(msgspec.json.encode(msgspec.json.decode(record.value, type=kind)))
            assert {name: again.get(name) for name in written} == written
            read[record.topic] += 1
    names = kept.names
    assert read.keys() >= {
        names.jobs,
        names.deliveries,
        names.dispatch,
        names.endpoints,
        names.statuses,
        names.api_keys,
    }


def _kind_of(record: Record, kept: Snapshot) -> Any:
    key, names = (record.key or b"").decode(), kept.names
    kinds: dict[str, Any] = {
        names.jobs: None if "\x1f" in key else JobRecord,
        names.deliveries: Replay if "\x1freplay\x1f" in key else None if "\x1f" in key else Delivery,
        names.dispatch: DispatchRecord,
        names.attempts: Attempt,
        names.endpoints: TenantSecrets if "\x1f" in key else Endpoint,
        names.statuses: EndpointStatus,
        names.api_keys: ApiKey,
    }
    return JobEvent if record.topic in names.results else kinds.get(record.topic)


@release
async def test_each_job_of_a_former_release_comes_to_its_one_end(release: str) -> None:
    kept = kept_of(release)
    before = stories(kept)
    tams = RememberingTams({made.tams_request_id: made.job_id for made in kept.made})
    tams.canceled |= {made.job_id for made in kept.made if made.request_id == "cancel told"}

    async with working(kept, tams) as clock:
        await clock.advance(300)

    after = stories(kept)
    ends = {
        name: [event.type.value.rpartition(".")[2] for event in told if event.type.is_terminal]
        for name, told in after.items()
    }
    assert ends == {name: [end] for name, end in {**ENDED, **TO_END}.items()}
    for name, told in after.items():
        assert [event.sequence for event in told] == list(range(1, len(told) + 1)), name
        assert [event.id for event in told] == [f"{name}.{event.sequence}" for event in told]
    assert {name: after[name] for name in ENDED} == {name: before[name] for name in ENDED}


@release
async def test_no_job_of_a_former_release_is_made_twice(release: str) -> None:
    """What TAMS holds is looked at, what it may hold is asked for by the same `requestId`."""
    kept = kept_of(release)
    tams = RememberingTams({made.tams_request_id: made.job_id for made in kept.made})
    known = dict(tams.jobs)

    async with working(kept, tams) as clock:
        await clock.advance(300)

    told = {event.request_id: event.job for told in stories(kept).values() for event in told if event.job}
    assert len(tams.jobs) == len(known) + NOT_MADE
    asked_again = {made.request_id for made in kept.made if made.tams_request_id in tams.created}
    in_doubt = {"in hand", "ambiguous, done", "ambiguous, canceled", "interrupted, done", "interrupted, canceled"}
    assert asked_again == in_doubt
    assert Counter(tams.created).most_common(1)[0][1] == 1
    for made in kept.made:
        if made.request_id in TO_END and made.request_id not in {"tried again", "second attempt"}:
            assert made.job_id.encode() in bytes(told[made.request_id]), made.request_id


@release
async def test_a_submit_that_a_former_release_may_have_begun_waits_until_it_must_have_ended(release: str) -> None:
    kept = kept_of(release)
    made = {made.request_id: made.tams_request_id for made in kept.made}
    tams = RememberingTams({made.tams_request_id: made.job_id for made in kept.made})

    async with working(kept, tams) as clock:
        await clock.advance(17.9)
        early = made["interrupted, done"] in tams.created
        await clock.advance(0.2)
        late = made["interrupted, done"] in tams.created

    assert (early, late) == (False, True), "the lease ends 3 s after the stop, a POST may take 15 s more"


@release
async def test_request_that_a_former_release_has_seen_is_a_duplicate(release: str) -> None:
    kept = kept_of(release)
    tams = RememberingTams({made.tams_request_id: made.job_id for made in kept.made})
    requests = kept.of(kept.names.requests)
    kept.records.append(next(record for record in requests if record.key == b"succeeded"))

    async with working(kept, tams) as clock:
        await clock.advance(60)

    assert [event.type.value.rpartition(".")[2] for event in stories(kept)["succeeded"]][-2:] == ["duplicate"] * 2


@release
async def test_deliveries_of_a_former_release_go_on(release: str) -> None:
    """What waited, what was not read yet, and what replays still find is delivered; what was delivered is not again."""
    kept = kept_of(release)
    waiting, unread = pending(kept), unread_orders(kept)
    assert waiting
    assert unread

    async with forwarding(kept) as forwarder:
        await forwarder.clock.advance(3 * 3600)
        posted = Counter(_delivery_id(each) for each in forwarder.sender.posted)

    ended = {
        attempt.delivery.id: attempt.after
        for value in kept.values(kept.names.attempts)
        if (attempt := msgspec.json.decode(value, type=Attempt)).after is not After.WAITING
    }
    expected = {each for each in {*waiting, *unread} if not each.startswith(("ep_paused/", "ep_gone/"))}
    superseded = {each for each in expected if each.startswith("ep_ordered/") and ended.get(each) is After.ENDED}
    assert {delivery.endpoint_id for delivery in pending(kept).values()} == {"ep_paused", "ep_gone"}
    assert {each for each in expected if ended.get(each) is After.DELIVERED} == expected - superseded
    repeated = {each for each, count in posted.items() if count > 1}
    sent = {_without_hash(each) for each in expected - superseded}
    assert all(each.startswith("ep_plain/") for each in repeated | (posted.keys() - sent)), "which replays ask for"
    assert posted.keys() >= sent


@release
async def test_posts_for_deliveries_of_a_former_release_are_signed_with_its_secrets(release: str) -> None:
    kept = kept_of(release)
    async with forwarding(kept) as forwarder:
        await forwarder.clock.advance(3 * 3600)
        posted = list(forwarder.sender.posted)

    hosts = Counter(each.post.url.split("/")[2].removesuffix(".example") for each in posted)
    assert hosts.keys() == {
        *("plain", "v1a", "rotated", "headers", "tenant", "ordered", "failing", "throttled", "disabled", "inline")
    }
    for each in posted:
        host = each.post.url.split("/")[2].removesuffix(".example")
        sent_at = START + timedelta(seconds=each.at - 1000.0)
        verify(_secrets_of(host, each, kept), each.post.headers, each.post.body, now=sent_at)
    authorizations = {each.post.headers.get("authorization") for each in posted if "headers.example" in each.post.url}
    assert authorizations == {"Bearer made-up"}


def _secrets_of(host: str, posted: Posted, kept: Snapshot) -> list[str]:
    if host == "inline":
        event = msgspec.json.decode(posted.post.body, type=dict[str, object])["data"]
        labels = msgspec.convert(event, dict[str, object])["labels"]
        return [kept.secrets[msgspec.convert(labels, dict[str, str]).get("tenant", "")]]
    secret = kept.secrets[f"ep_{host}"]
    return [public_key(secret) if host == "v1a" else secret]


@release
async def test_pauses_that_a_former_release_has_begun_are_kept_to(release: str) -> None:
    kept = kept_of(release)
    earliest = min(each.next_at for each in pending(kept).values() if each.endpoint_id == "ep_failing" and each.next_at)

    async with forwarding(kept) as forwarder:
        await forwarder.clock.advance(3600)
        first = forwarder.sender.times("https://failing.example/hook?token=secret")[0]

    assert START + timedelta(seconds=first - 1000.0) >= earliest > STOPPED_AT


@release
async def test_replays_of_a_former_release_go_on_where_they_were(release: str) -> None:
    kept = kept_of(release)
    before = _replays(kept)
    assert [before[name].state for name in ("rp_asked", "rp_begun", "rp_done", "rp_canceled")] == [
        ReplayState.RUNNING,
        ReplayState.RUNNING,
        ReplayState.DONE,
        ReplayState.CANCELED,
    ]

    async with forwarding(kept) as forwarder:
        await forwarder.clock.advance(600)

    after = _replays(kept)
    assert after["rp_asked"].state is after["rp_begun"].state is ReplayState.DONE
    assert after["rp_begun"].scanned > before["rp_begun"].scanned
    assert (after["rp_done"], after["rp_canceled"]) == (before["rp_done"], before["rp_canceled"])


@release
def test_endpoints_and_tenants_of_a_former_release_are_as_they_were(release: str) -> None:
    registry = registry_of(kept_of(release))

    states = {name: registry.state(name) for name in registry.endpoints}
    special = {
        "ep_paused": EndpointState.PAUSED,
        "ep_disabled": EndpointState.DISABLED,
        "ep_gone": EndpointState.DISABLED,
    }
    working_ones = {"plain", "v1a", "rotated", "headers", "tenant", "ordered", "failing", "throttled"}
    assert states == {**special, **{f"ep_{name}": EndpointState.ENABLED for name in working_ones}}
    assert registry.tenants.keys() == {"", "acme"}
    assert (registry.unreadable, registry.newer) == (set(), {})


@release
def test_api_keys_of_a_former_release_let_the_same_people_in(release: str) -> None:
    kept, keyring = kept_of(release), Keyring()
    for record in kept.of(kept.names.api_keys):
        keyring.apply(record.key or b"", record.value)

    admin, acme, revoked = (keyring.find(kept.api_keys[name]) for name in ("admin", "acme", "revoked"))

    assert admin is not None
    assert (admin.scopes, admin.tenant) == ((Scope.ADMIN,), None)
    assert acme is not None
    assert (len(acme.scopes), acme.tenant) == (4, "acme")
    assert revoked is None


def _replays(kept: Snapshot) -> dict[str, Replay]:
    replays = [
        msgspec.json.decode(value, type=Replay)
        for key, value in kept.state(kept.names.deliveries).items()
        if "\x1freplay\x1f" in key
    ]
    return {each.order.replay_id: each for each in replays}


def _delivery_id(posted: Posted) -> str:
    host = posted.post.url.split("/")[2].removesuffix(".example")
    return f"{'in' if host == 'inline' else f'ep_{host}'}/{posted.event_id}"


def _without_hash(delivery_id: str) -> str:
    return f"in/{delivery_id.partition('/')[2]}" if delivery_id.startswith("in_") else delivery_id
