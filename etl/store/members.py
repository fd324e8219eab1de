"""Which values of a small set a target has met before: they are no news, documented or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Text, any_, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.flatten import MEMBER_CHARACTERS
from etl.store.jsonpaths import jsonpath
from etl.store.mapped import map_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from etl.tables import Kind

# Whoever meets a kind for the first time learns what there is. As long as no run that met it got to
# its end, it still is the first time. A run whose row is gone was one of long ago.
_IS_LEARNED = text("""
    SELECT EXISTS (SELECT FROM runs WHERE status IN ('succeeded', 'partial'))
       AND EXISTS (SELECT
                     FROM observations AS o
                     LEFT JOIN runs AS r USING (run_id)
                    WHERE o.kind = :kind
                      AND (r.run_id IS NULL OR r.status IN ('succeeded', 'partial')))
""")

_IN_DOCUMENTS = text("""
    SELECT DISTINCT left(found.value #>> '{}', :characters)
      FROM documents AS d
     CROSS JOIN LATERAL jsonb_path_query(d.document, CAST(:path AS jsonpath)) AS found(value)
     WHERE d.kind = :kind AND left(found.value #>> '{}', :characters) = ANY(:members)
""").bindparams(bindparam("members", type_=ARRAY(Text)))


def met_before(
    connection: Connection, kind: Kind, path: str, members: frozenset[str] | set[str]
) -> set[str]:
    """Which of these texts are no news: documents of earlier runs have them, or there are none.

    Only their beginnings are looked at, of `MEMBER_CHARACTERS`. The tables are asked first: the
    documents, of which there are many, only for what stands in no table, which is rarely anything.
    """
    if not connection.execute(_IS_LEARNED, {"kind": kind}).scalar_one():
        return set(members)
    known: set[str] = set()
    for column in map_of(connection).columns_at(kind, path):
        if not isinstance(column.type, Text):
            continue
        start = func.left(column, MEMBER_CHARACTERS)
        # One parameter, however many there are.
        wanted = start == any_(bindparam("members", sorted(members), type_=ARRAY(Text)))
        known |= set(connection.execute(select(start).where(wanted).distinct()).scalars())
    if unknown := members - known:
        asked = {
            "kind": kind,
            "path": jsonpath(path),
            "members": sorted(unknown),
            "characters": MEMBER_CHARACTERS,
        }
        known |= set(connection.execute(_IN_DOCUMENTS, asked).scalars())
    return known
