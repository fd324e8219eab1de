"""How the API's shape can move: members added to, taken out of and renamed in every persona. Pure.

A path is the API's names with dots between them, as in `avatar.mood`. It goes through arrays, into
each element: `tools.config.retries`. Where there is nothing to go through, nothing is done.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


class Reshape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done to every persona, in this order. To be given to `World.reshape`.

    Attributes:
        rename: path to new name; the value and the place stay.
        remove: paths.
        add: path to value; one that is there is replaced.
    """

    rename: dict[str, str] = msgspec.field(default_factory=dict)
    remove: list[str] = msgspec.field(default_factory=list)
    add: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for a path or a name that is none."""
        for path in (*self.rename, *self.remove, *self.add):
            if "" in path.split("."):
                raise ValueError(f'"{path}" is no path; write one such as voiceSpeed or brain.mood')

    def __call__(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The payload in the new shape; it is edited on the way."""
        for path, name in self.rename.items():
            for parent, key in _places(payload, path):
                members = list(parent.items())
                parent.clear()
                parent.update((name if old == key else old, value) for old, value in members)
        for path in self.remove:
            for parent, key in _places(payload, path):
                parent.pop(key, None)
        for path, value in self.add.items():
            for parent, key in _places(payload, path):
                parent[key] = deepcopy(value)
        return payload


def _places(value: Any, path: str) -> Iterator[tuple[dict[str, Any], str]]:  # noqa: ANN401  any JSON
    """Every object in which the path's last name stands or could stand, with that name."""
    if isinstance(value, list):
        for element in value:
            yield from _places(element, path)
    elif isinstance(value, dict):
        name, dot, rest = path.partition(".")
        if dot:
            yield from _places(value.get(name), rest)
        else:
            yield value, name
