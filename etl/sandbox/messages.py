"""HTTP/1.1 on the wire: requests in (parsed by h11), answers out (written by hand).

Answers don't go through h11, because a stand-in must also be able to break the rules.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

import h11

if TYPE_CHECKING:
    import asyncio

_READ_SIZE = 64 * 1024
_MOST_BODY = 256 * 2**20


@dataclass(slots=True)
class Request:
    """A request: names of headers in lower case, the last of repeated ones; the path unquoted.

    What became of it is noted as it is served: the number of the fault that it met, and the
    status that was answered, None before and where there was none.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    keep_alive: bool
    fault: int | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with a body of known length; `headers` may override any header, also the length."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def tells_its_length(self) -> bool:
        """Whether no header was ordered that lies about the length of the body."""
        lengths = [v for name, v in self.headers.items() if name.lower() == "content-length"]
        return all(length == str(len(self.body)) for length in lengths)

    @property
    def head(self) -> bytes:
        """The status line and the headers, with the empty line that ends them."""
        lines = [f"HTTP/1.1 {self.status} {phrase(self.status)}"]
        own = {name.lower(): value for name, value in self.headers.items()}
        headers = {"content-type": "application/json; charset=utf-8"}
        if "transfer-encoding" not in own:
            headers["content-length"] = str(len(self.body))
        headers |= own
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def phrase(status: int) -> str:
    """The words that go with a status; none with one that nobody registered."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Answer:
    """An error as the API words them."""
    told = {"error": phrase(status), "message": message}
    return Answer(status, json.dumps(told).encode(), headers or {})


async def read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pending: bytes
) -> tuple[Request, bytes] | None:
    """The next request and what was read beyond it; None when the client has hung up.

    `pending` is what the call before read too much. Raises h11.RemoteProtocolError.
    """
    # One h11 connection a request: its state machine would insist on answers sent through it.
    connection = h11.Connection(h11.SERVER)
    if pending:
        connection.receive_data(pending)
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                # curl waits a second for this before it sends a large body.
                go_on = connection.send(h11.InformationalResponse(status_code=100, headers=[]))
                writer.write(go_on or b"")
            connection.receive_data(await reader.read(_READ_SIZE))
        elif isinstance(event, h11.Request):
            head = event
            # Refused before it is sent, where its length is told.
            _refuse_too_large(int(dict(event.headers).get(b"content-length", b"0")))
        elif isinstance(event, h11.Data):
            body += event.data
            _refuse_too_large(len(body))
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _request(head, bytes(body)), connection.trailing_data[0]
        else:
            return None


def _refuse_too_large(length: int) -> None:
    if length > _MOST_BODY:
        raise h11.RemoteProtocolError("The body is too large", error_status_hint=413)


def _request(head: h11.Request, body: bytes) -> Request:
    path, _, query = head.target.decode("ascii").partition("?")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    closing = "close" in headers.get("connection", "").lower() or head.http_version < b"1.1"
    return Request(
        method=head.method.decode("ascii"),
        path=unquote(path),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=headers,
        body=body,
        keep_alive=not closing,
    )
