"""A session of ours: from a URL to a connection whose settings are known, whoever set which.

Roles, databases, libpq's environment and poolers all have a say in what a session is like. What
our SQL and the driver rely on is set here, and what can't be relied on is refused.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from contextlib import suppress
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote, unquote

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL

from etl.errors import DatabaseError, UsageError
from etl.store.refusal import refused

_OLDEST = 150000

# How long a server may take to hear that we are in a hurry.
_HURRY_SECONDS = 0.5

_SCHEME = re.compile(r"postgres(?:ql)?(?:\+\w+)?://", re.IGNORECASE)
_ADVICE = (
    "expected postgresql://user:password@host:5432/database"
    " (a / in a password is written %2F, an @ in a database name %40)"
)

# A host that never answers, or vanishes, is noticed within a minute, not after the kernel's two
# hours.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

# What a role's or a database's own settings could otherwise turn against us. Not among them is
# default_transaction_read_only: whoever set that meant it.
_SETTINGS = {
    "search_path": "",
    "TimeZone": "UTC",
    # The driver reads no other.
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "client_encoding": "UTF8",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    # Tried again after 40001, a batch would pass; but each would pay for what no batch needs.
    "default_transaction_isolation": "read committed",
    # Limits that are meant for people: the lock's session is silent for a whole run.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # The same patience the other way: the lock of a host without power goes within a minute, too.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
# Only where nobody has set them. A table that somebody has locked, and forgotten, would else stop a
# run for ever, and those behind it.
_UNLESS_SET = {"lock_timeout": ("0", "60s")}
# Those that a server may not know yet, with the version that brought them.
_NEWER_SETTINGS = {"transaction_timeout": ("0", 170000)}


def connection_arguments(url: str, application_name: str) -> dict[str, Any]:
    """What libpq makes of `url`, so that all it takes (hosts, sockets, TLS, service) is taken.

    Unlike libpq, a `%` or `@` in the password may stand unescaped. Raises UsageError without
    repeating any of the URL, since a mistyped one shows its password in odd places.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise UsageError(f"database.url: not a Postgres URL; {_ADVICE}")
    authority, slash, rest = url[scheme.end() :].partition("/")
    userinfo, at, hosts = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    credentials = quote(unquote(user), safe="") + colon + quote(unquote(password), safe="")
    try:
        arguments = conninfo_to_dict(
            "postgresql://" + (credentials + at + hosts + slash + rest).replace(" ", "%20")
        )
    except psycopg.ProgrammingError as exc:
        # Of libpq's complaints only this one is sure to quote no secret, unless a raw / and ? in
        # the password make a query of it.
        unknown = "@" not in rest and re.match(r'invalid URI query parameter: "(\w+)"', str(exc))
        told = _unknown_parameter(unknown[1]) if unknown else f"not a Postgres URL; {_ADVICE}"
        raise UsageError(f"database.url: {told}") from None
    # A raw slash in the password makes libpq read `user:pass/word@host` as a host, a port and a
    # database, and a failing connection would then print the pieces.
    misread = "@" in rest.partition("?")[0]
    if misread or not re.fullmatch(r"[\d,]*", str(arguments.get("port") or "")):
        raise UsageError(f"database.url: not a Postgres URL; {_ADVICE}")

    # What the URL or libpq's environment says wins.
    chosen = {o.keyword.decode() for o in pq.Conninfo.get_defaults() if o.val is not None}
    for name, value in _PATIENCE.items():
        if name not in chosen:
            arguments.setdefault(name, value)
    # Ours also when the URL names another: `status` tells by it who holds the lock.
    arguments["application_name"] = application_name
    return arguments


def _unknown_parameter(name: str) -> str:
    known = [option.keyword.decode() for option in pq.Conninfo.get_defaults()]
    # `ssl` is how other drivers call sslmode, libpq's first with that beginning.
    close = [word for word in known if word.startswith(name)] or get_close_matches(name, known)
    meant = f"write {close[0]}" if close else "remove it"
    return f'"{name}" is no connection parameter; {meant}'


def open_session(
    arguments: dict[str, Any], settings: dict[str, str] | None = None
) -> psycopg.Connection[Any]:
    """Connect, in autocommit, and make the session ours; `settings` go on top.

    `arguments` are from `connection_arguments`. Raises DatabaseError when the server can't be
    reached, refuses us or won't do, UsageError when an argument is no good.
    """
    connection = _connect(arguments)
    try:
        _require_fit(connection)
        version = connection.info.server_version
        newer = {
            name: value for name, (value, since) in _NEWER_SETTINGS.items() if version >= since
        }
        _prepare(connection, arguments, _SETTINGS | newer | (settings or {}))
    except BaseException:
        connection.close()
        raise
    return connection


def break_off(connection: psycopg.Connection[Any]) -> bool:
    """Ends a session at once, also one in whose statement another thread waits, or this one.

    The server is told to give the statement up, then the connection is cut: who waits for it gets
    an error, whether the server still lives or not. Returns whether it took notice.
    """
    heard = threading.Event()

    def cancel() -> None:
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=_HURRY_SECONDS)
            heard.set()

    # In a thread, since before libpq 17 it takes as long as it takes.
    asking = threading.Thread(target=cancel, daemon=True)
    asking.start()
    asking.join(_HURRY_SECONDS)
    # Closed meanwhile, or cut off already.
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
    return heard.is_set()


def server_session(connection: psycopg.Connection[Any]) -> int:
    """The server's process id for this session; a pooler makes up the one that libpq knows."""
    ((pid,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
    return int(pid)


def _connect(arguments: dict[str, Any]) -> psycopg.Connection[Any]:
    try:
        return psycopg.connect(**arguments, autocommit=True)
    # A host name that IDNA can't encode raises UnicodeError.
    except (psycopg.Error, UnicodeError) as exc:
        raise refused(exc, _target(arguments)) from exc


def _target(arguments: dict[str, Any]) -> str:
    """Where the connection was to lead, as a person writes it: host:port/database."""
    if "service" in arguments:
        return f"service {arguments['service']}"
    defaults = pq.Conninfo.get_defaults()
    known = {o.keyword.decode(): (o.val or o.compiled or b"").decode() for o in defaults}
    known |= arguments
    hosts = (known["host"] or known["hostaddr"] or "local socket").split(",")
    ports = known["port"].split(",")
    ports *= 1 if len(ports) == len(hosts) else len(hosts)
    places = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
    return f"{places}/{known['dbname'] or known['user']}"


def _require_fit(connection: psycopg.Connection[Any]) -> None:
    """Refuse a server that is too old and a database that can't hold all text.

    LATIN1 and the like lack most characters of a prompt, SQL_ASCII keeps them as mere bytes, and
    in neither does jsonb take an escape for them.
    """
    version = connection.info.server_version
    if version < _OLDEST:
        raise DatabaseError(
            f"Postgres {version // 10_000} is too old; point database.url at a server of 15 to 18"
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseError(
            f"database {connection.info.dbname} is encoded in {encoding}, which can't hold all"
            " text; create one with ENCODING 'UTF8' and name it in database.url"
        )


def _prepare(
    connection: psycopg.Connection[Any], arguments: dict[str, Any], settings: dict[str, str]
) -> None:
    """SET all of `settings`, in one round trip where no pooler is in between.

    A pooler in transaction mode hands the server's session to the next client after each
    statement, with these settings in it. Hence they are set only in the session that was
    announced at the start; a pooler announces one that isn't real, and is looked at first.
    """
    # Not startup `options`: PgBouncer refuses them.
    calls = [SQL("set_config(%s, %s, false)")] * len(settings)
    values = [part for setting in settings.items() for part in setting]
    for name, (unset, value) in _UNLESS_SET.items():
        if name not in settings:
            calls.append(
                SQL("set_config(%s, coalesce(nullif(current_setting(%s), %s), %s), false)")
            )
            values += [name, name, unset, value]
    query = SQL("SELECT {} WHERE pg_backend_pid() = %s").format(SQL(", ").join(calls))
    if connection.execute(query, [*values, connection.info.backend_pid]).fetchone() is None:
        connection.execute(query, [*values, _kept_session(connection, arguments)])


def _kept_session(connection: psycopg.Connection[Any], arguments: dict[str, Any]) -> int:
    """The server's session behind a pooler, if it is ours as long as we are connected.

    A second client opens a transaction. In transaction mode it is given the session that we have
    just used, or we are given another one afterwards.
    """
    ours = server_session(connection)
    with _connect(arguments) as other, other.transaction():
        theirs = server_session(other)
        again = server_session(connection)
    if theirs == ours or again != ours:
        raise DatabaseError(
            "a pooler in transaction mode is in between, where no lock holds; point database.url"
            " at Postgres itself, or at a pool in session mode"
        )
    return ours
