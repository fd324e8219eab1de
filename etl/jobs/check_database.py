"""What `check` says of Postgres: server, privileges, schema, and the revisions of one's own."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from etl.errors import (
    DatabaseError,
    UsageError,
)
from etl.jobs.check_lines import Line, ok, unknown, wrong
from etl.report.catalogue import all_functions, view_names
from etl.report.ours import reporting_schema
from etl.report.text import counted, listed
from etl.report.views_sql import present_views
from etl.store.access import (
    PUT_BACK,
    Access,
    Server,
    look_at_schema,
    look_at_server,
    views_there,
)
from etl.store.embedded import require_cluster, served
from etl.store.engine import LOOKS_FOR_SECONDS, make_engine, translated
from etl.store.local_history import read_history
from etl.store.local_migration import look_at_local, require_known
from etl.store.revisions import head_revision, require_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine

    from etl.settings import Settings

_NEWEST = 18  # major version of Postgres that was tried

_BY_OWNER = "as its owner run `persona-etl migrate`, or as a DBA the SQL of its --sql"

_SHOWN_PRIVILEGES = 3

_ROOM = 40  # for the names of views and tables


def check_database(settings: Settings, environ: Mapping[str, str]) -> list[Line]:
    """The lines of database, privileges and schema, and of the local history where there is one."""
    schema = settings.database.schema_
    try:
        url = settings.require_database().get_secret_value()
        require_cluster(url, environ)
        with served(url, environ) as served_url:
            engine = make_engine(served_url, schema, lock_timeout_seconds=LOOKS_FOR_SECONDS)
            server = look_at_server(engine)
            access = look_at_schema(engine, schema, reporting_schema(schema))
            return [
                server_line(server),
                _privileges_line(access, schema, server.role),
                _schema_line(engine, schema, access),
                *_local_lines(settings, engine, access),
            ]
    except (UsageError, DatabaseError) as exc:
        return [
            wrong("database", str(exc).removeprefix("Postgres: "), exc.exit_code),
            unknown("privileges", "not checked: no database"),
            unknown("schema", "not checked: no database"),
            *_local_lines(settings),
        ]


def server_line(server: Server) -> Line:
    """Whether a run can write there. A server that won't do at all gives us no session."""
    told = f"Postgres {server.version}, database {server.database} as {server.role}"
    if server.read_only:
        problem = "is read-only; database.url must lead to the primary"
        return wrong("database", f"{told}, {problem}", DatabaseError.exit_code)
    newer = f"; newer than {_NEWEST}, the newest tried" if server.major > _NEWEST else ""
    return ok("database", f"{told}{newer}")


def _privileges_line(access: Access, schema: str, role: str) -> Line:
    grant = f"as its owner run `persona-etl migrate --grant-writer {shlex.quote(role)}`"
    may = "may migrate" if access.may_migrate else f"may not migrate: {_BY_OWNER}"
    if access.exists and not access.may_use:
        return wrong(
            "privileges",
            f"the role may not use schema {schema}; {grant}",
            DatabaseError.exit_code,
        )
    if not access.has_tables:
        return unknown("privileges", f"not checked: no tables in schema {schema} yet; {may}")
    if access.lacking:
        shown = [f"no {privilege} on {table}" for privilege, table in access.lacking]
        if (more := len(shown) - _SHOWN_PRIVILEGES) > 0:
            shown[_SHOWN_PRIVILEGES:] = [f"{more} more"]
        return wrong(
            "privileges",
            f"{', '.join(shown)}; {grant}",
            DatabaseError.exit_code,
        )
    # A writer should not, so that this needs no advice.
    return ok(
        "privileges", f"may read and write, may {'' if access.may_migrate else 'not '}migrate"
    )


def _schema_line(engine: Engine, schema: str, access: Access) -> Line:
    if access.exists and not access.may_use:
        return unknown("schema", f"not checked: schema {schema} can't be looked into")
    try:
        require_head(engine, schema)
    except DatabaseError as exc:
        told = str(exc).removeprefix("Postgres: ")
        if not access.may_migrate:
            told = told.replace("run `persona-etl migrate`", _BY_OWNER)
        return wrong("schema", told, exc.exit_code)
    if access.absent:
        gone = listed("no ", access.absent, len(access.absent), _ROOM)
        return wrong("schema", f"{gone} in {schema}; {PUT_BACK}", DatabaseError.exit_code)
    wanted = {*view_names()} | {made.name for made in all_functions()}
    if missing := wanted - views_there(engine, present_views(schema)):
        return wrong(
            "schema",
            f"{listed('no ', sorted(missing), len(missing), _ROOM)}"
            f" in {reporting_schema(schema)}; run `persona-etl migrate`",
            DatabaseError.exit_code,
        )
    return ok("schema", f"{schema} is at revision {head_revision()}, as this program needs it")


def _local_lines(
    settings: Settings, engine: Engine | None = None, access: Access | None = None
) -> list[Line]:
    """Whether the folder of local revisions is one, and whether `migrate` has run all of it."""
    folder = settings.migrations.local_dir
    if folder is None:
        return []
    schema = settings.database.schema_
    try:
        history = read_history(folder)
        if engine is None or access is None:
            return [unknown("local", f"{folder} ends at {history.head}; no database to compare")]
        if access.exists and not access.may_use:
            return [unknown("local", f"not checked: schema {schema} can't be looked into")]
        with translated(), engine.connect() as connection:
            present = look_at_local(connection).revision
        require_known(history, present, schema)
    except (UsageError, DatabaseError) as exc:
        return [wrong("local", str(exc).removeprefix("Postgres: "), exc.exit_code)]
    if pending := history.between(present, history.head):
        count = f"{counted(len(pending), 'local revision')} to run"
        how = "`persona-etl migrate`" if access.may_migrate else _BY_OWNER
        return [
            wrong("local", f"{count}, {schema} is at {present}: {how}", DatabaseError.exit_code)
        ]
    return [ok("local", f"at {present}, the newest in {folder}")]
