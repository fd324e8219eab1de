"""What a dry run foresees: as lines of 80 columns, and as an object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wcwidth import width

from etl.payload.canonical import canonical
from etl.payload.differences import ABSENT
from etl.report.text import ELLIPSIS, alike, cut, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from etl.payload.decode import Json
    from etl.payload.differences import Absence, Difference
    from etl.tables import Kind

WIDTH = 80
# How much of what two long values have in common is shown before they part.
_COMMON = 16


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a real run would do to one persona or shared thing."""

    kind: Kind
    entity_id: UUID
    name: str | None
    outcome: str
    """A version's change, or why a persona would not be copied."""
    fields: Sequence[Difference] = ()
    """Where its document differs from the one in force; none of a new one."""
    message: str | None = None

    def as_object(self) -> dict[str, object]:
        """For `--json`: a value that is not there has no member, null is one."""
        return {
            "kind": self.kind,
            "id": str(self.entity_id),
            "name": self.name,
            "outcome": self.outcome,
            "fields": [
                {"path": found.path}
                | ({} if found.old is ABSENT else {"old": found.old})
                | ({} if found.new is ABSENT else {"new": found.new})
                for found in self.fields
            ],
            "message": self.message,
        }

    def as_lines(self) -> Iterator[str]:
        """Who and what, then each field: on one line, or on three where that is too long."""
        named = f" {escaped(self.name)}" if self.name else ""
        head = f"{self.kind.replace('_', ' ')} {self.entity_id}{named}"
        yield f"{cut(head, WIDTH - len(self.outcome) - 2)}: {self.outcome}"
        if self.message is not None:
            yield f"  {escaped(self.message)}"
        for found in self.fields:
            yield from _field(found)


def _field(found: Difference) -> Iterator[str]:
    old, new = _shown(found.old), _shown(found.new)
    path = escaped(found.path)
    line = f"  {path}: {old} → {new}"
    if width(line) <= WIDTH:
        yield line
        return
    yield cut(f"  {path}:", WIDTH)
    skipped = alike(old, new) - _COMMON
    for sign, value in (("-", old), ("+", new)):
        shown = f"{ELLIPSIS}{value[skipped:]}" if skipped > 0 else value
        yield cut(f"    {sign} {shown}", WIDTH)


def _shown(value: Json | Absence) -> str:
    return "(absent)" if value is ABSENT else escaped(canonical(value).decode())
