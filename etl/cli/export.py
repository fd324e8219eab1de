"""`export`: what was observed, as lines of JSON: the inverse of `backfill files`."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.moments import Moment
from etl.cli.progress import watched
from etl.cli.selection import PersonaId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from uuid import UUID

EXAMPLES = """\b
Examples:
  persona-etl export -o personas.ndjson.gz
  persona-etl export --since 2026-11-01 | jq -r .payload.name
  persona-etl export --persona 7a0c3f52-6d1e-4b7f-9a3c-2e5d8f1b4c60
"""

logger = logging.getLogger(__name__)


@click.command("export", epilog=EXAMPLES)
@click.option(
    "--persona",
    "personas",
    type=PersonaId(),
    multiple=True,
    metavar="ID",
    help="Only what this one brought. Repeatable.",
)
@click.option(
    "--since",
    type=Moment(),
    metavar="TIME",
    help="Only what was observed then or later: 2026-11-03, 2026-11-03T14:00:00Z.",
)
@click.option("--until", type=Moment(), metavar="TIME", help="Only what was observed before.")
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write into a file, compressed when its name ends in .gz, instead of standard output (-).",
)
@pass_invocation
def command(
    invocation: Invocation,
    *,
    personas: tuple[UUID, ...],
    since: datetime | None,
    until: datetime | None,
    file: Path | None,
) -> None:
    """Write what was observed, a line of JSON for each persona and moment.

    `backfill files` makes the same history of it in an empty database. Each line holds the whole
    payload as it then was, without secrets. All is read in one snapshot, without a lock, by a role
    that may read. FILE is there when it is complete; until then what it held before is.
    """
    from etl.jobs.export import Wanted, export  # noqa: PLC0415  spares --help

    if since and until and since >= until:
        raise click.UsageError("--since must lie before --until.")
    wanted = Wanted(list(dict.fromkeys(personas)), since, until)
    settings = invocation.settings()
    to_file = None if file is None or str(file) == "-" else file
    with (
        target_of(settings) as url,
        _writing(to_file) as write,
        watched(invocation, is_shown=to_file is not None) as watch,
    ):
        exported = export(settings, url=url, wanted=wanted, write=write, watch=watch)
    told = {"file": str(to_file)} if to_file else {}
    if exported.lines:
        counts = {n: getattr(exported, n) for n in ("observations", "lines", "personas")}
        logger.info("exported", extra=counts | told)
    else:
        logger.info("nothing was observed that is asked for; nothing is written", extra=told)


@contextmanager
def _writing(file: Path | None) -> Iterator[Callable[[bytes], object]]:
    from etl.files.output import complete_file  # noqa: PLC0415  spares --help

    if file is None:
        yield sys.stdout.buffer.write
        return
    with complete_file(file) as output:
        yield output.write
