"""`runs`: the ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.moments import iso

if TYPE_CHECKING:
    from etl.jobs.runs import Told
    from etl.store.entries import Entry

EXAMPLES = """\b
Examples:
  persona-etl runs
  persona-etl runs last
  persona-etl runs 8d574e0c
  persona-etl runs last --command sync --limit 1000
  persona-etl runs --status failed --status crashed --json
"""

_STATUSES = (
    "running",
    "succeeded",
    "partial",
    "failed",
    "skipped",
    "deferred",
    "interrupted",
    "crashed",
)
_RUNS = 20
_ITEMS = 5


@click.command("runs", epilog=EXAMPLES)
@click.argument("run_id", required=False, metavar="[RUN_ID]")
@click.option(
    "--limit",
    type=click.IntRange(min=1, max=2**31 - 1),
    metavar="N",
    help=f"The latest N runs instead of {_RUNS}; of one run, N personas of each outcome instead of"
    f" {_ITEMS}.",
)
@click.option(
    "--command",
    "commands",
    multiple=True,
    metavar="NAME",
    help="Only runs of this command, like sync or 'backfill api'. Repeatable.",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(_STATUSES),
    metavar="NAME",
    help="Only runs that stand so, like failed or crashed. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an array, or one run's object.")
@pass_invocation
def command(
    invocation: Invocation,
    *,
    run_id: str | None,
    limit: int | None,
    commands: tuple[str, ...],
    statuses: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show what runs did, the newest first; or all about one.

    RUN_ID is an id, its first 8 digits or more, or last. Asks the database alone, and writes
    nothing: a role that may read the reporting views sees the runs, though not what they did to
    whom.
    """
    from etl.cli import runs_screen as screen  # noqa: PLC0415  spares --help
    from etl.jobs.runs import LAST, list_runs, tell_run  # noqa: PLC0415  spares --help

    if run_id not in (None, LAST) and (commands or statuses):
        raise click.UsageError("--command and --status choose among runs: not with a RUN_ID.")
    settings = invocation.settings()
    with target_of(settings) as url:
        if run_id is None:
            listed = list_runs(
                settings,
                url=url,
                limit=limit or _RUNS,
                commands=commands,
                statuses=statuses,
            )
            shown: object = [
                as_object(run) | {"died": run.run_id in listed.died} for run in listed.runs
            ]
            lines = iter(screen.listed_lines(listed))
        else:
            told = tell_run(
                settings,
                run_id,
                url=url,
                listed=limit or _ITEMS,
                commands=commands,
                statuses=statuses,
            )
            shown = as_whole_object(told)
            lines = screen.told_lines(told)
    if as_json:
        click.echo(json.dumps(shown))
    elif not invocation.quiet:
        for line in lines:
            click.echo(line)
    return 0


def as_object(run: Entry) -> dict[str, object]:
    """A run as `--json` prints it; times are ISO 8601."""
    return {
        "run_id": str(run.run_id),
        "command": run.command,
        "status": run.status,
        "started_at": iso(run.started_at),
        "finished_at": iso(run.finished_at),
        "counts": run.counts,
        "value_issues": run.value_issues,
        "new_drift_paths": run.new_drift_paths,
        "http_requests": run.http_requests,
        "error": run.error,
        "host": run.host,
        "pid": run.pid,
        "version": run.version,
        "resumes": run.resumes and str(run.resumes),
    }


def as_whole_object(told: Told) -> dict[str, object]:
    """The same with what the run did to whom; null is what this role may not see."""
    return as_object(told.run) | {
        "died": told.has_died,
        "items": None
        if told.items is None
        else [
            {
                "outcome": items.outcome,
                "count": items.count,
                "first": [
                    {
                        "persona_id": str(item.persona_id),
                        "name": item.name,
                        "http_status": item.http_status,
                        "attempts": item.attempts,
                        "duration_ms": item.duration_ms,
                        "message": item.message,
                    }
                    for item in items.first
                ],
            }
            for items in told.items
        ],
        "open_value_issues": None
        if told.issues is None
        else {
            "count": told.issues.count,
            "first": [
                {
                    "kind": issue.kind,
                    "entity_id": str(issue.entity_id),
                    "path": issue.path,
                    "problem": issue.problem,
                }
                for issue in told.issues.first
            ],
        },
        "left": told.left,
    }
