"""Every request a user may write, good, bad or strange, through a real broker and the emulator to its outcome.

One worker serves them all: whatever one test publishes, the next one finds the bridge at work.
"""

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.adapters.topics import RawName, produce_odd_headers
from tests.brokers import RunningBroker
from tests.integration.conftest import Stage, stage_on
from tests.integration.stack import Bystander, graph, job_of, worker_here

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 100_000


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bridge(broker: RunningBroker) -> AsyncIterator[Stage]:
    """A worker at work, and all around it."""
    prefix = f"t{secrets.token_hex(6)}"
    async with (
        stage_on(broker.bootstrap_servers, prefix, worker={"group": prefix, "max_request_bytes": LIMIT}) as stage,
        worker_here(stage.settings),
    ):
        yield stage


@pytest.fixture
def user(bridge: Stage) -> Bystander:
    return bridge.user


@pytest.fixture
def name() -> str:
    """A request id that no other test uses."""
    return f"r-{secrets.token_hex(6)}"


async def test_a_request_runs_to_its_success_with_outputs(user: Bystander, name: str) -> None:
    await user.request(name, {"labels": {"tenant": "acme"}})

    (end,) = await user.ended(name)

    assert user.types(name)[:2] == ["accepted", "submitted"]
    assert end.type == "tams.job.success"
    assert end.labels == {"tenant": "acme"}
    assert job_of(end)["successInfo"]["images"][0]["url"].startswith("http://127.0.0.1")


@pytest.mark.parametrize("where", ["request_id", "requestId", "key", "ce_id", "position"])
async def test_the_request_id_is_found_where_it_is(where: str, user: Bystander, name: str) -> None:
    body: dict[str, Any] = {"params": graph()}
    if where in {"request_id", "requestId"}:
        body[where] = name
    headers = [("ce_id", name.encode())] if where == "ce_id" else []
    place = await user.publish(body, key=name if where == "key" else None, headers=headers)
    expected = f"{user.settings.topics.prefix}.requests-{place[0]}-{place[1]}" if where == "position" else name

    await user.ended(expected)


@pytest.mark.parametrize(
    "odd", ["with.dots", "with space", "ümlaut", "emoji-🌉", "a/b?c=d&e", "x" * 255, '"quoted"', "%0A", "'"]
)
async def test_an_id_of_odd_but_printable_characters_works(odd: str, user: Bystander) -> None:
    await user.request(odd, images=0)

    (end,) = await user.ended(odd)

    assert end.id == f"{odd}.{end.sequence}"
    record = next(record for record in user.records if dict(record.headers).get("ce_id") == end.id.encode())
    assert record.key == odd.encode()


async def test_trace_and_correlation_headers_are_copied_to_every_event(user: Bystander, name: str) -> None:
    headers = [("traceparent", b"00-4bf92f-00f0-01"), ("correlation_id", b"c-1"), ("other", b"x"), ("tracestate", None)]

    await user.publish({"params": graph()}, key=name, headers=headers)
    await user.ended(name)

    for record in [record for record in user.records if record.key == name.encode()]:
        copied = dict(record.headers)
        assert (copied["traceparent"], copied["correlation_id"]) == (b"00-4bf92f-00f0-01", b"c-1")
        assert not {"other", "tracestate"} & copied.keys()


async def test_unknown_fields_are_named_and_do_no_harm(user: Bystander, name: str) -> None:
    await user.request(name, {"zz": 1, "colour": "red", "webhook": None, "labels": None})

    await user.ended(name)

    accepted = next(event for event in user.events if event.request_id == name)
    assert accepted.unknown_fields == ("colour", "zz")


async def test_the_graph_is_handed_on_as_it_was_written(user: Bystander, name: str) -> None:
    """What TAMS cannot read it says itself: the bridge does not judge graphs."""
    await user.publish({"params": {"5": {"classType": "EmptyLatentImage", "inputs": {"width": 500}}}}, key=name)

    (end,) = await user.ended(name)

    assert end.type == "tams.job.rejected"
    assert end.error is not None
    assert (end.error.code, end.error.http_status, end.error.retryable) == ("invalid_height_or_width", 400, False)
    assert "node id: 5" in end.error.message


NESTED = b'{"params": ' + b'{"a": ' * 5_000 + b"1" + b"}" * 5_000 + b"}"
UNREADABLE: dict[str, tuple[bytes | None, str]] = {
    "null value": (None, "empty"),
    "no bytes": (b"", "empty"),
    "broken JSON": (b'{"params": {', "invalid_json"),
    "not UTF-8": (b'{"params": {"a": "\xff"}}', "invalid_json"),
    "binary": (bytes(range(256)), "invalid_json"),
    "nested too deeply": (NESTED, "invalid_json"),
    "NaN": (b'{"params": {}, "deadline_s": NaN}', "invalid_json"),
    "two documents": (b'{"params": {}} {"params": {}}', "invalid_json"),
    "a list": (b"[]", "invalid_request"),
    "a string": (b'"params"', "invalid_request"),
    "null": (b"null", "invalid_request"),
    "nothing in it": (b"{}", "invalid_request"),
    "no params": (b'{"request_id": "x"}', "invalid_request"),
    "params null": (b'{"params": null}', "invalid_request"),
    "params a list": (b'{"params": []}', "invalid_request"),
    "params a string": (b'{"params": "{}"}', "invalid_request"),
    "labels of numbers": (b'{"params": {}, "labels": {"a": 1}}', "invalid_request"),
    "deadline of words": (b'{"params": {}, "deadline_s": "soon"}', "invalid_request"),
    "deadline in the past": (b'{"params": {}, "deadline_s": -1}', "invalid_request"),
    "no attempts": (b'{"params": {}, "max_attempts": 0}', "invalid_request"),
    "attempts a boolean": (b'{"params": {}, "max_attempts": true}', "invalid_request"),
    "webhook without URL": (b'{"params": {}, "webhook": {}}', "invalid_request"),
    "webhook elsewhere": (b'{"params": {}, "webhook": {"url": "file:///etc/passwd"}}', "invalid_request"),
    "params and cancel": (b'{"params": {}, "cancel": "x"}', "invalid_request"),
    "id with a newline": (b'{"params": {}, "request_id": "a\\nb"}', "invalid_request_id"),
    "id a number": (b'{"params": {}, "request_id": 7}', "invalid_request_id"),
    "empty id": (b'{"params": {}, "request_id": ""}', "invalid_request_id"),
    "id too long": (json.dumps({"params": {}, "request_id": "x" * 256}).encode(), "invalid_request_id"),
    "cancel of nothing": (b'{"cancel": ""}', "invalid_request_id"),
    "cancel of an unknown job": (b'{"cancel": "nobody"}', "unknown_request"),
    "longer than allowed": (b'{"params": {"a": "%s"}}' % (b"x" * LIMIT), "too_large"),
    "five megabytes": (b'{"params": {"a": "%s"}}' % (b"x" * 5_000_000), "too_large"),
}


@pytest.mark.parametrize("what", UNREADABLE)
async def test_what_cannot_become_a_job_is_parked_with_the_reason_and_the_next_request_runs(
    what: str, user: Bystander, name: str
) -> None:
    value, reason = UNREADABLE[what]

    partition, offset = await user.publish(value, key="some-key")
    await user.publish({"params": graph(images=0)}, key=name, partition=partition)
    letter = await user.letter((partition, offset))
    await user.ended(name)

    assert (letter.key, letter.value) == (b"some-key", value)
    told = dict(letter.headers)
    assert told["dlq-reason"] == reason.encode()
    assert told["dlq-error"]
    assert len(told["dlq-error"] or b"") < 1000


@pytest.mark.parametrize("key", [b"\xff\xfe", b"a\nb", b"x" * 300, b"\x00"])
async def test_a_key_that_can_be_no_id_parks_the_record_unless_the_value_has_one(
    key: bytes, user: Bystander, name: str
) -> None:
    place = await user.publish({"params": graph(images=0)}, key=key)
    await user.publish({"params": graph(images=0), "request_id": name}, key=key)

    letter = await user.letter(place)
    await user.ended(name)

    assert letter.key == key
    assert dict(letter.headers)["dlq-reason"] == b"invalid_request_id"


async def test_a_header_whose_name_is_no_text_stops_nothing(user: Bystander, name: str) -> None:
    value = json.dumps({"params": graph(images=0)}).encode()
    topic = f"{user.settings.topics.prefix}.requests"

    await produce_odd_headers(user.producer, topic, [(name.encode(), value, [(RawName("\xff"), b"x"), ("a", None)])])

    await user.ended(name)


async def test_a_request_id_that_comes_again_is_told_as_duplicate_and_ends_once(
    bridge: Stage, user: Bystander, name: str
) -> None:
    await user.request(name)
    await user.request(name)
    await user.ended(name)
    await user.request(name)
    await user.until(lambda: user.types(name).count("duplicate") == 2)

    (end,) = await user.ended(name)
    late = user.events[-1]
    assert end.type == "tams.job.success"
    assert (late.type, job_of(late)) == ("tams.job.duplicate", job_of(end))
    creates = [entry for entry in await bridge.emulator.journal("POST") if entry["job_id"] == job_of(end)["id"]]
    assert len(creates) == 1
    user.assert_whole()


async def test_a_cancel_ends_a_job_that_runs(bridge: Stage, user: Bystander, name: str) -> None:
    await user.request(name, run_s=10_000)
    await user.until(lambda: "running" in user.types(name))

    await user.cancel(name)

    (end,) = await user.ended(name)
    assert end.type == "tams.job.canceled"
    assert job_of(end)["status"] == "CANCELED"
    deletes = [e for e in await bridge.emulator.journal("DELETE") if e["job_id"] == job_of(end)["id"]]
    assert len(deletes) == 1


async def test_a_cancel_together_with_its_request_ends_it(user: Bystander, name: str) -> None:
    """Before the submit or right after it: one terminal event either way."""
    await user.request(name, run_s=10_000)
    await user.cancel(name)

    (end,) = await user.ended(name)

    assert end.type == "tams.job.canceled"


async def test_a_cancel_of_a_job_that_has_ended_changes_nothing(user: Bystander, name: str) -> None:
    await user.request(name)
    await user.ended(name)
    before = user.types(name)

    await user.cancel(name)
    await user.request(f"{name}-after", images=0)
    await user.ended(f"{name}-after")

    assert user.types(name) == before


async def test_a_transitory_failure_is_tried_again_and_then_succeeds(user: Bystander, name: str) -> None:
    await user.request(name, outcomes=["TRANSITORY_ERROR"], group=name, reason="a GPU went away")

    (end,) = await user.ended(name)

    assert (end.type, end.attempt) == ("tams.job.success", 2)
    retrying = next(event for event in user.events if event.request_id == name and event.type.endswith("retrying"))
    assert retrying.error is not None
    assert (retrying.error.code, retrying.error.message) == ("TRANSITORY_ERROR", "a GPU went away")


async def test_a_request_of_one_attempt_is_not_tried_again(user: Bystander, name: str) -> None:
    await user.request(name, {"maxAttempts": 1}, outcomes=["TRANSITORY_ERROR"], group=name)

    (end,) = await user.ended(name)

    assert (end.type, end.attempt) == ("tams.job.failed", 1)


async def test_a_fatal_failure_is_not_tried_again(user: Bystander, name: str) -> None:
    await user.request(name, outcomes=["FATAL_ERROR"], group=name, reason="no such model")

    (end,) = await user.ended(name)

    assert (end.type, end.attempt) == ("tams.job.failed", 1)
    assert end.error is not None
    assert end.error.message == "no such model"


async def test_a_job_that_never_ends_is_given_up_at_its_deadline(user: Bystander, name: str) -> None:
    await user.request(name, {"deadline_s": 0.5}, outcomes=["HANG"], group=name)

    (end,) = await user.ended(name)

    assert end.type == "tams.job.expired"
    assert end.error is not None
    assert end.error.code == "deadline"


async def test_a_job_that_tams_cancels_by_itself_is_told_as_canceled(user: Bystander, name: str) -> None:
    await user.request(name, outcomes=["CANCELED"], group=name)

    (end,) = await user.ended(name)

    assert end.type == "tams.job.canceled"


TROUBLE: dict[str, list[dict[str, object]]] = {
    "not yet processed": [{"status": 202}],
    "answer lost": [{"cut": "after"}],
    "request lost": [{"cut": "before"}],
    "server error": [{"status": 500}],
    "answer broken": [{"malformed": True}],
    "a web page": [{"html": True}],
    "overloaded": [{"status": 503, "retry_after": 0.1}],
    "all of it": [{"status": 202}, {"cut": "after"}, {"status": 502}],
}


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_trouble_with_the_submit_is_overcome_with_one_job_and_no_event_too_many(
    trouble: str, bridge: Stage, user: Bystander, name: str
) -> None:
    await user.request(name, group=name, http={"create": TROUBLE[trouble]})

    (end,) = await user.ended(name)

    told = user.types(name)
    assert end.type == "tams.job.success"
    assert (told.count("accepted"), told.count("submitted"), end.attempt) == (1, 1, 1)
    creates = {e["request_id"] for e in await bridge.emulator.journal("POST") if e["job_id"] == job_of(end)["id"]}
    assert len(creates) == 1


@pytest.mark.parametrize("fault", [{"malformed": True}, {"cut": "after"}, {"status": 500}, {"html": True}])
async def test_trouble_with_the_looks_delays_the_end_and_nothing_else(
    fault: dict[str, object], user: Bystander, name: str
) -> None:
    await user.request(name, group=name, http={"get": [fault, fault]})

    (end,) = await user.ended(name)

    assert end.type == "tams.job.success"


async def test_no_event_is_doubled_or_missing(user: Bystander) -> None:
    """After whatever the other tests of this module have done so far."""
    user.assert_whole()
