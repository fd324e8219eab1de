"""What the ledger says of runs, for people to read: each run, and what it did to whom. Only reads.

A report's reader may see the runs alone, in a view; so callers say what stands for `runs`, as for
`standing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import bindparam, text

from etl.tables import OUTCOMES, UUID_

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

# What the API, or somebody else, may have made as long as they like.
_LONGEST = 2000

_ITEMS = text("""
    SELECT item.outcome, item.number, item.persona_id, left(persona.name, :longest) AS name,
           item.http_status, item.attempts, item.duration_ms,
           left(item.message, :longest) AS message
      FROM (SELECT *, count(*) OVER (PARTITION BY outcome) AS number,
                   row_number() OVER (PARTITION BY outcome ORDER BY persona_id) AS position
              FROM run_items
             WHERE run_id = :run_id) AS item
      LEFT JOIN personas AS persona ON persona.persona_id = item.persona_id
     WHERE item.position <= :listed
     ORDER BY item.outcome, item.position
""")

_VALUE_ISSUES = text("""
    SELECT kind, entity_id, left(path, :longest) AS path, problem, count(*) OVER () AS number
      FROM value_issues
     WHERE run_id = :run_id AND resolved_at IS NULL
     ORDER BY kind, entity_id, path
     LIMIT :listed
""")


@dataclass(frozen=True, slots=True)
class RunRow:
    """What every release has known of a run."""

    run_id: UUID
    command: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    error: str | None
    host: str
    counts: dict[str, int]
    """By outcome, with `requested` as their sum."""


@dataclass(frozen=True, slots=True)
class Entry(RunRow):
    """A run as the ledger has it."""

    value_issues: int
    new_drift_paths: int
    http_requests: int
    pid: int
    version: str
    resumes: UUID | None


R = TypeVar("R", bound=RunRow)


@dataclass(frozen=True, slots=True)
class ItemRow:
    """What a run did to one persona."""

    persona_id: UUID
    name: str | None
    http_status: int | None
    attempts: int
    duration_ms: int
    message: str | None


@dataclass(frozen=True, slots=True)
class Items:
    """How many personas had an outcome, and the first of them in the order of ids."""

    outcome: str
    count: int
    first: list[ItemRow]


@dataclass(frozen=True, slots=True)
class IssueRow:
    """A value that does not fit its column."""

    kind: str
    entity_id: UUID
    path: str
    problem: str


@dataclass(frozen=True, slots=True)
class Issues:
    """How many are open, and the first of them."""

    count: int
    first: list[IssueRow]


def entries(
    connection: Connection,
    runs: str,
    *,
    between: tuple[UUID, UUID] | None = None,
    commands: tuple[str, ...] = (),
    statuses: tuple[str, ...] = (),
    limit: int,
) -> list[Entry]:
    """The latest runs, the newest first.

    Args:
        connection: Of a role that may read them.
        runs: The view, or its query.
        between: Only those whose ids lie there, ends included.
        commands: Only runs of these; empty: of all.
        statuses: Only those that stand so; empty: all.
        limit: At most so many.
    """
    conditions = ["true"]
    asked: dict[str, Any] = {}
    if between is not None:
        conditions.append("run_id BETWEEN :least AND :greatest")
        asked |= {"least": between[0], "greatest": between[1]}
    if commands:
        conditions.append("command = ANY(:commands)")
        asked["commands"] = list(commands)
    if statuses:
        conditions.append("status = ANY(:statuses)")
        asked["statuses"] = list(statuses)
    return read_runs(connection, runs, Entry, " AND ".join(conditions), asked, limit=limit)


def read_runs(
    connection: Connection,
    runs: str,
    shape: type[R],
    condition: str,
    asked: Mapping[str, Any] | None = None,
    *,
    limit: int,
) -> list[R]:
    """The latest runs of which an SQL condition holds, the newest first, with what `shape` has."""
    columns = [field.name for field in fields(shape) if field.name != "counts"]
    counts = ["requested", *OUTCOMES]
    query = text(f"""
        SELECT {", ".join(columns + counts)} FROM {runs} AS run
         WHERE {condition} ORDER BY started_at DESC, run_id LIMIT :limit
    """)  # noqa: S608  a view's name or query, names of the map, and conditions of ours
    return [
        shape(**{c: row[c] for c in columns}, counts={name: row[name] for name in counts})
        for row in connection.execute(query, {**(asked or {}), "limit": limit}).mappings()
    ]


def items(connection: Connection, run_id: UUID, *, listed: int) -> list[Items]:
    """What the run did to whom, by outcome; unchanged personas have no item."""
    asked = {"run_id": run_id, "listed": listed, "longest": _LONGEST}
    statement = _ITEMS.bindparams(bindparam("run_id", type_=UUID_))
    found: dict[str, Items] = {}
    for row in connection.execute(statement, asked).mappings():
        of_outcome = found.setdefault(row["outcome"], Items(row["outcome"], row["number"], []))
        of_outcome.first.append(ItemRow(**{name: row[name] for name in ItemRow.__slots__}))
    return sorted(found.values(), key=lambda one: _rank(one.outcome))


def open_issues_of(connection: Connection, run_id: UUID, *, listed: int) -> Issues:
    """The values that do not fit, and that this run was the last to meet."""
    asked = {"run_id": run_id, "listed": listed, "longest": _LONGEST}
    rows = connection.execute(_VALUE_ISSUES, asked).all()
    return Issues(
        rows[0].number if rows else 0,
        [IssueRow(row.kind, row.entity_id, row.path, row.problem) for row in rows],
    )


def _rank(outcome: str) -> int:
    """What asks for somebody comes first."""
    return -OUTCOMES.index(outcome) if outcome in OUTCOMES else 0
