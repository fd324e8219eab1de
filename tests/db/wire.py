"""A wire to the test's Postgres that can fail as networks do: in silence, or at one end only."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import psycopg
import sqlalchemy as sa

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_NAME = ".s.PGSQL.5432"


class Wire:
    """Carries bytes between clients of `url` and the server at the other URL."""

    def __init__(self, url: str, folder: Path) -> None:
        with psycopg.connect(url) as direct:
            host, port = direct.info.host, direct.info.port
        self._target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._frozen = threading.Event()
        self._ends: list[socket.socket] = []
        self._clients: list[socket.socket] = []
        self._deaf: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / _NAME))
        self._listener.listen()
        place = {"host": str(folder), "port": "5432"}
        made = sa.make_url(url).set(host=None, port=None).update_query_dict(place)
        self.url = made.render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._frozen.set()
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def freeze(self) -> None:
        """From now on nothing arrives, nor is anybody told of an end; new callers wait as well."""
        self._frozen.set()

    def hang_up_on_clients(self) -> None:
        """Those that are connected are told of an end, the server is not; others may come."""
        self._deaf.update(self._ends)
        for end in self._clients:
            end.shutdown(socket.SHUT_RDWR)

    def _start(self, work, *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                self._clients.append(client)
                if self._frozen.is_set():
                    continue
                family = socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET
                server = socket.socket(family)
                server.connect(self._target)
                self._ends.append(server)
                self._start(self._carry, client, server)
                self._start(self._carry, server, client)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._swallows(source):
                    return
                sink.sendall(data)
            if not self._swallows(source):
                sink.shutdown(socket.SHUT_WR)

    def _swallows(self, source: socket.socket) -> bool:
        return self._frozen.is_set() or source in self._deaf
