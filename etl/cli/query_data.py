"""What `query` hands to programs: CSV and JSON, a piece at a time, whatever the size of the answer.

A value is written as Postgres's own to_json would, with times in UTC as in RFC 3339.
"""

from __future__ import annotations

import re
from json.encoder import JSONEncoder
from typing import TYPE_CHECKING, Final

from etl.report.text import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from etl.store.query import Column, Kind, Value

_encoded = JSONEncoder(ensure_ascii=False).encode

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)(\+00)?", re.ASCII)
# Between the tokens of a json; within its strings they are escaped.
_NO_BREAKS: Final = {ord(c): " " for c in "\r\n\t"}
_TO_QUOTE: Final = re.compile(r'[",\r\n]')
# Quoted, as a NULL is nothing at all, and as the other is how a COPY ends.
_MISREAD: Final = {"", "\\."}


def as_csv(columns: Sequence[Column], rows: Iterable[Sequence[Value]]) -> Iterator[str]:
    """A header and a line a row, quoted as in RFC 4180, with the line ends of Unix."""
    yield _csv_line([column.name for column in columns])
    kinds = [column.kind for column in columns]
    for row in rows:
        yield _csv_line([plain(value, kind) for value, kind in zip(row, kinds, strict=True)])


def as_json(columns: Sequence[Column], rows: Iterable[Sequence[Value]]) -> Iterator[str]:
    """An array of objects, each on its line."""
    before = "[\n"
    for line in _objects(columns, rows):
        yield before + line
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def as_json_lines(columns: Sequence[Column], rows: Iterable[Sequence[Value]]) -> Iterator[str]:
    """An object a line."""
    for line in _objects(columns, rows):
        yield line + "\n"


def plain(value: Value, kind: Kind) -> str | None:
    """A value as text; None is NULL."""
    if value is None:
        return None
    if isinstance(value, list):
        return _json(value, kind)
    if kind == "boolean":
        return "true" if value == "t" else "false"
    if kind == "time" and (found := _TIME.fullmatch(value)):
        return f"{found[1]}T{found[2]}{'Z' if found[3] else ''}"
    return value


def _objects(columns: Sequence[Column], rows: Iterable[Sequence[Value]]) -> Iterator[str]:
    heads = [f"{_encoded(name)}:" for name in _distinct([column.name for column in columns])]
    kinds = [column.kind for column in columns]
    for row in rows:
        members = (
            head + _json(value, kind) for head, value, kind in zip(heads, row, kinds, strict=True)
        )
        # It may be shown on a terminal.
        yield json_text(f"{{{','.join(members)}}}".encode())


def _json(value: Value, kind: Kind) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(_json(inner, kind) for inner in value)}]"
    if kind == "json":
        return value.translate(_NO_BREAKS)
    # What is no number to JSON, NaN and the infinities, ends in a letter.
    if kind == "number" and value[-1].isdigit():
        return value
    text = plain(value, kind)
    return str(text) if kind == "boolean" else _encoded(text)


def _distinct(names: list[str]) -> list[str]:
    """The names, in an object: the second `name` is `name_2`, unless there is one of that name."""
    found: list[str] = []
    for name in names:
        number, tried = 1, name
        while tried in found or (number > 1 and tried in names):
            number += 1
            tried = f"{name}_{number}"
        found.append(tried)
    return found


def _csv_line(cells: Sequence[str | None]) -> str:
    return ",".join(map(_csv_cell, cells)) + "\n"


def _csv_cell(text: str | None) -> str:
    if text is None:
        return ""
    if text in _MISREAD or _TO_QUOTE.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text
