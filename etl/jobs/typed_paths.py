"""How a person names a path where the API and the map differ: as `drift` prints it."""

from __future__ import annotations

import difflib
import shlex
from typing import TYPE_CHECKING

from etl.errors import UsageError
from etl.report.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from etl.proposal.model import Drift
    from etl.tables import Kind

Place = tuple["Kind", str]

_NEAR = 3


def as_typed(drift: Drift) -> str:
    """How a path is named where its kind does not stand beside it."""
    return f"{drift.kind}:{escaped(drift.path)}"


def resolve(paths: Iterable[str], found: Sequence[Drift]) -> dict[Place, None]:
    """Which paths are meant: as `drift` prints them, with `kind:` before those of several kinds.

    Raises UsageError for one that is not there, or is there for several kinds.
    """
    return dict.fromkeys(_resolved(typed, found) for typed in paths)


def _resolved(typed: str, found: Sequence[Drift]) -> Place:
    exact = [drift for drift in found if typed == as_typed(drift)]
    # What has its column is seldom meant.
    alike = [drift for drift in found if typed == escaped(drift.path)]
    meant = exact or [drift for drift in alike if drift.status != "mapped"] or alike
    places = list(dict.fromkeys(drift.place for drift in meant))
    if len(places) == 1:
        return places[0]
    if places:
        which = ", ".join(dict.fromkeys(shlex.quote(as_typed(drift)) for drift in meant))
        raise UsageError(f"{escaped(typed)} is a path of several kinds; write one of {which}")
    names = dict.fromkeys(name for d in found for name in (escaped(d.path), as_typed(d)))
    near = difflib.get_close_matches(typed, names, n=_NEAR)
    hint = f"did you mean {', '.join(map(shlex.quote, near))}? " if near else ""
    raise UsageError(
        f"{escaped(typed)}: no path where the API and the map differ;"
        f" {hint}`persona-etl drift --all` lists them"
    )
