"""One statement that somebody typed: what it returns, why it may not run, and its rows.

It goes to the server as it is, over the extended protocol, which takes one statement at a time.
What is given back is Postgres's own text, so that no digit is lost in between. The transaction, in
which nothing can be written, is the caller's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import psycopg
from psycopg import capabilities, generators, postgres, pq
from psycopg.errors import error_from_result
from psycopg.types.string import TextLoader

from etl.errors import UsageError
from etl.store.query_errors import Statement, explained

if TYPE_CHECKING:
    from collections.abc import Generator

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


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the answer; of an array the kind is that of its elements."""

    name: str
    kind: Kind


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
    with explained(statement):
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
    with explained(statement), connection.cursor() as cursor:
        for known in connection.adapters.types:
            cursor.adapters.register_loader(known.oid, TextLoader)
        yield from cursor.stream(statement.sql.encode(), size=_CHUNK)


def _refused(word: str) -> UsageError:
    if word in _READ:
        return UsageError(
            f"query only reads columns: this {word} returns none; name some, and leave out INTO"
        )
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
