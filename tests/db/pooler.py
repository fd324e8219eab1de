"""A pooler in transaction mode, as far as a few statements in a row tell.

The real one, PgBouncer, is tested by `make test-system`.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_exactly(stream: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        if not (more := stream.recv(length - len(data))):
            raise EOFError
        data += more
    return data


def read_startup(stream: socket.socket) -> bytes:
    """A client's first message, which has no type."""
    length = read_exactly(stream, 4)
    return length + read_exactly(stream, int.from_bytes(length, "big") - 4)


def read_message(stream: socket.socket) -> bytes:
    """One message of Postgres' protocol: its type, its length, and the rest."""
    head = read_exactly(stream, 5)
    return head + read_exactly(stream, int.from_bytes(head[1:], "big") - 4)


TLS_OR_GSSAPI = (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30")
AUTHENTICATED, AUTHENTICATION_ENDS = bytes(4), b"\0\0\0\x0c"
MADE_UP = bytes(8)


class Pooler:
    """Gives one session to all clients in turn, as PgBouncer in transaction mode may.

    For statements that come one at a time, as they do here.
    """

    def __init__(self, server: socket.socket) -> None:
        self.server = server
        self.greeting: list[bytes] = []

    def serve(self, client: socket.socket) -> None:
        self.greet(client)
        while (asked := read_message(client))[:1] != b"X":
            self.server.sendall(asked)
            if asked[:1] in (b"Q", b"S"):
                while (answered := read_message(self.server))[:1] != b"Z":
                    client.sendall(answered)
                client.sendall(answered)

    def greet(self, client: socket.socket) -> None:
        """Log the first client in at the server; repeat to the others what it was told then."""
        while (startup := read_startup(client))[4:] in TLS_OR_GSSAPI:
            client.sendall(b"N")
        if not self.greeting:
            self.server.sendall(startup)
            while not self.greeting or self.greeting[-1][:1] != b"Z":
                self.log_in(client, read_message(self.server))
        client.sendall(b"".join(self.greeting))

    def log_in(self, client: socket.socket, message: bytes) -> None:
        if message[:1] == b"R" and message[5:9] != AUTHENTICATED:
            client.sendall(message)
            if message[5:9] != AUTHENTICATION_ENDS:
                self.server.sendall(read_message(client))
        elif message[:1] == b"K":
            # As PgBouncer does: which session it will be is not known yet.
            self.greeting.append(message[:5] + MADE_UP)
        else:
            self.greeting.append(message)


def connected(url: str) -> socket.socket:
    target = conninfo_to_dict(url)
    host, port = str(target.get("host") or "127.0.0.1"), int(target.get("port") or 5432)
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    server = socket.socket(socket.AF_UNIX)
    server.connect(str(Path(host, f".s.PGSQL.{port}")))
    return server


@contextmanager
def transaction_pooler(url: str) -> Iterator[str]:
    """The URL of a Pooler in front of `url`."""

    class Conversation(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(EOFError, OSError):
                pooler.serve(self.request)

    with (
        connected(url) as server,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Conversation) as listener,
    ):
        pooler = Pooler(server)
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}).start()
        pooled = sa.make_url(url).set(host="127.0.0.1", port=listener.server_address[1], query={})
        yield pooled.render_as_string(hide_password=False)
        listener.shutdown()
