"""Document versions in Postgres: writes what was folded, where it differs.

What merely confirms a version moves its `last_observed_at`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from etl.store.observations import add_observations
from etl.store.recordset import as_row, encode_rows, insert_all, update
from etl.tables import document_versions

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from etl.store.folding import Folded
    from etl.store.observations import Observations

_CONFIRM = text("""
    UPDATE document_versions AS v
       SET last_observed_at = greatest(v.last_observed_at, k.observed_at),
           source_updated_at = least(v.source_updated_at, k.source_updated_at)
      FROM (SELECT i.kind, i.entity_id, v.version, max(i.observed_at) AS observed_at,
                   min(i.source_updated_at) AS source_updated_at
              FROM json_to_recordset(CAST(:rows AS json))
                   AS i(kind text, entity_id uuid, observed_at timestamptz, content_hash bytea,
                        source_updated_at timestamptz)
              JOIN document_versions AS v USING (kind, entity_id, content_hash)
             WHERE v.valid_from <= i.observed_at
               AND (v.valid_to IS NULL OR v.valid_to > i.observed_at)
             GROUP BY i.kind, i.entity_id, v.version) AS k
     WHERE v.kind = k.kind AND v.entity_id = k.entity_id AND v.version = k.version
""")

_FORGET = text("""
    DELETE FROM document_versions AS v
     USING json_to_recordset(CAST(:rows AS json)) AS k(kind text, entity_id uuid)
     WHERE v.kind = k.kind AND v.entity_id = k.entity_id
""")


def write(connection: Connection, folded: Folded) -> None:
    """Stores the observations and makes the chains say what was folded.

    The documents that they refer to are stored already.
    """
    add_observations(connection, folded.confirmed)
    add_observations(connection, folded.new)
    _write_chains(connection, folded)
    # After the chains, whose heads were read before.
    _confirm(connection, folded.confirmed)


def _confirm(connection: Connection, found: Observations) -> None:
    """Moves `last_observed_at` of the versions that these observations fall into and repeat."""
    rows = [
        {
            "kind": kind,
            "entity_id": entity_id,
            "observed_at": observation.observed_at,
            "content_hash": observation.content_hash,
            "source_updated_at": observation.source_updated_at,
        }
        for (kind, entity_id), group in found.items()
        for observation in group
    ]
    if rows:
        connection.execute(_CONFIRM, {"rows": encode_rows(rows)})


def _write_chains(connection: Connection, folded: Folded) -> None:
    """Closes or confirms heads, then inserts what was opened; a rebuilt chain is replaced."""
    confirmed = [
        {
            "kind": key[0],
            "entity_id": key[1],
            "version": chain[0].version,
            "valid_to": chain[0].valid_to,
            "last_observed_at": chain[0].last_observed_at,
            "source_updated_at": chain[0].source_updated_at,
        }
        for key, chain in folded.chains.items()
        if folded.known[key].version is not None
    ]
    update(connection, document_versions, confirmed, on=("kind", "entity_id", "version"))
    if folded.rebuilt:
        gone = encode_rows({"kind": kind, "entity_id": id_} for kind, id_ in folded.rebuilt)
        connection.execute(_FORGET, {"rows": gone})
    rows = [
        {
            "kind": step.key[0],
            "entity_id": step.key[1],
            **as_row(step.version),
            **as_row(step.change),
        }
        for step in folded.steps
    ]
    insert_all(connection, document_versions, rows)
