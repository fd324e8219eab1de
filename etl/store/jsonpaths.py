"""The paths of the map as Postgres's jsonpath: what stands there, and what lacks there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from etl.map import steps

if TYPE_CHECKING:
    from collections.abc import Sequence


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
