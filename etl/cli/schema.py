"""`schema`: what the tables and views are, for people, for diagrams and for dbt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from etl.map import Map
    from etl.settings import Settings

EXAMPLES = """\b
Examples:
  persona-etl schema > schema.md
  persona-etl schema --format dbt > models/staging/sources.yml
  persona-etl schema --local --format mermaid | mmdc -i - -o schema.svg
"""


@click.command("schema", epilog=EXAMPLES)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["markdown", "dbt", "mermaid"]),
    default="markdown",
    show_default=True,
    help="The data dictionary with its diagrams; dbt's sources; one diagram of all tables.",
)
@click.option(
    "--local",
    is_flag=True,
    help="Ask the database which columns were added there, and tell them too.",
)
@pass_invocation
def command(invocation: Invocation, *, format_: str, local: bool) -> None:
    """Print the data dictionary: every table, view, column and function.

    It is what this release makes, in the schema that the settings name, and no database is asked.
    With --local it is what the configured database has: the columns of your own revisions as well,
    as the last `migrate` left them. For that a role that may read the views will do.
    """
    from etl.map import SHIPPED  # noqa: PLC0415  spares --help
    from etl.report.dbt_sources import dbt_sources  # noqa: PLC0415  spares --help
    from etl.report.erd import diagram  # noqa: PLC0415  spares --help
    from etl.report.schema_page import schema_page  # noqa: PLC0415  spares --help

    settings = invocation.settings()
    schema = settings.database.schema_
    the_map = _map_there(settings) if local else SHIPPED
    match format_:
        case "dbt":
            told = dbt_sources(the_map, schema)
        case "mermaid":
            told = diagram(the_map.tables.values())
        case _:
            told = schema_page(the_map, schema)
    click.echo(told, nl=False)


def _map_there(settings: Settings) -> Map:
    from etl.jobs.local_map import local_map  # noqa: PLC0415  spares --help

    with target_of(settings) as url:
        return local_map(url, settings.database.schema_)
