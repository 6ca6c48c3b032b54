"""`tams-bridge jobs` as a person types it, against an API that answers as told."""

import json
import sys
from io import StringIO
from pathlib import Path

import pytest

from tests.acceptance.commands import Run, assert_one_line
from tests.acceptance.fake_api import FakeApi

GRAPH = '{"3": {"classType": "KSampler", "inputs": {}}}'
JOB = {"request_id": "order-1", "phase": "tracking", "attempt": 1, "labels": {"tenant": "acme"}}


def event(word: str, sequence: int = 1, request_id: str = "order-1") -> tuple[str, dict[str, object]]:
    document: dict[str, object] = {
        "id": f"{request_id}.{sequence}",
        "type": f"tams.job.{word}",
        "time": "2026-11-24T10:15:04Z",
        "request_id": request_id,
        "sequence": sequence,
        "attempt": 1,
        "labels": {},
    }
    return f"tams.job.{word}", document


def test_submit_posts_each_request_and_prints_the_ids(run: Run, api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps([{"request_id": "order-1", "params": {}}, {"request_id": "order-2", "params": {}}]))
    api.answer("POST", "/v1/jobs", {"request_id": "order-1"}, {"request_id": "order-2"}, status=202)

    said = run(
        "jobs",
        "submit",
        str(file),
        "--label",
        "tenant=acme",
        "--deadline",
        "60",
        "--max-attempts",
        "2",
        "--priority",
        "9",
    )

    assert (said.code, said.out) == (0, "order-1\norder-2\n")
    assert [asked.body for asked in api.asked] == [
        {
            "request_id": name,
            "labels": {"tenant": "acme"},
            "deadline_s": 60.0,
            "max_attempts": 2,
            "priority": 9,
            "params": {},
        }
        for name in ("order-1", "order-2")
    ]


def test_submit_reads_a_graph_from_standard_input(run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(GRAPH))
    api.answer("POST", "/v1/jobs", {"request_id": "order-9"}, status=202)

    said = run("jobs", "submit", "-", "--id", "order-9", "--json")

    assert json.loads(said.out) == {"request_id": "order-9"}
    assert api.asked[0].body == {"request_id": "order-9", "params": json.loads(GRAPH)}


def test_a_refused_job_is_told_in_one_line(run: Run, api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(GRAPH)
    api.refuse("POST", "/v1/jobs", 422, detail="…", errors=[{"field": "webhook.url", "message": "leads nowhere"}])

    assert_one_line(run("jobs", "submit", str(file)), about="webhook.url: leads nowhere", code=1)


def test_jobs_are_listed_by_phase_labels_and_time(run: Run, api: FakeApi) -> None:
    api.answer("GET", "/v1/jobs", {"data": [JOB], "next": None})

    said = run(
        *("jobs", "list", "--state", "tracking", "--label", "tenant=acme", "--label", "paid=yes"),
        *("--since", "2026-11-24T10:00:00Z"),
    )

    assert said.out.splitlines()[1].split() == ["order-1", "tracking", "1", "tenant=acme"]
    assert api.asked[0].query == [
        ("state", "tracking"),
        ("label", "tenant:acme"),
        ("label", "paid:yes"),
        ("since", "2026-11-24T10:00:00Z"),
        ("limit", "200"),
    ]


def test_a_job_is_shown_as_the_api_gives_it(run: Run, api: FakeApi) -> None:
    """Not a digit of what TAMS said is lost on the way."""
    api.answer("GET", "/v1/jobs/a%2Fb%20c", {**JOB, "job": {"id": 12345678901234567890123, "progress": 1.0}})

    said = run("jobs", "show", "a/b c", "--json")

    assert '"job":{"id":12345678901234567890123,"progress":1.0}' in said.out


def test_cancel_takes_several(run: Run, api: FakeApi) -> None:
    for name in ("order-1", "order-2"):
        api.answer("POST", f"/v1/jobs/{name}/cancel", {"request_id": name}, status=202)

    said = run("jobs", "cancel", "order-1", "order-2")

    assert (said.code, said.out) == (0, "asked to cancel order-1\nasked to cancel order-2\n")


@pytest.mark.parametrize(("end", "code"), [("success", 0), ("failed", 1), ("canceled", 1)])
def test_a_job_is_followed_to_its_end(end: str, code: int, run: Run, api: FakeApi) -> None:
    """A script may wait for a job, and go on only if it succeeded."""
    events = [("snapshot", JOB), event("running", 2), event(end, 3), event("running", 4, "order-2")]
    api.stream("/v1/jobs/order-1/events", events)

    lines, documents = run("jobs", "follow", "order-1"), run("jobs", "follow", "order-1", "--json")

    assert lines.code == documents.code == code
    first, second, third = lines.out.splitlines()
    assert first == "order-1 is tracking"
    assert "order-1 #2 running" in second
    assert f"order-1 #3 {end}" in third
    assert [json.loads(line) for line in documents.out.splitlines()] == [document for _, document in events[:3]]


def test_a_job_that_has_ended_already_is_followed_no_further(run: Run, api: FakeApi) -> None:
    api.stream("/v1/jobs/order-1/events", [("snapshot", {**JOB, "phase": "expired"})])

    said = run("jobs", "follow", "order-1")

    assert (said.code, said.out) == (1, "order-1 is expired\n")


def test_a_job_is_followed_over_a_break(run: Run, api: FakeApi) -> None:
    """The API may be started anew while a job runs."""
    api.stream("/v1/jobs/order-1/events", [("snapshot", JOB)], [("snapshot", {**JOB, "phase": "success"})])

    said = run("jobs", "follow", "order-1")

    assert (said.code, said.out) == (0, "order-1 is tracking\norder-1 is success\n")
    assert "the API ended the stream; trying again" in said.err


def test_all_jobs_are_followed_whatever_ends(run: Run, api: FakeApi) -> None:
    """One job's end is not the end of the others."""
    api.stream("/v1/events", [event("success"), event("running", 7, "order-2"), event("odd", 8, "order-3")])

    said = run("jobs", "follow", "--type", "tams.job.success", "--label", "tenant=acme", "--count", "3")

    assert said.code == 0
    assert [line.split()[-1] for line in said.out.splitlines()] == ["outputs", "0%", "tams.job.odd"]
    assert api.asked[0].query == [("type", "tams.job.success"), ("label", "tenant:acme")]


def test_a_job_that_is_not_there_cannot_be_followed(run: Run, api: FakeApi) -> None:
    assert_one_line(run("jobs", "follow", "order-1"), about="there is no /v1/jobs/order-1/events", code=1)
    assert len(api.asked) == 1
