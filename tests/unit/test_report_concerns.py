"""What somebody should know, out of what a report has read; the database has no part in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from etl.jobs.report_concerns import Findings, concerns
from etl.jobs.report_state import LinkSums, Told
from etl.report.digest import Concern, Drift, Listed, Rhythm, Totals, Trouble

NOW = datetime(2026, 4, 16, 12, tzinfo=UTC)
YESTERDAY = NOW - timedelta(days=1)
NOBODY: Listed[Trouble] = Listed(0, [])
NO_DRIFT: Listed[Drift] = Listed(0, [])

QUIET = Findings(
    now=NOW,
    since=NOW - timedelta(days=7),
    totals=Totals(3, 0, 1, 1, 0, 0, 0, 3, 3),
    rhythm=Rhythm(NOW, NOW, None, 3600.0),
    is_running=False,
    died=(),
    last_sync=None,
    stopped_removals=0,
    last_stopped_at=None,
    failing=NOBODY,
    stale=NOBODY,
    never_seen=NOBODY,
    unfolded=0,
    links=LinkSums(0, None, 0, 0, 0),
    lost_options=0,
    lost_options_of="",
    drift=NO_DRIFT,
    value_issues=Told(0, ""),
    rejected=Told(0, ""),
)


def stale(number: int, *, failures: int) -> Trouble:
    return Trouble(UUID(int=number), f"P{number}", "failed", failures, YESTERDAY, "HTTP 500")


def told(findings: Findings) -> dict[str, Concern]:
    return {concern.code: concern for concern in concerns(findings)}


def test_where_all_is_well_nothing_is_said() -> None:
    assert told(QUIET) == {}


def test_of_the_stale_one_is_named_that_is_not_told_as_failing() -> None:
    both = replace(QUIET, stale=Listed(2, [stale(1, failures=3), stale(2, failures=0)]))
    expected = "2 live personas were not seen for 1 h: P2, last seen 24 h ago."
    assert told(both)["stale"].told == expected
    failing = replace(QUIET, stale=Listed(1, [stale(1, failures=3)]))
    assert "stale" not in told(failing)


def test_where_more_fail_than_are_listed_it_is_told_once() -> None:
    first = [stale(number, failures=3) for number in range(100)]
    many = replace(QUIET, stale=Listed(1150, first), failing=Listed(1150, first))
    (failing,) = concerns(many)
    assert failing.told == "1,150 personas can't be copied; P0, last seen 24 h ago: HTTP 500"
