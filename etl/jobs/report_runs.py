"""How the runs went since a moment, for the report: read out of the ledger's view."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from etl.report.digest import Listed, Rhythm, Run, RunDay, RunSum
from etl.store.entries import RunRow, read_runs
from etl.store.standing import COPIES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

# Whoever syncs weekly is not late on the second day; whoever syncs each minute is, an hour's outage
# at the API aside.
_TIMES_THE_USUAL = 3
_LATE_AT_THE_EARLIEST = timedelta(days=1)
# What is usual is learnt from so many.
_LEARNT_FROM = 50

_COMPLETE = f"status IN ('succeeded', 'partial') AND {COPIES} AND isfinite(finished_at)"

_DAYS = """
    SELECT CAST(started_at AT TIME ZONE 'UTC' AS date) AS day, status, count(*) AS runs,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_seconds) AS median_seconds
      FROM runs WHERE started_at >= :since AND isfinite(started_at)
     GROUP BY 1, 2 ORDER BY 1, 2
"""

_SUMS = """
    SELECT command, status, count(*) AS runs,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_seconds) AS median_seconds,
           max(duration_seconds) AS slowest_seconds
      FROM runs WHERE started_at >= :since AND isfinite(started_at)
     GROUP BY command, status ORDER BY command, count(*) DESC, status
"""

# From the last before that moment on, which the first gap begins with.
_GAPS = f"""
    SELECT max(until - from_) AS longest
      FROM (SELECT finished_at AS until,
                   lag(finished_at) OVER (ORDER BY finished_at) AS from_
              FROM (SELECT finished_at FROM runs WHERE {_COMPLETE} AND started_at >= :since
                     UNION ALL
                    (SELECT finished_at FROM runs WHERE {_COMPLETE} AND started_at < :since
                      ORDER BY started_at DESC LIMIT 1)
                     UNION ALL
                    SELECT CAST(:now AS timestamptz)) AS ended) AS gaps
"""  # noqa: S608  the texts above, nobody's input

_USUAL = f"""
    SELECT extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY until - from_)) AS usual
      FROM (SELECT finished_at AS until, lag(finished_at) OVER (ORDER BY finished_at) AS from_
              FROM (SELECT finished_at FROM runs WHERE {_COMPLETE}
                     ORDER BY started_at DESC LIMIT {_LEARNT_FROM}) AS latest) AS gaps
"""  # noqa: S608  the texts above, nobody's input

# As `jobs/removal.py` says it.
_STOPPED = text("""
    SELECT count(*) AS number, max(started_at) AS latest FROM runs
     WHERE started_at >= :since AND status = 'failed' AND error LIKE '%live personas are missing%'
""")

_LAST = f"""
    SELECT max(finished_at) AS complete,
           max(finished_at) FILTER (WHERE status = 'succeeded') AS success
      FROM ((SELECT status, finished_at FROM runs WHERE {_COMPLETE}
              ORDER BY started_at DESC LIMIT 1)
             UNION ALL
            (SELECT status, finished_at FROM runs WHERE {_COMPLETE} AND status = 'succeeded'
              ORDER BY started_at DESC LIMIT 1)) AS latest
"""  # noqa: S608  the texts above, nobody's input


def run_sums(connection: Connection, since: datetime) -> list[RunSum]:
    """By command; of each, how most of its runs ended comes first."""
    rows = connection.execute(text(_SUMS), {"since": since})
    return [
        RunSum(
            row.command,
            row.status,
            row.runs,
            _seconds(row.median_seconds),
            _seconds(row.slowest_seconds),
        )
        for row in rows
    ]


def run_days(connection: Connection, since: datetime) -> list[RunDay]:
    """Days in order."""
    rows = connection.execute(text(_DAYS), {"since": since})
    return [RunDay(row.day, row.status, row.runs, _seconds(row.median_seconds)) for row in rows]


def runs_since(
    connection: Connection, since: datetime, sums: Sequence[RunSum], *, listed: int
) -> Listed[Run]:
    """The newest first; `sums`: all of them, counted."""
    condition = "started_at >= :since AND isfinite(started_at)"
    found = read_runs(connection, "runs", RunRow, condition, {"since": since}, limit=listed)
    return Listed(sum(one.runs for one in sums), [_run(row) for row in found])


def rhythm(connection: Connection, since: datetime, now: datetime) -> Rhythm:
    """How regularly syncs come to their end."""
    last = connection.execute(text(_LAST)).one()
    longest = connection.execute(text(_GAPS), {"since": since, "now": now}).scalar_one()
    usual = connection.execute(text(_USUAL)).scalar_one()
    return Rhythm(
        last_success_at=last.success,
        last_complete_at=last.complete,
        longest_gap_seconds=longest and longest.total_seconds(),
        late_after_seconds=max(
            _LATE_AT_THE_EARLIEST.total_seconds(), _TIMES_THE_USUAL * float(usual or 0)
        ),
    )


def stopped_removals(connection: Connection, since: datetime) -> tuple[int, datetime | None]:
    """How many runs stopped rather than remove many personas, and when the last of them began."""
    number, latest = connection.execute(_STOPPED, {"since": since}).one()
    return number, latest


def _run(row: RunRow) -> Run:
    took = row.finished_at and (row.finished_at - row.started_at).total_seconds()
    return Run(
        run_id=row.run_id,
        command=row.command,
        status=row.status,
        started_at=row.started_at,
        seconds=_seconds(took),
        counts={name: count for name, count in row.counts.items() if count},
        error=row.error,
    )


def _seconds(value: object) -> float | None:
    """To the millisecond; a clock that was set back takes no time away."""
    return None if value is None else max(round(float(str(value)), 3), 0.0)
