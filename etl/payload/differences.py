"""In which paths two documents of one kind differ, and whether only the API's shape moved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Final

from etl.payload.canonical import same, with_sorted_sets
from etl.payload.paths import member, usable_uuid
from etl.tables import set_paths

if TYPE_CHECKING:
    from etl.payload.decode import Json, JsonObject
    from etl.tables import Kind

# What a person fills in freely: a member that comes or goes there is an edit.
_FREE = re.compile(r"config|widgetConfig|voice.*Options", re.DOTALL)


class Absence(Enum):
    """What stands for a value that is not there, as JSON's null is one."""

    ABSENT = "absent"


ABSENT: Final = Absence.ABSENT


@dataclass(frozen=True, slots=True)
class Difference:
    """One path in which two documents differ, and what stands there in each."""

    path: str
    old: Json | Absence
    new: Json | Absence
    of_shape: bool
    """A member is present in one and absent in the other, outside of what people fill in."""


def differences(kind: Kind, old: JsonObject, new: JsonObject) -> list[Difference]:
    """The differences in the order of their paths. Arrays that are sets compare as sets."""
    # Most members are as they were. What is the same unsorted is so sorted: spared is the sorting.
    alike = {key for key in old.keys() & new.keys() if same(old[key], new[key])}
    olds, news = ({k: v for k, v in found.items() if k not in alike} for found in (old, new))
    comparison = _Comparison(_sets(kind))
    comparison.walk(with_sorted_sets(kind, olds), with_sorted_sets(kind, news), _Place("", ""))
    return comparison.found


def is_reshaped(found: list[Difference]) -> bool:
    """Whether every difference is of shape: the API moved, not the entity."""
    return bool(found) and all(difference.of_shape for difference in found)


@cache
def _sets(kind: Kind) -> frozenset[str]:
    return frozenset(set_paths(kind))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the documents a value stands."""

    path: str
    pattern: str
    """The path with `[]` for any element, as `set_paths` writes it."""
    free: bool = False
    """Below what people fill in."""

    def member(self, key: str, *, free: bool) -> _Place:
        return _Place(member(self.path, key), member(self.pattern, key), free)

    def element(self, entity_id: str) -> _Place:
        return _Place(f"{self.path}[{entity_id}]", f"{self.pattern}[]", self.free)


class _Comparison:
    """The differences found so far."""

    def __init__(self, sets: frozenset[str]) -> None:
        self.sets = sets
        self.found: list[Difference] = []

    def walk(self, old: Json, new: Json, here: _Place) -> None:
        if isinstance(old, dict) and isinstance(new, dict):
            for key in sorted(old.keys() | new.keys()):
                if key in old and key in new:
                    if same(old[key], new[key]):
                        continue
                    free = here.free or bool(_FREE.fullmatch(key))
                    self.walk(old[key], new[key], here.member(key, free=free))
                else:
                    inner = here.member(key, free=here.free)
                    pair = old.get(key, ABSENT), new.get(key, ABSENT)
                    self._add(inner, *pair, of_shape=not here.free)
            return
        olds, news = _by_id(old), _by_id(new)
        if (
            olds is None
            or news is None
            or (here.pattern not in self.sets and _reordered(olds, news))
        ):
            if not same(old, new):
                self._add(here, old, new)
            return
        for entity_id in sorted(olds.keys() | news.keys()):
            inner = here.element(entity_id)
            if entity_id in olds and entity_id in news:
                self.walk(olds[entity_id], news[entity_id], inner)
            else:
                self._add(inner, olds.get(entity_id, ABSENT), news.get(entity_id, ABSENT))

    def _add(
        self, here: _Place, old: Json | Absence, new: Json | Absence, *, of_shape: bool = False
    ) -> None:
        self.found.append(Difference(here.path, old, new, of_shape))


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
