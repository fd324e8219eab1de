"""`sync`: the job."""

from __future__ import annotations

import json
import os
from typing import IO, TYPE_CHECKING

import click

from etl.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from etl.jobs.summary import Summary
    from etl.settings import Settings


EXAMPLES = """\b
Examples:
  persona-etl sync
  persona-etl sync 00000000-0000-0000-0000-000000000000
  psql -Atc 'SELECT id FROM mine' | persona-etl sync --ids-from - --json
"""


@click.command("sync", epilog=EXAMPLES)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option(
    "--ids-from",
    type=click.File("r", encoding="utf-8", errors="replace"),
    metavar="FILE",
    help="Take the ids from a file, one a line, # for comments; - reads standard input.",
)
@click.option("--strict", is_flag=True, help="Exit 7 when the API shows fields that are unmapped.")
@click.option(
    "--allow-mass-removal", is_flag=True, help="Remove what is missing, however much it is."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@pass_invocation
def command(
    invocation: Invocation,
    *,
    ids: tuple[str, ...],
    ids_from: IO[str] | None,
    strict: bool,
    allow_mass_removal: bool,
    as_json: bool,
) -> int:
    """Copy the personas and record what changed.

    Without ids, those of the settings.
    """
    # Here, so that `sync --help` does not wait for Postgres and HTTP libraries.
    from etl.jobs.sync import sync  # noqa: PLC0415
    from etl.store.embedded import served  # noqa: PLC0415

    settings = invocation.settings()
    url = settings.require_database().get_secret_value()
    settings.require_key()
    wanted = _wanted(ids, ids_from, settings)
    ended: list[Summary] = []
    try:
        with served(url, os.environ) as served_url:
            sync(
                settings,
                wanted,
                url=served_url,
                strict=strict,
                allow_mass_removal=allow_mass_removal,
                report=ended.append,
            )
    finally:
        for summary in ended:
            tell(summary, as_json=as_json, quiet=invocation.quiet)
    return ended[0].exit_code


def tell(summary: Summary, *, as_json: bool, quiet: bool) -> None:
    """Prints how a run ended: the result to stdout, an error to stderr."""
    if as_json:
        click.echo(json.dumps(as_object(summary)))
    elif not quiet:
        click.echo(as_text(summary))
    if summary.error is not None:
        click.echo(f"persona-etl: error: {summary.error}", err=True)


def as_object(summary: Summary) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "run_id": str(summary.run_id),
        "command": summary.command,
        "status": summary.status,
        "started_at": summary.started_at.isoformat(),
        "finished_at": summary.finished_at and summary.finished_at.isoformat(),
        "counts": summary.counts,
        "value_issues": summary.value_issues,
        "new_drift_paths": summary.new_drift_paths,
        "http_requests": summary.http_requests,
    }


def as_text(summary: Summary) -> str:
    """A few aligned lines: what there is none of is left out."""
    took = ""
    if summary.finished_at is not None:
        took = f" in {(summary.finished_at - summary.started_at).total_seconds():.1f} s"
    beside = {
        "value issues": summary.value_issues,
        "new fields": summary.new_drift_paths,
        "requests": summary.http_requests,
    }
    lines = [f"{summary.command} {summary.status}{took}, run {summary.run_id}"]
    counts = {name.replace("_", " "): count for name, count in summary.counts.items()} | beside
    lines += [f"  {name:<14}{count:>8}" for name, count in counts.items() if count]
    return "\n".join(lines)


def _wanted(ids: Sequence[str], ids_from: IO[str] | None, settings: Settings) -> Sequence[UUID]:
    """The ids of the arguments and of the file; without either those of the settings."""
    from etl.settings import parse_ids  # noqa: PLC0415

    found: list[UUID] = []
    if ids:
        found += parse_ids("\n".join(ids), "argument")
    if ids_from is not None:
        # A standard input that somebody put in the place of the real one may have no name.
        found += parse_ids(ids_from.read(), getattr(ids_from, "name", "<stdin>"))
    if not ids and ids_from is None:
        return settings.require_ids()
    if not found:
        raise click.UsageError("no ids: there are none in --ids-from")
    return list(dict.fromkeys(found))
