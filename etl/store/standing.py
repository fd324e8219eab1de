"""How things stand: the runs, how fresh the personas are, what waits for a person. Only reads.

The tables may be out of sight: a report's reader has the reporting views alone, a job's role the
tables alone. So callers say what stands for `runs` and for `freshness`: a view, or its query in
parentheses, with each colon that starts no parameter escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.store.entries import RunRow, read_runs
from etl.tables import UUID_

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, CursorResult

LISTED = 100
"""So many of each sort of persona are read; all of them are counted."""

# A name may be as long as the API likes.
_LONGEST_NAME = 200

COPIES = "(command = 'sync' OR command = 'backfill api' AND requested > 0)"
"""Runs that copy from the API. A `backfill api` that found nothing left to do has asked nobody."""

_RELATIONS = text("""
    SELECT c.relname,
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
           AS readable
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = :schema AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
""")

# `only_named`: the settings name all that is wanted. Otherwise any that is known is.
_PERSONA = """
    WITH persona AS {materialized} (
        SELECT coalesce(fresh.persona_id, named.id) AS persona_id, fresh.name,
               coalesce(fresh.is_live, false) AS is_live, fresh.removed_at,
               fresh.last_success_at, fresh.last_outcome,
               coalesce(fresh.consecutive_failures, 0) AS consecutive_failures,
               fresh.last_attempt_at IS NOT NULL AS is_asked_for,
               named.id IS NOT NULL AS is_named,
               named.id IS NOT NULL OR NOT :only_named AS is_tracked
          FROM {freshness} AS fresh
          FULL JOIN unnest(:ids) AS named (id) ON named.id = fresh.persona_id
    )
"""

_AGES = """
    SELECT count(*) AS live,
           count(*) FILTER (WHERE last_success_at IS NULL) AS unconfirmed,
           min(last_success_at) AS oldest,
           percentile_disc(0.5) WITHIN GROUP (ORDER BY last_success_at) AS median,
           max(last_success_at) AS newest
      FROM persona
     WHERE is_live AND is_tracked
"""

# Which personas stand out, and who comes first of them. Whom only files tell of, and no sync would
# ask for, will never be fresh: that is no reason to be called at night.
_SORTS = {
    "failing": ("is_tracked AND consecutive_failures > 0", "last_success_at NULLS FIRST"),
    "never_seen": ("is_named AND NOT is_live AND removed_at IS NULL", "last_outcome NULLS LAST"),
    "stale": (
        """is_tracked AND is_live AND CAST(:fresh_since AS timestamptz) IS NOT NULL
           AND (last_success_at >= :fresh_since) IS NOT TRUE
           AND (is_asked_for OR is_named OR :discovers)""",
        "last_success_at NULLS FIRST",
    ),
    "removed": ("is_tracked AND removed_at >= :removed_since", "removed_at DESC"),
    "untracked": ("is_live AND NOT is_tracked", "name"),
}

_NOTABLE = " UNION ALL ".join(
    f"""
    (SELECT '{sort}' AS sort, count(*) OVER () AS number, persona_id,
            left(name, :longest_name) AS name, last_outcome, consecutive_failures,
            last_success_at, removed_at
       FROM persona WHERE {condition} ORDER BY {order}, name, persona_id LIMIT :listed)
    """  # noqa: S608  the two texts above, nobody's input
    for sort, (condition, order) in _SORTS.items()
)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The runs that matter now; None where there was none yet. A `backfill api` is a sync too."""

    last: RunRow | None
    """That ended, of any command; one that was skipped did nothing."""
    last_sync: RunRow | None
    last_success: RunRow | None
    """The last sync that succeeded."""
    last_complete: RunRow | None
    """The last sync that asked for everybody: it succeeded, or some personas failed."""
    skipped: int
    """How many found the lock taken since `last` started."""
    last_skipped_at: datetime | None


@dataclass(frozen=True, slots=True)
class PersonaRow:
    """Where one persona stands; one that was never asked for has no outcome."""

    persona_id: UUID
    name: str | None
    last_outcome: str | None
    consecutive_failures: int
    last_success_at: datetime | None
    removed_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Sort:
    """How many personas are of a sort, and the first of them."""

    count: int
    first: Sequence[PersonaRow]


@dataclass(frozen=True, slots=True)
class Freshness:
    """The personas that are live and wanted, by their last success; and those that stand out."""

    live: int
    unconfirmed: int
    """Of them those that only files tell of: the API has not shown them yet."""
    oldest: datetime | None
    median: datetime | None
    newest: datetime | None
    failing: Sort
    never_seen: Sort
    """Named by the settings, and seen by no run."""
    stale: Sort
    removed: Sort
    untracked: Sort


def relations(connection: Connection, schema: str) -> dict[str, bool]:
    """The tables and views of a schema, if there is one, and whether the role may read each."""
    found = connection.execute(_RELATIONS, {"schema": schema})
    return {row.relname: row.readable for row in found}


def is_replica(connection: Connection) -> bool:
    """Whether this server follows another, whose locks it does not know."""
    return bool(connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one())


def runs_under_way(connection: Connection, runs: str) -> list[RunRow]:
    """The runs that have not closed their rows, the latest first."""
    return read_runs(connection, runs, RunRow, "status = 'running'", limit=20)


def read_ledger(connection: Connection, runs: str) -> Ledger:
    """The runs that matter now."""

    def latest(condition: str) -> RunRow | None:
        return next(iter(read_runs(connection, runs, RunRow, condition, limit=1)), None)

    last = latest("status NOT IN ('running', 'skipped')")
    complete = f"status IN ('succeeded', 'partial') AND {COPIES}"
    skipped = connection.execute(
        text(f"""
            SELECT count(*), max(started_at) FROM {runs} AS run
             WHERE status = 'skipped'
               AND started_at > coalesce(CAST(:since AS timestamptz), '-infinity')
        """),  # noqa: S608  a view's name or query, nobody's input
        {"since": last and last.started_at},
    ).one()
    return Ledger(
        last,
        latest(f"status NOT IN ('running', 'skipped') AND {COPIES}"),
        latest(f"status = 'succeeded' AND {COPIES}"),
        # Of a clock that was set back runs are left that are dated later than now.
        latest(f"{complete} AND finished_at < clock_timestamp() + interval '1 minute'")
        or latest(complete),
        *skipped,
    )


def read_freshness(
    connection: Connection,
    freshness: str,
    *,
    named: Sequence[UUID],
    only_named: bool,
    discovers: bool,
    fresh_since: datetime | None,
    removed_since: datetime,
) -> Freshness:
    """How fresh the personas are.

    Args:
        connection: Of a role that may read it.
        freshness: The view, or its query.
        named: The ids that the settings name.
        only_named: Nobody else is wanted, so that whoever else is live is untracked.
        discovers: A sync asks for all that are live.
        fresh_since: Who was not seen since then is stale; None: nobody is.
        removed_since: Earlier removals are left out.
    """
    ids = bindparam("ids", list(named), type_=ARRAY(UUID_))
    asked: dict[str, object] = {"only_named": only_named}

    def ask(query: str, *, materialized: str = "") -> CursorResult[Any]:
        known = _PERSONA.format(freshness=freshness, materialized=materialized)
        return connection.execute(text(known + query).bindparams(ids), asked)

    ages = ask(_AGES).one()
    asked |= {"fresh_since": fresh_since, "removed_since": removed_since, "discovers": discovers}
    asked |= {"listed": LISTED, "longest_name": _LONGEST_NAME}
    notable = ask(_NOTABLE, materialized="MATERIALIZED").mappings().all()
    errors = _last_errors(connection, freshness, {row["persona_id"] for row in notable})
    counts = {row["sort"]: row["number"] for row in notable}
    listed: dict[str, list[PersonaRow]] = {}
    for row in notable:
        of_persona = {name: row[name] for name in PersonaRow.__slots__ if name in row}
        listed.setdefault(row["sort"], []).append(
            PersonaRow(**of_persona, last_error=errors.get(row["persona_id"]))
        )

    def sort(name: str) -> Sort:
        return Sort(counts.get(name, 0), listed.get(name, []))

    return Freshness(
        ages.live,
        ages.unconfirmed,
        ages.oldest,
        ages.median,
        ages.newest,
        failing=sort("failing"),
        never_seen=sort("never_seen"),
        stale=sort("stale"),
        removed=sort("removed"),
        untracked=sort("untracked"),
    )


def open_value_issues(connection: Connection) -> int:
    """How many values do not fit their column now."""
    query = text("SELECT count(*) FROM value_issues WHERE resolved_at IS NULL")
    return int(connection.execute(query).scalar_one())


def open_drift_paths(connection: Connection) -> int:
    """How many differences of API and map nobody has decided about."""
    query = text("SELECT count(*) FROM drift_paths WHERE status = 'open'")
    return int(connection.execute(query).scalar_one())


def _last_errors(
    connection: Connection, freshness: str, persona_ids: set[UUID]
) -> dict[UUID, str | None]:
    """What went wrong with these last: asked of few, as the ledger of a year is long."""
    query = text(
        f"SELECT persona_id, last_error FROM {freshness} AS fresh WHERE persona_id = ANY(:ids)"  # noqa: S608  as above
    ).bindparams(bindparam("ids", list(persona_ids), type_=ARRAY(UUID_)))
    return {row.persona_id: row.last_error for row in connection.execute(query)}
