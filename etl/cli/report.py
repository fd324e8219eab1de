"""`report`: what changed lately, what needs attention, how the runs went."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.moments import MomentOrAgo, iso
from etl.cli.streams import takes_colour

if TYPE_CHECKING:
    from etl.report.digest import Digest

EXAMPLES = """\b
Examples:
  persona-etl report
  persona-etl report --since 24h
  persona-etl report --since 2026-11-01 --json
  persona-etl report --html monday.html
"""

# As much as the page shows.
_ON_A_PAGE = {"listed": 200, "personas_listed": 1000}


@click.command("report", epilog=EXAMPLES)
@click.option(
    "--since",
    type=MomentOrAgo(),
    default="7d",
    show_default=True,
    metavar="WHEN",
    help="Since a moment, a day or so long ago, like 24h or 7d.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write one page of HTML that needs nothing else; - is standard output.",
)
@pass_invocation
def command(
    invocation: Invocation, *, since: datetime | timedelta, as_json: bool, page: Path | None
) -> None:
    """Tell what changed since WHEN, what needs attention, and how the runs went.

    WHEN is a moment like 2026-11-23T14:00:00Z, a day (its midnight in UTC), or a length of time
    like 90m, 24h or 7d. Exits with 0 whatever there is to tell: `status` is what a monitor asks.
    Asks the database alone, and writes nothing: a role that may read the reporting views is enough.
    """
    from etl.cli.report_screen import as_lines  # noqa: PLC0415  spares --help
    from etl.jobs.report import report  # noqa: PLC0415  spares --help
    from etl.report.extra import require_html_libraries  # noqa: PLC0415  spares --help

    if page is not None:
        if as_json:
            raise click.UsageError("--json and --html exclude each other.")
        require_html_libraries()
    settings = invocation.settings()
    with target_of(settings) as url:
        found = report(settings, url=url, since=since, **(_ON_A_PAGE if page else {}))
    if page is not None:
        _write(page, found, is_told=not invocation.quiet)
    elif as_json:
        click.echo(digest_as_json(found))
    elif not invocation.quiet:
        coloured = takes_colour(sys.stdout)
        for line in as_lines(found, coloured=coloured):
            click.echo(line, color=coloured)


def _write(page: Path, found: Digest, *, is_told: bool) -> None:
    """The file has the whole page, or, where that fails, what it had before."""
    from etl.files.output import complete_file  # noqa: PLC0415  spares --help
    from etl.report.page import as_page  # noqa: PLC0415  needs the extra
    from etl.report.text import as_line  # noqa: PLC0415  spares --help

    written = as_page(found).encode()
    if page == Path("-"):
        click.echo(written, nl=False)
        return
    with complete_file(page) as output:
        output.write(written)
    if is_told:
        click.echo(f"{as_line(page)}: {len(written) / 1000:,.0f} kB")


def digest_as_json(found: Digest) -> str:
    """What `--json` prints: an object with the digest's own names. Times are RFC 3339 in UTC."""
    from etl.report.text import json_text  # noqa: PLC0415  spares --help

    return json_text(json.dumps(asdict(found), default=_plain, ensure_ascii=False).encode())


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return iso(value)
    return value.isoformat() if isinstance(value, date) else str(value)
