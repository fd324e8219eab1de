"""Beginnings that are not kept, of what a forgotten persona had shared with others.

The row of such a beginning says what came after it, and that may have been the forgotten one's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.store.chains import documents_in_order
from etl.store.recordset import encode_rows
from etl.store.untold import paths_within
from etl.tables import UUID_

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.tables import Kind

_IDS = bindparam("ids", type_=ARRAY(UUID_))

_TOLD = text("""
    SELECT p.entity_id, p.next_changed_paths AS paths,
           ARRAY(SELECT DISTINCT content_hash FROM observations AS o
                  WHERE o.kind = p.kind AND o.entity_id = p.entity_id
                    AND content_hash IS NOT NULL) AS contents
      FROM pruned_history AS p
     WHERE p.kind = :kind AND p.entity_id = ANY(:ids) AND p.next_changed_paths <> '{}'
     ORDER BY p.entity_id
""").bindparams(_IDS)

_TELL_LESS = text("""
    UPDATE pruned_history AS p
       SET next_changed_paths = k.paths
      FROM json_to_recordset(CAST(:rows AS json)) AS k(entity_id uuid, paths text[])
     WHERE p.kind = :kind AND p.entity_id = k.entity_id
""")

_RETELL = text("""
    UPDATE pruned_history AS p
       SET valid_to = v.valid_from, next_content_hash = v.content_hash,
           next_change = 'updated', next_changed_paths = '{}'
      FROM document_versions AS v
     WHERE p.kind = :kind AND p.entity_id = ANY(:ids)
       AND v.kind = p.kind AND v.entity_id = p.entity_id AND v.version = p.version + 1
       AND v.valid_from >= p.valid_to
       AND (v.valid_from, v.content_hash) IS DISTINCT FROM (p.valid_to, p.next_content_hash)
""").bindparams(_IDS)

_DELETE_BARE = text("""
    DELETE FROM pruned_history AS p
     WHERE p.kind = :kind AND p.entity_id = ANY(:ids)
       AND NOT EXISTS (
           SELECT FROM document_versions AS v
            WHERE v.kind = p.kind AND v.entity_id = p.entity_id AND v.change = 'pruned')
""").bindparams(_IDS)


def cut_paths(connection: Connection, kind: Kind, ids: Sequence[UUID]) -> None:
    """Leaves of where these changed then only what documents show that others brought.

    What was before is not kept: a field that went may have been the forgotten one's alone. It comes
    when its observations are gone, and before the others' are folded.
    """
    rows = []
    for entity_id, paths, contents in connection.execute(_TOLD, {"kind": kind, "ids": list(ids)}):
        untold = set(paths)
        for stored in documents_in_order(connection, kind, contents):
            if not untold:
                break
            if stored is not None:
                untold -= set(paths_within(stored.document))
        if untold:
            left = [path for path in paths if path not in untold]
            rows.append({"entity_id": entity_id, "paths": left})
    if rows:
        connection.execute(_TELL_LESS, {"kind": kind, "rows": encode_rows(rows)})


def retell_beginnings(connection: Connection, kind: Kind, ids: Sequence[UUID]) -> None:
    """Says of these what comes after their beginnings, now that they are folded anew.

    Where nothing of what was kept is left, nothing is known of a beginning either.
    """
    asked = {"kind": kind, "ids": list(ids)}
    connection.execute(_RETELL, asked)
    connection.execute(_DELETE_BARE, asked)
