"""`sync`: the job."""

from __future__ import annotations

import os
from functools import partial
from typing import IO, TYPE_CHECKING

import click

from etl.cli import ended, options
from etl.cli.boundary import tell_error
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.pings import pinged
from etl.cli.progress import tallied
from etl.cli.reported import reported
from etl.cli.selection import wanted_personas, which_personas

if TYPE_CHECKING:
    from collections.abc import Sequence

    import msgspec

    from etl.jobs.summary import Summary
    from etl.report.foreseen import Foreseen


EXAMPLES = """\b
Examples:
  persona-etl sync
  persona-etl sync --all --dry-run
  persona-etl sync --wait 600
  persona-etl sync 00000000-0000-0000-0000-000000000000
  psql -Atc 'SELECT id FROM mine' | persona-etl sync --ids-from - --json
"""


@click.command("sync", epilog=EXAMPLES)
@which_personas
@click.option("--dry-run", is_flag=True, help="Say what would change; write nothing.")
@options.strict
@options.allow_mass_removal
@options.unforget
@options.wait
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@pass_invocation
def command(
    invocation: Invocation,
    *,
    ids: tuple[str, ...],
    ids_from: IO[str] | None,
    every: bool,
    dry_run: bool,
    strict: bool,
    allow_mass_removal: bool,
    unforget: bool,
    wait: int,
    as_json: bool,
) -> int:
    """Copy the personas and record what changed.

    Which ones: those given here, else those of the settings; with --all, or discover = true in the
    settings, also those that the API lists and all live ones that were copied before.
    """
    # Here, so that `sync --help` does not wait for Postgres and HTTP libraries.
    from etl.jobs.dry_run import dry_run as rehearse  # noqa: PLC0415  spares --help
    from etl.jobs.sync import sync  # noqa: PLC0415  spares --help
    from etl.store.embedded import require_cluster, served  # noqa: PLC0415  spares --help

    settings = invocation.settings()
    summaries: list[Summary] = []
    foreseen: list[str | msgspec.Raw] | None = [] if dry_run else None
    ping_url = None if dry_run else settings.notify.ping_url
    with pinged(invocation, ping_url, summaries, as_text) as begun:
        url = settings.require_database().get_secret_value()
        settings.require_key()
        wanted, discover = wanted_personas(ids, ids_from, settings, every=every)
        if dry_run:
            require_cluster(url, os.environ)
        tell_end = partial(tell, invocation, foreseen=foreseen, as_json=as_json)
        with (
            reported(settings, "sync", summaries, tell_end, is_dry=dry_run),
            served(url, os.environ) as served_url,
            tallied(invocation) as watch,
        ):
            if foreseen is None:
                run = partial(sync, wait_seconds=wait, run_id=invocation.begin_run(), begun=begun)
            else:
                run = partial(
                    rehearse, tell=lambda change: foreseen.extend(rendered(change, as_json=as_json))
                )
            run(
                settings,
                wanted,
                url=served_url,
                discover=discover,
                strict=strict,
                allow_mass_removal=allow_mass_removal,
                unforget=unforget,
                report=summaries.append,
                watch=watch,
            )
    return summaries[0].exit_code


def tell(
    invocation: Invocation,
    summary: Summary,
    *,
    foreseen: Sequence[str | msgspec.Raw] | None = None,
    as_json: bool,
) -> None:
    """Print how a run ended: the result to stdout, an error to stderr.

    `foreseen` are the lines of a dry run, which come first, or its changes in JSON.
    """
    import msgspec  # noqa: PLC0415  spares --help

    from etl.report.text import json_text  # noqa: PLC0415  spares --help

    ended.log_end(invocation, summary, summary.command, numbers(summary))
    try:
        if as_json:
            changes = {} if foreseen is None else {"changes": foreseen}
            click.echo(json_text(msgspec.json.encode(as_object(summary) | changes)))
        elif not invocation.quiet:
            for line in foreseen or ():
                click.echo(line)
            click.echo(as_text(summary))
    finally:
        # Also where the result can't be printed.
        if summary.error is not None:
            tell_error(invocation, summary.error)


def rendered(change: Foreseen, *, as_json: bool) -> Sequence[str | msgspec.Raw]:
    """What a dry run says of a change, without its documents: each would be held to the end."""
    import msgspec  # noqa: PLC0415  spares --help

    if as_json:
        encoder = msgspec.json.Encoder(decimal_format="number")
        return [msgspec.Raw(encoder.encode(change.as_object()))]
    return list(change.as_lines())


def as_object(summary: Summary) -> dict[str, object]:
    """What `--json` prints."""
    return ended.as_object(summary, summary.command) | numbers(summary)


def numbers(summary: Summary) -> dict[str, object]:
    """What it came to."""
    return {**ended.counted(summary), "http_requests": summary.http_requests}


def as_text(summary: Summary) -> str:
    """A few aligned lines: what there is none of is left out."""
    text = ended.counted_text(summary, {"requests": summary.http_requests})
    if summary.status == "succeeded" and not summary.counts["requested"]:
        text += "\n  there was nobody to ask for"
    return text
