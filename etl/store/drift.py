"""Where the API and the map differ: counted by path, told once when new, and what people decided.

What the API no longer sends is looked for at the end of a run: `store/vanished.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import text

from etl.payload.expected import expected
from etl.proposal.model import Drift, Key
from etl.store.mapped import map_of
from etl.store.members import met_before
from etl.store.recordset import encode_rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection

    from etl.flatten import Flat
    from etl.map import Map
    from etl.payload.expected import Expected
    from etl.proposal.model import Status
    from etl.store.ahead import Ahead
    from etl.store.recordset import Row
    from etl.tables import Kind

# A payload with keys that are data would otherwise fill the table.
MAX_PATHS_A_KIND = 500
# What has so many is no small set, and no further one is news.
MAX_NEW_MEMBERS = 20

_ALL = text("""
    SELECT kind, path, problem, json_types, first_seen_at, last_seen_at, occurrences, status,
           shapes, new_members
      FROM drift_paths
""")

# Whoever decides about a path meanwhile is not overruled: the status is read where it is set.
_COUNT = text("""
    INSERT INTO drift_paths AS d (kind, path, problem, json_types, shapes, new_members,
                                  first_seen_at, last_seen_at, occurrences, status)
    SELECT kind, path, problem, json_types, shapes, new_members,
           first_seen_at, last_seen_at, occurrences, 'open'
      FROM json_to_recordset(CAST(:rows AS json))
           AS k(kind text, path text, problem text, json_types text[], shapes text[],
                new_members text[], first_seen_at timestamptz, last_seen_at timestamptz,
                occurrences bigint)
     ORDER BY kind, path, problem
        ON CONFLICT (kind, path, problem) DO UPDATE
       SET json_types = ARRAY(SELECT DISTINCT t
                                FROM unnest(d.json_types || excluded.json_types) AS t ORDER BY t),
           shapes = ARRAY(SELECT DISTINCT s
                            FROM unnest(d.shapes || excluded.shapes) AS s ORDER BY s),
           new_members = d.new_members || excluded.new_members,
           first_seen_at = least(d.first_seen_at, excluded.first_seen_at),
           last_seen_at = greatest(d.last_seen_at, excluded.last_seen_at),
           occurrences = d.occurrences + excluded.occurrences,
           status = CASE WHEN d.status = 'mapped'
                           OR d.status = 'accepted' AND excluded.new_members <> '{}'
                         THEN 'open' ELSE d.status END
""")

_DECIDE = text("""
    UPDATE drift_paths AS d
       SET status = :status
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, path text)
     WHERE d.kind = k.kind AND d.path = k.path AND d.status NOT IN ('mapped', :status)
""")

_SET_STATUS = text("""
    UPDATE drift_paths AS d
       SET status = k.status
      FROM json_to_recordset(CAST(:rows AS json))
           AS k(kind text, path text, problem text, status text)
     WHERE d.kind = k.kind AND d.path = k.path AND d.problem = k.problem
""")


@dataclass(frozen=True, slots=True)
class Novelty:
    """A difference that people are told of, once."""

    key: Key
    details: tuple[str, ...] = ()
    """Of another type the types, or how it looks; of a new value the values."""

    def __str__(self) -> str:
        """As people read it: `voice: provider (new value: AZURE)`."""
        details = ", ".join(self.details)
        what = {
            "unknown": "new field",
            "missing": "no longer sent",
            "type_changed": f"other type: {details}",
            "new_value": f"new value: {details}",
        }
        return f"{self.key.kind}: {self.key.path} ({what[self.key.problem]})"


@dataclass(frozen=True, slots=True)
class Sightings:
    """Where documents differ from the map, to be counted: not yet written."""

    rows: list[Row]
    new: list[Novelty]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a path and problem so far."""

    status: Status
    members: frozenset[str] | set[str]


@dataclass(slots=True)
class _Count:
    """Of one path and problem, over the documents at hand."""

    json_types: set[str] = field(default_factory=set)
    shapes: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)
    occurrences: int = 0


def sightings(
    connection: Connection,
    found: Iterable[tuple[Kind, Flat]],
    seen_at: datetime,
    ahead: Ahead,
) -> Sightings:
    """Counts what differs from the map. Writes nothing, and asks nothing where nothing differs."""
    counted = _counted(found)
    if not counted:
        return Sightings([], [])
    the_map = map_of(connection)
    known = {d.key: _Known(d.status, {*d.new_members}) for d in drifts(connection)}
    for key, members in ahead.drift.items():
        known[key] = _Known("open", known[key].members | members if key in known else members)
    taken = Counter(key.kind for key in known if key.problem == "unknown")
    rows: list[Row] = []
    new: list[Novelty] = []
    for key, count in sorted(counted.items()):
        before = known.get(key)
        new_members: list[str] = []
        if key.problem == "new_value":
            new_members = _new_members(connection, key, count.members, before)
            if not new_members and (before is None or not count.members & before.members):
                continue
        elif key.problem == "unknown" and before is None:
            if taken[key.kind] >= MAX_PATHS_A_KIND:
                continue
            taken[key.kind] += 1
        if before is None or before.status == "mapped":
            details = new_members or _other_types(count, expected(the_map, key.kind).get(key.path))
            new.append(Novelty(key, tuple(details)))
        elif new_members and before.status != "ignored":
            new.append(Novelty(key, tuple(new_members)))
        rows.append(
            {
                **key._asdict(),
                "json_types": sorted(count.json_types),
                "shapes": sorted(count.shapes),
                "new_members": new_members,
                "first_seen_at": seen_at,
                "last_seen_at": seen_at,
                "occurrences": count.occurrences,
            }
        )
    return Sightings(rows, new)


def record(connection: Connection, rows: list[Row]) -> None:
    """Enters what was counted."""
    if rows:
        connection.execute(_COUNT, {"rows": encode_rows(rows)})


def drifts(connection: Connection) -> list[Drift]:
    """All that differs or has differed, ordered by kind, path and problem."""
    found = [
        Drift(
            kind=row.kind,
            path=row.path,
            problem=row.problem,
            json_types=tuple(row.json_types),
            first_seen_at=row.first_seen_at,
            last_seen_at=row.last_seen_at,
            occurrences=row.occurrences,
            status=row.status,
            shapes=tuple(row.shapes),
            new_members=tuple(row.new_members),
        )
        for row in connection.execute(_ALL)
    ]
    return sorted(found, key=lambda drift: drift.key)


def decide(connection: Connection, keys: Iterable[tuple[str, str]], status: Status) -> int:
    """Enters what people decided about these kinds and paths, whatever differs there.

    What a column has meanwhile (`mapped`) needs no decision. Returns how many rows changed.
    """
    rows = encode_rows({"kind": kind, "path": path} for kind, path in keys)
    return connection.execute(_DECIDE, {"rows": rows, "status": status}).rowcount


def settle(connection: Connection, the_map: Map) -> None:
    """Puts away what the map has or takes now, and opens again what it no longer has.

    Of what has a column now more may have come since it was proposed: that is open in its place.
    """
    moved = [
        (drift, status)
        for drift in drifts(connection)
        if (status := _settled(drift, the_map)) is not None and status != drift.status
    ]
    if moved:
        rows = [{**drift.key._asdict(), "status": status} for drift, status in moved]
        connection.execute(_SET_STATUS, {"rows": encode_rows(rows)})
    record(
        connection,
        [
            _outgrown(drift, expects)
            for drift, status in moved
            if drift.problem == "unknown" and status == "mapped"
            if not _takes(expects := expected(the_map, drift.kind)[drift.path], drift)
        ],
    )


def _settled(drift: Drift, the_map: Map) -> Status | None:
    """The status that the map gives a difference; None: it is no matter of the map."""
    if drift.problem == "missing":
        return None
    expects = expected(the_map, drift.kind).get(drift.path)
    if expects is None and drift.problem != "unknown":
        # Its column went. That the field is unknown again says it all.
        return "mapped"
    is_taken = expects is not None and (
        drift.problem == "unknown"
        or (drift.problem == "type_changed" and _takes(expects, drift))
        or (drift.problem == "new_value" and {*drift.new_members} <= expects.members)
    )
    if is_taken:
        return "mapped"
    return "open" if drift.status == "mapped" else None


def _outgrown(drift: Drift, expects: Expected) -> Row:
    """What of a field's types its column was not made for. In how many documents is not known."""
    json_types = {*drift.json_types} - {"null"}
    return {
        **Key(drift.kind, drift.path, "type_changed")._asdict(),
        "json_types": sorted(json_types - expects.json_types or json_types),
        "shapes": sorted({*drift.shapes} - (expects.shapes or set())),
        "new_members": [],
        "first_seen_at": drift.first_seen_at,
        "last_seen_at": drift.last_seen_at,
        "occurrences": 1,
    }


def _takes(expects: Expected, drift: Drift) -> bool:
    return {*drift.json_types} - {"null"} <= expects.json_types and (
        expects.shapes is None or {*drift.shapes} <= expects.shapes
    )


def _counted(found: Iterable[tuple[Kind, Flat]]) -> dict[Key, _Count]:
    counted: dict[Key, _Count] = {}
    for kind, flat in found:
        here: set[Key] = set()
        for finding in flat.findings:
            key = Key(kind, finding.path, finding.problem)
            here.add(key)
            count = counted.setdefault(key, _Count())
            count.json_types.add(finding.json_type)
            count.shapes.update([finding.shape] if finding.shape else [])
            count.members.update([finding.member] if finding.member else [])
        for key in here:
            counted[key].occurrences += 1
    return counted


def _other_types(count: _Count, expects: Expected | None) -> list[str]:
    """What to call what came: by its JSON type, or how it looks where only that is new."""
    others = count.json_types - (expects.json_types if expects else set())
    return sorted(others or count.shapes)


def _new_members(
    connection: Connection, key: Key, members: frozenset[str] | set[str], known: _Known | None
) -> list[str]:
    """Those that no document of an earlier run has, as many as may be kept."""
    told = known.members if known else set()
    room = MAX_NEW_MEMBERS - len(told)
    unheard = members - told
    if room <= 0 or not unheard:
        return []
    return sorted(unheard - met_before(connection, key.kind, key.path, unheard))[:room]
