"""One thing that is not what it should be by the history: as a line, and as an object."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from wcwidth import width

from etl.payload.canonical import canonical
from etl.report.text import ELLIPSIS, alike, cut, escaped

if TYPE_CHECKING:
    from collections.abc import Mapping

Problem = Literal["missing", "surplus", "differs"]

_WIDTH = 80
# However long the key is, of each value so much is shown …
_LEAST = 32
# … and where two begin alike, so much of that.
_COMMON = 6


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A row that is missing or surplus, or a column that differs."""

    table: str
    key: Mapping[str, Any]
    problem: Problem
    column: str | None = None
    is_: object = None
    should_be: object = None

    @property
    def is_filling(self) -> bool:
        """Whether nothing that somebody may miss is overwritten when it is mended.

        What a new column takes over goes from `extra`.
        """
        if self.problem == "differs":
            return self.is_ is None or self.column == "extra"
        return self.problem == "missing"

    def as_object(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "table": self.table,
            "key": {name: _plain(value) for name, value in self.key.items()},
            "column": self.column,
            "problem": self.problem,
            "is": _plain(self.is_),
            "should_be": _plain(self.should_be),
        }

    def as_line(self) -> str:
        """The key whole, so that the row can be found; values cut to what then fits a line."""
        row = " ".join([self.table, *(_worded(value) for value in self.key.values())])
        if self.column is None:
            return f"{row}: {self.problem}"
        head = f"{row}: {self.column} is "
        one, other = _shown(self.is_), _shown(self.should_be)
        skipped = alike(one, other) - _COMMON
        room = max((_WIDTH - width(head) - len(", should be ")) // 2, _LEAST)
        if skipped > 0 and max(width(one), width(other)) > room:
            one, other = ELLIPSIS + one[skipped:], ELLIPSIS + other[skipped:]
        return f"{head}{cut(one, room)}, should be {cut(other, room)}"


def _worded(value: object) -> str:
    """A part of a key: texts without quotes."""
    return escaped(value) if isinstance(value, str) else _shown(value)


def _shown(value: object) -> str:
    """On one line, as SQL or JSON would write it."""
    if value is None:
        return "NULL"
    plain = _plain(value)
    if isinstance(value, UUID | datetime | bytes):
        return str(plain)
    return escaped(canonical(plain).decode())


def _plain(value: Any) -> Any:  # noqa: ANN401  whatever a column holds
    """The value as JSON can hold it."""
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value) if isinstance(value, UUID) else value
