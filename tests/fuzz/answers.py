"""What TAMS answers, spoilt: documents, error documents, statuses and headers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random

import msgspec

from bridge.core.answers import Call, read_answer
from bridge.messages import Answer
from tests.core.examples import PAGE_DOCUMENT, SUCCESS_DOCUMENT
from tests.fuzz.mutations import Document, hostile_headers, spoilt_bytes, spoilt_document

STATUSES: Sequence[int] = (
    *(200, 200, 200, 200, 200, 200, 201, 202, 204, 100, 101, 199, 299, 301, 302, 399),
    *(400, 401, 403, 404, 408, 409, 410, 418, 425, 429, 429, 499, 500, 502, 503, 503, 504, 599, 600, 999),
)
RETRY_AFTER: Sequence[str] = (
    "7",
    "0",
    "-1",
    "1e3",
    "1e400",
    "nan",
    "-inf",
    "1_0",
    "120 ",
    "9" * 5_000,
    "",
    "soon",
    "Sun, 01 Mar 2026 12:00:30 GMT",
    "Sun, 01 Mar 2026 12:00:30",
    "Sunday, 01-Mar-26 12:00:30 GMT",
    "Sun Mar  1 12:00:30 2026",
    "Sun, 01 Mar 2026 12:00:30 +2359",
    "Sun, 01 Mar 2026 12:00:30 -9999",
    "Sun, 01 Mar 2026 12:00:30 +99999999999999999999",
    "Sun, 01 Mar 99999999999999999999 12:00:30 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "01 Mar 2026 99:99:99 GMT",
    ",",
    "(((" * 100,
    "\x00",
    "é",
)
_HEADERS = ("retry-after", "content-type", "content-encoding", "location", "www-authenticate")
_VALUES = {"retry-after": RETRY_AFTER}


def _job(status: str, **fields: object) -> Document:
    return {"job": {"id": "881417947308949275", "status": status, "credits": 0.8, **fields}}


_WORKFLOW = {"progress": 0.25, "finishedNodes": {"3": True, "4": False}, "status": "RUNNING"}
DOCUMENTS: Sequence[Document] = (
    msgspec.json.decode(SUCCESS_DOCUMENT),
    msgspec.json.decode(PAGE_DOCUMENT),
    _job("CREATED"),
    _job("PENDING"),
    _job("WAITING", waitingInfo={"queueRank": "3", "queueLen": "9"}),
    _job("WAITING", waitingInfo={"queueRank": 2}),
    _job("RUNNING", runningInfo={"processingImages": [{"progress": 40}], "workflowFinishItem": _WORKFLOW}),
    _job("RUNNING", runningInfo={"processingImages": [], "workflowFinishItem": {"progress": "1"}}),
    _job("FAILED", failedInfo={"reason": "no luck", "code": "TRANSITORY_ERROR"}),
    _job("FAILED", failedInfo={"reason": "out of memory", "code": "FATAL_ERROR"}),
    _job("CANCELED"),
    _job("PAUSED", extra=[1, 2]),
    {"job": {"id": 7, "status": "SUCCESS"}},
)
ERRORS: Sequence[Document] = (
    {"code": 3, "message": "Params Valid", "details": [{"@type": "x", "field": "workflow", "message": "image\nbad"}]},
    {"code": 6, "message": "again", "details": []},
    {"code": 100001, "message": "unauthorized", "tips": "app not found"},
    {"code": 8, "message": "invalid_samples", "details": [{"field": None, "message": None}]},
    {"code": 100002},
)


@dataclass(frozen=True, slots=True)
class Spoilt:
    """An answer of HTTP that may be anything."""

    call: Call
    status: int
    headers: dict[str, str]
    body: bytes

    def read(self, now: datetime) -> Answer:
        """As the client reads it."""
        return read_answer(self.call, self.status, self.headers, self.body, now=now)


def make_answer(chance: Random, call: Call | None = None) -> Spoilt:
    """An answer to a call, or to any."""
    status = chance.choice(STATUSES)
    documents = DOCUMENTS if status < 300 or chance.random() < 0.1 else ERRORS
    return Spoilt(
        call=call or chance.choice(list(Call)),
        status=status,
        headers=hostile_headers(chance, _HEADERS, _VALUES),
        body=_body(chance, documents),
    )


def _body(chance: Random, documents: Sequence[Document]) -> bytes:
    match chance.random():
        case luck if luck < 0.03:
            return chance.choice((b"", b"<html>502</html>", b"\x1f\x8b\x08", b"null", b"[]", b'"', b"\xef\xbb\xbf{}"))
        case luck if luck < 0.06:
            return spoilt_bytes(chance, SUCCESS_DOCUMENT, others=(PAGE_DOCUMENT,))
        case _:
            return spoilt_document(chance, documents)
