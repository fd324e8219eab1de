"""Runs the local history: its own Alembic environment, with a version table of its own.

The release's history and this one know nothing of each other; `migrate` runs the release's first.
"""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import sqlalchemy as sa
from alembic import command

from etl.errors import DatabaseError, EtlError, UsageError
from etl.map import lines_of
from etl.store.migration import alembic_config, offline_sql, patiently
from etl.store.revision_files import BASE
from etl.store.revisions import LOCAL_TABLE, current_revision
from etl.tables import local_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from alembic.config import Config

    from etl.map import Line
    from etl.store.local_history import LocalHistory


@dataclass(frozen=True, slots=True)
class LocalState:
    """What a target has of a local history: the revision, and the lines that are in force."""

    revision: str = BASE
    rows: tuple[Mapping[str, Any], ...] = ()
    """Of `local_columns`."""


AT_BASE: Final = LocalState()


def look_at_local(connection: sa.Connection) -> LocalState:
    """Where the target is, whether or not there is a folder."""
    revision = current_revision(connection, LOCAL_TABLE) or BASE
    if connection.scalar(sa.text("SELECT to_regclass('local_columns') IS NULL")):
        return LocalState(revision)
    rows = connection.execute(sa.select(local_columns)).mappings()
    return LocalState(revision, tuple(dict(row) for row in rows))


def require_known(history: LocalHistory, revision: str, schema: str) -> None:
    """Raises a DatabaseError when the target is at a revision that the folder lacks."""
    if not history.knows(revision):
        raise DatabaseError(
            f"schema {schema} is at local revision {revision}, which is not in {history.folder};"
            " get its file from whoever ran it"
        )


def target_of(history: LocalHistory, wanted: str | None) -> str:
    """The revision to go to: `wanted`, or the newest. Raises UsageError when there is none."""
    if wanted is not None and not history.knows(wanted):
        raise UsageError(
            f"{wanted}: no revision in {history.folder}; write base or one of its revisions"
        )
    return wanted or history.head


def run_local(
    connection: sa.Connection, schema: str, history: LocalHistory, wanted: str | None = None
) -> None:
    """Runs the local revisions that `schema` lacks, a transaction each, inside of `migrating`.

    With `wanted` up or down to that one. What was committed before a failure stays.

    Raises:
        UsageError: A file can't be run.
        DatabaseError: Postgres refuses what a file does, or the target is ahead of the folder.
    """
    with connection.begin():
        present = look_at_local(connection).revision
    require_known(history, present, schema)
    target = target_of(history, wanted)
    if present == target:
        return
    config = _config(history.folder)
    config.attributes.update(connection=connection, schema=schema)
    move = command.upgrade if history.between(present, target) else command.downgrade
    try:
        with _blaming(history):
            patiently(lambda: move(config, target))
    finally:
        # When a file can't be run, Alembic leaves the transaction open in which it looked.
        connection.rollback()


def local_sql(schema: str, history: LocalHistory, present: str, target: str) -> str:
    """The SQL of what `run_local` would do at `present`, to follow the release's in its session."""
    if present == target:
        return ""
    config = _config(history.folder)
    config.attributes.update(schema=schema)
    move = command.upgrade if history.between(present, target) else command.downgrade
    with _blaming(history):
        return offline_sql(config, move, f"{present}:{target}")


def lines_at(state: LocalState, history: LocalHistory | None, target: str) -> tuple[Line, ...]:
    """The lines that will be in force when a target in this state has gone to `target`."""
    if history is None:
        return lines_of(state.rows)
    undone = {one.revision for one in history.between(target, state.revision)}
    stay = lines_of(row for row in state.rows if row["revision"] not in undone)
    added = [line for one in history.between(state.revision, target) for line in one.lines]
    return tuple(sorted({*stay, *added}, key=lambda line: (line.table, line.column)))


def _config(folder: Path) -> Config:
    """The release's own, but for where the revisions are and which table says where we stand."""
    config = alembic_config()
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(folder).replace("%", "%%"))
    config.attributes["is_local"] = True
    return config


@contextmanager
def _blaming(history: LocalHistory) -> Iterator[None]:
    """What goes wrong in one of the files is told with its name, in one line.

    The connection's own errors pass, and bugs of ours.
    """
    try:
        yield
    except (EtlError, sa.exc.OperationalError):
        raise
    except (Exception, SystemExit) as exc:
        run = {Path(frame.filename).resolve() for frame in traceback.extract_tb(exc.__traceback__)}
        at_fault = [one.file for one in history.revisions if one.file.resolve() in run]
        if not at_fault:
            raise
        if isinstance(exc, sa.exc.DBAPIError) and isinstance(exc.orig, psycopg.Error):
            told = f"Postgres: {exc.orig.diag.message_primary or exc.orig}"
            error: type[EtlError] = DatabaseError
        else:
            told, error = f"{type(exc).__name__}: {exc}", UsageError
        told = " ".join(told.split())
        raise error(f"{at_fault[0]}: {told}; correct it, then run again") from exc
