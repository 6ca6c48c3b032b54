import msgspec
import pytest

from bridge.core.layouts import NEWEST, UNREADABLE, KeptReader
from bridge.errors import NewerLayout
from bridge.messages import JobRecord
from bridge.webhook_messages import ApiKey, Delivery, Endpoint, EndpointStatus, Replay, TenantSecrets
from tests.core.examples import NOW
from tests.core.webhook_examples import endpoint

KINDS: list[type[msgspec.Struct]] = [JobRecord, Endpoint, EndpointStatus, TenantSecrets, ApiKey, Delivery, Replay]
"""All that is kept, and read by other processes than the one that wrote it."""

ENDPOINT = KeptReader(Endpoint)


def value(version: object, **fields: object) -> bytes:
    """An endpoint of some layout."""
    given = {"id": "ep_a", "url": "https://a.example/hook", "created": NOW, "changed": NOW}
    return msgspec.json.encode({**given, "version": version, **fields})


def test_record_of_this_layout_is_read() -> None:
    assert ENDPOINT.read(value(NEWEST)).url == "https://a.example/hook"


def test_record_that_names_no_layout_is_of_the_first() -> None:
    """So it is written, too: a default is left out. Another default would give all old records another layout."""
    assert b"version" not in msgspec.json.encode(endpoint())
    for kind in KINDS:
        assert {field.name: field.default for field in msgspec.structs.fields(kind)}["version"] == 1


def test_fields_of_a_later_release_of_the_same_layout_are_passed_over() -> None:
    assert ENDPOINT.read(value(NEWEST, colour="green")).id == "ep_a"


@pytest.mark.parametrize("fields", [{}, {"url": 7}, {"scheme": "v3"}, {"secrets": None}])
def test_record_of_a_later_layout_is_refused_however_well_it_seems_to_fit(fields: dict[str, object]) -> None:
    """And the words say which release is wanted, not that the record is damaged."""
    with pytest.raises(NewerLayout, match=r"\(Endpoint\) of layout 2, written by a later .* up to 1: run that release"):
        ENDPOINT.read(value(NEWEST + 1, **fields))


@pytest.mark.parametrize(
    "damaged", [b"", b"no JSON", b"[]", b"{}", b'{"id":"\xff"}', b'{"id":' + b"[" * 100_000, value("two"), value(0.5)]
)
def test_record_that_is_damaged_is_no_later_one(damaged: bytes) -> None:
    with pytest.raises(UNREADABLE):
        ENDPOINT.read(damaged)


@pytest.mark.parametrize("field", ["created", "changed"])
@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "9000-01-01T00:00:00Z"])
def test_record_of_a_time_to_which_no_pause_can_be_added_is_damaged(field: str, moment: str) -> None:
    with pytest.raises(UNREADABLE, match=f"{field} lies in the year"):
        ENDPOINT.read(value(NEWEST, **{field: moment}))


def test_record_of_a_time_without_zone_is_damaged() -> None:
    """Compared with any other time of ours it would be an error."""
    with pytest.raises(UNREADABLE, match="timezone"):
        ENDPOINT.read(value(NEWEST, changed="2026-03-01T12:00:00"))
