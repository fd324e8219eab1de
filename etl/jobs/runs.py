"""Says what runs did, out of the ledger. It asks the database alone, and writes nothing.

A role that may read the reports sees the runs; what they did to whom only the tables tell.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.exc import ProgrammingError

from etl.errors import UsageError
from etl.jobs.busy import busy
from etl.jobs.view_sources import sources_of
from etl.report.ledger import runs_view
from etl.store.asked_for import count_left, has_list
from etl.store.engine import LOOKS_FOR_SECONDS, database_now, make_engine, translated
from etl.store.entries import Entry, Issues, Items, entries, items, open_issues_of
from etl.store.revisions import require_head
from etl.store.standing import relations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from etl.settings import Settings

# The only command that keeps a list of whom it asks for.
RESUMABLE = "backfill api"
LAST = "last"

# So much of an id tells most runs apart; less may be a mistake.
_SHORTEST = 8
_PREFIX = re.compile(r"[0-9a-fA-F]{8}[0-9a-fA-F-]{0,28}", re.ASCII)
_DIGITS = 32

_WHAT_IT_DID = ("runs", "run_items", "personas", "persona_sync_state", "value_issues")


@dataclass(frozen=True, slots=True)
class Listed:
    """The latest runs, the newest first; `now` by the database's clock."""

    now: datetime
    runs: list[Entry]
    is_empty: bool
    """There is no run at all, not only none like those that were asked for."""
    died: set[UUID]
    """Those whose rows say running, and that nobody is at work on."""


@dataclass(frozen=True, slots=True)
class Told:
    """All that is known of one run."""

    now: datetime
    run: Entry
    items: list[Items] | None
    """None: not visible to this role."""
    issues: Issues | None
    left: int | None
    """How many a run that resumes it would ask for; None: it can't be resumed."""
    has_died: bool
    """Its row says running, and nobody is at work on it."""


def list_runs(
    settings: Settings,
    *,
    url: str,
    limit: int,
    commands: tuple[str, ...] = (),
    statuses: tuple[str, ...] = (),
) -> Listed:
    """The latest runs of these commands, that stand so. Raises DatabaseError."""
    with _reading(settings, url) as (connection, runs, _):
        found = entries(connection, runs, commands=commands, statuses=statuses, limit=limit)
        is_empty = not found and not entries(connection, runs, limit=1)
        died = _died(connection, runs, settings, found)
        return Listed(database_now(connection), found, is_empty, died)


def tell_run(
    settings: Settings,
    typed: str,
    *,
    url: str,
    listed: int,
    commands: tuple[str, ...] = (),
    statuses: tuple[str, ...] = (),
) -> Told:
    """All about one run; `listed`: how many personas of each outcome.

    Raises:
        DatabaseError: Postgres can't be asked.
        UsageError: there is no such run, or more than one.
    """
    with _reading(settings, url) as (connection, runs, sees_all):
        run = named_run(connection, runs, typed, commands=commands, statuses=statuses)
        did = items(connection, run.run_id, listed=listed) if sees_all else None
        issues = open_issues_of(connection, run.run_id, listed=listed) if sees_all else None
        left = None
        if sees_all and is_resumable(connection, run):
            left = count_left(connection, run.run_id)
        has_died = bool(_died(connection, runs, settings, [run]))
        return Told(database_now(connection), run, did, issues, left, has_died)


def named_run(
    connection: Connection,
    runs: str,
    typed: str,
    *,
    commands: tuple[str, ...] = (),
    statuses: tuple[str, ...] = (),
) -> Entry:
    """The run that somebody means: an id, its beginning, or `last`, of these commands.

    Raises UsageError when there is none, or more than one.
    """
    if typed == LAST:
        found = entries(connection, runs, commands=commands, statuses=statuses, limit=1)
        if not found:
            raise UsageError("RUN_ID: the ledger has no such run; `persona-etl runs` lists all")
        return found[0]
    digits = typed.replace("-", "")
    if not _PREFIX.fullmatch(typed) or len(digits) > _DIGITS:
        raise UsageError(
            f'RUN_ID: "{typed}" is no id; write one, at least its first {_SHORTEST} digits, or'
            f" {LAST}; `persona-etl runs` lists them"
        )
    between = UUID(digits.ljust(_DIGITS, "0")), UUID(digits.ljust(_DIGITS, "f"))
    found = entries(connection, runs, between=between, limit=4)
    if not found:
        raise UsageError(f"RUN_ID: there is no run {typed}; `persona-etl runs` lists them")
    if len(found) > 1:
        ids = ", ".join(str(run.run_id) for run in found)
        raise UsageError(f"RUN_ID: more than one run begins with {typed}: {ids}; write more of it")
    return found[0]


def is_resumable(connection: Connection, run: Entry) -> bool:
    """Whether it is known whom the run asked for, and so what is left of it.

    One that ended before it knew that itself left nothing to go on from. Of one that found all
    unchanged, or had nobody to ask for, no item is left.
    """
    if run.command != RESUMABLE:
        return False
    requested, unchanged = run.counts["requested"], run.counts["unchanged"]
    is_done = requested == unchanged and (requested > 0 or run.status == "succeeded")
    return is_done or has_list(connection, run.run_id)


def _died(
    connection: Connection, runs: str, settings: Settings, found: Sequence[Entry]
) -> set[UUID]:
    """Those of the runs that will never close their rows themselves."""
    if all(run.status != "running" for run in found):
        return set()
    dead = busy(connection, runs, settings.database.schema_).orphans
    return {run.run_id for run in found} & {run.run_id for run in dead}


@contextmanager
def _reading(settings: Settings, url: str) -> Iterator[tuple[Connection, str, bool]]:
    """A session that only reads, what stands for `runs`, and whether all tables can be read."""
    schema = settings.database.schema_
    engine = make_engine(url, schema, lock_timeout_seconds=LOOKS_FOR_SECONDS, read_only=True)
    with translated(), engine.connect() as connection:
        tables = relations(connection, schema)
        if "runs" not in tables:
            require_head(engine, schema)
        (runs,) = sources_of(connection, schema, tables, [runs_view()], ["runs"]).values()
        try:
            yield connection, runs, all(tables.get(table) for table in _WHAT_IT_DID)
        except ProgrammingError:
            # A schema of another release may lack what is asked for: that is what to tell then.
            if tables.get("alembic_version"):
                require_head(engine, schema)
            raise
