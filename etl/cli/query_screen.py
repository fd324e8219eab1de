"""What `query` shows to people: a table that fits, or a block a row where the table can't."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from wcwidth import ljust, rjust, width

from etl.cli.query_data import plain
from etl.report.text import ELLIPSIS, counted, cut, escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from etl.store.query import Column, Value

_GAP: Final = "  "
# A column that is cut to less says nothing: better a line a value.
_NARROWEST: Final = 12
_LONGEST_NAME: Final = 30
_NEWLINE: Final = "↵"


def terminal_width() -> int:
    """The width of the terminal; without one that of the usual."""
    return shutil.get_terminal_size((80, 24)).columns


def as_lines(
    columns: Sequence[Column], rows: Iterable[Sequence[Value]], room: int
) -> Iterator[str]:
    """All of it, of at most `room` columns a line (0: without a limit), and how many rows.

    NULL is left empty; a text that is blank is in quotes. Of a row no more is kept than is shown.
    """
    names = [_on_a_line(column.name, room) for column in columns]
    cells = [
        [_cell(value, column, room) for value, column in zip(row, columns, strict=True)]
        for row in rows
    ]
    widths = [max(map(width, column)) for column in zip(names, *cells, strict=True)]
    fitted = _fitted(widths, room)
    yield from _table(columns, names, cells, fitted) if fitted else _blocks(names, cells, room)
    yield f"({counted(len(cells), 'row')})"


def _fitted(widths: list[int], room: int) -> list[int] | None:
    """The widths with the widest cut to fit; None when that would leave too little of them."""
    left = room - len(_GAP) * (len(widths) - 1)
    if not room or sum(widths) <= left:
        return widths
    for most in range(max(widths), _NARROWEST - 1, -1):
        if sum(min(size, most) for size in widths) <= left:
            return [min(size, most) for size in widths]
    return None


def _table(
    columns: Sequence[Column], names: list[str], cells: list[list[str]], widths: list[int]
) -> Iterator[str]:
    aligned = [rjust if column.kind == "number" else ljust for column in columns]
    for line in (names, ["─" * size for size in widths], *cells):
        yield _GAP.join(
            align(cut(cell, size), size)
            for align, cell, size in zip(aligned, line, widths, strict=True)
        ).rstrip()


def _blocks(names: list[str], rows: list[list[str]], room: int) -> Iterator[str]:
    """A block a row, a line a column."""
    names = [cut(name, min(_LONGEST_NAME, room // 2)) for name in names]
    longest = max(map(width, names))
    for number, row in enumerate(rows, start=1):
        yield cut(f"── row {number:,} ".ljust(room, "─"), room)
        for name, cell in zip(names, row, strict=True):
            value = cut(cell, max(room - longest - len(_GAP), 1))
            yield f"{ljust(name, longest)}{_GAP}{value}".rstrip()


def _cell(value: Value, column: Column, room: int) -> str:
    text = plain(value, column.kind)
    if text is None:
        return ""
    shown = _on_a_line(text, room)
    return shown if shown.strip() else f'"{shown}"'


def _on_a_line(text: str, room: int) -> str:
    """Without what breaks a line or steers the terminal; of megabytes only the beginning."""
    shown = text[:room] + ELLIPSIS if room and len(text) > room else text
    return escaped(shown.replace("\r\n", "\n").replace("\n", _NEWLINE).replace("\t", " "))
