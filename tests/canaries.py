"""Secrets that can be looked for, and where to look: whatever a command leaves behind.

Every canary holds MARK at both ends, so that half of one is found too, in any spelling.
"""

from __future__ import annotations

import base64
import socket
import socketserver
import threading
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa
from psycopg import sql

from tests.db.pooler import connected

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "c4n4ry"


class Canaries:
    """Makes secrets, each another one; `{}` in a shape is what is looked for."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def __call__(self, shape: str = "{}") -> str:
        return shape.replace("{}", f"{MARK}{next(self._numbers):04}Zk9Xw2{MARK}")


def _spellings() -> tuple[set[bytes], set[bytes]]:
    """MARK as it may be written: where the case of letters counts, and where it does not."""
    raw = MARK.encode()
    exact = set()
    for shift in range(3):
        # Without the characters at either end that depend on what stands beside it.
        inner = slice(-(-8 * shift // 6), 8 * (shift + len(raw)) // 6)
        encoded = base64.b64encode(bytes(shift) + raw + b"\0\0")[inner]
        exact |= {encoded, encoded.replace(b"+", b"-").replace(b"/", b"_")}
    caseless = {
        raw,
        raw[::-1],
        raw.hex().encode(),
        MARK.encode("utf-16-le"),
        b"".join(b"%%%02x" % byte for byte in raw),
        b"".join(b"\\u%04x" % byte for byte in raw),
        b"".join(b"&#%d;" % byte for byte in raw),
    }
    return exact, caseless


_EXACT, _CASELESS = _spellings()


def leaks(told: str | bytes) -> list[str]:
    """Each place in it where a canary stands, with what is around."""
    data = told.encode(errors="surrogatepass") if isinstance(told, str) else told
    found = []
    for haystack, needles in ((data, _EXACT), (data.lower(), _CASELESS)):
        for needle in needles:
            at = haystack.find(needle)
            while at >= 0:
                found.append(repr(data[max(0, at - 60) : at + 60]))
                at = haystack.find(needle, at + len(needle))
    return found


def leaks_in_database(url: str) -> list[str]:
    """The same in every column of every table, and in the catalogue."""
    found = []
    with psycopg.connect(url, autocommit=True) as connection:
        for where, value in _everything(connection):
            found += [f"{where}: {leak}" for leak in leaks(value)]
    return found


_TABLES = """
    SELECT schemaname, tablename FROM pg_tables
     WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""
_CATALOGUE = """
    SELECT 'comment', description FROM pg_description
    UNION ALL SELECT 'function', pg_get_functiondef(oid) FROM pg_proc
               WHERE prokind = 'f' AND pronamespace::regnamespace::text !~ '^pg_|^information_'
    UNION ALL SELECT 'view', definition FROM pg_views WHERE schemaname !~ '^pg_|^information_'
    UNION ALL SELECT 'relation', relname FROM pg_class
    UNION ALL SELECT 'column', attname FROM pg_attribute
    UNION ALL SELECT 'constraint', pg_get_constraintdef(oid) FROM pg_constraint
    UNION ALL SELECT 'statistics', s::text FROM pg_stats s WHERE schemaname !~ '^pg_|^information_'
    UNION ALL SELECT 'setting', array_to_string(setconfig, ' ') FROM pg_db_role_setting
"""


def _everything(connection: psycopg.Connection[tuple[object, ...]]) -> Iterator[tuple[str, bytes]]:
    """What is stored, as text and, where it is bytes, as they are too."""
    for names in connection.execute(_TABLES).fetchall():
        table = sql.Identifier(*(str(name) for name in names))
        cursor = connection.execute(sql.SQL("SELECT row::text, row.* FROM {} AS row").format(table))
        for row in cursor:
            yield str(names[1]), str(row[0]).encode()
            for value in row[1:]:
                if isinstance(value, bytes):
                    yield str(names[1]), value
    for kind, text in connection.execute(_CATALOGUE):
        yield str(kind), str(text or "").encode()


@contextmanager
def tapped(url: str) -> Iterator[tuple[str, bytearray]]:
    """A URL that leads to the same database, and all that was sent there: also what was undone."""
    heard = bytearray()

    class Conversation(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with connected(url) as server, suppress(OSError):
                answers = threading.Thread(target=_pass_on, args=(server, self.request, None))
                answers.start()
                _pass_on(self.request, server, heard)
                answers.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Conversation) as listener:
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}).start()
        tap = sa.make_url(url).set(
            host="127.0.0.1", port=listener.server_address[1], query={"sslmode": "disable"}
        )
        try:
            yield tap.render_as_string(hide_password=False), heard
        finally:
            listener.shutdown()


def _pass_on(source: socket.socket, sink: socket.socket, heard: bytearray | None) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            if heard is not None:
                heard += data
            sink.sendall(data)
    for end, how in ((source, socket.SHUT_RD), (sink, socket.SHUT_WR)):
        with suppress(OSError):
            end.shutdown(how)
