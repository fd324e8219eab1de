"""A monitor on loopback that remembers its pings, and can be as broken as any server."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Heard:
    method: str
    target: str
    body: str
    headers: dict[str, str]


@dataclass
class Monitor:
    port: int
    heard: list[Heard] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    """Functions of it and of the request's handler: one a request, the last for ever."""
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [heard.target for heard in self.heard]


def says(status: int, body: bytes = b"OK", **headers: str):
    """Answers so."""

    def answer(_: Monitor, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def hangs(monitor: Monitor, _: BaseHTTPRequestHandler) -> None:
    """Says nothing."""
    monitor.is_over.wait(60)


def resets(_: Monitor, handler: BaseHTTPRequestHandler) -> None:
    """Breaks off."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    handler.rfile.close()
    handler.wfile.close()
    handler.connection.close()


def trickles(beginning: bytes):
    """Says this, and goes on for ever, a byte now and then."""

    def answer(monitor: Monitor, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(beginning)
        while not monitor.is_over.wait(0.02):
            handler.wfile.write(b"x")

    return answer


@contextmanager
def running_monitor(*answers) -> Iterator[Monitor]:
    class Handler(BaseHTTPRequestHandler):
        def hear(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            monitor.heard.append(Heard(self.command, self.path, body, dict(self.headers)))
            answer = monitor.answers.pop(0) if len(monitor.answers) > 1 else monitor.answers[0]
            with suppress(OSError):
                answer(monitor, self)

        do_GET = do_HEAD = do_POST = do_CONNECT = hear  # noqa: N815  http.server's names

        def log_message(self, *_: object) -> None:
            """Not to stderr."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Clients that are gone are what is tested."""

    with Server(("127.0.0.1", 0), Handler) as server:
        monitor = Monitor(server.server_address[1], answers=[*answers] or [says(200)])
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield monitor
        finally:
            monitor.is_over.set()
            server.shutdown()
