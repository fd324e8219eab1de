"""`drift`: where the API and the map differ, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from etl.cli.boundary import tell_error
from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.moments import iso

if TYPE_CHECKING:
    from etl.jobs.drift import Listing, Revised
    from etl.proposal.model import Proposal, Refusal

EXAMPLES = """\b
Examples:
  persona-etl drift
  persona-etl drift --all --json
  persona-etl drift propose
  persona-etl drift ignore persona:debugInfo
"""

PROPOSE_EXAMPLES = """\b
Examples:
  persona-etl drift propose
  persona-etl drift propose moodScore 'shareLinks[].label'
  persona-etl drift propose persona:moodScore --name mood
  persona-etl drift propose --dry-run
"""

ACCEPT_EXAMPLES = """\b
Examples:
  persona-etl drift accept moodScore
  persona-etl drift accept voice:provider persona:voiceSpeed
"""

IGNORE_EXAMPLES = """\b
Examples:
  persona-etl drift ignore debugInfo
  persona-etl drift ignore 'persona:["odd key"]'
"""

which_paths = click.argument("paths", nargs=-1, metavar="PATH...", required=True)


@click.group("drift", epilog=EXAMPLES, invoke_without_command=True)
@click.option("--all", "everything", is_flag=True, help="Also what is ignored or has a column.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, *, everything: bool, as_json: bool) -> int:
    """Show where the API and the map differ, and what would be proposed.

    What the API sends and no column has, what it sends no longer, or in another type, and new
    values where there were few. Asks the database alone, and writes nothing. That something
    differs is no error: it is kept in `extra`, nothing is lost.
    """
    if context.invoked_subcommand is not None:
        if everything or as_json:
            given = "--all" if everything else "--json"
            raise click.UsageError(
                f"{given} is for `persona-etl drift` alone; options of"
                f" {context.invoked_subcommand} go after it."
            )
        return 0
    from etl.cli.drift_screen import as_lines  # noqa: PLC0415  spares --help
    from etl.jobs.drift import look  # noqa: PLC0415  spares --help

    invocation = context.ensure_object(Invocation)
    settings = invocation.settings()
    with target_of(settings) as url:
        found = look(settings, url=url, everything=everything)
    if as_json:
        click.echo(json.dumps(as_object(found)))
    elif not invocation.quiet:
        for line in as_lines(found):
            click.echo(line)
    return 0


@command.command("propose", epilog=PROPOSE_EXAMPLES, short_help="Write a revision for new fields.")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option("--name", metavar="NAME", help="What the column of the one PATH is to be called.")
@click.option("--dry-run", is_flag=True, help="Show the files' contents, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@pass_invocation
def propose_command(
    invocation: Invocation,
    *,
    paths: tuple[str, ...],
    name: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Write a revision that gives new fields columns, and the map's lines.

    Without PATH for all that are open or accepted. Types follow from all values that are stored.
    The files go to migrations.local_dir where that is set, else to the checkout; no table is
    altered until `persona-etl migrate`. What is proposed counts as accepted from then on.
    """
    from etl.cli.drift_screen import as_proposed  # noqa: PLC0415  spares --help
    from etl.jobs.drift import propose_revision  # noqa: PLC0415  spares --help

    if name is not None and len(paths) != 1:
        raise click.UsageError("--name goes with exactly one PATH.")
    settings = invocation.settings()
    with target_of(settings) as url:
        revised = propose_revision(settings, paths, url=url, name=name, dry_run=dry_run)
    try:
        if as_json:
            click.echo(json.dumps(as_proposed_object(revised)))
        elif revised.error is None and not invocation.quiet:
            for line in as_proposed(revised, Path.cwd()):
                click.echo(line)
    finally:
        # Also where the result can't be printed.
        if revised.error is not None:
            tell_error(invocation, revised.error)
    return 0 if revised.error is None else revised.error.exit_code


@command.command("accept", epilog=ACCEPT_EXAMPLES, short_help="Say of paths that they are fine.")
@which_paths
@pass_invocation
def accept_command(invocation: Invocation, *, paths: tuple[str, ...]) -> None:
    """Remember that these differences are known and fine.

    A new field is proposed as before; it counts no longer as open. PATH is what `drift` prints,
    with the kind and a colon before it where several kinds have it: voice:provider.
    """
    _set_status(invocation, paths, "accepted")


@command.command(
    "ignore", epilog=IGNORE_EXAMPLES, short_help="Say of paths that they don't matter."
)
@which_paths
@pass_invocation
def ignore_command(invocation: Invocation, *, paths: tuple[str, ...]) -> None:
    """Never propose these paths, and show them no more.

    Their values are kept in `extra` all the same, and `drift accept` takes it back. PATH is what
    `drift` prints, with the kind and a colon before it where several kinds have it: voice:provider.
    """
    _set_status(invocation, paths, "ignored")


def _set_status(
    invocation: Invocation, paths: tuple[str, ...], status: Literal["accepted", "ignored"]
) -> None:
    from etl.jobs.drift import set_status  # noqa: PLC0415  spares --help
    from etl.report.text import escaped  # noqa: PLC0415  spares --help

    settings = invocation.settings()
    with target_of(settings) as url:
        decisions = set_status(settings, paths, status, url=url)
    if invocation.quiet:
        return
    for each in decisions:
        told = f"is {each.status} {'now' if each.is_new else 'already'}"
        if each.status == "mapped":
            told = "has its column already: there is nothing to decide"
        click.echo(f"{each.kind}:{escaped(each.path)} {told}")


def as_object(found: Listing) -> dict[str, object]:
    """What `drift --json` prints. Times are ISO 8601; null is what there is not."""
    return {
        "schema": found.schema,
        "knows_proposals": found.knows_proposals,
        "hidden": found.hidden,
        "differences": [
            {
                "kind": each.drift.kind,
                "path": each.drift.path,
                "problem": each.drift.problem,
                "status": each.drift.status,
                "json_types": each.drift.json_types,
                "shapes": each.drift.shapes,
                "new_members": each.drift.new_members,
                "first_seen_at": iso(each.drift.first_seen_at),
                "last_seen_at": iso(each.drift.last_seen_at),
                "occurrences": each.drift.occurrences,
                "proposal": _line(each.proposed),
                "refusal": _reason(each.proposed),
            }
            for each in found.differences
        ],
    }


def as_proposed_object(revised: Revised) -> dict[str, object]:
    """What `drift propose --json` prints. `contents` is of a dry run: by file its text."""
    return {
        "revision": revised.revision,
        "files": [str(file) for file in revised.files],
        "contents": {str(file): text for file, text in revised.shown.items()},
        "lines": [
            {"kind": each.drift.kind, "path": each.drift.path, **(_line(each) or {})}
            for each in revised.proposals
        ],
        "refusals": [
            {"kind": each.drift.kind, "path": each.drift.path, "reason": each.reason}
            for each in revised.refusals
        ],
    }


def _line(found: Proposal | Refusal | None) -> dict[str, object] | None:
    from etl.proposal.model import Proposal  # noqa: PLC0415  spares --help

    if not isinstance(found, Proposal):
        return None
    renamed = found.renamed
    return {
        "table": found.line.table,
        "column": found.line.column,
        "type": found.line.type,
        "is_list": found.line.is_list,
        "json_types": found.line.json_types,
        "comment": found.line.comment,
        "values": found.values,
        "beside": found.beside,
        "renamed_from": renamed
        and {
            "path": renamed.path,
            "table": renamed.table,
            "column": renamed.column,
            "seen": renamed.seen,
            "equal": renamed.equal,
        },
    }


def _reason(found: Proposal | Refusal | None) -> str | None:
    from etl.proposal.model import Refusal  # noqa: PLC0415  spares --help

    return found.reason if isinstance(found, Refusal) else None
