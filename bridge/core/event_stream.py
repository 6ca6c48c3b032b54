"""Reading server-sent events (WHATWG HTML, "Server-sent events", section "Interpreting an event stream").

Lines end in LF, CR or CRLF and in nothing else; an event ends with an empty line; `:` begins a comment.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
"""A CR that is the last byte so far may be half of a CRLF, so it ends nothing yet."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One event of a stream.

    Args:
        name: of its kind; `message` if the stream does not say.
        data: its text.
        id: the last one the stream has named; empty if none.
    """

    name: str
    data: str
    id: str = ""


class EventStreamDecoder:
    """Turns bytes, cut anywhere, into events; what has not ended with an empty line is no event."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._begun = False
        self._name = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that end in this chunk."""
        return [event for line in self._lines(chunk) if (event := self._take(line)) is not None]

    def _lines(self, chunk: bytes) -> Iterator[str]:
        may_end = b"\n" in chunk or b"\r" in chunk or (chunk and self._rest and self._rest[-1].endswith(b"\r"))
        if chunk:
            self._rest.append(chunk)
        if not may_end:
            return  # a long line is put together once, when it ends
        *lines, rest = _LINE_END.split(b"".join(self._rest))
        self._rest = [rest]
        for line in lines:
            text = line if self._begun else line.removeprefix(_BYTE_ORDER_MARK)
            self._begun = True
            yield text.decode(errors="replace")

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            return self._end()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        return None

    def _end(self) -> ServerEvent | None:
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return ServerEvent(name=name, data="\n".join(data), id=self._id) if data else None
