"""What is wrong with a statement that somebody typed: where, and what may have been meant.

What has nothing to do with the statement, like a server that stops, is left to `engine.py`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from time import monotonic
from typing import TYPE_CHECKING, Final

import psycopg
from wcwidth import width

from etl.errors import DatabaseError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import timedelta

_NAME: Final = re.compile(r'(?:\w|\.|"[^"]*")+')
_MEANT: Final = re.compile(r"Perhaps you meant to reference .*")
_DESCRIBES: Final = re.compile(r"\s*(?:describe|desc|show)\b", re.IGNORECASE)
_DICTIONARY = "SELECT * FROM dictionary tells what there is"

# SQLSTATEs, or classes of them, that say nothing about the statement, but for 57014.
_NOT_ITS_FAULT: Final = ("08", "28", "40", "42501", "53", "55P03", "57", "58")
_INTERNAL, _CANCELLED, _READ_ONLY = "XX", "57014", "25006"
_SYNTAX_ERROR, _NO_SUCH_RELATION, _NO_SUCH_COLUMN = "42601", "42P01", "42703"
# Syntax or what names mean: only there no DETAIL can quote a row.
_ABOUT_SQL: Final = "42"
# Of a line so many columns are shown, and of them these before the place.
_EXCERPT, _BEFORE = 76, 40
# Of a quote that is not closed Postgres repeats all that follows.
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Statement:
    """What was typed, and what its errors are told with."""

    sql: str
    timeout: timedelta
    relations: Collection[str]
    """The names that may have been meant."""
    hidden: Collection[str]
    """Of them those that the role may not read."""


@contextmanager
def explained(statement: Statement) -> Iterator[None]:
    """Turns what is wrong with the statement into a UsageError. All else is the caller's."""
    started = monotonic()
    try:
        yield
    except UnicodeDecodeError as exc:
        # What we asked the server for is UTF-8.
        raise UsageError("what it returns is not in UTF-8; leave client_encoding as it is") from exc
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
        told = told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"
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
        return "; ".join([told, *_hints(error), *_elsewhere(statement)])
    at = int(position) - 1
    line = statement.sql.count("\n", 0, at) + 1
    before = statement.sql[:at].rpartition("\n")[2]
    hints = _hints(error)
    if state == _NO_SUCH_RELATION:
        hints += _meant(statement, at)
    if statement.sql.startswith("\\", at):
        hints.append(f"that is for psql; {_DICTIONARY}")
    elif not hints and state == _NO_SUCH_COLUMN:
        hints.append(_DICTIONARY)
    hints += _elsewhere(statement)
    told = "; ".join([f"line {line}, column {len(before) + 1}: {told}", *hints])
    return "\n".join([told, *_pointed_at(before, statement.sql[at:].partition("\n")[0])])


def _elsewhere(statement: Statement) -> list[str]:
    """What other databases tell by a word of their own."""
    return [_DICTIONARY] if _DESCRIBES.match(statement.sql) else []


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
