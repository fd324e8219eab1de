"""Where the API and the map differ: counted by path, said once when new."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from etl.store.recordset import encode_rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection

    from etl.flatten import Flat
    from etl.store.ahead import Ahead
    from etl.store.recordset import Row
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


@dataclass(frozen=True, slots=True)
class Unknown:
    """Paths that the map does not know, to be counted: not yet written."""

    rows: list[Row]
    new: list[tuple[Kind, str]]
    """Those met for the first time."""

    @property
    def names(self) -> list[str]:
        """The new ones, as people are told of them."""
        return [f"{kind}: {path}" for kind, path in self.new]


def unknown_paths(
    connection: Connection,
    found: Iterable[tuple[Kind, Flat]],
    seen_at: datetime,
    ahead: Ahead,
) -> Unknown:
    """Counts the paths that the map does not know. Writes nothing."""
    counted: dict[tuple[Kind, str], list[str]] = {}
    for kind, flat in found:
        for path, json_type in flat.unknown:
            counted.setdefault((kind, path), []).append(json_type)
    if not counted:
        return Unknown([], [])
    known = {(row.kind, row.path) for row in connection.execute(_KNOWN)} | ahead.drift_paths
    taken = Counter(kind for kind, _ in known)
    rows: list[Row] = []
    new: list[tuple[Kind, str]] = []
    for (kind, path), json_types in sorted(counted.items()):
        if (kind, path) not in known:
            if taken[kind] >= MAX_PATHS_A_KIND:
                continue
            taken[kind] += 1
            new.append((kind, path))
        rows.append(
            {
                "kind": kind,
                "path": path,
                "json_types": sorted(set(json_types)),
                "seen_at": seen_at,
                "occurrences": len(json_types),
            }
        )
    return Unknown(rows, new)


def record_unknown(connection: Connection, unknown: Unknown) -> None:
    """Enters what was counted."""
    if unknown.rows:
        connection.execute(_COUNT, {"rows": encode_rows(unknown.rows)})
