"""`migrate`: the lock, the release's revisions, the local ones, the views, the grants.

Done here, or printed as a script of the same statements for a DBA.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa

from etl.errors import DatabaseError, UsageError
from etl.jobs.grants import only_read, reader_grants, require_roles, writer_grants
from etl.map import extended
from etl.report.ours import reporting_schema
from etl.report.text import listed
from etl.report.views_sql import (
    build_views,
    in_place_of_views,
    pause_views,
    standing_on_views,
    views_as_they_are,
)
from etl.store.access import PUT_BACK, absent_from
from etl.store.drift import settle
from etl.store.engine import translated
from etl.store.local_history import read_history
from etl.store.local_migration import (
    AT_BASE,
    lines_at,
    local_sql,
    look_at_local,
    require_known,
    run_local,
    target_of,
)
from etl.store.mapped import read_map
from etl.store.migration import (
    LOCK_SECONDS,
    create_schema_sql,
    migrating,
    patiently,
    run_script,
    session_end_sql,
    upgrade,
    upgrade_sql,
)
from etl.store.revisions import head_revision, refuse_strangers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from etl.map import Map
    from etl.store.local_history import LocalHistory
    from etl.store.local_migration import LocalState


_COLUMNS = sa.text("""
    SELECT c.relname, a.attname, a.atttypid
      FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
     WHERE c.relnamespace = to_regnamespace(quote_ident(:schema)) AND c.relkind = 'r'
       AND a.attnum > 0 AND NOT a.attisdropped
""")

# Of the tables there are; a superuser and a member of the owner may what the owner may.
_OTHER_OWNER = sa.text("""
    SELECT pg_get_userbyid(relowner)
      FROM pg_class
     WHERE relnamespace = to_regnamespace(quote_ident(:schema))
       AND relname = 'persona_sync_state' AND NOT pg_has_role(relowner, 'USAGE')
""")

_ROOM = 60  # for the names of what is gone

# What our own SQL says when somebody else's view or function has the name of one of ours.
_IN_PLACE = psycopg.errors.DuplicateTable | psycopg.errors.DuplicateFunction


def migrate(
    engine: sa.Engine,
    schema: str,
    *,
    local_dir: Path | None = None,
    local_to: str | None = None,
    readers: Sequence[str] = (),
    writers: Sequence[str] = (),
    wait_seconds: float = LOCK_SECONDS,
) -> str:
    """Brings `schema` to the head, its views with it, and grants these roles what they need.

    With `local_dir` the local history as well, to its newest revision, or up or down to `local_to`.
    Returns where that one is, `base` at its beginning.

    Raises DatabaseError, LockedError while another `migrate` runs, and UsageError, before anything
    is done, when a role is missing or the folder is no history. What was committed before stays:
    run it again to go on.
    """
    history = local_history(local_dir, local_to)
    require_roles(engine, [*readers, *writers])
    with migrating(engine, schema, wait_seconds=wait_seconds) as connection:
        with connection.begin():
            # Else Postgres names the first thing that it denies, and a grant would not help.
            if owner := connection.scalar(_OTHER_OWNER, {"schema": schema}):
                raise DatabaseError(
                    f"schema {schema}: its tables belong to role {owner}; run"
                    " `persona-etl migrate` with a database.url of that role"
                )
            refuse_strangers(connection, schema)
            in_place = run_script(connection, in_place_of_views(schema)).scalars().all()
        if in_place:
            raise DatabaseError(
                f"{', '.join(in_place)}: in the place of a view or function of persona-etl, and"
                " not its own; rename it, or name another schema in database.schema"
            )
        # Before the revisions: who may not make it is told before there are any tables.
        with connection.begin():
            run_script(connection, create_schema_sql(reporting_schema(schema)))
        upgrade(connection, schema)
        try:
            if history is not None:
                run_local(connection, schema, history, local_to)
        except Exception:
            # Else the release's views would wait for a team's own file to be mended.
            with suppress(sa.exc.SQLAlchemyError, DatabaseError):
                _finish(connection, schema, readers, writers)
            raise
        return _finish(connection, schema, readers, writers)


def _finish(
    connection: sa.Connection, schema: str, readers: Sequence[str], writers: Sequence[str]
) -> str:
    """The views and grants, by the map that is in force. Returns where the local history is."""
    with connection.begin():
        if absent := absent_from(connection, schema):
            gone = listed("has no ", absent, len(absent), _ROOM)
            raise DatabaseError(f"schema {schema} {gone}; {PUT_BACK}")
        the_map = read_map(connection)
        local = look_at_local(connection).revision
    patiently(lambda: _build(connection, schema, the_map, readers, writers))
    return local


def columns_there(engine: sa.Engine, schema: str) -> set[tuple[str, str, int]]:
    """The columns of the tables in `schema`, with their types."""
    with translated(), engine.connect() as connection:
        found = connection.execute(_COLUMNS, {"schema": schema})
        return {(row.relname, row.attname, row.atttypid) for row in found}


def is_to_be_filled(engine: sa.Engine, schema: str, before: set[tuple[str, str, int]]) -> bool:
    """Whether tables that were there have got a column for a field since, or lists a table."""
    new = {(table, column) for table, column, _ in columns_there(engine, schema) - before}
    if not before or not new:
        return False
    with translated(), engine.connect() as connection:
        the_map = read_map(connection)
    return any(
        (table.name, column.name) in new and the_map.path(column) is not None
        for table in the_map.projections()
        for column in table.columns
    )


def local_history(local_dir: Path | None, local_to: str | None) -> LocalHistory | None:
    """What is in the folder, None without one. Raises UsageError, before anything is done."""
    if local_dir is None:
        if local_to is not None:
            raise UsageError("no local revisions; name their folder in migrations.local_dir")
        return None
    history = read_history(local_dir)
    target_of(history, local_to)
    return history


def migrate_sql(
    schema: str,
    *,
    since: str,
    local_dir: Path | None = None,
    local_to: str | None = None,
    local_since: LocalState = AT_BASE,
    note: str | None = None,
    readers: Sequence[str] = (),
    writers: Sequence[str] = (),
) -> str:
    """What `migrate` would do to a schema at the revision `since`, as one script.

    `local_since` is what the schema has of a local history. `note` becomes a comment at the head.
    Raises UsageError when there is no such revision.
    """
    history = local_history(local_dir, local_to)
    local_present = local_target = local_since.revision
    locally = ""
    if history is not None:
        require_known(history, local_present, schema)
        local_target = target_of(history, local_to)
        locally = local_sql(schema, history, local_present, local_target)
    is_moved = since not in {"base", head_revision()} or local_target != local_present
    head = [
        f"persona-etl {version('persona-etl')}: schema {schema}, {since} to {head_revision()}",
        *([f"local history, {local_present} to {local_target}"] if history else []),
        "Run all of it in one session, e.g. psql --set ON_ERROR_STOP=1 --file migrate.sql",
        *(["Then: persona-etl backfill replay, which fills new columns"] if is_moved else []),
        *([note] if note else []),
    ]
    revisions = f"{upgrade_sql(schema, since, local_present).strip()}\n\n{locally.strip()}"
    # A downgrade to the base leaves these tables. Their types are Alembic's own choice.
    revisions = re.sub(
        r"CREATE TABLE (alembic_version(?:_local)?) \(",
        r"CREATE TABLE IF NOT EXISTS \1 (\n    -- squawk-ignore prefer-text-field",
        revisions,
    )
    if since != "base":
        # A script can't wait and see whether a view is in the way of a revision.
        revisions = revisions.replace("\nBEGIN;\n", f"\nBEGIN;\n\n{pause_views(schema)}\n", 1)
    the_map = extended(lines_at(local_since, history, local_target))
    return "\n\n".join(
        [
            "\n".join(f"-- {line}" for line in head),
            create_schema_sql(reporting_schema(schema)),
            revisions.strip(),
            "BEGIN;",
            *_views_and_grants(schema, the_map, readers, writers),
            "COMMIT;",
            session_end_sql(schema) + "\n",
        ]
    )


def run_past_views(connection: sa.Connection, schema: str, run: Callable[[], None]) -> None:
    """Runs revisions, up or down. Readers notice only if a view of ours stands in the way of one.

    Then the views are paused until `migrate` makes them anew. `connection` is in no transaction.
    """
    try:
        run()
    except sa.exc.DBAPIError as exc:
        if not _is_in_the_way(exc):
            raise
        connection.rollback()
    else:
        return
    try:
        with _paused_views(connection, schema):
            run()
    except sa.exc.DBAPIError as exc:
        if not _is_in_the_way(exc):
            raise
        with connection.begin():
            standing = run_script(connection, standing_on_views(schema)).scalars().all()
        raise DatabaseError(_told(exc, standing)) from exc


@contextmanager
def _paused_views(connection: sa.Connection, schema: str) -> Iterator[None]:
    """The views are paused. If the block fails they are put back, as far as the tables still fit.

    Paused in a transaction of their own: Alembic leaves no room for more in that of a revision.
    """
    with connection.begin():
        before = run_script(connection, views_as_they_are(schema)).all()
        run_script(connection, pause_views(schema))
    try:
        yield
    except BaseException:
        connection.rollback()
        with suppress(sa.exc.DBAPIError), connection.begin():
            for name, query in before:
                # Of what an earlier revision has changed a view may not stand any more.
                with suppress(sa.exc.DBAPIError), connection.begin_nested():
                    run_script(connection, f"CREATE OR REPLACE VIEW {name} AS {query}")
        raise


def _views_and_grants(
    schema: str, the_map: Map, readers: Sequence[str], writers: Sequence[str]
) -> list[str]:
    return [
        *build_views(schema, the_map),
        *(grant for role in readers for grant in reader_grants(schema, role)),
        *(grant for role in writers for grant in writer_grants(schema, role, the_map)),
        only_read(schema),
    ]


def _build(
    connection: sa.Connection,
    schema: str,
    the_map: Map,
    readers: Sequence[str],
    writers: Sequence[str],
) -> None:
    try:
        with connection.begin():
            for statement in _views_and_grants(schema, the_map, readers, writers):
                run_script(connection, statement)
            settle(connection, the_map)
    except sa.exc.DBAPIError as exc:
        if not (_is_in_the_way(exc) or isinstance(exc.orig, _IN_PLACE)):
            raise
        raise DatabaseError(_told(exc)) from exc


def _is_in_the_way(exc: sa.exc.DBAPIError) -> bool:
    """Whether something depends on what was to be changed. Types of columns are 0A000."""
    return isinstance(
        exc.orig,
        psycopg.errors.DependentObjectsStillExist | psycopg.errors.FeatureNotSupported,
    )


def _told(exc: sa.exc.DBAPIError, standing: Sequence[str] = ()) -> str:
    """The server's own words. Here its DETAIL names objects, not rows."""
    diagnosis = exc.orig.diag if isinstance(exc.orig, psycopg.Error) else None
    said = [*standing]
    if diagnosis is not None:
        said = [diagnosis.message_primary or "", diagnosis.message_detail or "", *standing]
    lines = " ".join("; ".join(line for line in said if line).split())
    return f"Postgres: {lines}; drop what is in the way, run again, then make it again"
