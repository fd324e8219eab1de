"""From a URL to a session that is as we need it, or to one line that says why there is none."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from etl.errors import DatabaseError, UsageError
from etl.jobs.migrate import migrate
from etl.sandbox import Fault
from etl.store.engine import make_engine
from etl.store.lock import WriterLock
from etl.store.session import connection_arguments, open_session
from tests.db.pooler import transaction_pooler


def arguments(url: str) -> dict[str, Any]:
    return connection_arguments(url, "persona-etl")


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("p%40ss%25w%3Ard%2F", "p@ss%w:rd/"),
        ("p@ss%w:rd", "p@ss%w:rd"),
        ("100%", "100%"),
        ("a?b#c", "a?b#c"),
        ("", None),
    ],
)
def test_a_password_arrives_as_it_is(written, password):
    understood = arguments(f"postgresql://u:{written}@h:5433/db")
    assert understood.get("password") == password
    assert (understood["user"], understood["host"], understood["port"]) == ("u", "h", "5433")
    assert understood["dbname"] == "db"


def test_all_that_libpq_takes_is_taken():
    understood = arguments("postgresql:///db?host=/run/my pg&sslmode=verify-full&sslrootcert=/ca")
    assert understood["host"] == "/run/my pg"
    assert (understood["sslmode"], understood["sslrootcert"]) == ("verify-full", "/ca")
    assert arguments("postgresql://u@%2Frun%2Fpg/db")["host"] == "/run/pg"
    several = arguments("postgresql://u@a:1,b:2/db?target_session_attrs=read-write")
    assert (several["host"], several["port"]) == ("a,b", "1,2")


def test_the_defaults_give_way_to_the_url_and_to_the_environment(monkeypatch):
    assert arguments("postgresql://h/db")["connect_timeout"] == "10"
    assert arguments("postgresql://h/db?connect_timeout=3")["connect_timeout"] == "3"
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    assert "connect_timeout" not in arguments("postgresql://h/db")


def test_a_dead_network_is_noticed_within_a_minute():
    understood = arguments("postgresql://h/db?keepalives_idle=7")
    assert (understood["keepalives_idle"], understood["keepalives_interval"]) == ("7", "10")
    assert (understood["keepalives_count"], understood["tcp_user_timeout"]) == ("3", "60000")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hunter2@h/db",
        "hunter2",
        "postgresql://u:pass/hunter2@h/db",
        "postgresql://u:9/hunter2@h/db",
        "postgresql://u:pass@h:hunter2/db",
        "postgresql://u:pass@h/%zzhunter2",
        "postgresql://h/db?password=%zzhunter2",
        "postgresql://etl:Xy@hunter2/9@db.example.invalid/personas",
        "postgresql://h/db?nonsense=hunter2",
    ],
)
def test_a_mistyped_url_is_a_usage_error_that_quotes_no_password(url):
    with pytest.raises(UsageError, match=r"database\.url") as caught:
        arguments(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [("ssl", "write sslmode"), ("sslmod", "write sslmode"), ("schema", "remove it")],
)
def test_an_unknown_parameter_is_named_with_what_may_be_meant(name, meant):
    with pytest.raises(UsageError, match=f'"{name}" is no connection parameter; {meant}'):
        arguments(f"postgresql://h/db?{name}=require")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1/db?sslmode=requires",
        "postgresql://127.0.0.1/db?connect_timeout=soon",
        "postgresql://127.0.0.1/db?target_session_attrs=any-will-do",
        "postgresql://127.0.0.1:99999/db",
        "postgresql://a..b/db",
        "postgresql://?service=nobody-knows-it",
    ],
)
def test_a_value_that_is_no_good_is_a_usage_error(url):
    with pytest.raises(UsageError, match=r"database\.url: .*; correct it there"):
        open_session(arguments(url))


# ── Refusals ─────────────────────────────────────────────────────────────────────────────────────


def refusal(url: str) -> str:
    with pytest.raises(DatabaseError) as caught:
        open_session(arguments(url))
    message = str(caught.value)
    assert "\n" not in message
    assert "hunter2" not in message
    return message


@pytest.mark.parametrize(
    ("url", "where", "told"),
    [
        ("postgresql://u:hunter2@127.0.0.1:1/db", "127.0.0.1:1/db", "refused; start the server"),
        ("postgresql://u:hunter2@127.0.0.1:1", "127.0.0.1:1/u", "refused; start the server"),
        (
            "postgresql://u:hunter2@127.0.0.1:1,localhost:2/db",
            "127.0.0.1:1,localhost:2/db",
            "refused; start the server",
        ),
        ("postgresql://u@127.0.0.1,127.0.0.2:1/db?port=1", "127.0.0.1:1,127.0.0.2:1/db", "refused"),
        ("postgresql://u:hunter2@/db?host=/nowhere", "/nowhere:5432/db", "No such file"),
        ("postgresql://u:hunter2@no.invalid/db", "no.invalid:5432/db", "correct the host"),
    ],
)
def test_nobody_there_is_told_with_the_place(url, where, told):
    message = refusal(url)
    assert message.startswith(f"Postgres at {where}: ")
    assert told in message


def test_the_place_is_known_also_when_the_environment_says_it(monkeypatch):
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATABASE", "theirs")
    assert refusal("postgresql://").startswith("Postgres at 127.0.0.1:1/theirs: ")


def test_a_database_that_is_not_there_is_told(database_url):
    missing = sa.make_url(database_url).set(database="hamlet").render_as_string(hide_password=False)
    message = refusal(missing)
    assert 'database "hamlet" does not exist; create the database, or correct its name' in message


def test_a_role_that_is_not_there_is_told(database_url):
    url = sa.make_url(database_url).set(username="yorick", password="hunter2")
    message = refusal(url.render_as_string(hide_password=False))
    # Only a server that asks for no password tells which of the two is wrong.
    assert "yorick" in message
    assert "the user" in message.partition("; ")[2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("ALTER ROLE {role} NOLOGIN", "is not permitted to log in; ALTER ROLE"),
        ("ALTER ROLE {role} CONNECTION LIMIT 0", "too many connections for role .*; end other"),
        ("REVOKE CONNECT ON DATABASE {db} FROM PUBLIC", "permission denied.*; GRANT CONNECT ON"),
    ],
)
def test_what_a_role_lacks_is_told(plain_role, change, told):
    url, execute = plain_role
    execute(change)
    with pytest.raises(DatabaseError, match=told):
        open_session(arguments(url))


@contextmanager
def pretended_server(answer: bytes | None):
    """The port of what answers a login with these bytes, or never."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            conversation, _ = listener.accept()
            with conversation:
                # Length and code; the first packet asks for TLS, which there is none of.
                while struct.unpack("!ii", conversation.recv(8, socket.MSG_WAITALL))[1] == 80877103:
                    conversation.sendall(b"N")
                conversation.sendall(answer or b"")
                # Until the other side has had enough.
                conversation.settimeout(20)
                while conversation.recv(4096):
                    pass

        # Silence is what a listener's backlog answers.
        server = threading.Thread(target=serve if answer is not None else lambda: None)
        server.start()
        yield listener.getsockname()[1]
        server.join()


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def fatal(sqlstate: str, text: str) -> bytes:
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": text}
    told = b"".join(f"{name}{value}\0".encode() for name, value in fields.items())
    return message(b"E", told + b"\0")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (fatal("57P03", "the database system is starting up"), "starting or stopping; run again"),
        (fatal("53300", "sorry, too many clients already"), "a run needs three"),
        (fatal("28P01", "Passwort-Authentifizierung fehlgeschlagen"), "lets this user in"),
    ],
)
def test_a_server_that_is_busy_or_foreign_is_told_in_its_own_words(answer, told):
    with pretended_server(answer) as port:
        reply = refusal(f"postgresql://u:hunter2@127.0.0.1:{port}/db")
    assert told in reply


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    with pretended_server(None) as port:
        # libpq's least; ten seconds are ours.
        reply = refusal(f"postgresql://u:hunter2@127.0.0.1:{port}/db?connect_timeout=2")
        assert f"Postgres at 127.0.0.1:{port}/db: connection timeout expired; check host" in reply


def test_an_older_server_is_refused():
    parameters = b"".join(
        message(b"S", f"{name}\0{value}\0".encode())
        for name, value in {"server_version": "14.9", "server_encoding": "UTF8"}.items()
    )
    welcome = message(b"R", struct.pack("!i", 0)) + parameters
    welcome += message(b"K", struct.pack("!ii", 1, 1)) + message(b"Z", b"I")
    with pretended_server(welcome) as port:
        assert "Postgres 14 is too old" in refusal(f"postgresql://u@127.0.0.1:{port}/db")


def test_a_pooler_that_shares_sessions_is_refused(database_url):
    with transaction_pooler(database_url) as pooled:
        assert "a pooler in transaction mode is in between" in refusal(pooled)


# ── Databases and roles with settings of their own ───────────────────────────────────────────────


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_all_text_is_refused(database_url, encoding):
    name = f"{sa.make_url(database_url).database}_{encoding.lower()}"
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'"
            " LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc"
        )
        try:
            url = sa.make_url(database_url).set(database=name)
            reply = refusal(url.render_as_string(hide_password=False))
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert f"database {name} is encoded in {encoding}" in reply
    assert "create one with ENCODING 'UTF8'" in reply


HOSTILE = {
    "search_path": "nowhere",
    "TimeZone": "Pacific/Chatham",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "50ms",
    "idle_in_transaction_session_timeout": "50ms",
    "idle_session_timeout": "50ms",
}


@pytest.fixture
def hostile_role(plain_role):
    """The URL of a role that owns its database, and whose sessions start out as nobody wants."""
    url, execute = plain_role
    execute("ALTER DATABASE {db} OWNER TO {role}")
    execute("DROP SCHEMA anam, anam_reporting CASCADE")
    for name, value in HOSTILE.items():
        execute(f"ALTER ROLE {{role}} SET {name} = '{value}'")
    yield url
    execute("ALTER DATABASE {db} OWNER TO CURRENT_USER")


@contextmanager
def another_databases_copy(new_database, template, copying, world):
    """A target with the same world in a database of the usual settings."""
    with new_database(template) as url, copying(world, url=url) as usual:
        yield usual


def test_the_settings_of_a_role_change_nothing(hostile_role, copying, new_database, template):
    migrate(make_engine(hostile_role, "anam"), "anam")
    with (
        copying(count=5) as hostile,
        another_databases_copy(new_database, template, copying, hostile.world) as usual,
    ):
        hostile.url = hostile_role
        name = "Zoë 🦜 \\ 'x' \u4f60"
        hostile.world.edit(hostile.world.persona_ids[0], {"name": name})
        # The lock's session and the loader's are idle for longer than the role would allow.
        hostile.sandbox.order(Fault(delay_seconds=0.2, target=hostile.world.persona_ids[0]))
        assert hostile.sync().counts["created"] == 5
        assert usual.sync().counts["created"] == 5
        assert hostile.persona(hostile.world.persona_ids[0])["name"] == name
        times = {"first_seen_at", "last_changed_at"}
        for table in ("documents", "personas", "brains", "voices", "voice_generation_options"):
            ours, theirs = ([r.items() for r in t.rows(table)] for t in (hostile, usual))
            assert [{k: v for k, v in row if k not in times} for row in ours] == [
                {k: v for k, v in row if k not in times} for row in theirs
            ]
        assert hostile.sync().counts["unchanged"] == 5


def test_no_setting_of_a_role_reaches_a_session_of_ours(hostile_role):
    with psycopg.connect(hostile_role, autocommit=True) as theirs:
        before = {name: shown(theirs, name) for name in HOSTILE}
    with open_session(arguments(hostile_role)) as ours:
        after = {name: shown(ours, name) for name in HOSTILE}
    assert [name for name in HOSTILE if before[name] == after[name]] == []


def shown(session: psycopg.Connection[Any], name: str) -> str:
    ((value,),) = session.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchall()
    return str(value)


def test_the_lock_can_be_asked_about_whatever_the_settings_of_a_role(hostile_role):
    lock = WriterLock(hostile_role, "anam", command="sync", run_id=UUID(int=1))
    with lock:
        holder = lock.holder()
        assert holder is not None
        assert holder.since is not None
        assert lock.is_alive()


def test_a_limit_that_only_newer_servers_know_is_lifted_there(plain_role):
    url, execute = plain_role
    with psycopg.connect(url) as session:
        known = session.info.server_version >= 170000
    if known:
        execute("ALTER ROLE {role} SET transaction_timeout = '1min'")
    with open_session(arguments(url)) as session:
        limit = "SELECT setting FROM pg_settings WHERE name = 'transaction_timeout'"
        assert session.execute(limit).fetchall() == ([("0",)] if known else [])


def test_a_role_whose_sessions_are_read_only_is_told_so(hostile_role, plain_role, copying):
    migrate(make_engine(hostile_role, "anam"), "anam")
    _, execute = plain_role
    execute("ALTER ROLE {role} SET default_transaction_read_only = on")
    with copying(count=2, url=hostile_role) as target, pytest.raises(DatabaseError) as caught:
        target.sync()
    assert "read-only transaction" in str(caught.value)
    assert "default_transaction_read_only = off" in str(caught.value)


def test_a_locked_table_is_not_waited_for_for_ever_unless_the_role_says_so(plain_role):
    url, execute = plain_role
    for own, seen in (("0", "1min"), ("5min", "5min"), ("100ms", "100ms")):
        execute(f"ALTER ROLE {{role}} SET lock_timeout = '{own}'")
        with make_engine(url, "anam").connect() as connection:
            assert connection.execute(sa.text("SHOW lock_timeout")).scalar() == seen
