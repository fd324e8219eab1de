"""What Alembic runs around the revisions, for `persona-etl migrate` and for plain `alembic`.

`persona-etl` hands over its schema and connection in the config's attributes. On its own Alembic
gets both from persona-etl's settings; the ini names no database. Nothing here touches logging.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from alembic import context

from etl.settings import load_settings
from etl.store.embedded import served
from etl.store.engine import make_engine
from etl.store.migration import migrating, session_sql
from etl.tables import metadata

if TYPE_CHECKING:
    import sqlalchemy as sa


def run() -> None:
    """Choose between SQL on stdout, the connection we were given, and one of our own."""
    schema: str | None = context.config.attributes.get("schema")
    connection: sa.Connection | None = context.config.attributes.get("connection")
    if context.is_offline_mode():
        run_offline(schema or load_settings(os.environ).database.schema_)
    elif connection is not None:
        run_online(connection)
    else:
        run_on_its_own()


def run_on_its_own() -> None:
    settings = load_settings(os.environ)
    schema = settings.database.schema_
    with served(settings.require_database().get_secret_value(), os.environ) as url:
        engine = make_engine(url, schema, application_name="persona-etl alembic")
        with migrating(engine, schema) as connection:
            run_online(connection)


def run_online(connection: sa.Connection) -> None:
    # Tables here have no schema, and the session's search_path is ours alone: no other schema is
    # read or compared, and a revision serves a schema of any name.
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_offline(schema: str) -> None:
    context.configure(
        dialect_name="postgresql",
        target_metadata=metadata,
        transaction_per_migration=True,
        literal_binds=True,
        # Otherwise the driver's parameter style doubles each % in the SQL.
        dialect_opts={"paramstyle": "named"},
    )
    for statement in session_sql(schema):
        context.get_context().impl.static_output(statement)
    with context.begin_transaction():
        context.run_migrations()


run()
