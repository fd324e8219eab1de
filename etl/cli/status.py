"""`status`: is it fresh, does it run, and what is in the way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from etl.cli.boundary import tell_error
from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.moments import Duration, iso

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from etl.jobs.status import Status
    from etl.store.entries import RunRow
    from etl.store.standing import PersonaRow, Sort

EXAMPLES = """\b
Examples:
  persona-etl status
  persona-etl -q status --max-age 2h
  persona-etl status --max-age 1d12h --json
"""


@click.command("status", epilog=EXAMPLES)
@click.option(
    "--max-age",
    type=Duration(),
    metavar="TIME",
    help="Exit 8 when data is older than this, like 90s, 30m, 2h, 1d12h.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_invocation
def command(invocation: Invocation, *, max_age: timedelta | None, as_json: bool) -> int:
    """Say how fresh it all is, what runs, and what is in the way.

    With --max-age it exits with 8 unless a sync came to its end within that time, and every live
    persona that the settings want was seen within it. Asks the database alone, and writes nothing:
    a role that may read the reporting views is enough.
    """
    from etl.cli.status_screen import as_lines  # noqa: PLC0415  spares --help
    from etl.jobs.status import status  # noqa: PLC0415  spares --help

    settings = invocation.settings()
    with target_of(settings) as url:
        found = status(settings, url=url, max_age=max_age)
    error = found.error
    try:
        if as_json:
            click.echo(json.dumps(as_object(found)))
        elif error is not None or not invocation.quiet:
            for line in as_lines(found):
                click.echo(line)
    finally:
        # Also where the result can't be printed.
        if error is not None:
            tell_error(invocation, error)
    return 0 if error is None else error.exit_code


def as_object(found: Status) -> dict[str, object]:
    """What `--json` prints. Times are ISO 8601, ages in seconds; null is what can't be known."""

    def age(moment: datetime | None) -> float | None:
        return None if moment is None else round(found.age(moment).total_seconds(), 3)

    def run(row: RunRow | None) -> dict[str, object] | None:
        if row is None:
            return None
        return {
            "run_id": str(row.run_id),
            "command": row.command,
            "status": row.status,
            "started_at": iso(row.started_at),
            "finished_at": iso(row.finished_at),
            "age_seconds": age(row.finished_at or row.started_at),
            "counts": row.counts,
            "error": row.error,
            "host": row.host,
        }

    def persona(row: PersonaRow) -> dict[str, object]:
        return {
            "persona_id": str(row.persona_id),
            "name": row.name,
            "last_outcome": row.last_outcome,
            "consecutive_failures": row.consecutive_failures,
            "last_success_at": iso(row.last_success_at),
            "age_seconds": age(row.last_success_at),
            "removed_at": iso(row.removed_at),
            "last_error": row.last_error,
        }

    def sort(personas: Sort) -> dict[str, object]:
        return {"count": personas.count, "first": [persona(row) for row in personas.first]}

    ledger, personas, holder, error = found.ledger, found.personas, found.holder, found.error
    return {
        "ok": error is None,
        "exit_code": 0 if error is None else error.exit_code,
        "reasons": [{"code": reason.code, "message": reason.told} for reason in found.reasons],
        "now": iso(found.now),
        "max_age_seconds": found.max_age and found.max_age.total_seconds(),
        "is_replica": found.is_replica,
        "lock": None
        if holder is None
        else {
            "pid": holder.pid,
            "command": holder.command,
            "run_id": holder.run_id and str(holder.run_id),
            "client": holder.client,
            "since": iso(holder.since),
        },
        "running": run(found.running),
        "died": [run(row) for row in found.orphans],
        "last_run": run(ledger.last),
        "last_sync": run(ledger.last_sync),
        "last_success": run(ledger.last_success),
        "skipped_since": {"count": ledger.skipped, "last_at": iso(ledger.last_skipped_at)},
        "live": {
            "count": personas.live,
            "unconfirmed": personas.unconfirmed,
            "oldest_success_at": iso(personas.oldest),
            "oldest_age_seconds": age(personas.oldest),
            "median_age_seconds": age(personas.median),
            "newest_age_seconds": age(personas.newest),
        },
        "stale": None if found.max_age is None else sort(personas.stale),
        "failing": sort(personas.failing),
        "never_seen": sort(personas.never_seen),
        "removed": sort(personas.removed),
        "untracked": sort(personas.untracked) if found.knows_untracked else None,
        "unfolded": found.unfolded,
        "open_value_issues": found.value_issues,
        "open_drift_paths": found.drift_paths,
        "schema": {
            "name": found.schema,
            "revision": found.revision.at,
            "at_head": None if found.revision.at is None else found.revision.wrong is None,
            "views_release": found.revision.views,
            "local_pending": found.revision.local_waits,
        },
    }
