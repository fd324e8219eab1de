"""`query`: SQL of one's own, which only reads."""

from __future__ import annotations

import logging
import os
import re
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.moments import Duration
from etl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from etl.jobs.query import Answer

EXAMPLES = """\b
Examples:
  persona-etl query 'SELECT name, voice_name FROM personas'
  persona-etl query 'SELECT * FROM changes' --format csv > changes.csv
  persona-etl query --file report.sql --format json | jq '.[0]'
  echo 'SELECT count(*) FROM personas' | persona-etl query -
"""

_EXAMPLE = "persona-etl query 'SELECT name FROM personas'"
# More than anybody reads, and each may hold prompts of megabytes.
_SHOWN = 1000
_TOGETHER = 100

_COMMENT = re.compile(r"\A--(?=\s)")

logger = logging.getLogger(__name__)


class _TakesComments(click.Command):
    """SQL that was pasted may begin with a comment, which is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_COMMENT.sub(r" \g<0>", arg) for arg in args])


@click.command("query", cls=_TakesComments, epilog=EXAMPLES)
@click.argument("sql", required=False, metavar="[SQL]")
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the SQL from a file, or from standard input (-).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "jsonl"]),
    default="table",
    show_default=True,
    help=f"A table of up to {_SHOWN:,} rows for people, or all rows: as CSV, as a JSON array of "
    "objects, or as an object a line.",
)
@click.option(
    "--width",
    type=click.IntRange(min=0),
    metavar="COLUMNS",
    help="How wide the table may be, instead of the terminal; 0: as wide as it gets, nothing cut.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default="60s",
    metavar="TIME",
    show_default=True,
    help="Cancel it unless its last row has come by then, like 30s, 10m, 2h.",
)
@pass_invocation
def command(
    invocation: Invocation,
    *,
    sql: str | None,
    file: Path | None,
    form: str,
    width: int | None,
    timeout: timedelta,
) -> None:
    """Run one statement of SQL that only reads, and print what it returns.

    Bare names are the reporting views', then the tables', where the role may read those; a role
    that may read the views is enough. Whatever would write is refused. SQL is an argument, a file,
    or standard input (-). In CSV a NULL is empty, an empty text is "". In JSON numbers have all
    their digits. Times are in UTC.
    """
    from etl.jobs.query import answered  # noqa: PLC0415  spares --help

    typed = _typed(sql, file)
    settings = invocation.settings()
    with (
        target_of(settings) as url,
        answered(settings, typed, url=url, timeout=timeout) as answer,
    ):
        if form == "table":
            _show(answer, width)
        else:
            pieces = _pieces(answer, form)
            # Each write has its price.
            while some := "".join(islice(pieces, _TOGETHER)):
                sys.stdout.buffer.write(some.encode())


def _show(answer: Answer, width: int | None) -> None:
    from etl.cli.query_screen import as_lines, terminal_width  # noqa: PLC0415  spares --help

    room = terminal_width() if width is None else width
    for line in as_lines(answer.columns, islice(answer.rows, _SHOWN), room):
        click.echo(line)
    if next(answer.rows, None) is not None:
        logger.warning("only the first %s rows are shown; --format csv has all", f"{_SHOWN:,}")


def _pieces(answer: Answer, form: str) -> Iterator[str]:
    from etl.cli.query_data import as_csv, as_json, as_json_lines  # noqa: PLC0415  spares --help

    return {"csv": as_csv, "json": as_json, "jsonl": as_json_lines}[form](
        answer.columns, answer.rows
    )


def _typed(sql: str | None, file: Path | None) -> str:
    """The SQL, from wherever it comes; from a pipe also where nothing says so."""
    if sql is not None and file is not None:
        raise click.UsageError("Write the SQL or name a --file, not both.")
    if sql is None and file is None and sys.stdin.isatty():
        raise click.UsageError(f"There is no SQL; write it like {_EXAMPLE}.")
    where, content = "SQL", os.fsencode(sql or "")
    if sql in (None, "-"):
        file = file or Path("-")
        where = "standard input" if str(file) == "-" else str(file)
        content = _read(file)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise UsageError(f"{where}: line {line} is not UTF-8; save it as UTF-8") from exc


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as exc:
        raise UsageError(
            f"{file}: cannot be read ({exc.strerror}); name a file that this user may read"
        ) from exc
