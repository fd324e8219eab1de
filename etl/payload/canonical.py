"""The canonical form of a document, its hash, and the order of arrays that are sets.

Canonical JSON has sorted keys, no white space, equal numbers printed equally (`decode` gives them
one normal form), and the arrays whose order means nothing sorted.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from etl.tables import SHARED, set_paths

if TYPE_CHECKING:
    from etl.payload.decode import Json, JsonObject
    from etl.tables import Kind

_encoder = msgspec.json.Encoder(order="sorted", decimal_format="number")


def canonical(value: Json) -> bytes:
    """Canonical JSON of a value, arrays in their own order."""
    return _encoder.encode(value)


def same(one: Json, other: Json) -> bool:
    """Whether two values are equal as JSON: `==` takes True for 1."""
    return canonical(one) == canonical(other)


def content_hash(kind: Kind, document: JsonObject) -> bytes:
    """SHA-256 of the canonical document, 32 bytes."""
    return hashlib.sha256(canonical(with_sorted_sets(kind, document))).digest()


def with_sorted_sets(kind: Kind, document: JsonObject) -> JsonObject:
    """The document with the arrays that are sets in canonical order, copied."""
    copied = {**document}
    for steps in _set_steps(kind):
        if steps[0] in copied:
            copied[steps[0]] = _sorted_at(copied[steps[0]], steps[1:])
    return copied


@cache
def _set_steps(kind: Kind) -> list[list[str]]:
    """Paths to the set arrays as steps, inner ones first: outer ones sort by what is inside."""
    paths = [path.replace("[]", ".[]").split(".") for path in set_paths(kind)]
    if kind == "persona":
        # An embedded object that could not become a document of its own has its sets all the same.
        for name, shared in SHARED.items():
            for steps in _set_steps(shared):
                paths += [[name, *steps], [name, "[]", *steps]]
    return sorted(paths, key=len, reverse=True)


def _sorted_at(value: Json, steps: list[str]) -> Json:
    if not steps:
        return sorted(value, key=canonical) if isinstance(value, list) else value
    if steps[0] == "[]":
        if not isinstance(value, list):
            return value
        return [_sorted_at(element, steps[1:]) for element in value]
    if isinstance(value, dict) and steps[0] in value:
        return {**value, steps[0]: _sorted_at(value[steps[0]], steps[1:])}
    return value
