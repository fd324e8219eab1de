"""`verify`: asks the API again and compares, writing nothing."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import click

from etl.cli.boundary import tell_error
from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.moments import iso
from etl.cli.progress import tallied
from etl.cli.selection import wanted_personas, which_personas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.jobs.comparison import Changes
    from etl.jobs.verify import Verified

EXAMPLES = """\b
Examples:
  persona-etl verify
  persona-etl verify --all --sample 100
  persona-etl verify 00000000-0000-0000-0000-000000000000
"""


@click.command("verify", epilog=EXAMPLES)
@which_personas
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only N of them, chosen at random; -v says which.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@pass_invocation
def command(
    invocation: Invocation,
    *,
    ids: tuple[str, ...],
    ids_from: IO[str] | None,
    every: bool,
    sample: int | None,
    as_json: bool,
) -> int:
    """Compare the API with versions and tables; write nothing.

    Which personas: as for sync. Each is asked for once more, and held against the version in force,
    that against what was observed, and the tables against both. Exits with 8 when anything differs.
    A role that may read is enough.
    """
    from etl.jobs.verify import verify  # noqa: PLC0415  spares --help

    settings = invocation.settings()
    settings.require_database()
    settings.require_key()
    wanted, discover = wanted_personas(ids, ids_from, settings, every=every)
    ended: list[Verified] = []
    try:
        with (
            target_of(settings) as url,
            tallied(invocation, "behind", "differing") as watch,
        ):
            verify(
                settings,
                wanted,
                url=url,
                discover=discover,
                sample=sample,
                report=ended.append,
                watch=watch,
            )
    finally:
        for verified in ended:
            tell(invocation, verified, as_json=as_json)
    return ended[0].exit_code


def tell(invocation: Invocation, verified: Verified, *, as_json: bool) -> None:
    """Print what was found to stdout, an error to stderr."""
    import msgspec  # noqa: PLC0415  spares --help

    try:
        if as_json:
            # SQLAlchemy's names are texts of a type of their own.
            encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=str)
            click.echo(encoder.encode(as_object(verified)))
        elif verified.error is not None or not invocation.quiet:
            for line in as_lines(verified):
                click.echo(line)
    finally:
        # Also where the result can't be printed.
        if verified.error is not None:
            tell_error(invocation, verified.error)


def as_object(verified: Verified) -> dict[str, object]:
    """What `--json` prints."""
    compared = verified.comparison
    return {
        "command": "verify",
        "status": verified.status,
        "started_at": iso(verified.started_at),
        "finished_at": iso(verified.finished_at),
        "counts": verified.counts,
        "differences": dict(compared.found.differences),
        "first": [difference.as_object() for difference in compared.found.first],
        "lost": [change.as_object() for change in compared.lost.first],
        "ahead": [change.as_object() for change in compared.ahead.first],
        "moved": dict(compared.moved.differences),
        "http_requests": verified.http_requests,
    }


def as_lines(verified: Verified) -> Iterator[str]:
    """The first differences of each sort, then what became of the personas."""
    compared = verified.comparison
    if compared.found.differences:
        yield "Not what follows from the observations:"
        yield from (difference.as_line() for difference in compared.found.first)
        yield from _more(compared.found.differences.total() - len(compared.found.first))
    yield from _changes("Copied, and lost since:", compared.lost)
    yield from _changes("At the API, not copied yet:", compared.ahead)
    found = "nothing differs" if verified.error is None else verified.status
    seconds = (verified.finished_at - verified.started_at).total_seconds()
    yield f"verify {found} in {seconds:.1f} s, nothing was written"
    counts = {name.replace("_", " "): count for name, count in verified.counts.items()}
    counts["moved values"] = compared.moved.differences.total()
    counts["requests"] = verified.http_requests
    yield from (f"  {name:<14}{count:>8}" for name, count in counts.items() if count)


def _changes(title: str, changes: Changes) -> Iterator[str]:
    if changes.number:
        yield title
        for change in changes.first:
            yield from change.as_lines()
        yield from _more(changes.number - len(changes.first))


def _more(number: int) -> Iterator[str]:
    if number > 0:
        yield f"… and {number} more"
