"""How a place in a document is written: `shareLinks[<id>].usageLimit`, `brain.systemPrompt`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from etl.payload.decode import Json, Location

_PLAIN_KEY = re.compile(r"[A-Za-z_$][\w$-]*", re.ASCII)
UUID_FORM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)

# Paths stand in keys of tables, and a payload may nest deep or have keys of any length.
_MAX_PATH_LENGTH = 400


def usable_uuid(value: Json) -> UUID | None:
    """The uuid that a string is in its usual form, in either case; None for anything else."""
    # Only what is as long as a uuid is worth a place in the cache.
    return _uuid(value) if isinstance(value, str) and len(value) == 36 else None  # noqa: PLR2004  of a uuid


@lru_cache(maxsize=16_384)
def _uuid(text: str) -> UUID | None:
    """Cached, since a shared document's id comes with each persona that uses it, several times."""
    return UUID(text) if UUID_FORM.fullmatch(text) else None


def member(path: str, key: str) -> str:
    """The path of an object's member. A key that would read as a path is quoted."""
    if not _PLAIN_KEY.fullmatch(key):
        quoted = key.replace("\\", "\\\\").replace('"', '\\"')
        return f'{path}["{quoted}"]'
    return f"{path}.{key}" if path else key


def any_member(path: str) -> str:
    """The path of an object's members whose keys are data rather than names."""
    return f"{path}.*" if path else "*"


def element(path: str, value: Json, index: int) -> str:
    """The path of an array's element: by its id when it has one, else by its place."""
    if isinstance(value, dict) and (found := usable_uuid(value.get("id"))):
        return f"{path}[{found}]"
    return f"{path}[{index}]"


def path_of(document: Json, location: Location) -> str:
    """The path of a location; a step that leads nowhere is written all the same.

    A path too long for a key of a table ends in an ellipsis.
    """
    path, value = "", document
    for step in location:
        if isinstance(step, int):
            inner = value[step] if isinstance(value, list) and step < len(value) else None
            path = element(path, inner, step)
        else:
            inner = value.get(step) if isinstance(value, dict) else None
            path = member(path, step)
        value = inner
    return path if len(path) <= _MAX_PATH_LENGTH else path[: _MAX_PATH_LENGTH - 1] + "…"
