"""Takes a cleaned payload apart into documents, and puts documents together again, without loss.

The persona's document keeps a reference, `{"id": …}`, where a shared object was embedded. An
embedded object without a usable uuid, or repeated with other content, stays where it is; one that
would then read as a reference is wrapped as `{"$inline": …}`. The observed fields are lifted out of
each document, and of what stays inline in it, and kept beside it.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from etl.errors import PayloadRejectedError
from etl.payload.canonical import canonical, content_hash, with_sorted_sets
from etl.payload.paths import usable_uuid
from etl.payload.times import parse_time
from etl.tables import SHARED, observed_paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from uuid import UUID

    from etl.payload.decode import Json, JsonObject, Location
    from etl.tables import Kind

INLINE = "$inline"

Shared = dict[tuple["Kind", "UUID"], "Part"]


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

    def whole_as(self, document: JsonObject) -> JsonObject:
        """Another copy of the same content, its sets in another order, with these observed fields.

        What is stored of a content is the copy that came first; the tables follow that one.
        """
        return overlay(document, _moved(self, document))


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
    embedded = {part.location: part for part in _embedded(payload)}
    shared = _chosen(embedded.values())
    document, observed = _lift("persona", payload)

    def left(value: Json, kind: Kind, location: Location) -> Json:
        part = embedded.get(location)
        if part is not None:
            known = shared[kind, part.entity_id]
            if part is known or _rank(part) == _rank(known):
                return {"id": str(part.entity_id)}
        return _inline(value, kind, location, observed)

    for name, kind in SHARED.items():
        value = document.get(name)
        if isinstance(value, list):
            document[name] = [left(item, kind, (name, i)) for i, item in enumerate(value)]
        elif value is not None:
            document[name] = left(value, kind, (name,))
    return Apart(_part("persona", persona_id, document, observed, ()), list(shared.values()))


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


def unescaped(value: Json) -> Json:
    """An inline value as it came."""
    return value[INLINE] if isinstance(value, dict) and set(value) == {INLINE} else value


def referenced(value: Json) -> UUID | None:
    """The id that a reference holds; None when the value is no reference."""
    if isinstance(value, dict) and len(value) == 1:
        return usable_uuid(value.get("id"))
    return None


def without_observed(kind: Kind, document: JsonObject) -> JsonObject:
    """A copy without the observed fields, as documents are stored."""
    return _lift(kind, document)[0]


def overlay(document: JsonObject, observed: dict[Location, Json]) -> JsonObject:
    """The document with its observed fields put back; the given one is left alone."""
    whole = dict(document)
    copies: dict[Location, Any] = {(): whole}
    for location, value in observed.items():
        container: Any = whole
        # Each container on the way is copied once, however many fields stand below it.
        for depth in range(1, len(location)):
            at = location[:depth]
            if at not in copies:
                copies[at] = container[at[-1]] = copy(container[at[-1]])
            container = copies[at]
        container[location[-1]] = value
    return whole


def _moved(part: Part, document: JsonObject) -> dict[Location, Json]:
    """Where the observed fields of a part stand in another copy of its content."""
    places: dict[str, list[int]] = {}
    moved: dict[Location, Json] = {}
    for location, value in part.observed.items():
        name, *rest = location
        if isinstance(name, str) and rest and isinstance(index := rest[0], int):
            if name not in places:
                places[name] = _places(part.kind, name, part.document[name], document[name])
            moved[name, places[name][index], *rest[1:]] = value
        else:
            moved[location] = value
    return moved


def _places(kind: Kind, name: str, here: Json, there: Json) -> list[int]:
    """For each element of a set where its equal stands in another copy of the set."""
    if here == there or not isinstance(here, list) or not isinstance(there, list):
        return list(range(len(here))) if isinstance(here, list) else []
    found: dict[bytes, list[int]] = {}
    for index in reversed(range(len(there))):
        found.setdefault(_element(kind, name, there[index]), []).append(index)
    return [found[_element(kind, name, item)].pop() for item in here]


def _element(kind: Kind, name: str, item: Json) -> bytes:
    return canonical(with_sorted_sets(kind, {name: [item]}))


def _embedded(payload: JsonObject) -> Iterator[Part]:
    """The embedded objects that have a usable id, repeated ones too."""
    for name, kind in SHARED.items():
        value = payload.get(name)
        items: list[tuple[Location, Json]] = [((name,), value)]
        if isinstance(value, list):
            items = [((name, index), item) for index, item in enumerate(value)]
        for location, item in items:
            if isinstance(item, dict) and (entity_id := usable_uuid(item.get("id"))):
                yield _part(kind, entity_id, *_lift(kind, item), location)


def _chosen(parts: Iterable[Part]) -> Shared:
    """One part an entity: of several contents the same one in whatever order they stand."""
    chosen: Shared = {}
    for part in parts:
        known = chosen.setdefault((part.kind, part.entity_id), part)
        if part is not known and _rank(part) < _rank(known):
            chosen[part.kind, part.entity_id] = part
    return chosen


def _rank(part: Part) -> tuple[bytes, bytes]:
    """Equal for parts that would be put together to the same object, and for no others."""
    return part.content_hash, canonical(part.whole())


def _inline(value: Json, kind: Kind, location: Location, observed: dict[Location, Json]) -> Json:
    """What stays of a value that is no document: its observed fields lifted, escaped if need be."""
    if not isinstance(value, dict):
        return value
    stays, lifted = _lift(kind, value)
    if referenced(stays) is not None or set(stays) == {INLINE}:
        stays, location = {INLINE: stays}, (*location, INLINE)
    observed.update({(*location, *at): item for at, item in lifted.items()})
    return stays


def _resolved(value: Json, kind: Kind, parts: Shared) -> Json:
    if entity_id := referenced(value):
        return parts[kind, entity_id].whole()
    return unescaped(value)


def _part(
    kind: Kind,
    entity_id: UUID,
    document: JsonObject,
    observed: dict[Location, Json],
    location: Location,
) -> Part:
    updated_at = observed.get(("updatedAt",))
    return Part(
        kind=kind,
        entity_id=entity_id,
        document=document,
        observed=observed,
        content_hash=content_hash(kind, document),
        source_updated_at=parse_time(updated_at) if isinstance(updated_at, str) else None,
        location=location,
    )


def _lift(kind: Kind, value: JsonObject) -> tuple[JsonObject, dict[Location, Json]]:
    """A copy without the observed fields, and those by their place."""
    observed: dict[Location, Json] = {}
    document: Json = dict(value)
    for steps in _observed_steps(kind):
        document = _without(document, steps, (), observed)
    return cast("JsonObject", document), observed


@cache
def _observed_steps(kind: Kind) -> list[tuple[str, ...]]:
    return observed_paths(kind)


def _without(
    value: Json, steps: tuple[str, ...], at: Location, lifted: dict[Location, Json]
) -> Json:
    """The value without what stands at `steps`, which goes to `lifted` by its place."""
    step, *rest = steps
    if step == "[]":
        if not isinstance(value, list):
            return value
        return [
            _without(item, tuple(rest), (*at, index), lifted) for index, item in enumerate(value)
        ]
    if not isinstance(value, dict) or step not in value:
        return value
    if rest:
        return {**value, step: _without(value[step], tuple(rest), (*at, step), lifted)}
    lifted[*at, step] = value[step]
    return {key: item for key, item in value.items() if key != step}
