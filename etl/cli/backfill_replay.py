"""`backfill replay`: versions and tables from what was observed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from etl.cli import ended, options
from etl.cli.boundary import tell_error
from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.progress import watched
from etl.cli.reported import reported

if TYPE_CHECKING:
    from etl.jobs.replay import Replayed

EXAMPLES = """\b
Examples:
  persona-etl backfill replay --check
  persona-etl backfill replay
  persona-etl backfill replay --wait 600
  persona-etl backfill replay --table voices --table brains
  persona-etl backfill replay --check --json
"""


def _complete_table(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from etl.jobs.replay import replayed_tables  # noqa: PLC0415  spares --help
    from etl.map import SHIPPED  # noqa: PLC0415  spares --help

    found = [name for name in replayed_tables() if name.startswith(incomplete)]
    return [CompletionItem(name, help=SHIPPED.tables[name].comment) for name in found]


@click.command(
    "replay",
    epilog=EXAMPLES,
    short_help="Versions from observations, tables from versions.",
)
@click.option("--check", is_flag=True, help="Only compare; exit 8 when anything differs.")
@click.option(
    "--table",
    "names",
    multiple=True,
    metavar="NAME",
    shell_complete=_complete_table,
    help="Only this one, document_versions or a normalized table, and those that it refers to."
    " Repeatable.",
)
@options.wait
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@pass_invocation
def command(
    invocation: Invocation, *, check: bool, names: tuple[str, ...], wait: int, as_json: bool
) -> int:
    """Make versions and tables what the observations say, where they differ.

    Asks nothing of the API. Readers are not disturbed: only what differs is written, in small
    transactions. With --check nothing is: all is compared in one snapshot, and a role that may
    read is enough.
    """
    from etl.jobs.replay import check as compare  # noqa: PLC0415  spares --help
    from etl.jobs.replay import replay  # noqa: PLC0415  spares --help

    settings = invocation.settings()
    summaries: list[Replayed] = []
    tell_end = partial(tell, invocation, as_json=as_json)
    with (
        reported(settings, "backfill replay", summaries, tell_end, is_dry=check),
        target_of(settings) as url,
        watched(invocation, "checked") as watch,
    ):
        if check:
            summaries.append(compare(settings, url=url, tables=names, watch=watch))
        else:
            replay(
                settings,
                url=url,
                tables=names,
                wait_seconds=wait,
                run_id=invocation.begin_run(),
                report=summaries.append,
                watch=watch,
            )
    return summaries[0].exit_code


def tell(invocation: Invocation, replayed: Replayed, *, as_json: bool) -> None:
    """Print what was found and mended to stdout, an error to stderr."""
    import msgspec  # noqa: PLC0415  spares --help

    ended.log_end(invocation, replayed, "backfill replay", numbers(replayed))
    try:
        if as_json:
            # SQLAlchemy's names are texts of a type of their own.
            encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=str)
            click.echo(encoder.encode(as_object(replayed)))
        elif replayed.error is not None or not invocation.quiet:
            for line in as_lines(replayed):
                click.echo(line)
    finally:
        # Also where the result can't be printed.
        if replayed.error is not None:
            tell_error(invocation, replayed.error)


def as_object(replayed: Replayed) -> dict[str, object]:
    """What `--json` prints."""
    found = replayed.findings
    told = ended.as_object(replayed, "backfill replay") | numbers(replayed)
    mended = told.pop("mended")
    return told | {
        "first": [difference.as_object() for difference in found.first],
        "mended": mended,
    }


def numbers(replayed: Replayed) -> dict[str, object]:
    """What it came to."""
    found = replayed.findings
    return {
        "checked": {
            name: found.checked[name] for name in ("documents", "observations", "versions", "rows")
        },
        "differences": dict(found.differences),
        "mended": dict(found.mended) if replayed.run_id else {},
    }


def as_lines(replayed: Replayed) -> list[str]:
    """How it ended, the first differences, and how many there are by table."""
    found = replayed.findings
    lines = []
    if replayed.run_id is not None:
        lines.append(ended.as_line(replayed, "backfill replay"))
    first, total = found.first, found.differences.total()
    if replayed.run_id is not None and total > len(first):
        # After a column was added all rows are such, and a person looks for what was otherwise.
        first = [difference for difference in first if not difference.is_filling]
    lines += [difference.as_line() for difference in first]
    if first and (more := total - len(first)) > 0:
        lines.append(f"… and {more} more")
    width = max(map(len, found.differences), default=0)
    for name, number in found.differences.items():
        mended = found.mended[name]
        told = f", {mended} mended" if mended < number else " mended"
        lines.append(f"  {name:<{width}}{number:>9}{told if replayed.run_id else ''}")
    if not found.differences and replayed.error is None:
        lines.append(_nothing_differs(replayed))
    return lines


def _nothing_differs(replayed: Replayed) -> str:
    checked = replayed.findings.checked
    tables = len(replayed.tables)
    parts = []
    if "document_versions" in replayed.tables:
        tables -= 1
        versions = _counted(checked["versions"], "version", "versions")
        parts.append(f"{versions} of {_counted(checked['entities'], 'entity', 'entities')}")
    if tables:
        rows = _counted(checked["rows"], "row", "rows")
        parts.append(f"{rows} in {_counted(tables, 'table', 'tables')}")
    return f"nothing differs: {', '.join(parts)}"


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
