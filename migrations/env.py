"""What Alembic runs around the revisions, for `persona-etl migrate` and for plain `alembic`.

`persona-etl` hands over its schema and connection in the config's attributes, and which of the two
histories to run: the release's, or the local one with its own folder and version table. On its own
Alembic gets schema and database from persona-etl's settings, and runs the release's; the ini names
no database. Nothing here touches logging.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from alembic import context

from etl.jobs.migrate import run_past_views
from etl.report.views_sql import drop_views
from etl.settings import load_settings
from etl.store.embedded import served
from etl.store.engine import make_engine
from etl.store.migration import local_ends_sql, migrating, run_script, session_sql
from etl.store.revisions import LOCAL_TABLE
from etl.tables import metadata

if TYPE_CHECKING:
    import sqlalchemy as sa
    from alembic.runtime.migration import MigrationContext, MigrationInfo

ATTRIBUTES = context.config.attributes
IS_LOCAL: bool = ATTRIBUTES.get("is_local", False)


def run() -> None:
    """Choose between SQL on stdout, the connection we were given, and one of our own."""
    given: str | None = ATTRIBUTES.get("schema")
    connection: sa.Connection | None = ATTRIBUTES.get("connection")
    schema = given or load_settings(os.environ).database.schema_
    if context.is_offline_mode():
        run_offline(schema)
    elif connection is not None:
        run_past_views(connection, schema, lambda: run_online(connection, schema))
    else:
        run_on_its_own(schema)


def run_on_its_own(schema: str) -> None:
    database = load_settings(os.environ).require_database()
    with served(database.get_secret_value(), os.environ) as url:
        engine = make_engine(url, schema, application_name="persona-etl alembic")
        with migrating(engine, schema) as connection:
            run_past_views(connection, schema, lambda: run_online(connection, schema))


def run_online(connection: sa.Connection, schema: str) -> None:
    # Tables here have no schema, and the session's search_path is ours alone: no other schema is
    # read or compared, and a revision serves a schema of any name.
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=LOCAL_TABLE if IS_LOCAL else "alembic_version",
        transaction_per_migration=True,
        compare_type=True,
        compare_server_default=True,
        include_name=lambda name, *_: name != LOCAL_TABLE,
        on_version_apply=what_ends_with_the_tables(schema),
    )
    with context.begin_transaction():
        context.run_migrations()


def run_offline(schema: str) -> None:
    context.configure(
        dialect_name="postgresql",
        target_metadata=metadata,
        version_table=LOCAL_TABLE if IS_LOCAL else "alembic_version",
        transaction_per_migration=True,
        literal_binds=True,
        # Otherwise the driver's parameter style doubles each % in the SQL.
        dialect_opts={"paramstyle": "named"},
        on_version_apply=what_ends_with_the_tables(schema),
    )
    if not IS_LOCAL:
        begin_script(schema)
    with context.begin_transaction():
        context.run_migrations()


def begin_script(schema: str) -> None:
    since = context.get_starting_revision_argument()
    local_since: str | None = ATTRIBUTES.get("local_since")
    for statement in session_sql(schema, "base" if since is None else str(since), local_since):
        context.get_context().impl.static_output(statement)


def what_ends_with_the_tables(schema: str) -> Any:  # noqa: ANN401  as Alembic has it
    """What a downgrade of the release's takes along, in its own transaction.

    Of the last the views, as nothing is left to show. A local history that would lose its lines
    stops it.
    """

    def end(ctx: MigrationContext, step: MigrationInfo, heads: set[str], **_: object) -> None:
        if IS_LOCAL or step.is_upgrade or step.is_stamp:
            return
        for statement in [local_ends_sql(), *([] if heads else [drop_views(schema)])]:
            if ctx.as_sql or ctx.connection is None:
                ctx.impl.static_output(statement)
            else:
                run_script(ctx.connection, statement)

    return end


run()
