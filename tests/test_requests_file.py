"""What `tams-bridge submit` reads."""

import json

import pytest

from bridge.errors import CannotStart
from bridge.requests_file import Draft, read_drafts

GRAPH = {"3": {"classType": "KSampler", "inputs": {"seed": 7}}}


def read(text: str, **defaults: object) -> list[Draft]:
    return read_drafts(text, source="jobs.json", defaults=defaults)


def test_a_graph_alone_becomes_a_request_with_a_fresh_id() -> None:
    """Nobody has to write a request around a graph to try it."""
    [(first, value)], [(second, _)] = read(json.dumps(GRAPH)), read(json.dumps(GRAPH))

    assert first != second
    assert json.loads(value) == {"params": GRAPH, "request_id": first}


def test_comfyui_names_count_as_a_graph() -> None:
    """TAMS reads `class_type` as well as `classType`, so a file saved by ComfyUI works as it is."""
    [(_, value)] = read('{"3": {"class_type": "KSampler", "inputs": {}}}')

    assert json.loads(value)["params"] == {"3": {"class_type": "KSampler", "inputs": {}}}


def test_what_the_file_says_beats_what_the_command_line_says() -> None:
    """An option is for requests that do not say it themselves."""
    [(request_id, value)] = read(
        json.dumps({"requestId": "order-1", "params": GRAPH, "labels": {"a": "file"}}),
        labels={"a": "option"},
        deadline_s=9,
    )

    assert request_id == "order-1"
    assert json.loads(value)["labels"] == {"a": "file"}
    assert json.loads(value)["deadline_s"] == 9


def test_a_list_and_json_lines_hold_many_requests() -> None:
    """Both are common ways to write down many; order is kept."""
    requests = [{"request_id": f"order-{number}", "params": GRAPH} for number in range(3)]

    as_list = read(json.dumps(requests))
    as_lines = read("\n".join(json.dumps(request) for request in requests) + "\n\n")

    assert [request_id for request_id, _ in as_list] == ["order-0", "order-1", "order-2"]
    assert as_lines == as_list


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "jobs.json: not JSON"),
        ("[]", "jobs.json: holds no request"),
        ("7", "jobs.json, request 1: a request is a JSON object"),
        ('{"parms": {}}', "neither a request"),
        ('{"params": [1]}', "params: Input should be"),
        ('[{"params": {}}, {"params": {}, "request_id": "a\\nb"}]', "jobs.json, request 2: request_id"),
        ('{"params": {}}\n{"params": ', "jobs.json, line 2: not JSON"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(text: str, complaint: str) -> None:
    """Nothing is published of a file that is not right from beginning to end."""
    with pytest.raises(CannotStart) as refused:
        read(text)

    assert complaint in str(refused.value)


def test_one_id_cannot_name_many_requests() -> None:
    """The second would be a duplicate of the first."""
    with pytest.raises(CannotStart, match=r"--id cannot name them all"):
        read(json.dumps([{"params": GRAPH}, {"params": GRAPH}]), request_id="order-1")


@pytest.mark.parametrize(
    "text", ["9" * 5_000, "[" * 100_000, '{"params": {"3": NaN}}', '{"params": {"3": -1e999}}', '{"params": "\\ud800"}']
)
def test_what_workers_would_not_read_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(CannotStart, match=r"^jobs\.json"):
        read(text)
    with pytest.raises(CannotStart, match=r"^jobs\.json, (line|request) 2"):
        read(f'{{"params": {{}}}}\n{text}')


def test_lines_end_where_json_lines_end() -> None:
    """Other characters that some take for the end of a line may stand in texts."""
    lines = [json.dumps({"params": {}, "request_id": each, "note": "a\u2028\x85"}, ensure_ascii=False) for each in "xy"]

    assert [request_id for request_id, _ in read("\n".join(lines))] == ["x", "y"]
