"""The paths of the map as Postgres knows them: what stands, lacks or changed there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from etl.map import steps

if TYPE_CHECKING:
    from collections.abc import Sequence


def of_the_map(changed: str) -> str:
    """SQL of the map's path for that of a change, which names the element: `shareLinks[].label`."""
    return rf"regexp_replace({changed}, '\[[0-9a-f-]{{36}}\]', '[]', 'g')"


def jsonpath(path: str) -> str:
    """What finds all that stands at a path; of an array that is filled from, the array itself."""
    return "$" + "".join(map(_accessor, steps(path.removesuffix("[]"))))


def jsonpath_of_lack(path: str) -> str:
    """What finds a document with an object that lacks the member that the path leads through.

    Where null stands or an empty array there is no such object: somebody emptied it, and nothing
    can be lacking in it.
    """
    return f"$ ? ({_lacks(steps(path.removesuffix('[]')))})"


def _lacks(path: Sequence[str | None]) -> str:
    member, *rest = path
    here = "@" + _accessor(member)
    lacks = f"!exists({here})"
    if rest and rest[0] is None:
        here, rest = here + "[*]", rest[1:]
    if rest:
        lacks += f' || exists({here} ? (@.type() == "object" && ({_lacks(rest)})))'
    return lacks


def _accessor(step: str | None) -> str:
    """A step as jsonpath writes it. Its texts are those of JavaScript, as JSON's are."""
    return "[*]" if step is None else f".{json.dumps(step, ensure_ascii=False)}"
