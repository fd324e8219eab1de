"""Whether a field that is new is one that vanished, under another name."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from etl.map import home, steps
from etl.proposal.model import Rename
from etl.store.jsonpaths import of_the_map
from etl.store.recordset import encode_rows
from etl.tables import source

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection

    from etl.map import Map
    from etl.tables import Kind

# Of a hundred values that went as others came, at most ten may have been edited at once.
_PERCENT_EQUAL = 90

# A few flags, counters and what is empty are the same by chance: then the names must be alike too.
_EQUAL_BY_NO_CHANCE = 6
_ALIKE = 0.5

# An object as it was, and the same as it is: the document itself, or the element of that id.
_DOCUMENT = "{document}"
_ELEMENT = """(
    SELECT item FROM jsonb_array_elements(
           CASE jsonb_typeof({document} #> CAST(:array AS text[]))
                WHEN 'array' THEN {document} #> CAST(:array AS text[]) ELSE '[]' END) AS _ (item)
     WHERE lower(item ->> 'id') = substring(appeared.path FROM '\\[([0-9a-f-]{{36}})\\]')
     LIMIT 1)"""

# Documents are read only of versions with which the field came and one of the others changed; each
# is unpacked once, and OFFSET keeps the planner from doing that again at each mention. Of the
# thousands of share links that a persona can have twenty speak for the rest.
_COUNTED = """
    SELECT gone.place,
           count(*) AS seen,
           count(*) FILTER (WHERE gone.was = came.now) AS equal,
           count(DISTINCT jsonb_hash_extended(gone.was, 0))
               FILTER (WHERE gone.was = came.now AND gone.was <> 'null') AS different,
           count(*) FILTER (WHERE gone.was = came.now AND gone.was NOT IN (
               'null', 'true', 'false', '0', '1', '""', '[]', '{{}}')) AS telling
      FROM document_versions AS version
     CROSS JOIN LATERAL (
           SELECT appeared.path
             FROM unnest(version.changed_paths) AS appeared (path)
            WHERE {appeared} = :path
            LIMIT 20) AS appeared
     CROSS JOIN LATERAL (
           SELECT array_agg({other}) AS paths
             FROM unnest(version.changed_paths) AS other (path)) AS changed
      JOIN document_versions AS before
        ON before.kind = version.kind AND before.entity_id = version.entity_id
       AND before.version = version.version - CASE version.change WHEN 'restored' THEN 2 ELSE 1 END
      JOIN documents AS older
        ON older.kind = before.kind AND older.content_hash = before.content_hash
      JOIN documents AS newer
        ON newer.kind = version.kind AND newer.content_hash = version.content_hash
     CROSS JOIN LATERAL (
           SELECT {older} || '{{}}' AS older, {newer} || '{{}}' AS newer OFFSET 0) AS pair
     CROSS JOIN LATERAL (SELECT pair.newer #> CAST(:keys AS text[]) AS now OFFSET 0) AS came
     CROSS JOIN LATERAL (
           SELECT c.place, pair.older #> c.keys AS was
             FROM json_to_recordset(CAST(:rows AS json))
                  AS c (place integer, path text, keys text[])
            WHERE c.path = ANY (changed.paths) AND pair.newer #> c.keys IS NULL
           OFFSET 0) AS gone
     WHERE version.kind = :kind
       AND changed.paths && CAST(:others AS text[])
       AND pair.older #> CAST(:keys AS text[]) IS NULL
       AND came.now IS NOT NULL
       AND gone.was IS NOT NULL
     GROUP BY gone.place
"""


def renamed(connection: Connection, kind: Kind, path: str, the_map: Map) -> Rename | None:
    """The mapped field that vanished as this one came, with the same values; None: there is none.

    It may have stood in another object of the document. Of several the one with most equal values
    is told, then that with most different ones, which coincide the least; then names are compared.
    """
    path = path.removesuffix("[]")
    array, paths = _vanishing(kind, path, the_map)
    if not paths:
        return None
    inside = _ELEMENT if array else _DOCUMENT
    statement = text(
        _COUNTED.format(
            older=inside.format(document="older.document"),
            newer=inside.format(document="newer.document"),
            appeared=of_the_map("appeared.path"),
            other=of_the_map("other.path"),
        )
    )
    counted = connection.execute(
        statement,
        {
            "kind": kind,
            "path": path,
            "keys": _keys(path, array),
            "array": _keys(array.removesuffix("[]"), ""),
            "others": [vanished for vanished, _ in paths],
            "rows": encode_rows(
                {"place": place, "path": vanished, "keys": _keys(vanished, array)}
                for place, (vanished, _) in enumerate(paths)
            ),
        },
    )
    found = []
    for place, seen, equal, different, telling in counted:
        vanished, column = paths[place]
        alike = likeness(vanished, path)
        is_told = different and (telling or equal >= _EQUAL_BY_NO_CHANCE or alike >= _ALIKE)
        if is_told and equal * 100 >= seen * _PERCENT_EQUAL:
            rename = Rename(vanished, column.table.name, column.name, seen, equal)
            found.append(((equal, different, alike), rename))
    return max(found, key=lambda one: one[0])[1] if found else None


def likeness(vanished: str, path: str) -> float:
    """How much alike two names are, up to 1."""
    return SequenceMatcher(None, vanished.lower(), path.lower()).ratio()


def _vanishing(kind: Kind, path: str, the_map: Map) -> tuple[str, list[tuple[str, Column[Any]]]]:
    """The array in whose elements a path leads, if any, and the mapped paths that do so too."""
    around = the_map.origin(the_map.tables[home(kind, path)])
    array = around.path if around.shape == "elements" else ""
    found = []
    for column in (c for table in the_map.projections(kind) for c in table.columns):
        mapped, filled = the_map.path(column), source(column)
        # What tells rows apart is no field that could be renamed; what is observed is not stored.
        if not mapped or not filled or filled.observed or filled.path == "id":
            continue
        vanishing = mapped.removesuffix("[]")
        place = steps(vanishing)
        is_within = place[: len(steps(array))] == steps(array)
        if vanishing != path and is_within and None not in place[len(steps(array)) :]:
            found.append((vanishing, column))
    return array, found


def _keys(path: str, array: str) -> list[str]:
    """The keys that lead from an element of an array, or from the document, to a field."""
    return [key for key in steps(path)[len(steps(array)) :] if key is not None]
