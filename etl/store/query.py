"""One statement that somebody typed: what it returns, why it may not run, and its rows.

It goes to the server as it is, over the extended protocol, which takes one statement at a time.
What is given back is Postgres's own text, so that no digit is lost in between. The transaction, in
which nothing can be written, is the caller's.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

import psycopg
from psycopg import capabilities, generators, postgres, pq
from psycopg.errors import error_from_result
from psycopg.types.string import TextLoader
from wcwidth import width

from etl.errors import DatabaseError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator
    from datetime import timedelta

    from psycopg.pq.abc import PGresult

    Connection = psycopg.Connection[Any]

Kind = Literal["boolean", "number", "json", "time", "text"]
Value = str | list["Value"] | None

_TYPES: Final[dict[Kind, str]] = {
    "boolean": "bool",
    "number": "int2 int4 int8 oid numeric float4 float8",
    "json": "json jsonb",
    "time": "timestamp timestamptz",
}
_KINDS: Final = {
    postgres.types[name].oid: kind for kind, names in _TYPES.items() for name in names.split()
}

# So many rows are in memory at once, and each may hold prompts of megabytes.
_CHUNK: Final = 100 if capabilities.has_stream_chunked() else 1

# White space and comments before the first word; one in another is left to the server.
_FIRST_WORD: Final = re.compile(r"(?:[\s;]|--[^\n]*|/\*.*?\*/)*+([A-Za-z]*)", re.DOTALL)
_READ: Final = {"SELECT", "WITH", "TABLE", "VALUES"}
# Those that return rows when they are told to.
_WRITE: Final = {"INSERT", "UPDATE", "DELETE", "MERGE"}
_NAME: Final = re.compile(r'(?:\w|\.|"[^"]*")+')
_MEANT: Final = re.compile(r"Perhaps you meant to reference .*")

# SQLSTATEs, or classes of them, that say nothing about the statement, but for 57014.
_NOT_ITS_FAULT: Final = ("08", "28", "40", "42501", "53", "55P03", "57", "58")
_INTERNAL, _CANCELLED, _READ_ONLY = "XX", "57014", "25006"
_SYNTAX_ERROR, _NO_SUCH_RELATION = "42601", "42P01"
# Syntax or what names mean: only there no DETAIL can quote a row.
_ABOUT_SQL: Final = "42"
# Of a line so many columns are shown, and of them these before the place.
_EXCERPT, _BEFORE = 76, 40


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the answer; of an array the kind is that of its elements."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Statement:
    """What was typed, and what its errors are told with."""

    sql: str
    timeout: timedelta
    relations: Collection[str]
    """The names that may have been meant."""
    hidden: Collection[str]
    """Of them those that the role may not read."""


def columns_of(connection: Connection, statement: Statement) -> list[Column]:
    """What the statement returns, without having run it.

    Raises UsageError when it returns nothing: that leaves no way to write but what a transaction
    that can't write sees to.
    """
    if "\0" in statement.sql:
        raise UsageError("the SQL holds a NUL, which Postgres takes in no statement")
    found = _FIRST_WORD.match(statement.sql)
    word = found[1].upper() if found else ""
    if word in _WRITE:
        # Before Postgres says that a view can't be written to, or what RETURNING lacks.
        raise _refused(word)
    with _explained(statement):
        connection.pgconn.send_prepare(b"", statement.sql.encode())
        _result(connection)
        connection.pgconn.send_describe_prepared(b"")
        described = _result(connection)
    if not described.nfields:
        if not word:
            raise UsageError("there is no SQL to run; write a statement like SELECT 1")
        raise _refused(word)
    if described.nparams:
        raise UsageError("query takes no parameters; write the value in the place of $1")
    return [
        Column((described.fname(number) or b"").decode(), _kind(described.ftype(number)))
        for number in range(described.nfields)
    ]


def rows_of(connection: Connection, statement: Statement) -> Generator[tuple[Value, ...]]:
    """The rows, a chunk of them in memory at once; what is left is cancelled when this is closed.

    Arrays are lists, all else is as Postgres writes it.
    """
    with _explained(statement), connection.cursor() as cursor:
        for known in connection.adapters.types:
            cursor.adapters.register_loader(known.oid, TextLoader)
        yield from cursor.stream(statement.sql.encode(), size=_CHUNK)


def _refused(word: str) -> UsageError:
    if word in _READ:
        return UsageError(f"query only reads columns: this {word} returns none; name some")
    return UsageError(f"query only reads: it runs no {word}; write a SELECT")


def _result(connection: Connection) -> PGresult:
    """What the server says to what was sent. Ctrl-C cancels it there, as for any statement."""
    result: PGresult = connection.wait(generators.execute(connection.pgconn))[-1]
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise error_from_result(result)
    return result


def _kind(oid: int) -> Kind:
    known = postgres.types.get(oid)
    # By the OID of an array its element's type is found too.
    return _KINDS.get(known.oid if known else oid, "text")


@contextmanager
def _explained(statement: Statement) -> Iterator[None]:
    """Turns what is wrong with the statement into a UsageError. All else is the caller's."""
    started = monotonic()
    try:
        yield
    except psycopg.Error as exc:
        state = exc.sqlstate or ""
        if state == _CANCELLED and monotonic() - started >= statement.timeout.total_seconds():
            raise UsageError(
                f"not done within {statement.timeout.total_seconds():g} s, and cancelled;"
                " ask for less, or for more time with --timeout 10m"
            ) from exc
        if not state or state.startswith(_NOT_ITS_FAULT):
            raise
        told = " ".join((exc.diag.message_primary or "").split())
        if state.startswith(_INTERNAL):
            raise DatabaseError(f"Postgres: {told}; look into the server's log") from exc
        if state == _READ_ONLY:
            raise UsageError(f"query only reads, and this would write; Postgres: {told}") from exc
        raise UsageError(_located(statement, exc, told)) from exc


def _located(statement: Statement, error: psycopg.Error, told: str) -> str:
    """Where it is wrong, what, and what may have been meant; then that line with a caret."""
    state, position = error.sqlstate, error.diag.statement_position
    if position is None:
        if state == _SYNTAX_ERROR:
            told = f"query runs one statement at a time; Postgres: {told}"
        return "; ".join([told, *_hints(error)])
    at = int(position) - 1
    line = statement.sql.count("\n", 0, at) + 1
    before = statement.sql[:at].rpartition("\n")[2]
    hints = _hints(error)
    if state == _NO_SUCH_RELATION:
        hints += _meant(statement, at)
    told = "; ".join([f"line {line}, column {len(before) + 1}: {told}", *hints])
    return "\n".join([told, *_pointed_at(before, statement.sql[at:].partition("\n")[0])])


def _hints(error: psycopg.Error) -> list[str]:
    """What Postgres adds, without its full stops."""
    hint = error.diag.message_hint or ""
    if _MEANT.fullmatch(hint) and (names := re.findall('"(.+?)"', hint)):
        hint = f"did you mean {' or '.join(names)}?"
    detail = (error.diag.message_detail or "") if (error.sqlstate or "")[:2] == _ABOUT_SQL else ""
    return [" ".join(text.split()).removesuffix(".") for text in (detail, hint) if text]


def _meant(statement: Statement, at: int) -> list[str]:
    """Which relation may have been meant by the name that stands there."""
    found = _NAME.match(statement.sql, at)
    name = found[0].rpartition(".")[2].strip('"').lower() if found else ""
    if name in statement.hidden:
        return ["it is a table; this role reads the views alone"]
    known = [one for one in statement.relations if one not in statement.hidden]
    return [f"did you mean {near}?" for near in get_close_matches(name, known, n=1)]


def _pointed_at(before: str, after: str) -> Iterator[str]:
    """The line around the place, as much as fits a terminal, and a caret below."""
    before, after = (part.replace("\t", " ").rstrip("\r") for part in (before, after))
    before = before[-_BEFORE:]
    yield f"  {(before + after)[:_EXCERPT]}"
    yield f"  {' ' * width(before)}^"
