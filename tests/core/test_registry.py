import string
from datetime import timedelta

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core.registry import (
    EndpointState,
    Registry,
    endpoint_key,
    matches_type,
    status_key,
    tenant_key,
    wants,
)
from bridge.messages import EventType
from bridge.webhook_messages import DEFAULT_EVENT_TYPES, Endpoint, EndpointStatus
from tests.core.examples import NOW
from tests.core.webhook_examples import endpoint, put, registry_of, secrets

SUCCESS = "tams.job.success"


def status(epoch: int = 1, *, disabled: bool = False) -> EndpointStatus:
    return EndpointStatus(
        endpoint_id="ep_a",
        epoch=epoch,
        failing_since=NOW,
        disabled_at=NOW if disabled else None,
        disabled_reason="failing" if disabled else "",
        changed=NOW,
    )


def subscribed(registry: Registry, event_type: str = SUCCESS, **labels: str) -> list[str]:
    return sorted(each.id for each in registry.subscribers(event_type, labels))


# ---------------------------------------------------------------------------------------------------------- the records


def test_newest_record_of_an_endpoint_holds() -> None:
    """A compacted topic: the last word counts."""
    registry = registry_of(endpoint(description="old"), endpoint(description="new"))

    assert registry.endpoints["ep_a"].description == "new"


def test_deleted_endpoint_is_gone() -> None:
    """A null ends it."""
    registry = registry_of(endpoint())

    changed = registry.apply(endpoint_key("ep_a"), None)

    assert (changed, registry.endpoints, subscribed(registry)) == ("ep_a", {}, [])


def test_null_of_an_endpoint_nobody_knows_is_no_news() -> None:
    """Compaction keeps the null longer than the record."""
    assert Registry().apply(endpoint_key("ep_a"), None) == "ep_a"


def test_every_record_tells_which_endpoint_it_is_about() -> None:
    """The dispatcher follows that one alone; a tenant's secrets are about none."""
    registry = Registry()

    told = [
        registry.apply(endpoint_key("ep_a"), msgspec.json.encode(endpoint())),
        registry.apply(status_key("ep_a"), msgspec.json.encode(status())),
        registry.apply(tenant_key("acme"), msgspec.json.encode(secrets("acme"))),
    ]

    assert told == ["ep_a", "ep_a", None]


def test_tenants_have_their_secrets_and_lose_them() -> None:
    """Requests without a tenant have some of their own, under the empty name."""
    registry = registry_of(secrets("acme"), secrets(""))

    registry.apply(tenant_key("acme"), None)

    assert registry.tenants == {"": secrets("")}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"no JSON",
        b'{"id": "ep_a", "url": "\xff"}',
        b'{"id": "ep_a", "zzz": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
)
def test_unreadable_record_changes_nothing_and_is_remembered(value: bytes) -> None:
    """A newer process may have written it: what is known of the endpoint still holds, and health can say so."""
    registry = registry_of(endpoint())

    registry.apply(endpoint_key("ep_a"), value)

    assert (registry.endpoints, registry.unreadable) == ({"ep_a": endpoint()}, {"ep_a"})


@pytest.mark.parametrize("value", [None, msgspec.json.encode(endpoint())])
def test_readable_record_makes_good_for_an_unreadable_one(value: bytes | None) -> None:
    """Nothing to complain about any more."""
    registry = Registry()
    registry.apply(endpoint_key("ep_a"), b"{}")

    registry.apply(endpoint_key("ep_a"), value)

    assert registry.unreadable == set()


def test_record_of_a_later_release_is_told_from_a_damaged_one() -> None:
    """Whoever follows the registry must not go on with less than all of it."""
    registry = registry_of(endpoint())

    registry.apply(endpoint_key("ep_a"), msgspec.json.encode(msgspec.structs.replace(endpoint(), version=2)))
    registry.apply(tenant_key("acme"), b'{"version": 2}')
    registry.apply(status_key("ep_b"), b"{}")

    assert registry.newer.keys() == {"ep_a", "\x1ftenant\x1facme"}
    assert registry.newer.keys() < registry.unreadable
    assert all("layout 2" in words for words in registry.newer.values())
    assert registry.endpoints == {"ep_a": endpoint()}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (endpoint_key("ep_a"), msgspec.json.encode(endpoint("ep_b"))),
        (status_key("ep_b"), msgspec.json.encode(status())),
        (tenant_key("acme"), msgspec.json.encode(secrets("other"))),
    ],
)
def test_record_about_another_than_its_key_says_counts_as_damaged(key: bytes, value: bytes) -> None:
    """Deliveries are found by one of the two names, and their endpoint's queue by the other."""
    registry = Registry()

    registry.apply(key, value)

    assert registry.unreadable == {key.decode()}
    assert (registry.endpoints, registry.statuses, registry.tenants) == ({}, {}, {})


@pytest.mark.parametrize(
    "fields",
    [
        {"rate": 0},
        {"max_in_flight": 0},
        {"timeout_s": 1e300},
        {"timeout_s": 0},
        {"retry_schedule_s": [1e300]},
        {"retry_schedule_s": [-1]},
        {"epoch": -1},
        {"changed": "2026-03-01T12:00:00"},
        {"created": "9999-12-31T23:59:59Z"},
    ],
)
def test_endpoint_that_nothing_could_be_sent_to_counts_as_damaged(fields: dict[str, object]) -> None:
    registry = Registry()

    registry.apply(endpoint_key("ep_a"), msgspec.json.encode(msgspec.to_builtins(endpoint()) | fields))

    assert registry.unreadable == {"ep_a"}


@pytest.mark.parametrize("value", [None, b"{}", msgspec.json.encode(endpoint())])
def test_later_record_that_was_taken_back_is_none_any_more(value: bytes | None) -> None:
    registry = Registry()
    registry.apply(endpoint_key("ep_a"), b'{"version": 2}')

    registry.apply(endpoint_key("ep_a"), value)

    assert registry.newer == {}


def test_key_that_is_no_text_harms_nobody() -> None:
    """Whoever wrote it was not the bridge."""
    registry = registry_of(endpoint())

    registry.apply(b"\xff\xfe", b"{}")

    assert list(registry.endpoints) == ["ep_a"]


# ----------------------------------------------------------------------------------------------------------- the states


@pytest.mark.parametrize(
    ("records", "state"),
    [
        ((), None),
        ((status(disabled=True),), None),
        ((endpoint(),), EndpointState.ENABLED),
        ((endpoint(), status()), EndpointState.ENABLED),
        ((endpoint(paused=True),), EndpointState.PAUSED),
        ((endpoint(), status(disabled=True)), EndpointState.DISABLED),
        ((endpoint(paused=True), status(disabled=True)), EndpointState.DISABLED),
        ((endpoint(epoch=2), status(epoch=1, disabled=True)), EndpointState.ENABLED),
        ((endpoint(epoch=2), status(epoch=2, disabled=True)), EndpointState.DISABLED),
    ],
)
def test_state_follows_from_endpoint_and_status(
    records: tuple[Endpoint | EndpointStatus, ...], state: EndpointState | None
) -> None:
    """A status of an earlier epoch no longer holds."""
    assert registry_of(*records).state("ep_a") is state


def test_status_of_an_earlier_epoch_is_no_status() -> None:
    """The endpoint was enabled anew since."""
    registry = registry_of(endpoint(), status())

    assert registry.status("ep_a") == status()

    put(registry, endpoint(epoch=2))

    assert registry.status("ep_a") is None


# --------------------------------------------------------------------------------------------------------- who wants it


def test_endpoint_gets_the_types_it_asked_for() -> None:
    """And no other."""
    registry = registry_of(endpoint("ep_a", event_types=[SUCCESS]), endpoint("ep_b", event_types=["tams.job.failed"]))

    assert subscribed(registry) == ["ep_a"]


def test_endpoint_of_a_tenant_gets_that_tenants_events_alone() -> None:
    """Nobody sees another's jobs; an endpoint without tenant sees all."""
    registry = registry_of(endpoint("ep_a", tenant="acme"), endpoint("ep_o", tenant="other"), endpoint("ep_all"))

    assert subscribed(registry, tenant="acme") == ["ep_a", "ep_all"]
    assert subscribed(registry) == ["ep_all"]


def test_all_labels_of_the_filter_must_be_there() -> None:
    """More may be."""
    registry = registry_of(endpoint(labels={"team": "red", "kind": "video"}))

    assert subscribed(registry, team="red", kind="video", size="big") == ["ep_a"]
    assert subscribed(registry, team="red") == []
    assert subscribed(registry, team="blue", kind="video") == []


def test_paused_and_disabled_endpoints_are_subscribers_all_the_same() -> None:
    """Their events are kept for later."""
    registry = registry_of(endpoint("ep_p", paused=True), endpoint("ep_a"), status(disabled=True))

    assert subscribed(registry) == ["ep_a", "ep_p"]


def test_change_of_an_endpoint_counts_from_the_next_event_on() -> None:
    """What was worked out before is forgotten."""
    registry = registry_of(endpoint())
    assert subscribed(registry) == ["ep_a"]

    put(registry, endpoint(event_types=["tams.job.failed"]), endpoint("ep_b"))

    assert subscribed(registry) == ["ep_b"]


def test_what_was_worked_out_is_not_kept_without_end() -> None:
    """Tenants may be as many as jobs."""
    registry = registry_of(endpoint())

    for number in range(10_001):
        registry.subscribers(SUCCESS, {"tenant": f"t{number}"})

    assert len(registry._by_shape) == 1


LABELS = st.dictionaries(st.sampled_from(["tenant", "team"]), st.sampled_from(["a", "b"]))


@given(
    endpoints=st.lists(
        st.builds(
            lambda number, kinds, tenant, labels: endpoint(
                f"ep_{number}", event_types=kinds, tenant=tenant, labels=labels
            ),
            st.integers(0, 3),
            st.lists(st.sampled_from([*EventType, *DEFAULT_EVENT_TYPES, "*.success"]), min_size=1),
            st.sampled_from([None, "a", "b"]),
            LABELS,
        )
    ),
    labels=LABELS,
    event_type=st.sampled_from(EventType),
)
def test_subscribers_are_exactly_those_that_want_the_event(
    endpoints: list[Endpoint], labels: dict[str, str], event_type: EventType
) -> None:
    """The quick way and the plain one agree, however often asked; replays use the plain one."""
    registry = registry_of(*endpoints)

    wanted = sorted(each.id for each in registry.endpoints.values() if wants(each, event_type, labels))

    assert [subscribed(registry, event_type, **labels) for _ in range(2)] == [wanted, wanted]


@pytest.mark.parametrize(
    ("pattern", "event_type", "fits"),
    [
        ("tams.job.success", "tams.job.success", True),
        ("tams.job.*", "tams.job.success", True),
        ("*", "tams.webhook.test", True),
        ("tams.*.success", "tams.job.success", True),
        ("tams.job", "tams.job.success", False),
        ("job.success", "tams.job.success", False),
        ("tams.job.?uccess", "tams.job.success", False),
        ("tams.job.[s]uccess", "tams.job.success", False),
        ("tams.job.[s]uccess", "tams.job.[s]uccess", True),
        ("TAMS.JOB.SUCCESS", "tams.job.success", False),
        ("tamsxjob.success", "tams.job.success", False),
    ],
)
def test_star_stands_for_anything_and_all_else_for_itself(pattern: str, event_type: str, *, fits: bool) -> None:
    """Not a language of patterns: one star."""
    assert matches_type([pattern], event_type) is fits


def test_no_pattern_covers_nothing() -> None:
    """An endpoint without types gets none."""
    assert not matches_type([], SUCCESS)


@given(
    st.text(string.ascii_lowercase + ".*[]?!-", max_size=12), st.text(string.ascii_lowercase + ".[]?!-", max_size=12)
)
@example("[!a]", "b")
@example("[]]", "]")
def test_patterns_are_read_alike_whatever_they_hold(pattern: str, event_type: str) -> None:
    """Split at the stars, the parts must come in this order."""
    parts = pattern.split("*")
    first, rest = parts[0], parts[1:]
    if not rest:
        fits = pattern == event_type
    else:
        fits = event_type.startswith(first) and event_type[len(first) :].endswith(rest[-1])
        place = len(first)
        for part in rest[:-1]:
            found = event_type.find(part, place)
            fits, place = fits and found >= 0, found + len(part)
        fits = fits and place <= len(event_type) - len(rest[-1])

    assert matches_type([pattern], event_type) is fits


def test_default_types_cover_every_event_of_a_job() -> None:
    """Who does not choose gets all."""
    assert all(matches_type(DEFAULT_EVENT_TYPES, kind) for kind in EventType)


def test_time_of_a_status_survives_the_topic() -> None:
    """Who compares times must get the ones that were written."""
    exact = status().changed + timedelta(microseconds=1)
    registry = registry_of(endpoint(), EndpointStatus(endpoint_id="ep_a", epoch=1, changed=exact))

    assert registry.statuses["ep_a"].changed == exact


@pytest.mark.parametrize(
    ("pattern", "covers"),
    [
        ("*", True),
        ("**", True),
        ("tams*success", True),
        ("*job*", True),
        ("tams.job.success*", True),
        ("*s*s*s*s*s", False),
        ("tams.job.suc*ccess", False),
        ("tams*jobs*success", False),
        ("", False),
        ("*a" * 200_000, False),
        ("*" * 200_000 + "!", False),
    ],
)
def test_star_stands_for_anything_and_no_pattern_takes_long(pattern: str, covers: bool) -> None:  # noqa: FBT001
    """Requests and queries bring patterns; as regular expressions, long ones held everything up for half a minute."""
    assert matches_type([pattern], SUCCESS) is covers
