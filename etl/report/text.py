"""Rows and values as text for a terminal: aligned, cut to a width, unable to steer it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from itertools import takewhile
from typing import TYPE_CHECKING

from wcwidth import clip, ljust, rjust, width

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

ELLIPSIS = "…"

_STEERS = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


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
    text = " ".join("".join(c if _is_harmless(c) else " " for c in str(value)).split())
    return text if widest is None else cut(text, widest)


def cut(text: str, widest: int) -> str:
    """As much of a line as fits `widest` columns; where that is not all, it ends in an ellipsis."""
    return text if width(text) <= widest else clip(text, 0, widest - 1).rstrip() + ELLIPSIS


def length_of_time(time: timedelta) -> str:
    """In the two greatest units that matter: `12 s`, `4 min`, `5 h 10 min`, `3 d 4 h`."""
    seconds = max(round(time.total_seconds()), 0)
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    great, small, size = ("d", "h", _HOUR) if seconds >= 2 * _DAY else ("h", "min", _MINUTE)
    whole, rest = divmod(seconds, _DAY if great == "d" else _HOUR)
    return f"{whole} {great} {rest // size} {small}" if rest >= size else f"{whole} {great}"


def counted(number: int, what: str) -> str:
    """`1 run`, `1,200 runs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def listed(head: str, names: Sequence[str], count: int, room: int) -> str:
    """The first name, as many others as fit `room` columns, and how many of `count` are left.

    Names hold commas, so something else stands between them.
    """
    fitting = ""
    for number in range(1, len(names) + 1):
        line = head + "; ".join(names[:number])
        if fitting and width(line) > room:
            break
        left = count - number
        whole = f"{line} and {left:,} more" if left else line
        if not fitting or width(whole) <= room:
            fitting = whole
    return fitting


def escaped(text: str) -> str:
    """The text with escapes in the place of what `as_line` would leave out."""
    return "".join(c if _is_harmless(c) else f"\\u{ord(c):04x}" for c in text)


def json_text(encoded: bytes) -> str:
    """The same JSON, which a terminal can be shown.

    JSON itself escapes what is below a blank, but not the other control characters, nor those that
    turn the direction of text.
    """
    return _STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", encoded.decode())


def alike(one: str, other: str) -> int:
    """How many characters both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _is_harmless(character: str) -> bool:
    """A control character in a name must not drive somebody's terminal. A joiner is not one."""
    return character.isprintable() or character == "\u200d"


def _are_numbers(cells: Sequence[object]) -> bool:
    present = [cell for cell in cells if cell is not None]
    return bool(present) and all(isinstance(cell, int | float | Decimal) for cell in present)
