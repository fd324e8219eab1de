"""Copies any personas once more, in runs that can be resumed: `sync`, with a list of its own.

A run enters whom it asks for before it asks; what is left of that list another run can ask for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from etl.errors import UsageError
from etl.jobs.runs import LAST, RESUMABLE, is_resumable, named_run
from etl.jobs.sync import sync
from etl.store.asked_for import count_left, left_of, not_confirmed_since
from etl.store.engine import make_engine, translated
from etl.store.entries import entries
from etl.store.revisions import require_head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.jobs.asking import Choose
    from etl.jobs.summary import Summary, Tally
    from etl.settings import Settings
    from etl.store.entries import Entry

# Of so many recent runs those are named that have something left.
_RECENT = 20
_NAMED = 3

# One that was skipped wanted something, and is not known to have wanted whom.
_BEGUN = ("running", "succeeded", "partial", "failed", "deferred", "interrupted", "crashed")


def backfill_api(
    settings: Settings,
    ids: Sequence[UUID],
    *,
    url: str,
    discover: bool = False,
    since: datetime | None = None,
    resume: str | None = None,
    strict: bool = False,
    allow_mass_removal: bool = False,
    unforget: bool = False,
    wait_seconds: float = 0,
    run_id: UUID | None = None,
    report: Callable[[Summary], None],
    watch: Callable[[Tally], None] = lambda _: None,
) -> None:
    """Copies these personas as `sync` does, by whose rules they are also removed.

    Args:
        settings: As for `sync`, as is all that is not told here.
        ids: The personas; none with `resume`.
        url: The database.
        discover: Also those that the API lists, and all live ones.
        since: Of all of them only those that were last confirmed before then, or never.
        resume: A run, as people name it: whom that one asked for and nobody has settled since.
        strict: That the API has moved is an error.
        allow_mass_removal: However many are missing, they are removed.
        unforget: Forgotten personas are let in again.
        wait_seconds: Waits so long for the lock.
        run_id: What the run is called; None: any new id.
        report: Is told how the run ended.
        watch: Is called as the run goes on.

    Raises:
        DatabaseError: before the run exists: Postgres is unreachable or its schema not at head.
        UsageError: before the run exists: that run can't be resumed, or the API's address or the
            key can't be used.
    """
    resumed = _resumed(settings, resume, url) if resume is not None else None
    sync(
        settings,
        ids,
        url=url,
        command=RESUMABLE,
        discover=discover,
        choose=_choice(since, resumed),
        keeps_list=True,
        resumes=resumed,
        strict=strict,
        allow_mass_removal=allow_mass_removal,
        unforget=unforget,
        wait_seconds=wait_seconds,
        run_id=run_id,
        report=report,
        watch=watch,
    )


def _choice(since: datetime | None, resumed: UUID | None) -> Choose:
    """Whom to ask for: looked up when the lock is held, as others may have settled some."""
    if resumed is not None:
        return lambda connection, _: left_of(connection, resumed)
    if since is not None:
        return partial(_unconfirmed, since=since)
    return lambda _, ids: ids


def _unconfirmed(connection: Connection, ids: Sequence[UUID], *, since: datetime) -> Sequence[UUID]:
    return not_confirmed_since(connection, ids, since)


def _resumed(settings: Settings, typed: str, url: str) -> UUID:
    schema = settings.database.schema_
    engine = make_engine(url, schema, read_only=True)
    require_head(engine, schema)
    with translated(), engine.connect() as connection:
        # `last` is the last that can be meant.
        of = {"commands": (RESUMABLE,), "statuses": _BEGUN} if typed == LAST else {}
        run = named_run(connection, "runs", typed, **of)
        if not is_resumable(connection, run):
            raise UsageError(f"{_why_not(run)}; {_instead(connection)}")
        return run.run_id


def _why_not(run: Entry) -> str:
    if run.command == "sync":
        return (
            f"run {run.run_id} is a sync, which keeps no list of its personas: `persona-etl sync`"
            " itself begins with those that have waited longest"
        )
    if run.command != RESUMABLE:
        return f"run {run.run_id} is a {run.command}, which asks the API for nobody"
    again = f"resume run {run.resumes}" if run.resumes else "tell the personas again"
    return f"whom run {run.run_id} wanted is not known, as it ended too early; {again}"


def _instead(connection: Connection) -> str:
    """Which runs can be resumed, to some purpose."""
    recent = entries(connection, "runs", commands=(RESUMABLE,), limit=_RECENT)
    with_rest = [
        str(run.run_id)
        for run in recent
        if is_resumable(connection, run) and count_left(connection, run.run_id)
    ]
    if not with_rest:
        return f"no recent run of {RESUMABLE} has left anything"
    return f"to be resumed: {', '.join(with_rest[:_NAMED])}"
