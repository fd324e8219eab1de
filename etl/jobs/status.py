"""Says how things stand: who runs, how fresh the personas are, what waits for a person.

It asks the database alone, takes no lock and writes nothing. A role that may read the reports will
do; what only the tables tell is then left open.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING

from sqlalchemy.exc import ProgrammingError

from etl.errors import DatabaseError, DiscrepancyError, EtlError
from etl.jobs.busy import busy
from etl.jobs.view_sources import sources_of
from etl.report.ledger import runs_view
from etl.report.present import freshness_view
from etl.report.text import as_line, length_of_time
from etl.report.views_sql import release_of_views
from etl.store.engine import LOOKS_FOR_SECONDS, database_now, make_engine, translated
from etl.store.erasures import forgotten
from etl.store.local_history import read_history
from etl.store.revision_files import BASE
from etl.store.revisions import LOCAL_TABLE, current_and_head, current_revision, require_head
from etl.store.standing import (
    open_drift_paths,
    open_value_issues,
    read_freshness,
    read_ledger,
    relations,
)
from etl.store.unfolded import count_unfolded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from etl.settings import Settings
    from etl.store.entries import RunRow
    from etl.store.lock import Holder
    from etl.store.standing import Freshness, Ledger

REMOVED_LATELY = timedelta(days=7)

_LONGEST_NAME = 40

# A replica's clock may be so far behind the one that dated the runs.
_SKEW = timedelta(minutes=1)

# What the two views read.
_READ = {"runs", "personas", "persona_sync_state", "document_versions", "run_items"}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why all is not well: a code for programs, and a sentence."""

    code: str
    told: str


@dataclass(frozen=True, slots=True)
class Revision:
    """Where the schema stands."""

    at: str | None
    """None: this role may not see it."""
    wrong: DatabaseError | None
    """Why it is not the one that this program needs, and what to do."""
    views: str | None
    """The release of persona-etl that made the reporting views; None: not known, or none did."""
    local_waits: bool
    """Whether there are local revisions that `migrate` has not run."""

    @property
    def has_views_of_another_release(self) -> bool:
        """Then they may lack what this release's reports ask for."""
        return self.views is not None and self.views != version("persona-etl")


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand at a moment of the database's clock."""

    now: datetime
    max_age: timedelta | None
    schema: str
    revision: Revision
    is_replica: bool
    """Then nothing is known of the lock."""
    holder: Holder | None
    running: RunRow | None
    orphans: list[RunRow]
    """Their rows say running, and nobody holds the lock for them."""
    ledger: Ledger
    personas: Freshness
    knows_untracked: bool
    unfolded: int | None
    """How many documents a load from files left to be folded, or is about to fold."""
    value_issues: int | None
    drift_paths: int | None

    def age(self, moment: datetime) -> timedelta:
        """How long ago a moment was."""
        return self.now - moment

    @property
    def reasons(self) -> list[Reason]:
        """All that makes the exit code."""
        wrong = self.revision.wrong
        reasons = [Reason("schema", str(wrong))] if wrong else []
        if self.max_age is None:
            return reasons
        last = self.ledger.last_complete
        if last is None:
            reasons.append(Reason("no_recent_sync", "no sync has been completed yet"))
        elif last.finished_at and self.age(last.finished_at) > self.max_age:
            ago = length_of_time(self.age(last.finished_at))
            reasons.append(Reason("no_recent_sync", f"the last complete sync ended {ago} ago"))
        elif last.finished_at and self.age(last.finished_at) < -_SKEW:
            told = "the last complete sync ended later than now: the database's clock was set back"
            reasons.append(Reason("no_recent_sync", told))
        if count := self.personas.stale.count:
            oldest = self.personas.stale.first[0]
            who = as_line(oldest.name, _LONGEST_NAME) or oldest.persona_id
            when = oldest.last_success_at
            seen = (
                f"last seen {length_of_time(self.age(when))} ago"
                if when
                else "not shown by the API yet"
            )
            which = "1 live persona is" if count == 1 else f"{count} live personas are"
            reasons.append(Reason("stale_personas", f"{which} older: {who} was {seen}"))
        return reasons

    @property
    def error(self) -> EtlError | None:
        """Why the command does not exit with 0."""
        if self.revision.wrong or self.max_age is None or not self.reasons:
            return self.revision.wrong
        told = "; ".join(reason.told for reason in self.reasons)
        next_step = "`persona-etl sync` brings it up to date or says what is in the way"
        if self.running:
            next_step = f"{self.running.command} is running, see whether that helps"
        limit = length_of_time(self.max_age)
        return DiscrepancyError(f"not as fresh as {limit}: {told}; {next_step}")


def status(settings: Settings, *, url: str, max_age: timedelta | None) -> Status:
    """Looks at everything.

    Args:
        settings: Which personas are wanted, and the schema.
        url: The database, served already when it is an embedded one.
        max_age: How old data may be; None: as old as it is.

    Raises:
        DatabaseError: it can't be asked: no server, no tables, no privileges.
    """
    schema = settings.database.schema_
    engine = make_engine(url, schema, lock_timeout_seconds=LOOKS_FOR_SECONDS, read_only=True)
    with translated(), engine.connect() as connection:
        tables = relations(connection, schema)
        if "persona_sync_state" not in tables:
            require_head(engine, schema)
        sources = sources_of(connection, schema, tables, (runs_view(), freshness_view()), _READ)
        revision = _revision(engine, connection, settings, tables)
        try:
            return _look(connection, settings, sources, tables, max_age=max_age, revision=revision)
        except ProgrammingError as exc:
            # A schema of another release may lack what is asked for: that is what to tell then.
            if revision.wrong:
                raise revision.wrong from exc
            raise


def _revision(
    engine: Engine, connection: Connection, settings: Settings, tables: Mapping[str, bool]
) -> Revision:
    """Raises when there is none: the tables are somebody else's."""
    schema = settings.database.schema_
    # A percent sign in the schema's name means nothing.
    as_it_stands = {"no_parameters": True}
    made_by = connection.exec_driver_sql(release_of_views(schema), execution_options=as_it_stands)
    views = made_by.scalar()
    if not tables.get("alembic_version"):
        return Revision(None, None, views, local_waits=False)
    at, _ = current_and_head(engine, schema)
    waits = bool(tables.get(LOCAL_TABLE, True)) and _local_waits(connection, settings)
    try:
        require_head(engine, schema)
    except DatabaseError as exc:
        if at is None:
            raise
        return Revision(at, exc, views, waits)
    return Revision(at, None, views, waits)


def _local_waits(connection: Connection, settings: Settings) -> bool:
    """A folder that is no history, or not of this target, `check` tells of."""
    folder = settings.migrations.local_dir
    if folder is None:
        return False
    try:
        history = read_history(folder)
    except EtlError:
        return False
    present = current_revision(connection, LOCAL_TABLE) or BASE
    return history.knows(present) and present != history.head


def _look(
    connection: Connection,
    settings: Settings,
    sources: Mapping[str, str],
    tables: Mapping[str, bool],
    *,
    max_age: timedelta | None,
    revision: Revision,
) -> Status:
    now = database_now(connection)
    writing = busy(connection, sources["runs"], settings.database.schema_)
    wanted = settings.personas
    only_named = bool(wanted.ids) and not wanted.discover
    # Whoever reads only the reports can't tell, and sees them as never seen.
    left_out = forgotten(connection, wanted.ids) if tables.get("erasures") else set()
    return Status(
        now=now,
        max_age=max_age,
        schema=settings.database.schema_,
        revision=revision,
        is_replica=writing.is_replica,
        holder=writing.holder,
        running=writing.running,
        orphans=writing.orphans,
        ledger=read_ledger(connection, sources["runs"]),
        personas=read_freshness(
            connection,
            sources["freshness"],
            named=[id_ for id_ in wanted.ids if id_ not in left_out],
            only_named=only_named,
            discovers=wanted.discover,
            fresh_since=None if max_age is None else now - max_age,
            removed_since=now - REMOVED_LATELY,
        ),
        knows_untracked=only_named,
        unfolded=count_unfolded(connection) if tables.get("unfolded") else None,
        value_issues=open_value_issues(connection) if tables.get("value_issues") else None,
        drift_paths=open_drift_paths(connection) if tables.get("drift_paths") else None,
    )
