"""The API over real HTTP, on a clock that only the test moves."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.emulator.hand_clock import START, Emulate, HandClock

Body = dict[str, Any]
Scripted = Callable[..., Body]

# A success as users pasted it; every key in it must be in an emulated one.
REAL_SUCCESS: Body = {
    "job": {
        "id": "881417947308949275",
        "status": "SUCCESS",
        "credits": 0.8,
        "successInfo": {
            "images": [
                {
                    "id": "4dcb663e-eefd-4bd1-8384-98ee3326b7a6",
                    "url": "https://images.example/881417947447329198_0.png?auth_key=1",
                    "expiredIn": "3600",
                    "meta": {"image": {"width": 768, "height": 768}},
                }
            ],
            "imageExifMetaMap": {
                "4dcb663e-eefd-4bd1-8384-98ee3326b7a6": {
                    "meta": {
                        "FileSize": "923 kB",
                        "ImageSize": "768x768",
                        "MIMEType": "image/png",
                        "Seed": "3363668210",
                    }
                }
            },
            "runtime": "13",
        },
    }
}


async def create(client: httpx.AsyncClient, body: Body) -> Body:
    answer = await client.post("/v1/jobs/workflow", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["job"])


async def look(client: httpx.AsyncClient, job: Body) -> Body:
    answer = await client.get(f"/v1/jobs/{job['id']}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["job"])


def assert_like(real: object, emulated: object) -> None:
    """Every key of the real document is in the emulated one, with a value of the same type."""
    assert type(real) is type(emulated)
    if isinstance(real, dict) and isinstance(emulated, dict):
        for key, value in real.items():
            assert_like(value, next(iter(emulated.values())) if "-" in key else emulated[key])
    if isinstance(real, list) and isinstance(emulated, list):
        assert_like(real[0], emulated[0])


async def test_a_job_is_created_waits_runs_and_succeeds(emulate: Emulate, clock: HandClock, graph: Body) -> None:
    client = await emulate(run_s=10)
    job = await create(client, {"params": graph})
    assert job == {"id": job["id"], "status": "CREATED", "credits": 0.8}
    clock.time += 0.3
    assert (await look(client, job))["status"] == "PENDING"
    clock.time += 0.3
    assert (await look(client, job))["waitingInfo"] == {"queueRank": "2", "queueLen": "4"}
    clock.time += 6.4
    running = (await look(client, job))["runningInfo"]
    item = running["workflowFinishItem"]
    assert running["processingImages"][0]["progress"] == 0.5
    assert (item["finishedNodes"], item["nodes"]["3"]["process"]) == ({"4": True, "5": True}, 0.5)
    clock.time += 5
    assert (await look(client, job))["status"] == "SUCCESS"


async def test_a_success_has_every_key_of_a_real_one(emulate: Emulate, clock: HandClock, graph: Body) -> None:
    client = await emulate()
    job = await create(client, {"params": graph})
    clock.time += 60
    answer = await client.get(f"/v1/jobs/{job['id']}")
    assert_like(REAL_SUCCESS, answer.json())


async def test_outputs_are_real_images_until_their_url_expires(
    emulate: Emulate, clock: HandClock, scripted: Scripted
) -> None:
    client = await emulate()
    job = await create(client, scripted(queue_s=0, run_s=0, images=2))
    clock.time += 600
    images = (await look(client, job))["successInfo"]["images"]
    assert [image["expiredIn"] for image in images] == ["3000", "3000"]
    answer = await client.get(images[1]["url"], headers={"Authorization": ""})
    with Image.open(BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("PNG", (768, 512))
    assert (await client.head(images[1]["url"])).headers["content-length"] == str(len(answer.content))
    assert (await client.get(images[1]["url"] + "0")).status_code == 403
    clock.time += 3000
    assert (await client.get(images[1]["url"])).status_code == 403


async def test_renewed_urls_live_from_each_look(emulate: Emulate, clock: HandClock, scripted: Scripted) -> None:
    client = await emulate(url_renewal="renewed", public_url="http://outputs.example/")
    job = await create(client, scripted(queue_s=0, run_s=0))
    clock.time += 9000
    image = (await look(client, job))["successInfo"]["images"][0]
    assert image["expiredIn"] == "3600"
    assert image["url"].startswith(f"http://outputs.example/outputs/{job['id']}_0.png?auth_key={START + 12600:.0f}-")


async def test_a_video_graph_yields_a_video(emulate: Emulate, scripted: Scripted) -> None:
    client = await emulate()
    body = scripted(queue_s=0, run_s=0)
    body["params"]["9"]["classType"] = "SaveVideo"
    success = (await create(client, body))["successInfo"]
    answer = await client.get(success["videos"][0]["url"])
    assert (answer.headers["content-type"], "images" in success) == ("image/gif", False)


@pytest.mark.parametrize("outcome", ["TRANSITORY_ERROR", "FATAL_ERROR"])
async def test_failed_jobs_say_why_and_are_free(emulate: Emulate, scripted: Scripted, outcome: str) -> None:
    client = await emulate(balance=0.8)
    job = await create(client, scripted(queue_s=0, run_s=0, outcomes=[outcome], reason="out of memory"))
    assert job == {
        "id": job["id"],
        "status": "FAILED",
        "failedInfo": {"reason": "out of memory", "code": outcome},
    }
    assert (await client.get("/_emulator/stats")).json()["creditsSpent"] == 0


async def test_outcomes_are_used_up_by_the_jobs_of_a_group(emulate: Emulate, scripted: Scripted) -> None:
    client = await emulate()
    body = scripted(queue_s=0, run_s=0, group="order-7", outcomes=["TRANSITORY_ERROR", "CANCELED"])
    statuses = [(await create(client, {**body, "requestId": f"attempt-{n}"}))["status"] for n in range(3)]
    assert statuses == ["FAILED", "CANCELED", "SUCCESS"]


async def test_a_hanging_job_runs_until_it_is_canceled(emulate: Emulate, clock: HandClock, scripted: Scripted) -> None:
    client = await emulate(slots=1)
    hanging = await create(client, scripted(queue_s=0, outcomes=["HANG"], group="hanging"))
    behind = await create(client, scripted(queue_s=0, run_s=1))
    clock.time += 1e6
    assert [(await look(client, job))["status"] for job in (hanging, behind)] == ["RUNNING", "WAITING"]
    canceled = await client.delete(f"/v1/jobs/{hanging['id']}")
    assert (canceled.status_code, canceled.json()) == (200, {"jobId": hanging["id"]})
    assert [(await look(client, job))["status"] for job in (hanging, behind)] == ["CANCELED", "RUNNING"]


async def test_a_run_may_be_too_long(emulate: Emulate, clock: HandClock, scripted: Scripted) -> None:
    client = await emulate(longest_run_s=60)
    jobs = [
        await create(client, scripted(queue_s=0, outcomes=["HANG"], group="hanging")),
        await create(client, scripted(queue_s=0, run_s=61)),
        await create(client, scripted(queue_s=0, run_s=60)),
    ]
    clock.time += 60
    assert [(await look(client, job))["status"] for job in jobs] == ["FAILED", "FAILED", "SUCCESS"]


async def test_params_are_checked_and_priced(emulate: Emulate, graph: Body) -> None:
    client = await emulate()
    graph["5"]["inputs"]["batch_size"] = 3
    priced = await client.post("/v1/jobs/workflow/params/check", json={"params": graph})
    assert priced.json() == {"valid": True, "credits": 2.4}
    graph["5"]["inputs"]["batch_size"] = 0
    refused = await client.post("/v1/jobs/workflow/params/check", json={"params": graph})
    assert (refused.status_code, refused.json()["details"][0]["message"]) == (
        400,
        "node id: 5\nclass type: EmptyLatentImage\nbatch_size: invalid_samples",
    )


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"params": {}}', b'{"params": {"1": {}}, "requestId": 7}'])
async def test_bodies_that_make_no_sense_are_refused(emulate: Emulate, content: bytes) -> None:
    client = await emulate()
    answer = await client.post("/v1/jobs/workflow", content=content)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


async def test_bodies_may_be_too_long(emulate: Emulate, graph: Body) -> None:
    client = await emulate(max_body_bytes=100)
    assert (await client.post("/v1/jobs/workflow", json={"params": graph})).status_code == 413


@pytest.mark.parametrize("path", ["/", "/v1/jobs", "/v2/jobs/1", "/v1/jobs/1/2"])
async def test_unknown_routes_and_jobs_are_not_found(emulate: Emulate, path: str) -> None:
    client = await emulate()
    for answer in (await client.get(path), await client.get("/v1/jobs/12"), await client.delete("/v1/jobs/12")):
        assert (answer.status_code, answer.json()["code"]) == (404, 5)


async def test_snake_case_is_accepted(emulate: Emulate) -> None:
    client = await emulate(running_notify_url="recorded")
    body = {
        "request_id": "order-1",
        "running_notify_url": "http://me.example",
        "params": {"1": {"class_type": "SaveImage", "inputs": {}}},
    }
    job = await create(client, body)
    recorded = (await client.get(f"/_emulator/jobs/{job['id']}")).json()
    assert (recorded["requestId"], recorded["runningNotifyUrl"]) == ("order-1", "http://me.example")


@pytest.mark.parametrize(("repeat", "status", "jobs"), [("same", 200, 1), ("error", 409, 1), ("new", 200, 2)])
async def test_what_a_known_request_id_answers_is_a_switch(
    emulate: Emulate, graph: Body, repeat: str, status: int, jobs: int
) -> None:
    client = await emulate(repeat=repeat)
    body = {"requestId": "order-1", "params": graph}
    first = await create(client, body)
    again = await client.post("/v1/jobs/workflow", json=body)
    assert again.status_code == status
    assert (again.json().get("job", {}).get("id") == first["id"]) is (repeat == "same")
    assert (await client.get("/_emulator/stats")).json()["jobs"] == {"CREATED": jobs}


async def test_a_request_id_is_forgotten_after_a_while(emulate: Emulate, clock: HandClock, graph: Body) -> None:
    client = await emulate(request_id_memory_s=60)
    body = {"requestId": "order-1", "params": graph}
    first = await create(client, body)
    clock.time += 60
    assert (await create(client, body))["id"] != first["id"]


@pytest.mark.parametrize(("retry_after", "header"), [(True, "1"), (False, None)])
async def test_the_sixth_request_of_a_second_is_too_many(
    emulate: Emulate, clock: HandClock, *, retry_after: bool, header: str | None
) -> None:
    client = await emulate(rate=5, retry_after=retry_after)
    assert [(await client.get("/v1/jobs/1")).status_code for _ in range(6)] == [404] * 5 + [429]
    refused = await client.get("/v1/jobs/1")
    assert (refused.json()["code"], refused.headers.get("retry-after")) == (8, header)
    clock.time += 1
    assert (await client.get("/v1/jobs/1")).status_code == 404


@pytest.mark.parametrize(("scope", "status"), [("app", 429), ("key", 404)])
async def test_keys_of_an_app_share_the_rate_or_not(emulate: Emulate, scope: str, status: int) -> None:
    client = await emulate(rate=1, rate_scope=scope, bearer_keys={"one": "app", "two": "app"})
    answers = [await client.get("/v1/jobs/1", headers={"Authorization": f"Bearer {key}"}) for key in ("one", "two")]
    assert [answer.status_code for answer in answers] == [404, status]


async def test_credits_run_out(emulate: Emulate, graph: Body) -> None:
    client = await emulate(balance=2.4, credits_out_status=402, credits_out_body={"message": "poor"})
    answers = [await client.post("/v1/jobs/workflow", json={"params": graph}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 402]
    assert answers[3].json() == {"message": "poor"}
    await client.delete(f"/v1/jobs/{answers[0].json()['job']['id']}")
    assert (await client.post("/v1/jobs/workflow", json={"params": graph})).status_code == 200


async def test_live_jobs_may_be_capped(emulate: Emulate, clock: HandClock, scripted: Scripted) -> None:
    client = await emulate(max_concurrent=1)
    await create(client, scripted(run_s=10))
    assert (await client.post("/v1/jobs/workflow", json=scripted())).status_code == 429
    clock.time += 12
    assert (await client.post("/v1/jobs/workflow", json=scripted())).status_code == 200


async def test_finished_jobs_are_kept_for_a_while(emulate: Emulate, clock: HandClock, scripted: Scripted) -> None:
    client = await emulate(retention_s=60)
    job = await create(client, scripted(queue_s=0, run_s=0))
    clock.time += 59
    await look(client, job)
    clock.time += 1
    assert (await client.get(f"/v1/jobs/{job['id']}")).status_code == 404


async def test_pending_may_not_be_used(emulate: Emulate, clock: HandClock, graph: Body) -> None:
    client = await emulate(pending_s=0)
    job = await create(client, {"params": graph})
    clock.time += 0.3
    assert (await look(client, job))["status"] == "WAITING"


async def test_defaults_may_be_written(emulate: Emulate, graph: Body) -> None:
    client = await emulate(write_defaults=True)
    job = await create(client, {"params": graph})
    absent = dict.fromkeys(("waitingInfo", "failedInfo", "runningInfo", "successInfo"))
    assert job == {"id": job["id"], "status": "CREATED", "credits": 0.8, **absent}


async def test_units_of_progress_and_time_are_switches(emulate: Emulate, clock: HandClock, scripted: Scripted) -> None:
    client = await emulate(progress_scale=100, time_unit="ms")
    job = await create(client, scripted(queue_s=0, run_s=10))
    clock.time += 5
    running = (await look(client, job))["runningInfo"]
    assert running["processingImages"][0]["progress"] == 50
    assert (running["workflowFinishItem"]["progress"], running["workflowFinishItem"]["ctime"]) == (
        50,
        f"{START * 1000:.0f}",
    )


async def test_scripted_faults_of_creates_are_used_up_by_the_repeats(emulate: Emulate, scripted: Scripted) -> None:
    """202: not processed, repeat; cut after: processed, and the repeat finds the job."""
    client = await emulate()
    body = scripted("order-1", http={"create": [{"status": 202}, {"cut": "before"}, {"cut": "after"}]})
    assert (await client.post("/v1/jobs/workflow", json=body)).status_code == 202
    for jobs in ({}, {"CREATED": 1}):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v1/jobs/workflow", json=body)
        assert (await client.get("/_emulator/stats")).json()["jobs"] == jobs
    await create(client, body)
    assert (await client.get("/_emulator/stats")).json()["jobs"] == {"CREATED": 1}


async def test_scripted_faults_of_looks_and_cancels_belong_to_the_job(emulate: Emulate, scripted: Scripted) -> None:
    client = await emulate()
    body = scripted(http={"get": [{"status": 500}], "delete": [{"cut": "after"}]})
    for job in [await create(client, body) for _ in range(2)]:
        path = f"/v1/jobs/{job['id']}"
        assert [(await client.get(path)).status_code for _ in range(2)] == [500, 200]
        with pytest.raises(httpx.RemoteProtocolError):
            await client.delete(path)
        assert (await look(client, job))["status"] == "CANCELED"
