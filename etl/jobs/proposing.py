"""What each field that drifted could become: a column, the table of a list, or why neither.

Reads all stored documents of the kinds in question. Writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Double, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from etl.map import TYPES, steps
from etl.proposal.comments import comment_on
from etl.proposal.inference import infer
from etl.proposal.model import Proposal, Refusal
from etl.proposal.naming import UnnameableError, name_line, place
from etl.store.mapped import map_of
from etl.store.renames import likeness, renamed
from etl.store.stored_values import stored_values
from etl.tables import is_observed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Column, Connection

    from etl.map import Line, Map
    from etl.proposal.inference import Inferred
    from etl.proposal.model import Drift

_NAMES_THERE = text("""
    SELECT relation.relname, attribute.attname
      FROM pg_class AS relation
      JOIN pg_class AS ours ON ours.oid = CAST('personas' AS regclass)
      LEFT JOIN pg_attribute AS attribute
        ON attribute.attrelid = relation.oid AND attribute.attnum > 0
       AND NOT attribute.attisdropped
     WHERE relation.relnamespace = ours.relnamespace
""")


def propose(
    connection: Connection,
    found: Sequence[Drift],
    *,
    name: str | None = None,
    pending: Sequence[Line] = (),
) -> list[Proposal | Refusal]:
    """What each could become, in the same order. No two lines have a name in common.

    Args:
        connection: At the target, with the map that is in force there.
        found: Where the API and the map differ.
        name: What to call the column, of a list the table: for one field alone.
        pending: Lines that are proposed already and not in the map yet.
    """
    made: list[Proposal | Refusal] = []
    there = _names_there(connection)
    for drift in found:
        lines = [*pending, *(one.line for one in made if isinstance(one, Proposal))]
        asked = _Asked(connection, map_of(connection), name, lines, there)
        try:
            made.append(_proposed(drift, asked))
        except (_NothingToProposeError, UnnameableError) as nothing:
            is_waiting = isinstance(nothing, _WaitingError)
            made.append(Refusal(drift, str(nothing), is_waiting))
    return [one if isinstance(one, Refusal) else _once(one, made) for one in made]


def _once(proposal: Proposal, made: Sequence[Proposal | Refusal]) -> Proposal:
    """A field was renamed once: of several new ones with its values the likeliest is told so."""

    def alike(one: Proposal) -> tuple[int, float]:
        return (
            (one.renamed.equal, likeness(one.renamed.path, one.drift.path))
            if one.renamed
            else (0, 0)
        )

    rivals = [
        one
        for one in made
        if isinstance(one, Proposal) and one.renamed and proposal.renamed
        if (one.drift.kind, one.renamed.path) == (proposal.drift.kind, proposal.renamed.path)
    ]
    if not rivals or max(rivals, key=alike) is proposal:
        return proposal
    line = replace(proposal.line, comment=comment_on(proposal.drift))
    return replace(proposal, line=line, renamed=None)


def _names_there(connection: Connection) -> frozenset[tuple[str, str]]:
    found = connection.execute(_NAMES_THERE)
    return frozenset((table, column) for table, column in found)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a proposal is made out of, besides its drift."""

    connection: Connection
    the_map: Map
    name: str | None
    lines: Sequence[Line]
    there: frozenset[tuple[str, str]]
    """Tables and columns of the schema, whoever made them."""


class _NothingToProposeError(Exception):
    """Why a field gets no column."""


class _WaitingError(_NothingToProposeError):
    """It gets one as soon as a revision is run that is there already."""


def _proposed(drift: Drift, asked: _Asked) -> Proposal:
    columns = _columns_at(asked.the_map, drift)
    named = " and ".join(f"{column.table.name}.{column.name}" for column in columns) or "its table"
    match drift.problem:
        case "missing":
            raise _NothingToProposeError(f"{named} stays, with all of its past; nothing is dropped")
        case "new_value":
            raise _NothingToProposeError(f"{named} takes it as it is{_unless_fine(drift)}")
        case "unknown" if columns:
            raise _NothingToProposeError(f"{named} has it; `persona-etl backfill replay` fills it")
    path = _plain(drift.path)
    if any((line.kind, _plain(line.path)) == (drift.kind, path) for line in asked.lines):
        raise _WaitingError("proposed already, in a revision that waits for `persona-etl migrate`")
    return _new(drift, asked) if drift.problem == "unknown" else _retyped(drift, columns, asked)


def _new(drift: Drift, asked: _Asked) -> Proposal:
    """A column or a list for a field that the map does not know."""
    path = _plain(drift.path)
    place(drift.kind, path)
    inferred = _inferred(drift, asked)
    rename = renamed(asked.connection, drift.kind, path, asked.the_map)
    comment = comment_on(drift, rename=rename)
    line = name_line(
        drift.kind,
        path,
        inferred,
        comment,
        asked.the_map,
        name=asked.name,
        taken=asked.lines,
        there=asked.there,
    )
    return Proposal(drift, line, inferred.values, rename)


def _retyped(drift: Drift, columns: Sequence[Column[Any]], asked: _Asked) -> Proposal:
    """A second column beside the first, which stays as it is, for all that ever came."""
    columns = [column for column in columns if _may_be_joined(column, asked.the_map)]
    if not columns:
        raise _NothingToProposeError(
            "rows are made of it, which only a release can change; its values stay in the documents"
        )
    if any(map(is_observed, columns)):
        raise _NothingToProposeError("what is observed alone is stored nowhere; a release can say")
    inferred = _inferred(drift, asked)
    are_lists = [_is_list(column, asked.the_map) for column in columns]
    if inferred.is_list and not any(are_lists):
        inferred = replace(inferred, type="jsonb", is_list=False, json_types=("array",))
    for column, is_list in zip(columns, are_lists, strict=True):
        if is_list == inferred.is_list and _holds(column, inferred):
            raise _NothingToProposeError(
                f"{column.table.name}.{column.name} takes all that came{_unless_fine(drift)}"
            )
    first = str(steps(_plain(drift.path))[-1]) if are_lists[0] else columns[0].name
    line = name_line(
        drift.kind,
        drift.path,
        inferred,
        comment_on(drift, as_type=inferred.type),
        asked.the_map,
        name=asked.name,
        taken=asked.lines,
        there=asked.there,
        beside=first,
    )
    return Proposal(drift, line, inferred.values, beside=first)


def _inferred(drift: Drift, asked: _Asked) -> Inferred:
    found = infer(stored_values(asked.connection, drift.kind, _plain(drift.path)))
    if found is None:
        raise _NothingToProposeError("only null so far, or empty; it waits for a value")
    return found


def _columns_at(the_map: Map, drift: Drift) -> list[Column[Any]]:
    """The columns that are filled from a field or, of an array, from its elements."""
    path = _plain(drift.path)
    return [c for at in (path, f"{path}[]") for c in the_map.columns_at(drift.kind, at)]


def _may_be_joined(column: Column[Any], the_map: Map) -> bool:
    """Whether it has but a value, and another can stand beside it: it tells no rows apart."""
    shape = the_map.origin(column.table).shape
    return shape in {"entity", "part", "elements", "list"} and not column.primary_key


def _is_list(column: Column[Any], the_map: Map) -> bool:
    return the_map.origin(column.table).shape == "list"


def _holds(column: Column[Any], inferred: Inferred) -> bool:
    """Whether a column takes all values of this type as they are."""
    match column.type:
        case JSONB():
            return True
        case Text():
            return inferred.type != "jsonb"
        case Double():
            return inferred.type in {"bigint", "double precision"}
        case _:
            return isinstance(column.type, type(TYPES[inferred.type]))


def _unless_fine(drift: Drift) -> str:
    """What to do about it, where nobody has done so."""
    return "" if drift.status == "accepted" else "; accept it if that is fine"


def _plain(path: str) -> str:
    """The path of an array rather than that of its elements."""
    return path.removesuffix("[]")
