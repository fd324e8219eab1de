"""`migrate`: brings the schema and its reporting views up to date, or prints the SQL for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from etl.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etl.settings import Settings

EXAMPLES = """\b
Examples:
  persona-etl migrate
  persona-etl migrate --grant-reader analysts --grant-writer etl
  persona-etl migrate --sql > migrate.sql
"""


@click.command("migrate", epilog=EXAMPLES)
@click.option("--sql", is_flag=True, help="Print the SQL for a DBA to run instead of running it.")
@click.option(
    "--from",
    "since",
    metavar="REVISION",
    help="With --sql: start after this revision, or at base, instead of asking the database.",
)
@click.option(
    "--grant-reader",
    "readers",
    multiple=True,
    metavar="ROLE",
    help="Let this role read the reporting views, later ones too. Repeatable.",
)
@click.option(
    "--grant-writer",
    "writers",
    multiple=True,
    metavar="ROLE",
    help="Give this role what `sync` needs, and no more. Repeatable.",
)
@click.option(
    "--wait",
    type=click.IntRange(min=0),
    default=60,
    metavar="SECONDS",
    show_default=True,
    help="Wait up to so long for another migrate to end.",
)
@pass_invocation
def command(
    invocation: Invocation,
    *,
    sql: bool,
    since: str | None,
    readers: tuple[str, ...],
    writers: tuple[str, ...],
    wait: int,
) -> None:
    """Bring the database's schema and its views up to date. Safe to run again.

    With --sql the script starts after the revision that the database is at.
    """
    # Here, so that `migrate --help` does not wait for Postgres and HTTP libraries.
    from etl.jobs.migrate import migrate  # noqa: PLC0415  spares --help
    from etl.store.embedded import served  # noqa: PLC0415  spares --help
    from etl.store.engine import make_engine  # noqa: PLC0415  spares --help
    from etl.store.migration import current_and_head  # noqa: PLC0415  spares --help

    if since is not None and not sql:
        raise click.UsageError("--from goes with --sql.")
    settings = invocation.settings()
    schema = settings.database.schema_
    if sql:
        _print_sql(settings, since, readers, writers, quiet=invocation.quiet)
        return
    with served(settings.require_database().get_secret_value(), os.environ) as url:
        engine = make_engine(url, schema)
        before, head = current_and_head(engine, schema)
        migrate(engine, schema, readers=readers, writers=writers, wait_seconds=wait)
    if not invocation.quiet:
        was = "had no tables" if before is None else f"was at {before}"
        told = f"is at revision {head} already" if before == head else f"{was}, is at {head} now"
        click.echo(f"schema {schema} {told}; its views are made anew")
        for role in readers:
            click.echo(f"{role} may read the views")
        for role in writers:
            click.echo(f"{role} may run sync")


def _print_sql(
    settings: Settings,
    since: str | None,
    readers: Sequence[str],
    writers: Sequence[str],
    *,
    quiet: bool,
) -> None:
    from etl.jobs.migrate import migrate_sql  # noqa: PLC0415  spares --help

    note = None
    if since is None:
        since, note = _present_revision(settings)
    if note is not None and not quiet:
        click.echo(f"persona-etl: {note}", err=True)
    schema = settings.database.schema_
    script = migrate_sql(schema, since=since, note=note, readers=readers, writers=writers)
    click.echo(script, nl=False)


def _present_revision(settings: Settings) -> tuple[str, str | None]:
    """Where the database is, or `base` and why that is a guess."""
    from etl.errors import DatabaseError  # noqa: PLC0415  spares --help
    from etl.store.embedded import require_cluster, served  # noqa: PLC0415  spares --help
    from etl.store.engine import make_engine  # noqa: PLC0415  spares --help
    from etl.store.migration import current_and_head, refuse_unknown  # noqa: PLC0415  spares --help

    if settings.database.url is None:
        return "base", "SQL from the beginning, as no database is configured"
    schema = settings.database.schema_
    try:
        require_cluster(settings.database.url.get_secret_value(), os.environ)
        with served(settings.database.url.get_secret_value(), os.environ) as url:
            current, _ = current_and_head(make_engine(url, schema), schema)
    except DatabaseError as exc:
        return "base", f"SQL from the beginning, as the database could not be asked: {exc}"
    refuse_unknown(current, schema)
    return current or "base", None
