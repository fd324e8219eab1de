"""`backfill files`: history out of files, each observation where it belongs."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import click

from etl.cli import ended, options
from etl.cli.boundary import tell_error
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.moments import PastMoment
from etl.cli.progress import progress
from etl.cli.reported import reported
from etl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from etl.cli.progress import Progress
    from etl.files.lines import Line, Lines
    from etl.jobs.backfill_files import FilesSummary
    from etl.jobs.line_tally import LineTally

logger = logging.getLogger(__name__)

EXAMPLES = """\b
Examples:
  persona-etl backfill files exports/
  persona-etl backfill files 2026-*.ndjson.gz persona.json
  persona-etl backfill files --observed-at 2026-03-01 old.json
  persona-etl export | persona-etl --config new.toml backfill files -
  jq -c '.personas[]' dump.json |
    persona-etl backfill files --observed-at 2026-03-01T14:00:00Z -
"""

_STDIN = "-"
_MIB = 2**20


@click.command("files", epilog=EXAMPLES, short_help="History out of JSON and NDJSON files.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@click.option(
    "--observed-at",
    "dated",
    type=PastMoment(),
    metavar="TIME",
    help="When bare payloads were observed; otherwise when their file was last written.",
)
@options.unforget
@options.wait
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@pass_invocation
def command(
    invocation: Invocation,
    *,
    paths: tuple[str, ...],
    dated: datetime | None,
    unforget: bool,
    wait: int,
    as_json: bool,
) -> int:
    """Load what files say of personas, each line where it belongs.

    A PATH is a file, a folder (all *.json, *.ndjson and *.jsonl below it, also with .gz, but for
    hidden ones) or - for standard input. Files hold JSON values, a value a line, in an array or one
    after the other, plain or gzip: personas as the API gives them, or envelopes,
    {"observed_at": …, "payload": …}, as export writes them. With a persona_id beside it, a payload
    of null says that the API did not know that persona.

    Whatever the order, and however often a file is loaded: the history is the same. What can't be
    read is told with file and line, the rest goes in, and the exit code is 3.

    Bare payloads on standard input need --observed-at. Without it the command ends at once when the
    first value there is one; a later one is rejected alone.
    """
    from etl.files.lines import Lines  # noqa: PLC0415  spares --help
    from etl.jobs.backfill_files import backfill_files  # noqa: PLC0415  spares --help
    from etl.store.embedded import served  # noqa: PLC0415  spares --help

    settings = invocation.settings()
    url = settings.require_database().get_secret_value()
    # Standard input first, as what its first value is decides whether there is a run.
    paths = tuple(sorted(paths, key=lambda path: path != _STDIN))
    lines = Lines(paths, dated=dated, stdin=sys.stdin.buffer)
    wanted = _begun(lines) if paths[0] == _STDIN and dated is None else iter(lines)
    summaries: list[FilesSummary] = []
    with (
        reported(settings, "backfill files", summaries, partial(tell, invocation, as_json=as_json)),
        served(url, os.environ) as served_url,
        ExitStack() as shown,
    ):
        screen = _Screen(invocation, lines, shown)
        backfill_files(
            settings,
            wanted,
            url=served_url,
            unforget=unforget,
            wait_seconds=wait,
            run_id=invocation.begin_run(),
            report=summaries.append,
            watch=screen.loaded,
            watch_folding=screen.folded,
        )
    return summaries[0].exit_code


def _begun(lines: Lines) -> Iterator[Line]:
    """The lines. Raises UsageError when the first one has to be dated and is not."""
    from etl.files.envelope import needs_a_date  # noqa: PLC0415  spares --help

    rest = iter(lines)
    first = next(rest, None)
    if first is None:
        return rest
    if first.name == _STDIN and first.problem is None and needs_a_date(first.raw):
        raise UsageError(
            "standard input has payloads without a time: say --observed-at, as in"
            " --observed-at 2026-11-03T14:00:00Z"
        )
    return chain([first], rest)


class _Screen:
    """How far the load is: first what is read, then what is folded."""

    def __init__(self, invocation: Invocation, lines: Lines, shown: ExitStack) -> None:
        self._invocation = invocation
        self._lines = lines
        self._shown = shown
        self._line: Progress | None = None
        self._of = ""

    def loaded(self, tally: LineTally) -> None:
        """In MiB where it is known how many there are; of a pipe, in lines."""
        total = self._lines.total_bytes
        counts = {"rejected": tally.rejected, "forgotten": tally.forgotten}
        if total is None:
            self._show("lines").update(tally.lines, counts)
            return
        line = self._show("MiB")
        line.update(self._lines.read_bytes // _MIB, {"lines": tally.lines, **counts})
        line.total(-(-total // _MIB))

    def folded(self, done: int, total: int) -> None:
        """In entities: personas, avatars, voices, tools, knowledge groups."""
        line = self._show("entities folded")
        line.update(done)
        line.total(total)

    def _show(self, of: str) -> Progress:
        if self._line is None or of != self._of:
            self._shown.close()
            self._line = self._shown.enter_context(progress(self._invocation, of))
            self._of = of
        return self._line


def tell(invocation: Invocation, summary: FilesSummary, *, as_json: bool) -> None:
    """Print how it ended to stdout; which lines were rejected, and an error, to stderr."""
    import msgspec  # noqa: PLC0415  spares --help

    ended.log_end(invocation, summary, summary.command, numbers(summary))
    try:
        if as_json:
            click.echo(msgspec.json.encode(as_object(summary)))
        elif not invocation.quiet:
            click.echo(as_text(summary))
    finally:
        # Also where the result can't be printed.
        rejected = summary.counts["rejected"]
        # A single one is in the error.
        for text in summary.rejected if rejected > 1 else ():
            logger.warning("rejected %s", text)
        if (more := rejected - len(summary.rejected)) > 0:
            logger.warning("… and %s more", more)
        if summary.error is not None:
            tell_error(invocation, summary.error)


def as_object(summary: FilesSummary) -> dict[str, object]:
    """What `--json` prints."""
    return {
        **ended.as_object(summary, summary.command),
        **numbers(summary),
        "rejected": summary.rejected,
    }


def numbers(summary: FilesSummary) -> dict[str, object]:
    """What it came to."""
    return {
        **ended.counted(summary),
        "observations": summary.observations,
        "forgotten": summary.forgotten,
        "not_kept": summary.not_kept,
    }


def as_text(summary: FilesSummary) -> str:
    """A few aligned lines: what there is none of is left out."""
    beside = {
        "observations": summary.observations,
        "forgotten": summary.forgotten,
        "not kept": summary.not_kept,
    }
    text = ended.counted_text(summary, beside)
    if summary.status == "succeeded" and not summary.counts["requested"]:
        text += "\n  there was nothing to load"
    return text
