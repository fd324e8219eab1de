"""`migrate`: brings the schema and its reporting views up to date, or prints the SQL for it."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

import click

from etl.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etl.settings import Settings
    from etl.store.local_migration import LocalState

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
    "--local-to",
    metavar="REVISION",
    help="Take the local history up or down to this revision, or to base, not to its newest.",
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
    local_to: str | None,
    readers: tuple[str, ...],
    writers: tuple[str, ...],
    wait: int,
) -> None:
    """Bring the database's schema and its views up to date. Safe to run again.

    First the release's revisions, then those in the folder migrations.local_dir. With --sql the
    script starts after the revisions that the database is at.
    """
    # Here, so that `migrate --help` does not wait for Postgres and HTTP libraries.
    from etl.jobs.migrate import columns_there, is_to_be_filled, migrate  # noqa: PLC0415  same
    from etl.store.embedded import served  # noqa: PLC0415  spares --help
    from etl.store.engine import make_engine  # noqa: PLC0415  spares --help
    from etl.store.revision_files import BASE  # noqa: PLC0415  spares --help
    from etl.store.revisions import current_and_head  # noqa: PLC0415  spares --help

    if since is not None and not sql:
        raise click.UsageError("--from goes with --sql.")
    settings = invocation.settings()
    schema = settings.database.schema_
    local_dir = settings.migrations.local_dir
    if sql:
        _print_sql(settings, since, local_to, readers, writers, quiet=invocation.quiet)
        return
    with served(settings.require_database().get_secret_value(), os.environ) as url:
        engine = make_engine(url, schema)
        before, head = current_and_head(engine, schema)
        columns = columns_there(engine, schema)
        local = migrate(
            engine,
            schema,
            local_dir=local_dir,
            local_to=local_to,
            readers=readers,
            writers=writers,
            wait_seconds=wait,
        )
        is_next = is_to_be_filled(engine, schema, columns)
    if not invocation.quiet:
        was = "had no tables" if before is None else f"was at {before}"
        told = f"is at revision {head} already" if before == head else f"{was}, is at {head} now"
        if local_dir is not None or local != BASE:
            told += f", local history at {local}"
        if local_dir is not None and not local_dir.exists():
            told += f" ({local_dir} is not there yet)"
        told = f"schema {schema} {told}; its views are made anew"
        click.echo(textwrap.fill(told, 80, break_on_hyphens=False))
        if is_next:
            click.echo("Next: `persona-etl backfill replay` fills the new columns.")
        for role in readers:
            click.echo(f"{role} may read the views")
        for role in writers:
            click.echo(f"{role} may run sync")


def _print_sql(
    settings: Settings,
    since: str | None,
    local_to: str | None,
    readers: Sequence[str],
    writers: Sequence[str],
    *,
    quiet: bool,
) -> None:
    from etl.jobs.migrate import local_history, migrate_sql  # noqa: PLC0415  spares --help
    from etl.store.local_migration import AT_BASE  # noqa: PLC0415  spares --help
    from etl.store.revision_files import BASE  # noqa: PLC0415  spares --help

    # A mistake in the folder is told before the database is asked.
    local_history(settings.migrations.local_dir, local_to)
    note, local = None, AT_BASE
    # A schema at the base has no local columns: nobody has to be asked.
    if since != BASE:
        since, local, note = _present(settings, since)
    if note is not None and not quiet:
        click.echo(f"persona-etl: {note}", err=True)
    script = migrate_sql(
        settings.database.schema_,
        since=since,
        local_dir=settings.migrations.local_dir,
        local_to=local_to,
        local_since=local,
        note=note,
        readers=readers,
        writers=writers,
    )
    click.echo(script, nl=False)


def _present(settings: Settings, since: str | None) -> tuple[str, LocalState, str | None]:
    """Where the database is with both histories, or their beginning and why that is a guess.

    `since` stands in for what the database says of the release's.
    """
    from etl.errors import DatabaseError  # noqa: PLC0415  spares --help
    from etl.store.embedded import require_cluster, served  # noqa: PLC0415  spares --help
    from etl.store.engine import make_engine, translated  # noqa: PLC0415  spares --help
    from etl.store.local_migration import AT_BASE, look_at_local  # noqa: PLC0415  spares --help
    from etl.store.revision_files import BASE  # noqa: PLC0415  spares --help
    from etl.store.revisions import current_and_head, refuse_unknown  # noqa: PLC0415  spares --help

    guess = f"{'local ' if since else ''}SQL from the beginning, as"
    if settings.database.url is None:
        return since or BASE, AT_BASE, f"{guess} no database is configured"
    schema = settings.database.schema_
    try:
        require_cluster(settings.database.url.get_secret_value(), os.environ)
        with served(settings.database.url.get_secret_value(), os.environ) as url:
            engine = make_engine(url, schema)
            current, _ = current_and_head(engine, schema)
            with translated(), engine.connect() as connection:
                local = look_at_local(connection)
    except DatabaseError as exc:
        return since or BASE, AT_BASE, f"{guess} the database could not be asked: {exc}"
    if since is None:
        refuse_unknown(current, schema)
    return since or current or BASE, local, None
