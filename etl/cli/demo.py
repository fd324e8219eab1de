"""`demo`: shows everything in one go."""

from __future__ import annotations

from contextlib import closing

import click

from etl.cli.invocation import Invocation, pass_invocation

NEXT = """
Next, with your own key and database:
  persona-etl init      # writes persona-etl.toml: set ids and database.url
  export ANAM_API_KEY=…
  persona-etl migrate
  persona-etl sync      # and again from cron; cron/ has the line
To look around without a key: persona-etl sandbox --help"""


EXAMPLES = """\b
Examples:
  persona-etl demo
  persona-etl demo --personas 500
"""


@click.command("demo", epilog=EXAMPLES)
@click.option(
    "--personas",
    type=click.IntRange(4),
    default=30,
    show_default=True,
    help="How many to make up.",
)
@pass_invocation
def command(invocation: Invocation, *, personas: int) -> None:
    """Show all of it in one go.

    Needs no key and no database, and leaves nothing behind.
    """
    # Here, so that `demo --help` does not wait for Postgres and HTTP libraries.
    from etl.cli.tour import tour  # noqa: PLC0415  spares --help

    # Closed, so that on Ctrl-C too its Postgres stops before the command ends.
    with closing(tour(personas)) as pieces:
        for piece in pieces:
            if not invocation.quiet:
                click.echo(piece)
    if not invocation.quiet:
        click.echo(NEXT)
