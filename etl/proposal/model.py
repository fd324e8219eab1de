"""What is proposed, and out of what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from etl.map import Line
    from etl.tables import Kind

Problem = Literal["unknown", "missing", "type_changed", "new_value"]
Status = Literal["open", "accepted", "ignored", "mapped"]


class Key(NamedTuple):
    """Of a row of `drift_paths`."""

    kind: Kind
    path: str
    problem: Problem


@dataclass(frozen=True, slots=True)
class Drift:
    """Where the API and the map differ: a row of `drift_paths`."""

    kind: Kind
    path: str
    problem: Problem
    json_types: tuple[str, ...]
    first_seen_at: datetime
    last_seen_at: datetime
    occurrences: int
    status: Status
    shapes: tuple[str, ...] = ()
    new_members: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """What tells it from the others."""
        return Key(self.kind, self.path, self.problem)

    @property
    def place(self) -> tuple[Kind, str]:
        """What a person decides about: whatever differs there."""
        return self.kind, self.path


@dataclass(frozen=True, slots=True)
class Rename:
    """A field that vanished as another appeared, with the same values."""

    path: str
    """The one that vanished."""
    table: str
    column: str
    seen: int
    """In how many documents the one went as the other came."""
    equal: int
    """In how many of those the value was the same."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A column, or the table of a list, for a field."""

    drift: Drift
    line: Line
    values: int
    """How many values, nulls left out, the type was inferred from."""
    renamed: Rename | None = None
    beside: str | None = None
    """The column that the field has already, in another type."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is nothing to propose for a field."""

    drift: Drift
    reason: str
    """In one line, with what to do."""
    is_waiting: bool = False
    """It is in a revision already, which was not run yet."""
