"""Rows and values as text for a terminal: aligned, cut to a width, unable to steer it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from wcwidth import clip, ljust, rjust, width

if TYPE_CHECKING:
    from collections.abc import Sequence

ELLIPSIS = "…"


def as_table(
    names: Sequence[str], rows: Sequence[Sequence[object]], *, widest: int | None = None
) -> str:
    """A header, a rule and a line a row. NULL is empty; a cell is cut at `widest` columns."""
    lines = [[as_line(cell, widest) for cell in line] for line in (names, *rows)]
    widths = [max(map(width, cells)) for cells in zip(*lines, strict=True)]
    lines.insert(1, ["─" * size for size in widths])
    columns = zip(*rows, strict=True) if rows else [[]] * len(names)
    aligned = [rjust if _are_numbers(column) else ljust for column in columns]
    return "\n".join(
        "  ".join(
            align(cell, size) for align, cell, size in zip(aligned, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def as_line(value: object, widest: int | None = None) -> str:
    """A value on one line of at most `widest` columns; None is empty, times are in UTC."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        value = value.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds")
    # A control character in a name must not drive somebody's terminal. A joiner is not one.
    printable = (c if c.isprintable() or c == "\u200d" else " " for c in str(value))
    text = " ".join("".join(printable).split())
    if widest is None or width(text) <= widest:
        return text
    return clip(text, 0, widest - 1).rstrip() + ELLIPSIS


def _are_numbers(cells: Sequence[object]) -> bool:
    present = [cell for cell in cells if cell is not None]
    return bool(present) and all(isinstance(cell, int | float | Decimal) for cell in present)
