"""`tams-bridge webhooks` as a person types it, against an API that answers as told."""

import json

import pytest

from bridge.adapters.brokers import free_ports
from tests.acceptance.commands import Run, assert_one_line
from tests.acceptance.fake_api import FakeApi

ENDPOINT = {"id": "ep_1", "url": "https://acme.example/hook", "state": "enabled", "event_types": ["tams.job.*"]}
REPLAY = {"id": "rp_1", "endpoint_id": "ep_1", "state": "queued", "scanned": 0, "matched": 0, "progress": 0.0}


def test_create_prints_the_secret_and_says_that_it_is_shown_once(run: Run, api: FakeApi) -> None:
    api.answer("POST", "/v1/endpoints", {**ENDPOINT, "secret": "whsec_abc"}, status=201)

    said = run("webhooks", "create", "https://acme.example/hook")

    assert said.code == 0
    assert [line.split() for line in said.out.splitlines()] == [["id", "ep_1"], ["secret", "whsec_abc"]]
    assert "shown this once" in said.err
    assert api.asked[0].body == {"url": "https://acme.example/hook"}
    assert len(api.asked[0].headers["idempotency-key"]) == 32


def test_create_sends_every_wish_in_the_words_of_the_api(run: Run, api: FakeApi) -> None:
    api.answer("POST", "/v1/endpoints", ENDPOINT, status=201)

    said = run(
        *("webhooks", "create", "https://acme.example/hook", "--type", "tams.job.success", "--type", "tams.job.failed"),
        *("--label", "paid=yes", "--tenant", "acme", "--description", "orders", "--header", "x-token=a=b"),
        *("--scheme", "v1a", "--rate", "2.5", "--max-in-flight", "3", "--timeout", "20s", "--retry-pauses", "5s,5m"),
        *("--ordering", "job", "--drop-superseded", "--handshake", "--idempotency-key", "once", "--json"),
    )

    assert json.loads(said.out) == ENDPOINT
    assert api.asked[0].headers["idempotency-key"] == "once"
    assert api.asked[0].body == {
        "url": "https://acme.example/hook",
        "event_types": ["tams.job.success", "tams.job.failed"],
        "labels": {"paid": "yes"},
        "tenant": "acme",
        "description": "orders",
        "headers": {"x-token": "a=b"},
        "scheme": "v1a",
        "rate": 2.5,
        "max_in_flight": 3,
        "timeout_s": 20.0,
        "retry_schedule_s": [5.0, 300.0],
        "ordering": "job",
        "drop_superseded": True,
        "handshake": True,
    }


def test_a_creation_that_may_have_happened_can_be_repeated(run: Run, api: FakeApi) -> None:
    """The same key brings the same endpoint and its secret; another one would make a second endpoint."""
    api.refuse("POST", "/v1/endpoints", 503, detail="the change is not confirmed: repeat it with the same key")

    said = run("webhooks", "create", "https://acme.example/hook")

    assert_one_line(said, about="not confirmed: repeat it with the same key (here: --idempotency-key ", code=1)
    assert api.asked[0].headers["idempotency-key"] in said.err


def test_update_sends_what_was_given_and_nothing_else(run: Run, api: FakeApi) -> None:
    """A default sent along would undo what somebody else has set."""
    api.answer("PATCH", "/v1/endpoints/ep_1", ENDPOINT)

    run("webhooks", "update", "ep_1", "--no-drop-superseded", "--retry-pauses", "", "--unset", "rate")
    run("webhooks", "update", "ep_1", "--target", "https://new.example", "--ordering", "none")

    assert [asked.body for asked in api.asked] == [
        {"drop_superseded": False, "retry_schedule_s": [], "rate": None},
        {"url": "https://new.example", "ordering": "none"},
    ]


def test_list_shows_every_page_and_filters_at_the_api(run: Run, api: FakeApi) -> None:
    other = {**ENDPOINT, "id": "ep_2", "state": "disabled"}
    pages = {"data": [ENDPOINT], "next": "c"}, {"data": [other], "next": None}
    api.answer("GET", "/v1/endpoints", *pages)
    table = run("webhooks", "list", "--state", "disabled", "--tenant", "acme")
    api.answer("GET", "/v1/endpoints", *pages)
    documents = run("webhooks", "list", "--json")

    assert [line.split()[:2] for line in table.out.splitlines()[1:]] == [["ep_1", "enabled"], ["ep_2", "disabled"]]
    assert [json.loads(line) for line in documents.out.splitlines()] == [ENDPOINT, other]
    assert {("state", "disabled"), ("tenant", "acme")} <= set(api.asked[0].query)
    assert ("cursor", "c") in api.asked[1].query


def test_list_reads_no_more_than_its_limit(run: Run, api: FakeApi) -> None:
    api.answer("GET", "/v1/endpoints", {"data": [ENDPOINT], "next": "c"})

    said = run("webhooks", "list", "--limit", "1", "--json")

    assert len(said.out.splitlines()) == len(api.asked) == 1
    assert api.asked[0].query == [("limit", "1")]


def test_show_gives_the_whole_document(run: Run, api: FakeApi) -> None:
    api.answer("GET", "/v1/endpoints/ep_1", {**ENDPOINT, "disabled": {"reason": "gone"}, "new_field": 7})

    fields, document = run("webhooks", "show", "ep_1"), run("webhooks", "show", "ep_1", "--json")

    assert ["disabled.reason", "gone"] in [line.split() for line in fields.out.splitlines()]
    assert json.loads(document.out)["new_field"] == 7


@pytest.mark.parametrize(
    ("command", "call", "body"),
    [
        (["pause", "ep_1"], ("POST", "/v1/endpoints/ep_1/pause"), None),
        (["resume", "ep_1"], ("POST", "/v1/endpoints/ep_1/resume"), None),
        (["test", "ep_1"], ("POST", "/v1/endpoints/ep_1/test"), None),
        (["rotate", "ep_1"], ("POST", "/v1/endpoints/ep_1/rotate"), {"overlap_s": 86_400.0}),
        (["rotate", "ep_1", "--overlap", "1h"], ("POST", "/v1/endpoints/ep_1/rotate"), {"overlap_s": 3_600.0}),
        (["tenant-secret", "acme"], ("GET", "/v1/tenants/acme/secret"), None),
        (["tenant-secret", "-", "--rotate"], ("POST", "/v1/tenants/-/secret/rotate"), {"overlap_s": 86_400.0}),
        (["delivery", "ep_1", "o/1.3"], ("GET", "/v1/deliveries/ep_1/o%2F1.3"), None),
        (["redeliver", "ep_1", "o/1.3"], ("POST", "/v1/deliveries/ep_1/o%2F1.3/redeliver"), None),
        (["attempt", "0-7"], ("GET", "/v1/attempts/0-7"), None),
        (["replay-cancel", "rp_1"], ("POST", "/v1/replays/rp_1/cancel"), None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_command_is_one_call(
    command: list[str], call: tuple[str, str], body: object, run: Run, api: FakeApi
) -> None:
    api.answer(*call, {"id": "x", "state": "done", "secret": "whsec_abc"})

    said = run("webhooks", *command)

    assert said.code == 0, said.err
    assert [(asked.method, asked.path) for asked in api.asked] == [call]
    assert api.asked[0].body == body


@pytest.mark.parametrize("command", [["rotate", "ep_1"], ["tenant-secret", "acme", "--rotate"]])
def test_a_new_secret_is_printed_with_the_warning(command: list[str], run: Run, api: FakeApi) -> None:
    document = {"id": "ep_1", "secret": "whsec_new"}
    api.answer("POST", "/v1/endpoints/ep_1/rotate", document)
    api.answer("POST", "/v1/tenants/acme/secret/rotate", document)

    said = run("webhooks", *command)

    assert "whsec_new" in said.out
    assert "shown this once" in said.err


def test_delete_takes_several_and_says_which_are_gone(run: Run, api: FakeApi) -> None:
    api.answer("DELETE", "/v1/endpoints/ep_1", None, status=204)

    said = run("webhooks", "delete", "ep_1", "ep_2")

    assert said.code == 1
    assert said.out == "deleted ep_1\n"
    assert "there is no /v1/endpoints/ep_2" in said.err


@pytest.mark.parametrize("what", ["deliveries", "attempts"])
def test_what_became_of_events_is_listed_by_every_filter(what: str, run: Run, api: FakeApi) -> None:
    row = {"id": "0-7", "endpoint_id": "ep_1", "event_id": "o.3", "state": "dead", "outcome": "failed", "status": 500}
    api.answer("GET", f"/v1/{what}", {"data": [row], "next": None})

    said = run(
        *("webhooks", what, "--endpoint", "ep_1", "--request", "o", "--event", "o.3", "--type", "tams.job.failed"),
        *("--state", "dead", "--since", "2026-11-24T10:00:00Z", "--until", "2026-11-24T12:00:00+01:00"),
    )

    assert "ep_1" in said.out
    assert "o.3" in said.out
    assert set(api.asked[0].query) - {("limit", "200")} == {
        ("endpoint_id", "ep_1"),
        ("request_id", "o"),
        ("event_id", "o.3"),
        ("type", "tams.job.failed"),
        ("state", "dead"),
        ("since", "2026-11-24T10:00:00Z"),
        ("until", "2026-11-24T11:00:00Z"),
    }


def test_a_replay_is_asked_for_and_listed(run: Run, api: FakeApi) -> None:
    api.answer("POST", "/v1/endpoints/ep_1/replays", REPLAY, status=202)
    api.answer("GET", "/v1/endpoints/ep_1/replays", {"data": [REPLAY], "next": None})

    asked = run("webhooks", "replay", "ep_1", "--since", "2026-11-24T10:00:00Z", "--until", "2026-11-24T11:00:00Z")
    listed = run("webhooks", "replays", "ep_1")

    assert "rp_1" in asked.out
    assert "rp_1" in listed.out
    assert api.asked[0].body == {
        "since": "2026-11-24T10:00:00Z",
        "until": "2026-11-24T11:00:00Z",
        "failed_only": False,
    }


def test_a_replay_may_begin_so_long_ago(run: Run, api: FakeApi) -> None:
    api.answer("POST", "/v1/endpoints/ep_1/replays", REPLAY, status=202)

    run("webhooks", "replay", "ep_1", "--since", "2h", "--failed-only")

    body = api.asked[0].body
    assert body["since"].endswith("Z")
    assert body["failed_only"] is True
    assert "until" not in body


@pytest.mark.parametrize(("end", "code"), [("done", 0), ("canceled", 1)])
def test_wait_lasts_until_the_replay_has_ended(end: str, code: int, run: Run, api: FakeApi) -> None:
    """Whoever waits wants to know how it ended."""
    ended = {**REPLAY, "state": end, "progress": 1.0, "scanned": 9, "matched": 4}
    api.answer("POST", "/v1/endpoints/ep_1/replays", REPLAY, status=202)
    api.answer("GET", "/v1/replays/rp_1", {**REPLAY, "state": "running", "progress": 0.5}, ended)

    said = run("webhooks", "replay", "ep_1", "--since", "1d", "--wait")

    assert said.code == code
    assert [line.split() for line in said.out.splitlines()] == [
        ["id", "rp_1"],
        ["state", end],
        ["scanned", "9"],
        ["matched", "4"],
    ]
    assert [asked.path for asked in api.asked[1:]] == ["/v1/replays/rp_1"] * 2


def test_a_wrong_key_is_told_in_one_line(run: Run, api: FakeApi) -> None:
    said = run("webhooks", "list", "--key", "tbk_bbbbbbbbbbbb_other")

    assert_one_line(said, about=f"{api.url} does not accept this key", code=1)
    assert "other" not in said.err


def test_what_the_api_refuses_is_told_in_its_words(run: Run, api: FakeApi) -> None:
    api.refuse("POST", "/v1/endpoints/ep_1/pause", 403, detail="the key lacks the scope webhooks:write")

    assert_one_line(run("webhooks", "pause", "ep_1"), about="the key lacks the scope webhooks:write", code=1)


def test_no_key_no_api_and_no_sense_are_told_in_one_line(
    run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"

    assert_one_line(run("webhooks", "list", "--url", nowhere), about=f"{nowhere} cannot be reached")
    assert_one_line(run("webhooks", "list", "--url", "nonsense"), about="BRIDGE_API__URL")
    assert_one_line(run("webhooks", "replay", "ep_1", "--since", "yesterday"), about="--since 'yesterday'")
    assert_one_line(run("webhooks", "rotate", "ep_1", "--overlap", "long"), about="--overlap 'long'")
    assert_one_line(run("webhooks", "create", "u", "--header", "token"), about="--header 'token'")
    monkeypatch.delenv("BRIDGE_API__KEY")
    assert_one_line(run("webhooks", "list"), about="BRIDGE_API__KEY")
    assert api.asked == []
