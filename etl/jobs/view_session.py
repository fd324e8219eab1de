"""A session of whoever reads the reports: one snapshot, in which a bare name is a reporting view's.

It takes no more than what `migrate --grant-reader` gives, and tells what is in the way.
"""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import ProgrammingError

from etl.errors import DatabaseError
from etl.report.catalogue import view_names
from etl.report.ours import reporting_schema
from etl.store.engine import translated
from etl.store.revisions import require_head
from etl.store.snapshot import looking_engine
from etl.store.standing import relations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

# undefined_column, undefined_table, undefined_function: the views are of another release.
_NOT_THERE: Final = {"42703", "42P01", "42883"}
_NOT_ALLOWED: Final = "42501"


@contextmanager
def reading_views(
    url: str, schema: str, *, json_deserializer: Callable[[str | bytes], Any] | None = None
) -> Iterator[Connection]:
    """One snapshot of the views of the tables in `schema`; nothing can be written.

    Raises DatabaseError when they are not there, not of this release, or not to be read by this
    role, and for what Postgres does to us within.
    """
    reporting = reporting_schema(schema)
    engine = looking_engine(url, reporting, json_deserializer=json_deserializer)
    with translated(engine), engine.begin() as connection:
        role = connection.exec_driver_sql("SELECT current_user").scalar_one()
        there = relations(connection, reporting)
        missing = [name for name in view_names() if name not in there]
        if missing:
            if not there:
                # Without any table that is told in a better way.
                require_head(looking_engine(url, schema), schema)
            raise _outdated(reporting, f"it has no view {missing[0]}")
        if not all(there[name] for name in view_names()):
            raise _refused(role, reporting)
        try:
            yield connection
        except ProgrammingError as exc:
            state = getattr(exc.orig, "sqlstate", None)
            if state in _NOT_THERE:
                raise _outdated(reporting, "its views are of another release") from exc
            if state == _NOT_ALLOWED:
                raise _refused(role, reporting) from exc
            raise


def _outdated(reporting: str, told: str) -> DatabaseError:
    return DatabaseError(f"schema {reporting}: {told}; run `persona-etl migrate`")


def _refused(role: str, reporting: str) -> DatabaseError:
    return DatabaseError(
        f"role {role} may not read the views in {reporting};"
        f" as their owner run `persona-etl migrate --grant-reader {shlex.quote(role)}`"
    )
