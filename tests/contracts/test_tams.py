"""What every TAMS does, the fake of the role tests and the emulator alike."""

from bridge.messages import Done, Missing, Seen
from bridge.ports import Tams

PARAMS = b'{"3": {"classType": "KSampler"}}'


async def test_a_created_job_can_be_looked_at(tams: Tams) -> None:
    created = await tams.create("r-1", PARAMS)
    assert isinstance(created, Seen)

    looked = await tams.look(created.view.job_id)

    assert isinstance(looked, Seen)
    assert (looked.view.job_id, looked.view.status) == (created.view.job_id, "CREATED")


async def test_the_same_request_id_gives_the_same_job(tams: Tams) -> None:
    first, again, other = [await tams.create(request_id, PARAMS) for request_id in ("r-1", "r-1", "r-2")]

    assert isinstance(first, Seen)
    assert isinstance(again, Seen)
    assert isinstance(other, Seen)
    assert first.view.job_id == again.view.job_id != other.view.job_id


async def test_a_job_that_was_never_created_is_missing(tams: Tams) -> None:
    assert isinstance(await tams.look("404"), Missing)
    assert isinstance(await tams.cancel("404"), Missing)


async def test_a_canceled_job_is_seen_as_canceled(tams: Tams) -> None:
    created = await tams.create("r-1", PARAMS)
    assert isinstance(created, Seen)

    canceled = await tams.cancel(created.view.job_id)
    looked = await tams.look(created.view.job_id)

    assert isinstance(canceled, Done)
    assert isinstance(looked, Seen)
    assert looked.view.status == "CANCELED"


async def test_a_cancel_may_be_repeated(tams: Tams) -> None:
    created = await tams.create("r-1", PARAMS)
    assert isinstance(created, Seen)

    assert [await tams.cancel(created.view.job_id) for _ in range(2)] == [Done(), Done()]
