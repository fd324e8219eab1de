"""Lines of a file out of what was observed: the writing half of the format that loads read.

A line is what one persona brought at one moment: its payload put together again, and which of the
documents in it are observations of that moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from etl.files.observed import as_time
from etl.payload.decode import dumps
from etl.payload.documents import Part, put_together, referenced, references, take_apart
from etl.tables import SHARED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from etl.payload.decode import Json, JsonObject, Location
    from etl.tables import Kind

    Key = tuple[Kind, UUID]


@dataclass(frozen=True, slots=True)
class Copy:
    """A document as a persona brought it."""

    kind: Kind
    entity_id: UUID
    content_hash: bytes
    document: JsonObject
    source_updated_at: datetime | None
    observed: Mapping[Location, Json] = field(default_factory=dict)
    """What else is known of the observed fields."""

    @property
    def key(self) -> Key:
        """Whose document it is."""
        return self.kind, self.entity_id


def payload_line(
    persona_id: UUID,
    observed_at: datetime,
    own: Copy,
    shared: Sequence[Copy],
    seen: Sequence[Copy],
    *,
    outdated: Collection[Key] = (),
) -> bytes:
    """The line of a persona's payload.

    Args:
        persona_id: The persona.
        observed_at: The moment.
        own: Its own document then.
        shared: Those that it refers to. One that nobody kept stays a reference.
        seen: Which of all were observed at that moment; none: it was seen to be as it was. What
            the payload does not hold stands beside it.
        outdated: What is older than all that is kept of it. That stands beside the payload too, as
            a load would leave it out of it.
    """
    payload = put_together(_part(own), [*map(_part, shared), *_lost(own, shared)])
    keys = {own.key, *references(own.document)}
    loose = [copy for copy in seen if copy.key not in keys or copy.key in outdated]
    if _has_inline(own.document):
        # What stays inline can read otherwise, as its own observed fields are not kept.
        held = _held(payload, persona_id)
        keys = set(held)
        loose = [
            copy for copy in seen if held.get(copy.key) != _identity(copy) or copy.key in outdated
        ]
    named = {copy.key for copy in seen} - {copy.key for copy in loose}
    line = _head(persona_id, observed_at)
    if named != keys:
        observed: list[Json] = [*sorted(f"{kind} {entity_id}" for kind, entity_id in named)]
        line["observations"] = observed
    return _encoded({**line, "payload": payload}, loose)


def bare_line(
    persona_id: UUID, observed_at: datetime, seen: Sequence[Copy], *, is_gone: bool
) -> bytes:
    """The line of a moment without a payload: a 404, or what is known of the persona is not kept.

    `seen` was observed all the same.
    """
    line = _head(persona_id, observed_at)
    if not is_gone:
        line["observations"] = []
    return _encoded({**line, "payload": None}, seen)


def pruned_line(row: Mapping[str, Json | UUID | datetime | bytes]) -> bytes:
    """The line that says whose history begins later than it did."""
    told: JsonObject = {name: _as_json(value) for name, value in row.items()}
    return dumps({"pruned": told}) + b"\n"


def _head(persona_id: UUID, observed_at: datetime) -> JsonObject:
    return {"observed_at": as_time(observed_at), "persona_id": str(persona_id)}


def _encoded(line: JsonObject, loose: Iterable[Copy]) -> bytes:
    beside: list[Json] = [
        {
            "kind": copy.kind,
            "entity_id": str(copy.entity_id),
            "document": copy.document,
            "updated_at": as_time(copy.source_updated_at) if copy.source_updated_at else None,
        }
        for copy in loose
    ]
    if beside:
        line["documents"] = beside
    return dumps(line) + b"\n"


def _part(copy: Copy) -> Part:
    observed = dict(copy.observed)
    if copy.source_updated_at is not None:
        observed["updatedAt",] = as_time(copy.source_updated_at)
    return Part(
        copy.kind,
        copy.entity_id,
        copy.document,
        observed,
        copy.content_hash,
        copy.source_updated_at,
        (),
    )


def _lost(own: Copy, shared: Sequence[Copy]) -> list[Part]:
    """In the place of documents that are not kept: an object that is a reference again."""
    lost = references(own.document) - {copy.key for copy in shared}
    return [
        Part(kind, entity_id, {"id": str(entity_id)}, {}, b"", None, ()) for kind, entity_id in lost
    ]


def _has_inline(document: JsonObject) -> bool:
    """Whether an embedded object has stayed in the persona's document."""
    for name in SHARED:
        value = document.get(name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and referenced(item) is None:
                return True
    return False


def _held(payload: JsonObject, persona_id: UUID) -> dict[Key, tuple[bytes, datetime | None]]:
    """What whoever reads the payload takes for its documents."""
    parts = take_apart(payload, persona_id).parts()
    return {(p.kind, p.entity_id): (p.content_hash, p.source_updated_at) for p in parts}


def _identity(copy: Copy) -> tuple[bytes, datetime | None]:
    return copy.content_hash, copy.source_updated_at


def _as_json(value: Json | UUID | datetime | bytes) -> Json:
    if isinstance(value, datetime):
        return as_time(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, UUID) else value
