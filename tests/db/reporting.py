"""Makes the view `changes` and what it calls beside the tables, for the tests of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl.report.changes import changes, changes_functions
from etl.report.functions import REPORTING

if TYPE_CHECKING:
    import psycopg


def make_changes(connection: psycopg.Connection[Any], schema: str = "anam") -> None:
    """Makes them in the schema of the tables."""
    with connection.transaction():
        connection.execute(f"SET LOCAL search_path = {schema}")
        for function in changes_functions():
            connection.execute(
                f"CREATE FUNCTION {schema}.{function.name}({function.arguments})"
                f" RETURNS {function.returns} LANGUAGE {function.language} {function.volatility}"
                f" PARALLEL SAFE AS $body${function.body.replace(REPORTING, schema)}$body$"
            )
        view = changes()
        columns = ", ".join(view.columns)
        query = view.query.replace(REPORTING, schema)
        connection.execute(
            f"CREATE VIEW {schema}.{view.name} AS SELECT {columns} FROM ({query}) AS _"
        )
