"""Where the API and the map differ: shown, decided about, and made into a revision to review.

Of the database nothing is written but the status of a path. That needs no writer's lock: it is one
UPDATE of rows that no table follows from, and a run reads the status in the statement that counts
the path, so that whoever comes first, what a person has decided stands.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from etl.errors import DatabaseError, UsageError
from etl.jobs.proposing import propose
from etl.jobs.revision_home import home_of, require_home
from etl.jobs.typed_paths import as_typed, resolve
from etl.proposal.model import Drift, Proposal, Refusal
from etl.report.ours import name as quoted
from etl.report.ours import reporting_schema
from etl.report.text import escaped
from etl.store.drift import decide, drifts
from etl.store.engine import LOOKS_FOR_SECONDS, database_now, make_engine, translated
from etl.store.faithful import loads_faithfully
from etl.store.local_migration import look_at_local
from etl.store.mapped import at_head
from etl.store.revisions import require_head
from etl.store.standing import relations
from etl.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from etl.jobs.revision_home import Home
    from etl.jobs.typed_paths import Place
    from etl.proposal.model import Key
    from etl.settings import Settings
    from etl.tables import Kind


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of API and map, and what would become of it."""

    drift: Drift
    proposed: Proposal | Refusal | None = None
    """None where it is not known or not asked: of what is ignored, or has a column."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What `drift` shows."""

    schema: str
    differences: list[Difference]
    hidden: int
    """How many are left out, being ignored or mapped."""
    knows_proposals: bool
    """Not so for a role that may read nothing but the views."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a path that a person decided about."""

    kind: Kind
    path: str
    status: Literal["accepted", "ignored", "mapped"]
    is_new: bool


@dataclass(frozen=True, slots=True)
class Revised:
    """What `drift propose` came to."""

    proposals: list[Proposal]
    refusals: list[Refusal]
    revision: str | None = None
    """None: there was nothing to write."""
    files: list[Path] = field(default_factory=list)
    shown: dict[Path, str] = field(default_factory=dict)
    """Of a dry run, what would be in the files."""
    error: UsageError | None = None
    """Fields were named, and nothing can be proposed for any."""


def look(settings: Settings, *, url: str, everything: bool) -> Listing:
    """Reads what differs, and asks what would be proposed for what is open or accepted.

    Raises DatabaseError when Postgres is unreachable, its schema not at head, or this role may read
    neither the tables nor the view.
    """
    schema = settings.database.schema_
    engine = _engine(url, schema, read_only=True)
    with translated(engine), engine.connect() as connection:
        tables = relations(connection, schema)
        if "drift_paths" not in tables:
            require_head(engine, schema)
        # What is missing is for the revisions to tell.
        if not all(tables.get(table, True) for table in (*metadata.tables, "alembic_version")):
            found = _read_view(connection, schema)
            return _listing(schema, found, {}, everything=everything, knows_proposals=False)
    engine = at_head(engine, schema)
    home = home_of(settings)
    with translated(engine), engine.connect() as connection:
        found = drifts(connection)
        to_propose = [drift for drift in found if _is_undecided_or_accepted(drift)]
        proposed = {p.drift.key: p for p in _proposed(connection, to_propose, home)}
    return _listing(schema, found, proposed, everything=everything, knows_proposals=True)


def set_status(
    settings: Settings,
    paths: Sequence[str],
    status: Literal["accepted", "ignored"],
    *,
    url: str,
) -> list[Decision]:
    """Remembers what a person has decided about these paths. All of them, or none.

    Raises UsageError when one of them is unknown or not just one.
    """
    engine = _engine(url, settings.database.schema_)
    require_head(engine, settings.database.schema_)
    with translated(engine), engine.begin() as connection:
        found = drifts(connection)
        decisions = [_decision(place, found, status) for place in resolve(paths, found)]
        decide(connection, [(d.kind, d.path) for d in decisions if d.is_new], status)
    return decisions


def propose_revision(
    settings: Settings, paths: Sequence[str] = (), *, url: str, name: str | None, dry_run: bool
) -> Revised:
    """Writes a revision that gives fields columns, and marks them as accepted. Alters no table.

    Args:
        settings: Where the revision goes, and the schema.
        paths: Which fields; none: all that are open or accepted.
        url: The database, served already when it is an embedded one.
        name: How the column of the one path is to be called.
        dry_run: Write nothing, show it.

    Raises:
        UsageError: A path is unknown, ignored or not just one; or there is nowhere to write to.
        DatabaseError: Postgres is unreachable, its schema is not at head, or it may not be written.
    """
    home = require_home(settings)
    schema = settings.database.schema_
    engine = at_head(_engine(url, schema, read_only=dry_run), schema)
    with translated(engine), engine.connect() as connection:
        found = drifts(connection)
        chosen = _chosen(found, paths)
        answers = _proposed(connection, chosen, home, name)
        now = database_now(connection)
    proposals = [answer for answer in answers if isinstance(answer, Proposal)]
    refusals = [answer for answer in answers if isinstance(answer, Refusal)]
    if not proposals:
        return Revised([], refusals, error=_nothing(refusals) if paths else None)
    if dry_run:
        written, shown = home.show(proposals, now)
        return Revised(proposals, refusals, written.revision, list(shown), shown)
    with translated(engine), engine.begin() as connection:
        # First, as a role that may not is to leave no file behind.
        decide(connection, dict.fromkeys(each.drift.place for each in proposals), "accepted")
        written = home.write(proposals, now)
    return Revised(proposals, refusals, written.revision, list(written.files))


def _engine(url: str, schema: str, *, read_only: bool = False) -> Engine:
    return make_engine(
        url,
        schema,
        lock_timeout_seconds=LOOKS_FOR_SECONDS,
        json_deserializer=loads_faithfully,
        read_only=read_only,
    )


def _read_view(connection: Connection, schema: str) -> list[Drift]:
    """From the reporting view, for whoever may read no table."""
    reporting = reporting_schema(schema)
    if not relations(connection, reporting).get("drift"):
        role = connection.exec_driver_sql("SELECT current_user").scalar_one()
        raise DatabaseError(
            f"role {role} may read neither the tables in {schema} nor the view {reporting}.drift;"
            f" as their owner run `persona-etl migrate --grant-reader {shlex.quote(role)}`"
        )
    columns: list[sa.ColumnClause[Any]] = [sa.column(each.name) for each in fields(Drift)]
    # A colon in a schema's name starts no parameter.
    view = sa.text(f"{quoted(reporting)}.drift".replace(":", r"\:"))
    query = sa.select(*columns).select_from(view).order_by("kind", "path", "problem")
    lists = ("json_types", "shapes", "new_members")
    return [
        Drift(**{**row, **{name: tuple(row[name]) for name in lists}})
        for row in connection.execute(query).mappings()
    ]


def _listing(
    schema: str,
    found: Sequence[Drift],
    proposed: Mapping[Key, Proposal | Refusal],
    *,
    everything: bool,
    knows_proposals: bool,
) -> Listing:
    wanted = [drift for drift in found if everything or _is_undecided_or_accepted(drift)]
    # Personas first: they are what it is about.
    wanted.sort(key=lambda drift: (drift.kind != "persona", drift.key))
    differences = [Difference(drift, proposed.get(drift.key)) for drift in wanted]
    return Listing(schema, differences, len(found) - len(wanted), knows_proposals)


def _proposed(
    connection: Connection, found: Sequence[Drift], home: Home | None, name: str | None = None
) -> list[Proposal | Refusal]:
    pending = home.pending(look_at_local(connection).revision) if home else ()
    return propose(connection, found, name=name, pending=pending)


def _chosen(found: Sequence[Drift], paths: Sequence[str]) -> list[Drift]:
    if not paths:
        return [drift for drift in found if _is_undecided_or_accepted(drift)]
    places = resolve(paths, found)
    chosen = [drift for drift in found if drift.place in places]
    for place in places:
        drift = next(d for d in chosen if d.place == place)
        statuses = {d.status for d in chosen if d.place == place}
        if statuses == {"mapped"}:
            raise UsageError(
                f"{as_typed(drift)} has its column already;"
                " `persona-etl drift` shows what can be proposed"
            )
        if statuses <= {"ignored", "mapped"}:
            raise UsageError(
                f"{as_typed(drift)} is ignored;"
                f" `persona-etl drift accept {shlex.quote(as_typed(drift))}` first"
            )
    return [drift for drift in chosen if _is_undecided_or_accepted(drift)]


def _nothing(refusals: Iterable[Refusal]) -> UsageError:
    reasons = [f"{as_typed(each.drift)}: {escaped(each.reason)}" for each in refusals]
    return UsageError(f"nothing to propose: {'; '.join(reasons)}")


def _decision(
    place: Place, found: Sequence[Drift], status: Literal["accepted", "ignored"]
) -> Decision:
    there = {drift.status for drift in found if drift.place == place} - {"mapped"}
    return Decision(*place, status if there else "mapped", is_new=bool(there - {status}))


def _is_undecided_or_accepted(drift: Drift) -> bool:
    return drift.status in {"open", "accepted"}
