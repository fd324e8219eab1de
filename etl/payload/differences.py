"""In which paths two documents of one kind differ, and whether only the API's shape moved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl.payload.canonical import same, with_sorted_sets
from etl.payload.paths import member, usable_uuid
from etl.tables import set_paths

if TYPE_CHECKING:
    from etl.payload.decode import Json, JsonObject
    from etl.tables import Kind

# What a person fills in freely: a member that comes or goes there is an edit.
_FREE = re.compile(r"config|widgetConfig|voice\w*Options")


@dataclass(frozen=True, slots=True)
class Difference:
    """One path in which two documents differ."""

    path: str
    of_shape: bool
    """A member is present in one and absent in the other, outside of what people fill in."""


def differences(kind: Kind, old: JsonObject, new: JsonObject) -> list[Difference]:
    """The differences in the order of their paths. Arrays that are sets compare as sets."""
    found: list[Difference] = []
    sets = set_paths(kind)
    _walk(with_sorted_sets(kind, old), with_sorted_sets(kind, new), "", found, sets, free=False)
    return found


def is_reshaped(found: list[Difference]) -> bool:
    """Whether every difference is of shape: the API moved, not the entity."""
    return bool(found) and all(difference.of_shape for difference in found)


def _walk(
    old: Json, new: Json, path: str, found: list[Difference], sets: list[str], *, free: bool
) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = member(path, key)
            if key in old and key in new:
                below = free or bool(_FREE.fullmatch(key))
                _walk(old[key], new[key], inner, found, sets, free=below)
            else:
                found.append(Difference(inner, of_shape=not free))
        return
    olds, news = _by_id(old), _by_id(new)
    if olds is None or news is None or (path not in sets and _reordered(olds, news)):
        if not same(old, new):
            found.append(Difference(path, of_shape=False))
        return
    for entity_id in sorted(olds.keys() | news.keys()):
        inner = f"{path}[{entity_id}]"
        if entity_id in olds and entity_id in news:
            _walk(olds[entity_id], news[entity_id], inner, found, sets, free=free)
        else:
            found.append(Difference(inner, of_shape=False))


def _by_id(value: Json) -> dict[str, Json] | None:
    """An array's elements by their ids; None unless each has an id of its own."""
    if not isinstance(value, list):
        return None
    by_id: dict[str, Json] = {}
    for item in value:
        if not isinstance(item, dict) or not (found := usable_uuid(item.get("id"))):
            return None
        by_id[str(found)] = item
    return by_id if len(by_id) == len(value) else None


def _reordered(olds: dict[str, Json], news: dict[str, Json]) -> bool:
    """Whether the elements that both have stand in another order."""
    return [key for key in olds if key in news] != [key for key in news if key in olds]
