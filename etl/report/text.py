"""Rows as aligned text, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wcwidth import clip, ljust, width

if TYPE_CHECKING:
    from collections.abc import Sequence

ELLIPSIS = "…"


def as_table(
    names: Sequence[str], rows: Sequence[Sequence[object]], *, widest: int | None = None
) -> str:
    """A header, a rule and a line a row. NULL is empty; a cell is cut at `widest` columns."""
    lines = [list(names), *([_cell(value, widest) for value in row] for row in rows)]
    widths = [max(width(line[index]) for line in lines) for index in range(len(names))]
    lines.insert(1, ["─" * size for size in widths])
    return "\n".join(
        "  ".join(ljust(cell, size) for cell, size in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: object, widest: int | None) -> str:
    if value is None:
        return ""
    # A control character in a name must not drive somebody's terminal. A joiner is not one.
    printable = (c if c.isprintable() or c == "\u200d" else " " for c in str(value))
    text = " ".join("".join(printable).split())
    if widest is None or width(text) <= widest:
        return text
    return clip(text, 0, widest - 1).rstrip() + ELLIPSIS
