"""Says what changed of a persona between two moments, in itself and in what it shares.

It asks the database alone, takes no lock, writes nothing, and sees one snapshot. Whole documents
are compared, so it takes a role that may read the tables: the reporting views hold columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl.errors import DatabaseError, UsageError
from etl.jobs.lifeline import Past, Stretch
from etl.payload.decode import loads
from etl.report.ours import reporting_schema
from etl.report.persona_diff import Shown, Snapshot, compare, name_at, name_in
from etl.store.engine import translated
from etl.store.lineage import count_unfolded_of, documents_of
from etl.store.revisions import require_head
from etl.store.snapshot import looking_engine
from etl.store.standing import relations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.jobs.lifeline import Standing, When
    from etl.payload.decode import JsonObject
    from etl.payload.differences import Difference
    from etl.report.persona_diff import Comparison, State
    from etl.settings import Settings
    from etl.store.lineage import StoredVersion
    from etl.store.observations import ContentKey, EntityKey
    from etl.tables import Kind

_READ = ("document_versions", "documents", "unfolded")


@dataclass(frozen=True, slots=True)
class Event:
    """A version that began between the two moments: of the persona, or of what it referred to."""

    at: datetime
    not_before: datetime | None
    """When it was last seen otherwise: the change came between the two."""
    key: EntityKey
    name: str | None
    version: int
    change: str
    changed_paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class Diff:
    """What `diff` tells."""

    persona_id: UUID
    name: str | None
    before: Snapshot
    after: Snapshot
    is_last_change: bool
    """Nobody said since when: `before` is the moment before what changed last."""
    events: list[Event]
    comparisons: list[Comparison]
    first_seen_at: datetime
    kept_since: datetime | None
    """When history before this moment was pruned."""
    unfolded: int
    """How many of what it shows have observations that no version tells of yet."""

    def names(self, comparison: Comparison, change: Difference) -> tuple[str | None, str | None]:
        """What that which a field refers to was called, and what that which it now refers to is."""
        if comparison.kind != "persona":
            return None, None
        old, new = (
            name_at(change.path, change.old, self.before),
            name_at(change.path, change.new, self.after),
        )
        return old, new


def diff(
    settings: Settings,
    persona_id: UUID,
    *,
    url: str,
    since: When | None = None,
    until: When = "now",
) -> Diff:
    """Compares a persona with itself.

    Args:
        settings: Which schema.
        persona_id: Whose it is.
        url: The database, served already when it is an embedded one.
        since: None: just before the last change by `until`.
        until: When it ends.

    Raises:
        UsageError: Nothing is known of the persona, or of a version; `since` is after `until`.
        DatabaseError: Postgres can't be asked, or this role may not read the tables.
    """
    schema = settings.database.schema_
    engine = looking_engine(url, schema, json_deserializer=loads)
    with translated(engine), engine.begin() as connection:
        _require_readable(connection, schema)
        require_head(engine, schema)
        past = Past(connection, persona_id)
        end = past.moment(until)
        begin = past.before_last_change(end) if since is None else past.moment(since)
        if begin > end:
            later = "now" if until == "now" else f"--to, which is {end.isoformat()}"
            raise UsageError(
                f"--from is {begin.isoformat()}, later than {later}; the earlier goes to --from"
            )
        return _compared(past, begin, end, is_last_change=since is None)


def _require_readable(connection: Connection, schema: str) -> None:
    tables = relations(connection, schema)
    # What is missing is for the revisions to tell.
    hidden = [table for table in _READ if not tables.get(table, True)]
    if hidden:
        role = connection.exec_driver_sql("SELECT current_user").scalar_one()
        raise DatabaseError(
            f"role {role} may not read {', '.join(hidden)} in {schema}, and no view holds whole"
            f" documents; use the tables' owner, or ask {reporting_schema(schema)}.changes"
        )


def _compared(past: Past, begin: datetime, end: datetime, *, is_last_change: bool) -> Diff:
    stretch = Stretch(past, begin, end)
    standings = stretch.at(begin), stretch.at(end)
    contents = {content for standing in standings for content in _contents(past, standing)}
    documents = documents_of(past.connection, contents)
    before, after = (_snapshot(standing, documents) for standing in standings)
    own = after.document or before.document
    first = past.own[0]
    return Diff(
        persona_id=past.persona_id,
        name=name_in("persona", own) if own else None,
        before=before,
        after=after,
        is_last_change=is_last_change,
        events=[
            Event(
                at=version.valid_from,
                not_before=previous.last_observed_at if previous else None,
                key=key,
                name=after.name_of(*key) or before.name_of(*key),
                version=version.number,
                change=version.change,
                changed_paths=version.changed_paths,
            )
            for key, previous, version in stretch.begun()
        ],
        comparisons=compare(past.persona_id, before, after),
        first_seen_at=first.valid_from,
        kept_since=first.valid_to if first.change == "pruned" else None,
        unfolded=count_unfolded_of(past.connection, [past.key, *stretch.keys]),
    )


def _contents(past: Past, standing: Standing) -> Iterator[ContentKey]:
    own = [(past.key, standing.shown)] if standing.shown else []
    for (kind, _), version in [*own, *standing.shared.items()]:
        if version.content_hash is not None:
            yield kind, bytes(version.content_hash)


def _snapshot(standing: Standing, documents: Mapping[ContentKey, JsonObject]) -> Snapshot:
    def document(kind: Kind, version: StoredVersion) -> JsonObject | None:
        content = version.content_hash
        return None if content is None else documents[kind, bytes(content)]

    version, shown = standing.version, standing.shown
    if version is None or shown is None:
        return Snapshot(standing.moment, "unseen")
    stored = document("persona", shown)
    state: State = "pruned" if stored is None else "live"
    return Snapshot(
        standing.moment,
        "removed" if version.change == "removed" else state,
        version.number,
        version.valid_from,
        shown.number,
        stored,
        {
            (kind, entity_id): Shown(found.number, document(kind, found))
            for (kind, entity_id), found in standing.shared.items()
        },
    )
