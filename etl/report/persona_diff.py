"""What differs of a persona between two moments: its own fields, and those of what it shares.

A persona's document refers to its avatar, voice, tools and knowledge groups. To be exchanged for
another is a change of the persona; what changed in the same one is told as a comparison of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

from etl.payload.canonical import canonical
from etl.payload.decode import loads
from etl.payload.differences import ABSENT, Absence, Difference, differences, is_reshaped
from etl.payload.documents import referenced
from etl.payload.paths import UUID_FORM
from etl.tables import SHARED, name_column, set_paths, source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from etl.payload.decode import Json, JsonObject
    from etl.tables import Kind

State = Literal["live", "removed", "unseen", "pruned"]

# What is longer is prose, of which the words are compared.
_LONGEST_VALUE = 60

_ELEMENT = re.compile(rf"\[{UUID_FORM.pattern}\]")
_MEMBER: Final = {kind: name for name, kind in SHARED.items()}


@dataclass(frozen=True, slots=True)
class Shown:
    """A shared thing as a persona showed it."""

    version: int | None
    document: JsonObject | None
    """None: it is not kept."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A persona as it stood at a moment; of a removed one what it showed last."""

    at: datetime
    state: State
    version: int | None = None
    valid_from: datetime | None = None
    shown_version: int | None = None
    """The version whose document this is: of a removed persona the one before."""
    document: JsonObject | None = None
    shared: Mapping[tuple[Kind, UUID], Shown] = field(default_factory=dict)

    def name_of(self, kind: Kind, entity_id: UUID) -> str | None:
        """What a shared thing was called then."""
        shown = self.shared.get((kind, entity_id))
        return None if shown is None or shown.document is None else name_in(kind, shown.document)


@dataclass(frozen=True)
class Comparison:
    """How one document differs between two moments."""

    kind: Kind
    entity_id: UUID
    name: str | None
    versions: tuple[int | None, int | None]
    changes: list[Difference]
    is_kept: bool = True
    """Otherwise one of the two is not, and nothing can be compared."""

    @cached_property
    def is_reshaped(self) -> bool:
        """Whether the API's shape moved, and nobody edited."""
        return is_reshaped(self.changes)

    def full_path(self, path: str) -> str:
        """A path of this document as it stands in the persona's payload."""
        if self.kind == "persona":
            return path
        member = _MEMBER[self.kind]
        place = member if member == self.kind else f"{member}[{self.entity_id}]"
        return f"{place}{'' if path.startswith('[') else '.'}{path}"


def compare(persona_id: UUID, before: Snapshot, after: Snapshot) -> list[Comparison]:
    """What differs, the persona first; only documents that do."""
    if before.document is None or after.document is None:
        return []
    found = [
        Comparison(
            "persona",
            persona_id,
            name_in("persona", after.document),
            (before.shown_version, after.shown_version),
            differences("persona", before.document, after.document),
        )
    ]
    order = list(SHARED.values())
    both = before.shared.keys() & after.shared.keys()
    for kind, entity_id in sorted(both, key=lambda key: (order.index(key[0]), key[1])):
        found.append(_of_shared(kind, entity_id, before, after))
    return [each for each in found if each.changes or not each.is_kept]


def _of_shared(kind: Kind, entity_id: UUID, before: Snapshot, after: Snapshot) -> Comparison:
    old, new = before.shared[kind, entity_id], after.shared[kind, entity_id]
    name = after.name_of(kind, entity_id) or before.name_of(kind, entity_id)
    versions = old.version, new.version
    if old.document is None or new.document is None:
        return Comparison(kind, entity_id, name, versions, [], is_kept=False)
    return Comparison(
        kind, entity_id, name, versions, differences(kind, old.document, new.document)
    )


def name_in(kind: Kind, document: JsonObject) -> str | None:
    """What a document calls its entity."""
    found = source(name_column(kind))
    name = document.get(found.path) if found else None
    return name if isinstance(name, str) else None


def reference_at(path: str, value: Json | Absence) -> tuple[Kind, UUID] | None:
    """What a persona's value at a path refers to: `voice`, `voice.id`, `tools[<id>]`."""
    member, _, rest = path.partition("[")
    kind = SHARED.get(member.removesuffix(".id"))
    if kind is None or (rest and not path.endswith("]")):
        return None
    if isinstance(value, Absence):
        return None
    found = referenced({"id": value} if member.endswith(".id") else value)
    return (kind, found) if found else None


def name_at(path: str, value: Json | Absence, snapshot: Snapshot) -> str | None:
    """What that which a persona's value refers to was called then."""
    found = reference_at(path, value)
    return snapshot.name_of(*found) if found else None


def is_prose(change: Difference) -> bool:
    """Whether a change is of a text, or one that came or went, too long to stand on a line."""
    texts = [value for value in (change.old, change.new) if isinstance(value, str)]
    others = [value for value in (change.old, change.new) if not isinstance(value, str)]
    return any(len(text) > _LONGEST_VALUE or "\n" in text for text in texts) and all(
        value is None or value is ABSENT for value in others
    )


def is_set(kind: Kind, path: str) -> bool:
    """Whether the order of an array at this path means nothing."""
    return _ELEMENT.sub("[]", path) in set_paths(kind)


def elements(change: Difference) -> tuple[list[Json], list[Json]]:
    """Of two arrays that are sets, what went and what came; what repeats counts as often.

    Where no array stood, what stood there instead went or came.
    """
    old, new = (Counter(map(canonical, _items(value))) for value in (change.old, change.new))
    went, came = ((old - new).elements(), (new - old).elements())
    return [loads(item) for item in went], [loads(item) for item in came]


def _items(value: Json | Absence) -> list[Json]:
    if isinstance(value, Absence):
        return []
    return value if isinstance(value, list) else [value]
