"""What a role finds and may do, as `check` tells it."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from etl.store.access import look_at_schema, look_at_server, needed_privileges
from etl.store.engine import make_engine
from etl.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERYTHING_NEEDED = [
    (privilege, table.name)
    for table in metadata.sorted_tables
    for privilege in needed_privileges(table)
]


@pytest.fixture
def run(database_url):
    """Runs SQL as the owner, with {role} in it."""
    role = sql.Identifier(f"reader_{sa.make_url(database_url).database}")
    with psycopg.connect(database_url, autocommit=True) as owner:

        def run(statement: str) -> None:
            owner.execute(sql.SQL(statement).format(role=role))

        run("CREATE ROLE {role} LOGIN PASSWORD 'canary-password'")
        yield run
        run("DROP OWNED BY {role}")
        run("DROP ROLE {role}")


@pytest.fixture
def role_url(run, database_url):
    """The URL of a role that may do nothing but log in."""
    url = sa.make_url(database_url)
    return url.set(username=f"reader_{url.database}", password="canary-password").render_as_string(
        hide_password=False
    )


def test_the_server_is_told(database_url):
    server = look_at_server(make_engine(database_url, "anam"))
    url = sa.make_url(database_url)
    assert (server.database, server.role) == (url.database, url.username)
    assert server.version.startswith(str(server.major))
    assert 15 <= server.major <= 18
    assert (server.encoding, server.read_only, server.shares_sessions) == ("UTF8", False, False)


def test_a_read_only_database_is_told(database_url):
    with psycopg.connect(database_url, autocommit=True) as owner:
        name = sql.Identifier(str(sa.make_url(database_url).database))
        setting = "ALTER DATABASE {} SET default_transaction_read_only = on"
        owner.execute(sql.SQL(setting).format(name))
    assert look_at_server(make_engine(database_url, "anam")).read_only


def test_the_owner_of_all_may_do_all(database_url):
    access = look_at_schema(make_engine(database_url, "anam"), "anam")
    assert (access.exists, access.has_tables, access.may_use) == (True, True, True)
    assert (access.may_migrate, access.lacking) == (True, [])


def test_a_schema_that_is_not_there_can_be_made_or_not(run, database_url, role_url):
    access = look_at_schema(make_engine(database_url, "other"), "other")
    assert (access.exists, access.has_tables, access.may_migrate) == (False, False, True)
    access = look_at_schema(make_engine(role_url, "other"), "other")
    assert (access.exists, access.has_tables, access.may_migrate) == (False, False, False)


def test_a_role_without_any_right_lacks_all_that_is_needed(role_url):
    access = look_at_schema(make_engine(role_url, "anam"), "anam")
    assert (access.exists, access.has_tables) == (True, True)
    assert (access.may_use, access.may_migrate) == (False, False)
    assert sorted(access.lacking) == sorted(EVERYTHING_NEEDED)


def test_to_make_tables_is_not_enough_to_migrate_those_of_another(run, role_url):
    run("GRANT ALL ON SCHEMA anam TO {role}")
    access = look_at_schema(make_engine(role_url, "anam"), "anam")
    assert (access.may_use, access.may_migrate) == (True, False)


def test_what_is_called_needed_is_enough_for_sync(copying, run, role_url):
    run("GRANT USAGE ON SCHEMA anam TO {role}")
    run("GRANT SELECT ON anam.alembic_version TO {role}")
    for privilege, table in EVERYTHING_NEEDED:
        run(f"GRANT {privilege} ON anam.{table} TO {{role}}")
    assert look_at_schema(make_engine(role_url, "anam"), "anam").lacking == []
    with copying(count=6, moving=True) as target:
        target.url = role_url
        gone, edited, bare, odd, *others = target.world.persona_ids
        avatar = target.world.shared_ids("avatars")[0]
        assert target.sync().counts["created"] == 6
        target.world.delete(gone)
        target.world.edit(edited, {"name": "Edited", "tools": [], "shareLinks": []})
        target.world.edit(bare, {"voiceDetectionOptions": None, "knowledge": [], "newField": 1})
        target.world.edit(odd, {"voiceSpeed": "fast"})
        target.world.edit(avatar, {"availableVersions": []}, "avatars")
        counts = target.sync([gone, edited, bare, odd, *others]).counts
        assert (counts["missing"], counts["updated"]) == (1, 3)
        target.world.restore(gone)
        target.world.set_payload(odd, b"no")
        counts = target.sync().counts
        assert (counts["restored"], counts["rejected"]) == (1, 1)


@pytest.mark.parametrize(("privilege", "table"), [("DELETE", "persona_tools"), ("INSERT", "runs")])
def test_a_privilege_that_is_taken_away_is_named(run, role_url, privilege, table):
    run("GRANT USAGE ON SCHEMA anam TO {role}")
    run("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA anam TO {role}")
    run(f"REVOKE {privilege} ON anam.{table} FROM {{role}}")
    assert look_at_schema(make_engine(role_url, "anam"), "anam").lacking == [(privilege, table)]


# ── Behind a pooler ──────────────────────────────────────────────────────────────────────────────


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


def test_a_pooler_that_shares_sessions_is_noticed(database_url):
    with transaction_pooler(database_url) as pooled:
        assert look_at_server(make_engine(pooled, "anam")).shares_sessions
