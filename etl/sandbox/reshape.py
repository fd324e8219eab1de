"""How the API's shape can move: what is done to the members of every persona. Pure.

A path is the API's names with dots between them, as in `avatar.mood`. It goes through arrays, into
each element: `tools.config.retries`. Where there is nothing to go through, nothing is done.
"""

from __future__ import annotations

import hashlib
import json
import re
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from etl.sandbox.rendering import LISTED_FIELDS, dump, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JSON_TYPES = ("string", "number", "object", "array")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,16})?")


class Reshape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is done to every persona, in this order. To be given to `World.reshape`.

    Attributes:
        rename: path to new name; the value and the place stay.
        remove: paths.
        retype: path to one of `JSON_TYPES`, as which the value comes from now on. What can't be
            turned without loss stays, such as null, or a text that spells no number.
        recode: path to new texts by the old ones; what is not among these stays.
        add: path to value; one that is there is replaced.
        choose: path to values, of which each object takes one. Which one hangs on the id of the
            object, or of the one around it: it is the same in every fetch and every persona.
        sign: paths of URLs; each fetch has them presigned anew, as an avatar's video.
    """

    rename: dict[str, str] = msgspec.field(default_factory=dict)
    remove: list[str] = msgspec.field(default_factory=list)
    retype: dict[str, str] = msgspec.field(default_factory=dict)
    recode: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    add: dict[str, Any] = msgspec.field(default_factory=dict)
    choose: dict[str, list[Any]] = msgspec.field(default_factory=dict)
    sign: list[str] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        """Raises ValueError for a path, a type or a choice that is none."""
        for order in self.__struct_fields__:
            for path in getattr(self, order):
                if "" in path.split("."):
                    example = "write one such as voiceSpeed or brain.mood"
                    raise ValueError(f'"{path}" is no path; {example}')
        for path, type_ in self.retype.items():
            if type_ not in JSON_TYPES:
                raise ValueError(f'retype: {path}: "{type_}" is none of {", ".join(JSON_TYPES)}')
        for path, values in self.choose.items():
            if not values:
                raise ValueError(f"choose: {path}: there is nothing to choose from; write values")

    def of_list(self) -> Reshape:
        """The same for the list, whose trimmed personas get no new members of their own."""

        def shown(orders: dict[str, Any]) -> dict[str, Any]:
            return {p: order for p, order in orders.items() if "." in p or p in LISTED_FIELDS}

        return msgspec.structs.replace(self, add=shown(self.add), choose=shown(self.choose))

    def __call__(self, payload: dict[str, Any], fetch: int = 0) -> dict[str, Any]:
        """The payload in the new shape; it is edited on the way.

        Signatures hang on the number of the fetch.
        """
        for path, name in self.rename.items():
            _rename(payload, path, name)
        for path in self.remove:
            for parent, key, _ in _members(payload, path):
                del parent[key]
        for path, type_ in self.retype.items():
            _edit(payload, path, partial(_retyped, type_=type_))
        for path, texts in self.recode.items():
            _edit(payload, path, partial(_recoded, texts=texts))
        for path, value in self.add.items():
            _fill(payload, path, [value])
        for path, values in self.choose.items():
            _fill(payload, path, values)
        for path in self.sign:
            _edit(payload, path, partial(signed, fetch=fetch))
        return payload


def _rename(payload: dict[str, Any], path: str, name: str) -> None:
    for parent, key, _ in _members(payload, path):
        members = list(parent.items())
        parent.clear()
        parent.update((name if old == key else old, value) for old, value in members)


def _edit(payload: dict[str, Any], path: str, edited: Callable[[Any], Any]) -> None:
    for parent, key, _ in _members(payload, path):
        parent[key] = edited(parent[key])


def _fill(payload: dict[str, Any], path: str, values: list[Any]) -> None:
    for parent, key, id_ in _places(payload, path):
        # Other paths choose otherwise, lest all fields go together.
        digest = hashlib.sha256(dump([path, id_])).digest()
        parent[key] = deepcopy(values[int.from_bytes(digest) % len(values)])


def _members(payload: dict[str, Any], path: str) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """The places at which there is a member."""
    return (place for place in _places(payload, path) if place[1] in place[0])


def _places(
    value: Any,  # noqa: ANN401  any JSON
    path: str,
    id_: Any = None,  # noqa: ANN401  any JSON
) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Every object in which the path's last name stands or could stand, that name, and an id.

    The id is the object's, or that of the nearest around it which has one.
    """
    if isinstance(value, list):
        for element in value:
            yield from _places(element, path, id_)
    elif isinstance(value, dict):
        id_ = value.get("id", id_)
        name, dot, rest = path.partition(".")
        if dot:
            yield from _places(value.get(name), rest, id_)
        else:
            yield value, name, id_


def _recoded(value: Any, texts: dict[str, str]) -> Any:  # noqa: ANN401  any JSON
    return texts.get(value, value) if isinstance(value, str) else value


def _retyped(value: Any, type_: str) -> Any:  # noqa: ANN401  any JSON
    """The value as another type of JSON, from which it could be had back; else the value."""
    match type_, value:
        case (_, None) | ("string", str()) | ("object", dict()) | ("array", list()):
            return value
        case "string", _:
            return dump(value).decode()
        case "object", _:
            return {"value": value}
        case "array", _:
            return [value]
        case _:
            return _number(value)


def _number(value: Any) -> Any:  # noqa: ANN401  any JSON
    """The number that a boolean or a text stands for, when it is written in this way only."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        number = json.loads(value)
        return number if dump(number).decode() == value else value
    return value
