"""How a place in a document is written: `shareLinks[<id>].usageLimit`, `brain.systemPrompt`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from etl.payload.decode import Json, Location

_PLAIN_KEY = re.compile(r"[A-Za-z_$][\w$-]*", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def usable_uuid(value: Json) -> UUID | None:
    """The uuid that a string is in its usual form, in either case; None for anything else."""
    if isinstance(value, str) and _UUID.fullmatch(value):
        return UUID(value)
    return None


def member(path: str, key: str) -> str:
    """The path of an object's member. A key that would read as a path is quoted."""
    if not _PLAIN_KEY.fullmatch(key):
        quoted = key.replace("\\", "\\\\").replace('"', '\\"')
        return f'{path}["{quoted}"]'
    return f"{path}.{key}" if path else key


def element(path: str, value: Json, index: int) -> str:
    """The path of an array's element: by its id when it has one, else by its place."""
    if isinstance(value, dict) and (found := usable_uuid(value.get("id"))):
        return f"{path}[{found}]"
    return f"{path}[{index}]"


def path_of(document: Json, location: Location) -> str:
    """The path of a location; a step that leads nowhere is written all the same."""
    path, value = "", document
    for step in location:
        if isinstance(step, int):
            inner = value[step] if isinstance(value, list) and step < len(value) else None
            path = element(path, inner, step)
        else:
            inner = value.get(step) if isinstance(value, dict) else None
            path = member(path, step)
        value = inner
    return path
