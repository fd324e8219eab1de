"""HTTP/1.1 on the wire: requests in (parsed by h11), answers out (written by hand).

Answers don't go through h11, because a stand-in must also be able to break the rules.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import h11

if TYPE_CHECKING:
    import asyncio

_READ_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request: names of headers in lower case, the last of repeated ones; the path unquoted."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with a body of known length; `headers` may override any header, also the length."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> bytes:
        """The status line and the headers, with the empty line that ends them."""
        lines = [f"HTTP/1.1 {self.status} {phrase(self.status)}"]
        headers = {
            "content-type": "application/json; charset=utf-8",
            "content-length": str(len(self.body)),
        } | {name.lower(): value for name, value in self.headers.items()}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def phrase(status: int) -> str:
    """The words that go with a status; none with one that nobody registered."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def json_answer(status: int, content: Any, headers: dict[str, str] | None = None) -> Answer:  # noqa: ANN401  any JSON
    """An answer that says `content` as JSON."""
    return Answer(status, json.dumps(content).encode(), headers or {})


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Answer:
    """An error as the API words them."""
    return json_answer(status, {"error": phrase(status), "message": message}, headers)


async def read_request(
    reader: asyncio.StreamReader, pending: bytes
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
            connection.receive_data(await reader.read(_READ_SIZE))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _request(head, bytes(body)), connection.trailing_data[0]
        else:
            return None


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
