"""`backfill api`: any personas once more, in a run that can be resumed."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import IO, TYPE_CHECKING

import click

from etl.cli import options
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.moments import Moment
from etl.cli.progress import tallied
from etl.cli.reported import reported
from etl.cli.selection import wanted_personas, which_personas
from etl.cli.sync import tell as tell_end

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from etl.jobs.summary import Summary

logger = logging.getLogger(__name__)

EXAMPLES = """\b
Examples:
  persona-etl backfill api --all
  persona-etl backfill api --all --since 2026-11-01
  persona-etl backfill api --ids-from ids.txt --wait 600
  persona-etl backfill api --resume last
  persona-etl backfill api --resume 8d574e0c-f794-4b73-b35d-7f9bfdbe0cc2
"""


@click.command(
    "api", epilog=EXAMPLES, short_help="Any personas from the API, in runs that can be resumed."
)
@which_personas
@click.option(
    "--since",
    type=Moment(),
    metavar="TIME",
    help="Of all of them only those that were last confirmed before TIME, or never. A date, or like"
    " 2026-11-03T14:00:00Z; UTC.",
)
@click.option(
    "--resume",
    metavar="RUN_ID",
    help="Those that this run did not settle, nor anybody since; `last` is the latest.",
)
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
    since: datetime | None,
    resume: str | None,
    strict: bool,
    allow_mass_removal: bool,
    unforget: bool,
    wait: int,
    as_json: bool,
) -> int:
    """Copy any personas as sync does, in a run that can be resumed.

    It remembers whom it asks for. However it ends, --resume asks for those that are left, and for
    nobody who is settled. Which ones otherwise: as for sync.
    """
    from etl.jobs.backfill_api import backfill_api  # noqa: PLC0415  spares --help
    from etl.store.embedded import require_cluster, served  # noqa: PLC0415  spares --help

    if resume is not None and (ids or ids_from is not None or every or since is not None):
        raise click.UsageError(
            "--resume takes the personas of that run: without ids, --ids-from, --all and --since."
        )
    settings = invocation.settings()
    url = settings.require_database().get_secret_value()
    settings.require_key()
    wanted: Sequence[UUID] = ()
    discover = False
    if resume is None:
        wanted, discover = wanted_personas(ids, ids_from, settings, every=every)
    else:
        # A database that is made only now has no runs.
        require_cluster(url, os.environ)
    summaries: list[Summary] = []
    with (
        reported(settings, "backfill api", summaries, partial(tell, invocation, as_json=as_json)),
        served(url, os.environ) as served_url,
        tallied(invocation) as watch,
    ):
        backfill_api(
            settings,
            wanted,
            url=served_url,
            discover=discover,
            since=since,
            resume=resume,
            strict=strict,
            allow_mass_removal=allow_mass_removal,
            unforget=unforget,
            wait_seconds=wait,
            run_id=invocation.begin_run(),
            report=summaries.append,
            watch=watch,
        )
    return summaries[0].exit_code


def tell(invocation: Invocation, summary: Summary, *, as_json: bool) -> None:
    """Print how to go on where somebody is left, and how it ended as a sync does.

    Whoever reads the last line of stderr finds the error there.
    """
    if summary.left:
        logger.warning(
            "%d of %d personas left: persona-etl backfill api --resume %s",
            summary.left,
            summary.counts["requested"],
            summary.run_id,
        )
    tell_end(invocation, summary, as_json=as_json)
