import json
from typing import Any

import httpx
import pytest

from tests.emulator.hand_clock import Emulate, HandClock


async def test_health_needs_no_key_and_is_not_journaled(emulate: Emulate, clock: HandClock) -> None:
    client = await emulate()
    answer = await client.get("/_emulator/health", headers={"Authorization": ""})
    assert answer.json() == {"status": "ok", "emulatedTime": clock.time}
    assert (await client.get("/_emulator/journal")).text == ""


async def test_settings_are_merged(emulate: Emulate) -> None:
    client = await emulate(run_s=3)
    changed = await client.put("/_emulator/settings", json={"rate": 7, "slots": 2})
    assert {**changed.json(), "run_s": 3, "rate": 7, "slots": 2} == changed.json()
    assert (await client.get("/_emulator/settings")).json() == changed.json()


@pytest.mark.parametrize("change", [{"rate": -1}, {"unknown": 1}, {"public_key_file": "/does/not/exist"}])
async def test_settings_that_cannot_be_are_refused(emulate: Emulate, change: dict[str, Any]) -> None:
    client = await emulate()
    before = (await client.get("/_emulator/settings")).json()
    assert (await client.put("/_emulator/settings", json=change)).status_code == 400
    assert (await client.get("/_emulator/settings")).json() == before


async def test_faults_befall_coming_requests_until_cleared(emulate: Emulate) -> None:
    client = await emulate()
    await client.post(
        "/_emulator/faults", json={"match": {"method": "GET"}, "fault": {"status": 503, "retry_after": 2}}
    )
    answer = await client.get("/v1/jobs/1")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert (await client.delete("/v1/jobs/1")).status_code == 404
    await client.delete("/_emulator/faults")
    assert (await client.get("/v1/jobs/1")).status_code == 404


async def test_a_fault_that_does_nothing_is_refused(emulate: Emulate) -> None:
    client = await emulate()
    assert (await client.post("/_emulator/faults", json={"fault": {}})).status_code == 400


async def test_the_journal_tells_what_was_asked_and_answered(
    emulate: Emulate, clock: HandClock, graph: dict[str, Any]
) -> None:
    client = await emulate()
    created = await client.post("/v1/jobs/workflow", json={"requestId": "order-1", "params": graph})
    await client.post("/_emulator/faults", json={"fault": {"cut": "after"}, "times": 1})
    job_id = created.json()["job"]["id"]
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get(f"/v1/jobs/{job_id}")
    first, second = map(json.loads, (await client.get("/_emulator/journal")).text.splitlines())
    assert first == {
        "number": 1,
        "emulated_at": clock.time,
        "real_at": clock.time,
        "method": "POST",
        "path": "/v1/jobs/workflow",
        "route": "POST /v1/jobs/workflow",
        "request_id": "order-1",
        "job_id": job_id,
        "status": 200,
        "fault": "",
        "app": "emulator-app",
    }
    assert (second["request_id"], second["job_id"], second["status"], second["fault"]) == (
        "order-1",
        job_id,
        0,
        "cut=after",
    )
    assert (await client.get("/_emulator/journal?after=2")).text == ""
    assert (await client.get("/_emulator/journal?after=x")).status_code == 400


async def test_stats_count_answers_and_jobs(emulate: Emulate, graph: dict[str, Any]) -> None:
    client = await emulate()
    await client.post("/v1/jobs/workflow", json={"params": graph})
    await client.get("/v1/jobs/1")
    assert (await client.get("/_emulator/stats")).json() == {
        "requests": 2,
        "answers": {"GET /v1/jobs/{id}": {"404": 1}, "POST /v1/jobs/workflow": {"200": 1}},
        "peakRequestsPerSecond": 2,
        "jobs": {"CREATED": 1},
        "creditsSpent": 0.8,
    }


async def test_what_there_is_not_is_not_found(emulate: Emulate) -> None:
    client = await emulate()
    assert (await client.get("/_emulator/nothing")).status_code == 404
    assert (await client.get("/_emulator/jobs/1")).status_code == 404
