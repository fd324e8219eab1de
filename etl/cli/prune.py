"""`prune`: retention of history and ledger."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from etl.cli import ended, options
from etl.cli.boundary import tell_error
from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.progress import watched
from etl.cli.reported import reported

if TYPE_CHECKING:
    from etl.jobs.prune import Pruned

EXAMPLES = """\b
Examples:
  persona-etl prune --keep-history-days 365 --dry-run
  persona-etl prune --keep-history-days 365 --keep-history-versions 20
  persona-etl -q prune --keep-runs-days 90 --keep-issues-days 90
  persona-etl prune --keep-rejected-days 30 --wait 600 --json
"""

# A century: beyond it there is nothing to let go of.
_DAYS = click.IntRange(0, 36_500)


@click.command("prune", epilog=EXAMPLES)
@click.option(
    "--keep-history-days",
    "history_days",
    type=_DAYS,
    metavar="DAYS",
    help="Let versions go that ended longer ago.",
)
@click.option(
    "--keep-history-versions",
    "history_versions",
    type=click.IntRange(min=1, max=1_000_000_000),
    metavar="N",
    help="Let versions go but the last N of each history. With days too: only what both let go.",
)
@click.option(
    "--keep-runs-days",
    "runs_days",
    type=_DAYS,
    metavar="DAYS",
    help="Let runs go that ended longer ago. The last of each command and status stays, and those"
    " that personas were last asked for in.",
)
@click.option(
    "--keep-issues-days",
    "issues_days",
    type=_DAYS,
    metavar="DAYS",
    help="Let value issues go that were resolved longer ago.",
)
@click.option(
    "--keep-rejected-days",
    "rejected_days",
    type=_DAYS,
    metavar="DAYS",
    help="Let rejected payloads go that came longer ago.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go; write nothing.")
@options.wait
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@pass_invocation
def command(
    invocation: Invocation,
    *,
    history_days: int | None,
    history_versions: int | None,
    runs_days: int | None,
    issues_days: int | None,
    rejected_days: int | None,
    dry_run: bool,
    wait: int,
    as_json: bool,
) -> int:
    """Let go of old history, and of what is old in the ledger.

    What no option names is kept. Of a history only its beginning goes, and what the tables show
    never does. One version without content stays for all that went, so that a question about that
    time is answered "not kept".
    """
    from etl.jobs.prune import Keep, foresee, prune  # noqa: PLC0415  spares --help

    keep = Keep(history_days, history_versions, runs_days, issues_days, rejected_days)
    settings = invocation.settings()
    summaries: list[Pruned] = []
    tell_end = partial(tell, invocation, as_json=as_json)
    with (
        reported(settings, "prune", summaries, tell_end, is_dry=dry_run),
        target_of(settings) as url,
        watched(invocation, "histories") as watch,
    ):
        if dry_run:
            summaries.append(foresee(settings, keep, url=url, watch=watch))
        else:
            prune(
                settings,
                keep,
                url=url,
                wait_seconds=wait,
                run_id=invocation.begin_run(),
                report=summaries.append,
                watch=watch,
            )
    return summaries[0].exit_code


def tell(invocation: Invocation, pruned: Pruned, *, as_json: bool) -> None:
    """Print what went to stdout, an error to stderr."""
    import msgspec  # noqa: PLC0415  spares --help

    ended.log_end(invocation, pruned, "prune", numbers(pruned))
    try:
        if as_json:
            click.echo(msgspec.json.encode(as_object(pruned)))
        elif not invocation.quiet:
            click.echo(as_text(pruned))
    finally:
        # Also where the result can't be printed.
        if pruned.error is not None:
            tell_error(invocation, pruned.error)


def as_object(pruned: Pruned) -> dict[str, object]:
    """What `--json` prints."""
    return ended.as_object(pruned, "prune") | numbers(pruned)


def numbers(pruned: Pruned) -> dict[str, object]:
    """What it came to."""
    from etl.jobs.prune import TABLES  # noqa: PLC0415  spares --help

    return {
        "rows": {table: pruned.rows[table] for table in TABLES},
        "document_bytes": pruned.document_bytes,
    }


def as_text(pruned: Pruned) -> str:
    """How it ended, and a line for each table that rows went from."""
    from etl.jobs.prune import TABLES  # noqa: PLC0415  spares --help
    from etl.tables import documents  # noqa: PLC0415  spares --help

    lines = [ended.as_line(pruned, "prune")]
    gone = [table for table in TABLES if pruned.rows[table]]
    width = max(map(len, gone), default=0)
    for table in gone:
        size = f", about {_size(pruned.document_bytes)}" if table == documents.name else ""
        lines.append(f"  {table:<{width}}{pruned.rows[table]:>9}{size}")
    if not gone and pruned.error is None:
        lines.append("  nothing is that old")
    return "\n".join(lines)


def _size(number: int) -> str:
    size, unit = float(number), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:  # noqa: PLR2004  as units are
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
