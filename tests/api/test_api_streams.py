"""Server-sent events: what listeners get, when streams end, and that nobody holds up anybody else."""

from typing import Any

import msgspec
import pytest

from bridge.api.hub import EventHub
from bridge.api.ports import ApiLimits
from bridge.api.streams import frame
from bridge.core.event_stream import EventStreamDecoder, ServerEvent
from bridge.messages import EventType, Phase
from bridge.webhook_messages import Scope
from tests.api.examples import Writer, event, job
from tests.api.fakes import Stream, World, streaming
from tests.roles.fakes import settle

KEEP_ALIVE_S = ApiLimits().keep_alive_s


@pytest.fixture
def writer(world: World) -> Writer:
    return Writer(world)


async def events(stream: Stream) -> list[ServerEvent]:
    return EventStreamDecoder().feed((await stream.read()).encode())


async def names(stream: Stream) -> list[str]:
    return [each.name.rpartition(".")[2] for each in await events(stream)]


# ---- all events
async def test_every_event_from_now_on_comes_as_published(world: World, writer: Writer) -> None:
    writer.event(event("order-1.1"))
    async with streaming(world, "/v1/events") as stream:
        told = event("order-1.2", EventType.SUCCESS, job=msgspec.Raw(b'{"credits": 0.80}'))
        writer.event(told)

        (received,) = await events(stream)

    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["cache-control"] == "no-store"
    assert (received.name, received.id) == ("tams.job.success", "order-1.2")
    assert received.data.encode() == msgspec.json.encode(told)


async def test_a_stream_begins_at_once(world: World) -> None:
    """So that a client, and every proxy in between, knows that it stands."""
    async with streaming(world, "/v1/events") as stream:
        assert (await stream.read()).startswith(":")
        assert stream.status == 200


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["a.1", "b.1", "c.1"]),
        ("type=tams.job.running", ["a.1"]),
        ("type=*.success&type=*.running", ["a.1", "c.1"]),
        ("label=x:1", ["b.1"]),
        ("label=x:1&label=tenant:other", ["b.1"]),
        ("label=x:1&label=tenant:acme", []),
    ],
)
async def test_a_stream_is_narrowed_by_type_and_label(
    query: str, expected: list[str], world: World, writer: Writer
) -> None:
    async with streaming(world, f"/v1/events?{query}") as stream:
        writer.event(
            event("a.1", EventType.RUNNING),
            event("b.1", EventType.FAILED, labels={"x": "1", "tenant": "other"}),
            event("c.1", EventType.SUCCESS, labels={}),
        )

        assert [each.id for each in await events(stream)] == expected


async def test_a_tenants_key_hears_of_its_own_jobs_alone(world: World, writer: Writer) -> None:
    key = world.key(Scope.JOBS_READ, tenant="acme")
    async with streaming(world, "/v1/events", key=key) as stream:
        writer.event(event("a.1"), event("b.1", labels={"tenant": "other"}), event("c.1", labels={}))

        assert [each.id for each in await events(stream)] == ["a.1"]


async def test_a_silent_stream_says_that_it_lives(world: World) -> None:
    async with streaming(world, "/v1/events") as stream:
        await stream.read()
        await world.clock.advance(KEEP_ALIVE_S - 1)
        assert await stream.read() == ""
        await world.clock.advance(1)
        assert (await stream.read()).startswith(":")
        await world.clock.advance(2 * KEEP_ALIVE_S)
        assert (await stream.read()).count(": still here") == 2


async def test_a_client_that_does_not_read_is_cut_off_and_holds_up_nobody(world: World, writer: Writer) -> None:
    async with streaming(world, "/v1/events", reading=False) as slow, streaming(world, "/v1/events") as quick:
        for number in range(1, 401):
            writer.event(event(f"order-1.{number}"))
            await settle()

        assert len(await events(quick)) == 400
        assert not quick.ended.is_set()
        said = await slow.read()
        assert slow.ended.is_set()
        assert said.rstrip().rpartition("\n")[2].startswith(": cut off")
        assert len(EventStreamDecoder().feed(said.encode())) < 300


async def test_a_burst_that_fits_the_queue_is_not_lost(world: World, writer: Writer) -> None:
    async with streaming(world, "/v1/events", reading=False) as stream:
        writer.event(*(event(f"order-1.{number}") for number in range(1, 201)))

        assert len(await events(stream)) == 200


async def test_who_has_gone_is_forgotten(world: World, writer: Writer) -> None:
    """Whether the client was reading or not."""
    for reading in (True, False):
        async with streaming(world, "/v1/events", reading=reading):
            assert len(world.hub._here) == 1
        assert len(world.hub._here) == 0
    writer.event(event())


async def test_there_is_room_for_so_many_and_no_more(world: World, writer: Writer) -> None:
    world.hub = EventHub(room=2)
    writer.job(job())
    key = world.key()
    async with streaming(world, "/v1/events"), streaming(world, "/v1/jobs/order-1/events"), world.client() as client:
        refused = [await client.get(path) for path in ("/v1/events", "/v1/jobs/order-1/events")]
    async with streaming(world, "/v1/events", key=key) as stream:
        assert stream.status == 200

    assert [each.status_code for each in refused] == [503, 503]
    assert all(each.headers["retry-after"] for each in refused)


async def test_streams_end_when_the_server_stops(world: World, writer: Writer) -> None:
    writer.job(job())
    async with streaming(world, "/v1/events") as everything, streaming(world, "/v1/jobs/order-1/events") as one:
        world.hub.close()

        for stream in (everything, one):
            assert (await stream.read()).endswith(": the server is stopping\n\n")
            assert stream.ended.is_set()
    async with streaming(world, "/v1/events") as late:
        assert late.ended.is_set()


async def test_a_wrong_label_is_refused_before_the_stream_begins(world: World) -> None:
    async with world.client() as client:
        assert (await client.get("/v1/events", params={"label": "x"})).status_code == 422


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'{"id": "a"}', b"\xff", b'{"x":' + b"[" * 100_000])
async def test_what_is_no_event_reaches_nobody(value: bytes | None, world: World) -> None:
    async with streaming(world, "/v1/events") as stream:
        world.hub.take(value)

        assert await events(stream) == []
    assert world.hub.unreadable == 1


async def test_an_id_with_a_line_break_cannot_fake_an_event(world: World) -> None:
    forged: dict[str, Any] = {"id": "a\ndata: forged", "type": "t", "request_id": "a", "sequence": 1}
    async with streaming(world, "/v1/events") as stream:
        world.hub.take(msgspec.json.encode(forged))

        assert "forged" not in await stream.read()


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_line_breaks_of_any_kind_in_a_document_make_no_new_event(end: str) -> None:
    """TAMS may write its documents over several lines."""
    document = f'{{"a":{end}{end}"event: x"}}'

    (received,) = EventStreamDecoder().feed(frame("n", document.encode(), "i"))

    assert (received.name, received.id) == ("n", "i")
    assert received.data == document.replace(end, "\n")


# ---- one job
async def test_a_job_is_followed_from_where_it_stands_to_its_end(world: World, writer: Writer) -> None:
    writer.job(job())
    async with streaming(world, "/v1/jobs/order-1/events") as stream:
        (snapshot,) = await events(stream)
        writer.event(event("order-1.4"), event("other.4"), event("order-1.5", EventType.SUCCESS))

        rest = await events(stream)
        assert stream.ended.is_set()

    document = msgspec.json.decode(snapshot.data)
    assert (snapshot.name, snapshot.id) == ("snapshot", "order-1.3")
    assert (document["phase"], document["sequence"], document["job"]["credits"]) == ("tracking", 3, 0.8)
    assert [(each.id, each.name) for each in rest] == [
        ("order-1.4", "tams.job.running"),
        ("order-1.5", "tams.job.success"),
    ]


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.is_terminal])
async def test_a_job_that_has_ended_is_told_once(phase: Phase, world: World, writer: Writer) -> None:
    writer.job(job(phase=phase))
    async with streaming(world, "/v1/jobs/order-1/events") as stream:
        assert await names(stream) == ["snapshot"]
        assert stream.ended.is_set()


async def test_a_job_can_be_followed_before_a_worker_has_it(world: World, writer: Writer) -> None:
    world.jobs.requested("order-1", {"tenant": "acme"}, world.clock.now())
    async with streaming(world, "/v1/jobs/order-1/events") as stream:
        writer.event(event("order-1.1", EventType.ACCEPTED), event("order-1.2", EventType.REJECTED))

        assert await names(stream) == ["snapshot", "accepted", "rejected"]
        assert stream.ended.is_set()


async def test_an_event_that_came_just_before_the_ledger_is_not_missed(world: World, writer: Writer) -> None:
    """The two topics are not in step: the events may be ahead."""
    writer.job(job(sequence=3))
    writer.event(event("order-1.3"), event("order-1.4"), event("other.9"), event("order-1.5", EventType.SUCCESS))
    async with streaming(world, "/v1/jobs/order-1/events") as stream:
        received = await events(stream)

        assert [each.id for each in received] == ["order-1.3", "order-1.4", "order-1.5"]
        assert stream.ended.is_set()


async def test_an_event_that_the_snapshot_holds_is_not_told_again(world: World, writer: Writer) -> None:
    """Or the ledger may be ahead."""
    writer.job(job(sequence=3))
    async with streaming(world, "/v1/jobs/order-1/events") as stream:
        writer.event(event("order-1.2"), event("order-1.3"), event("order-1.4"))

        assert [each.id for each in await events(stream)] == ["order-1.3", "order-1.4"]


async def test_a_stream_ends_though_the_last_event_was_missed(world: World, writer: Writer) -> None:
    """The ledger says so at the next pause."""
    writer.job(job())
    async with streaming(world, "/v1/jobs/order-1/events") as stream:
        await stream.read()
        await world.clock.advance(KEEP_ALIVE_S)
        assert (await stream.read()).startswith(":")
        writer.job(job(phase=Phase.FAILED, sequence=4))
        await world.clock.advance(KEEP_ALIVE_S)

        (last,) = await events(stream)
        assert (last.name, last.id) == ("snapshot", "order-1.4")
        assert stream.ended.is_set()


async def test_a_stream_ends_when_the_job_is_forgotten(world: World, writer: Writer) -> None:
    writer.job(job())
    async with streaming(world, "/v1/jobs/order-1/events") as stream:
        await stream.read()
        writer.forgotten_job("order-1")
        await world.clock.advance(KEEP_ALIVE_S)

        assert "not known any more" in await stream.read()
        assert stream.ended.is_set()


async def test_an_unknown_job_is_a_404_and_no_stream(world: World) -> None:
    async with world.client() as client:
        assert (await client.get("/v1/jobs/order-1/events")).status_code == 404


async def test_a_request_id_with_slashes_can_be_followed(world: World, writer: Writer) -> None:
    writer.job(job("a/b", Phase.SUCCESS))
    async with streaming(world, "/v1/jobs/a/b/events") as stream:
        assert await names(stream) == ["snapshot"]
