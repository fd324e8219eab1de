"""Says what changed since a moment, what needs attention and how the runs went.

It asks the database alone and writes nothing. A role that may read the reports will do: all but
what the settings and locks tell comes out of one snapshot of the views.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING

from etl.jobs import report_changes, report_prompts, report_runs, report_state
from etl.jobs.busy import busy
from etl.jobs.report_concerns import Findings, concerns
from etl.jobs.view_session import reading_views
from etl.jobs.view_sources import sources_of
from etl.report.digest import Digest, Listed, Trouble
from etl.report.ledger import runs_view
from etl.store.engine import LOOKS_FOR_SECONDS, database_now, make_engine, translated
from etl.store.erasures import forgotten
from etl.store.standing import read_freshness, read_ledger, relations
from etl.store.unfolded import count_unfolded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.settings import Settings
    from etl.store.entries import RunRow
    from etl.store.standing import Freshness, Sort

LISTED = 100
"""So many of each sort are listed; all are counted."""
_PROMPTS = 50

_EARLIEST = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Beside:
    """What the views don't tell."""

    is_running: bool
    died: Sequence[RunRow]
    left_out: set[UUID]
    """Those named by the settings that were forgotten; none, where this role may not see it."""
    unfolded: int


def report(
    settings: Settings,
    *,
    url: str,
    since: datetime | timedelta,
    listed: int = LISTED,
    personas_listed: int = 0,
) -> Digest:
    """Looks at everything.

    Args:
        settings: Which personas are wanted, and the schema.
        url: The database, served already when it is an embedded one.
        since: A moment, or how long ago it was by the database's clock.
        listed: At most so many of each sort, of prompts fewer.
        personas_listed: At most so many lines of the table of personas.

    Raises:
        DatabaseError: it can't be asked: no server, no views, no privileges.
    """
    schema = settings.database.schema_
    with reading_views(url, schema) as connection:
        # Not of the snapshot: whether a run has died is told by a lock, and by its row after that.
        beside = _beside(settings, url)
        now = database_now(connection)
        moment = since if isinstance(since, datetime) else _ago(now, since)
        return _look(
            connection,
            settings,
            beside,
            now,
            moment,
            listed=listed,
            personas_listed=personas_listed,
        )


def _ago(now: datetime, length: timedelta) -> datetime:
    return now - min(length, now - _EARLIEST)


def _beside(settings: Settings, url: str) -> _Beside:
    schema = settings.database.schema_
    engine = make_engine(url, schema, lock_timeout_seconds=LOOKS_FOR_SECONDS, read_only=True)
    with translated(engine), engine.connect() as connection:
        tables = relations(connection, schema)
        (runs,) = sources_of(connection, schema, tables, [runs_view()], ["runs"]).values()
        writing = busy(connection, runs, schema)
        named = settings.personas.ids
        return _Beside(
            is_running=writing.running is not None,
            died=writing.orphans,
            left_out=forgotten(connection, named) if tables.get("erasures") else set(),
            unfolded=count_unfolded(connection) if tables.get("unfolded") else 0,
        )


def _look(
    connection: Connection,
    settings: Settings,
    beside: _Beside,
    now: datetime,
    since: datetime,
    *,
    listed: int,
    personas_listed: int,
) -> Digest:
    totals = report_state.totals(connection)
    rhythm = report_runs.rhythm(connection, since, now)
    sums = report_runs.run_sums(connection, since)
    days = report_changes.change_days(connection, since)
    late_since = now - timedelta(seconds=rhythm.late_after_seconds)
    fresh = _freshness(connection, settings, beside.left_out, late_since)
    failing, stale, never_seen = map(_troubles, (fresh.failing, fresh.stale, fresh.never_seen))
    links, link_sums = report_state.links(connection, now, listed=listed)
    drift = report_state.drift(connection, listed=listed)
    lost = report_changes.lost_voice_options(connection, since)
    stopped, last_stopped_at = report_runs.stopped_removals(connection, since)
    found = Findings(
        now=now,
        since=since,
        totals=totals,
        rhythm=rhythm,
        is_running=beside.is_running,
        died=beside.died,
        last_sync=read_ledger(connection, "runs").last_sync,
        stopped_removals=stopped,
        last_stopped_at=last_stopped_at,
        failing=failing,
        stale=stale,
        never_seen=never_seen,
        unfolded=beside.unfolded,
        links=link_sums,
        lost_options=lost.number if lost else 0,
        lost_options_of=(lost.name if lost else None) or "",
        drift=drift,
        value_issues=report_state.value_issues(connection),
        rejected=report_state.rejected(connection, since),
    )
    return Digest(
        now=now,
        since=since,
        schema=settings.database.schema_,
        version=version("persona-etl"),
        totals=totals,
        concerns=concerns(found),
        runs=report_runs.runs_since(connection, since, sums, listed=listed),
        run_sums=sums,
        rhythm=rhythm,
        run_days=report_runs.run_days(connection, since),
        ages=report_state.ages(connection, now),
        change_days=days,
        changed_fields=report_changes.changed_fields(connection, since, listed=listed),
        happenings=report_changes.happenings(connection, since, days, listed=listed),
        prompts=report_prompts.prompt_changes(connection, since, listed=min(listed, _PROMPTS)),
        failing=failing,
        never_seen=never_seen,
        links=links,
        drift=drift,
        personas=report_state.personas(
            connection, totals.live + totals.removed, listed=personas_listed
        ),
    )


def _freshness(
    connection: Connection, settings: Settings, left_out: set[UUID], fresh_since: datetime
) -> Freshness:
    wanted = settings.personas
    return read_freshness(
        connection,
        "freshness",
        named=[id_ for id_ in wanted.ids if id_ not in left_out],
        only_named=bool(wanted.ids) and not wanted.discover,
        discovers=wanted.discover,
        fresh_since=fresh_since,
        # Removals are told among what happened.
        removed_since=datetime.max.replace(tzinfo=UTC),
    )


def _troubles(sort: Sort) -> Listed[Trouble]:
    return Listed(
        sort.count,
        [
            Trouble(
                persona_id=row.persona_id,
                name=row.name,
                last_outcome=row.last_outcome,
                consecutive_failures=row.consecutive_failures,
                last_success_at=row.last_success_at,
                last_error=row.last_error,
            )
            for row in sort.first
        ],
    )
