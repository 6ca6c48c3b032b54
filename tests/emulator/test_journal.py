import json
from pathlib import Path

from bridge.emulator.journal import Entry, Journal


def entry(number: int) -> Entry:
    return Entry(
        number, 10.0 + number / 10, 5.0, "GET", "/v1/jobs/1", "GET /v1/jobs/{id}", "order", "1", 200, "", "app"
    )


def numbers(journal: Journal, after: int) -> list[int]:
    return [json.loads(line)["number"] for line in journal.lines(after)]


def test_the_oldest_entries_are_dropped_but_counted() -> None:
    journal = Journal(3, None)
    for number in range(1, 6):
        journal.add(entry(number))
    assert (numbers(journal, 0), numbers(journal, 4), numbers(journal, 9)) == ([3, 4, 5], [5], [])
    assert journal.counts() == {
        "requests": 5,
        "answers": {"GET /v1/jobs/{id}": {"200": 5}},
        "peakRequestsPerSecond": 5,
    }


def test_the_file_gets_every_entry_at_once(tmp_path: Path) -> None:
    journal = Journal(1, tmp_path / "journal")
    for number in (1, 2):
        journal.add(entry(number))
    lines = (tmp_path / "journal").read_text().splitlines()
    journal.close()
    assert [json.loads(line)["request_id"] for line in lines] == ["order", "order"]
