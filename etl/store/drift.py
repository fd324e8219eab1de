"""Where the API and the map differ: counted by path, said once when new."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from etl.store.recordset import encode_rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection

    from etl.flatten import Flat
    from etl.tables import Kind

# A payload with keys that are data would otherwise fill the table.
MAX_PATHS_A_KIND = 500

_KNOWN = text("SELECT kind, path FROM drift_paths WHERE problem = 'unknown'")

_COUNT = text("""
    INSERT INTO drift_paths AS d
           (kind, path, problem, json_types, first_seen_at, last_seen_at, occurrences, status)
    SELECT kind, path, 'unknown', json_types, seen_at, seen_at, occurrences, 'open'
      FROM json_to_recordset(CAST(:rows AS json))
           AS k(kind text, path text, json_types text[], seen_at timestamptz, occurrences bigint)
     ORDER BY kind, path
        ON CONFLICT (kind, path, problem) DO UPDATE
       SET json_types = ARRAY(SELECT DISTINCT t
                                FROM unnest(d.json_types || excluded.json_types) AS t ORDER BY t),
           first_seen_at = least(d.first_seen_at, excluded.first_seen_at),
           last_seen_at = greatest(d.last_seen_at, excluded.last_seen_at),
           occurrences = d.occurrences + excluded.occurrences
""")


def record_unknown(
    connection: Connection, found: Iterable[tuple[Kind, Flat]], seen_at: datetime
) -> list[str]:
    """Counts the paths that the map does not know. Returns those met for the first time."""
    counted: dict[tuple[Kind, str], list[str]] = {}
    for kind, flat in found:
        for path, json_type in flat.unknown:
            counted.setdefault((kind, path), []).append(json_type)
    if not counted:
        return []
    known = {(row.kind, row.path) for row in connection.execute(_KNOWN)}
    room = {kind: MAX_PATHS_A_KIND for kind, _ in counted}
    for kind, _ in known:
        room[kind] = room.get(kind, MAX_PATHS_A_KIND) - 1
    rows, new = [], []
    for (kind, path), json_types in sorted(counted.items()):
        if (kind, path) not in known:
            if room[kind] <= 0:
                continue
            room[kind] -= 1
            new.append(f"{kind}: {path}")
        rows.append(
            {
                "kind": kind,
                "path": path,
                "json_types": sorted(set(json_types)),
                "seen_at": seen_at,
                "occurrences": len(json_types),
            }
        )
    connection.execute(_COUNT, {"rows": encode_rows(rows)})
    return new
