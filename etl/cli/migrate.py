"""`migrate`: brings the schema up to date."""

from __future__ import annotations

import os

import click

from etl.cli.invocation import Invocation, pass_invocation

EXAMPLES = """\b
Examples:
  persona-etl migrate
  persona-etl migrate --sql > migrate.sql
"""


@click.command("migrate", epilog=EXAMPLES)
@click.option("--sql", is_flag=True, help="Print the SQL for a DBA to run instead of running it.")
@pass_invocation
def command(invocation: Invocation, *, sql: bool) -> None:
    """Bring the database's schema up to date. Safe to run again."""
    # Here, so that `migrate --help` does not wait for Postgres and HTTP libraries.
    from etl.store.embedded import served  # noqa: PLC0415
    from etl.store.engine import make_engine  # noqa: PLC0415
    from etl.store.migration import current_and_head, upgrade, upgrade_sql  # noqa: PLC0415

    settings = invocation.settings()
    schema = settings.database.schema_
    if sql:
        click.echo(upgrade_sql(schema), nl=False)
        return
    with served(settings.require_database().get_secret_value(), os.environ) as url:
        engine = make_engine(url, schema)
        before, head = current_and_head(engine, schema)
        upgrade(engine, schema)
    if not invocation.quiet:
        was = "had no tables" if before is None else f"was at {before}"
        told = f"is at revision {head} already" if before == head else f"{was}, is at {head} now"
        click.echo(f"schema {schema} {told}")
