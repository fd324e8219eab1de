"""Takes a cleaned payload apart into documents, and puts documents together again, without loss.

The persona's document keeps a reference, `{"id": …}`, where a shared object was embedded. An
embedded object without a usable uuid, or repeated with other content, stays where it is; one that
would then read as a reference is wrapped as `{"$inline": …}`. The observed fields are lifted out of
each document and kept beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, cast

from etl.errors import PayloadRejectedError
from etl.payload.canonical import content_hash, same
from etl.payload.paths import usable_uuid
from etl.payload.times import parse_time
from etl.tables import SHARED, observed_paths

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from etl.payload.decode import Json, JsonObject, Location
    from etl.tables import Kind

INLINE = "$inline"


@dataclass(frozen=True, slots=True)
class Part:
    """One document of a payload."""

    kind: Kind
    entity_id: UUID
    document: JsonObject
    """Without the observed fields; embedded shared objects are references."""
    observed: dict[Location, Json]
    """The observed fields, by their place in the document."""
    content_hash: bytes
    source_updated_at: datetime | None
    location: Location
    """Where it first stood in the payload."""

    def whole(self) -> JsonObject:
        """The document with its observed fields."""
        return overlay(self.document, self.observed)


@dataclass(frozen=True, slots=True)
class Apart:
    """A payload, taken apart."""

    persona: Part
    shared: list[Part]

    def parts(self) -> list[Part]:
        """All documents, the persona's last."""
        return [*self.shared, self.persona]


def take_apart(payload: Json, persona_id: UUID) -> Apart:
    """Takes a cleaned payload apart.

    Raises:
        PayloadRejectedError: it is not an object, has no id, or has another's.
    """
    if not isinstance(payload, dict):
        raise PayloadRejectedError("the body is not a JSON object")
    found = usable_uuid(payload.get("id"))
    if found is None:
        raise PayloadRejectedError("the body has no id that is a uuid")
    if found != persona_id:
        raise PayloadRejectedError(f"the body is of another persona, {found}")
    parts: dict[tuple[Kind, UUID], Part] = {}
    document = dict(payload)
    for name, kind in SHARED.items():
        value = document.get(name)
        if isinstance(value, list):
            document[name] = [
                _reference(item, kind, (name, index), parts) for index, item in enumerate(value)
            ]
        elif value is not None:
            document[name] = _reference(value, kind, (name,), parts)
    return Apart(_part("persona", persona_id, document, ()), list(parts.values()))


def put_together(persona: Part, shared: Iterable[Part]) -> JsonObject:
    """The payload that was taken apart. Every referenced document must be among the shared."""
    by_key = {(part.kind, part.entity_id): part for part in shared}
    payload = persona.whole()
    for name, kind in SHARED.items():
        value = payload.get(name)
        if isinstance(value, list):
            payload[name] = [_resolved(item, kind, by_key) for item in value]
        elif value is not None:
            payload[name] = _resolved(value, kind, by_key)
    return payload


def references(document: JsonObject) -> set[tuple[Kind, UUID]]:
    """The shared documents that a persona's document refers to."""
    found = set()
    for name, kind in SHARED.items():
        value = document.get(name)
        for item in value if isinstance(value, list) else [value]:
            if entity_id := referenced(item):
                found.add((kind, entity_id))
    return found


def referenced(value: Json) -> UUID | None:
    """The id that a reference holds; None when the value is no reference."""
    if isinstance(value, dict) and len(value) == 1:
        return usable_uuid(value.get("id"))
    return None


def overlay(document: JsonObject, observed: dict[Location, Json]) -> JsonObject:
    """The document with its observed fields put back; the given one is left alone."""
    whole: Json = document
    for location, value in observed.items():
        whole = _with(whole, location, value)
    return dict(cast("JsonObject", whole))


def _reference(
    value: Json, kind: Kind, location: Location, parts: dict[tuple[Kind, UUID], Part]
) -> Json:
    """Moves an embedded object to `parts` and leaves a reference; else the value, escaped."""
    if isinstance(value, dict) and (entity_id := usable_uuid(value.get("id"))):
        part = _part(kind, entity_id, value, location)
        known = parts.setdefault((kind, entity_id), part)
        if _alike(part, known):
            return {"id": value["id"]}
    return {INLINE: value} if _reads_as_ours(value) else value


def _alike(part: Part, known: Part) -> bool:
    """Whether both would be put together to the same object: the id's letter case included."""
    return (
        part.content_hash == known.content_hash
        and part.document == known.document
        and part.observed.keys() == known.observed.keys()
        and all(same(value, known.observed[at]) for at, value in part.observed.items())
    )


def _reads_as_ours(value: Json) -> bool:
    return referenced(value) is not None or (isinstance(value, dict) and set(value) == {INLINE})


def _resolved(value: Json, kind: Kind, parts: dict[tuple[Kind, UUID], Part]) -> Json:
    if entity_id := referenced(value):
        return parts[kind, entity_id].whole()
    if isinstance(value, dict) and set(value) == {INLINE}:
        return value[INLINE]
    return value


def _part(kind: Kind, entity_id: UUID, value: JsonObject, location: Location) -> Part:
    observed: dict[Location, Json] = {}
    document: Json = value
    for steps in _observed_steps(kind):
        document = _without(document, steps, (), observed)
    stored = cast("JsonObject", document)
    updated_at = observed.get(("updatedAt",))
    return Part(
        kind=kind,
        entity_id=entity_id,
        document=stored,
        observed=observed,
        content_hash=content_hash(kind, stored),
        source_updated_at=parse_time(updated_at) if isinstance(updated_at, str) else None,
        location=location,
    )


@cache
def _observed_steps(kind: Kind) -> list[tuple[str, ...]]:
    return observed_paths(kind)


def _without(
    value: Json, steps: tuple[str, ...], at: Location, lifted: dict[Location, Json]
) -> Json:
    """The value without what stands at `steps`, which goes to `lifted` by its place."""
    step, *rest = steps
    if step == "[]" and isinstance(value, list):
        return [
            _without(item, tuple(rest), (*at, index), lifted) for index, item in enumerate(value)
        ]
    if not isinstance(value, dict) or step not in value:
        return value
    if rest:
        return {**value, step: _without(value[step], tuple(rest), (*at, step), lifted)}
    lifted[*at, step] = value[step]
    return {key: item for key, item in value.items() if key != step}


def _with(value: Json, location: Location, lifted: Json) -> Json:
    """The value with `lifted` at its place."""
    if not location:
        return lifted
    step, *rest = location
    if isinstance(step, int):
        copied = list(cast("list[Json]", value))
        copied[step] = _with(copied[step], tuple(rest), lifted)
        return copied
    members = cast("JsonObject", value)
    return {**members, step: _with(members.get(step), tuple(rest), lifted)}
