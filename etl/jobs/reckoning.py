"""Works out all that a batch of arrivals comes to. Reads the database, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl.flatten import flatten
from etl.jobs.observe import news_of
from etl.jobs.outcome import item_of, state_after
from etl.jobs.reading import read, unread
from etl.store.drift import Sightings, sightings
from etl.store.issues import Found, issues_of
from etl.store.mapped import map_of
from etl.store.observations import stored_documents
from etl.store.past import contents_in_force
from etl.store.projections import Projected
from etl.store.states import states

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.flatten import Flat, ValueIssue
    from etl.jobs.arrival import Arrival
    from etl.jobs.observe import News
    from etl.jobs.reading import Reading
    from etl.payload.decode import JsonObject
    from etl.payload.documents import Part
    from etl.store.ahead import Ahead
    from etl.store.folding import Moved
    from etl.store.issues import Issues
    from etl.store.ledger import Item, Rejection
    from etl.store.observations import ContentKey, EntityKey
    from etl.store.states import State
    from etl.tables import Kind

    # A copy of a document, and when it came.
    Brought = tuple[datetime, Part]


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrivals, read as far as is needed; each persona stands in it once."""

    arrivals: Sequence[Arrival]
    known: dict[UUID, State]
    """Where those personas stood."""
    readings: list[Reading]
    """Of the arrivals that have a body."""


def read_batch(connection: Connection, arrivals: Sequence[Arrival]) -> Batch:
    """Decodes, cleans and takes apart what differs from last time."""
    known = states(connection, [arrival.persona_id for arrival in arrivals])
    readings = [
        read(arrival, arrival.answer, arrival.answer.body, known.get(arrival.persona_id))
        for arrival in arrivals
        if arrival.answer is not None and arrival.answer.body is not None
    ]
    return Batch(arrivals, known, readings)


@dataclass(frozen=True, slots=True)
class Reckoned:
    """All that a batch comes to. Nothing of it is written yet."""

    news: News | None
    projected: list[Projected]
    """The documents in force that moved, with their observed fields."""
    stored: list[Projected]
    """The same, of contents that nobody brought just now: the observed fields are not known."""
    observed: list[Flat]
    """The observed fields of the rest."""
    issues: Issues
    drift: Sightings
    items: list[Item]
    states: list[State]
    rejections: list[Rejection]


def reckon(connection: Connection, batch: Batch, run_id: UUID, ahead: Ahead) -> Reckoned:
    """Compares, folds and flattens. `ahead` is what no table knows yet of earlier batches."""
    readings = batch.readings
    news = news_of(connection, [r for r in readings if r.is_changed], run_id, ahead)
    moved = news.folded.moved() if news is not None else {}
    by_content = _brought(readings)
    contents = ahead.documents | (news.contents if news is not None else {})
    projected, stored, found = _project(connection, moved, by_content, contents, _mended(readings))
    observed: list[Flat] = []
    flats = [(document.kind, document.flat) for document in (*projected, *stored)]
    for at, part in _unmoved(connection, by_content, moved, news, ahead):
        flat = flatten(
            part.kind, part.entity_id, part.whole(), "observed", the_map=map_of(connection)
        )
        observed.append(flat)
        flats.append((part.kind, flat))
        found.append(Found(part.kind, part.entity_id, at, flat.issues, whole=False))
    flats += _not_in_force(connection, news, moved)
    drift = Sightings([], [])
    if flats:
        latest = max(arrival.observed_at for arrival in batch.arrivals)
        drift = sightings(connection, flats, latest, ahead)
    items: list[Item] = []
    after: list[State] = []
    rejections: list[Rejection] = []
    by_persona = {reading.arrival.persona_id: reading for reading in readings}
    for arrival in sorted(batch.arrivals, key=lambda arrival: arrival.persona_id):
        reading = by_persona.get(arrival.persona_id)
        item = item_of(arrival, reading, moved)
        items.append(item)
        before = batch.known.get(arrival.persona_id)
        after.append(state_after(arrival, item.outcome, reading, before, run_id))
        if rejection := unread(arrival) if reading is None else reading.rejection:
            rejections.append(rejection)
    return Reckoned(
        news=news,
        projected=projected,
        stored=stored,
        observed=observed,
        issues=issues_of(connection, found, run_id, ahead),
        drift=drift,
        items=items,
        states=after,
        rejections=rejections,
    )


def _project(
    connection: Connection,
    moved: Mapping[EntityKey, Moved],
    by_content: Mapping[ContentKey, Brought],
    contents: Mapping[ContentKey, JsonObject],
    mended: Mapping[ContentKey, list[ValueIssue]],
) -> tuple[list[Projected], list[Projected], list[Found]]:
    """What the tables must show now: brought just now, and not; and what did not fit in it."""
    shown = {
        key: (found, content)
        for key, found in moved.items()
        if (content := found.content) is not None
    }
    unseen = {(key[0], content) for key, (_, content) in shown.items()} - contents.keys()
    documents = {**contents, **(stored_documents(connection, unseen) if unseen else {})}
    the_map = map_of(connection)
    projected: list[Projected] = []
    stored: list[Projected] = []
    found: list[Found] = []
    for (kind, entity_id), (head, content) in shown.items():
        at, part = by_content.get((kind, content), (head.version.last_observed_at, None))
        document = documents[kind, content]
        if part is not None:
            flat = flatten(kind, entity_id, part.whole_as(document), "all", the_map=the_map)
        else:
            flat = flatten(kind, entity_id, document, "stored", the_map=the_map)
        (stored if part is None else projected).append(
            Projected(
                kind,
                entity_id,
                flat,
                head.first_seen_at,
                head.version.valid_from,
                removed_at=head.version.valid_from if head.version.content_hash is None else None,
                is_new=head.is_first,
            )
        )
        issues = [*flat.issues, *mended.get((kind, content), ())]
        found.append(Found(kind, entity_id, at, issues, whole=True))
    return projected, stored, found


def _not_in_force(
    connection: Connection, news: News | None, moved: Mapping[EntityKey, Moved]
) -> Iterator[tuple[Kind, Flat]]:
    """The new documents that no table shows: they may have what the map does not know all the same.

    They came late, or another persona brought a newer copy of what is shared.
    """
    shown = {(key[0], found.content) for key, found in moved.items()}
    for part in news.documents if news is not None else ():
        if (part.kind, part.content_hash) not in shown:
            the_map = map_of(connection)
            yield part.kind, flatten(part.kind, part.entity_id, part.whole(), the_map=the_map)


def _mended(readings: Sequence[Reading]) -> dict[ContentKey, list[ValueIssue]]:
    """What decoding had to mend, by the content that it was found in."""
    mended: dict[ContentKey, list[ValueIssue]] = {}
    for reading in readings:
        content_of = {(part.kind, part.entity_id): part.content_hash for part in reading.parts}
        for issue in reading.mended:
            found_in = (issue.kind, content_of[issue.kind, issue.entity_id])
            mended.setdefault(found_in, []).append(issue)
    return mended


def _unmoved(
    connection: Connection,
    by_content: Mapping[ContentKey, Brought],
    moved: Mapping[EntityKey, Moved],
    news: News | None,
    ahead: Ahead,
) -> list[Brought]:
    """The copies of which only the observed fields count: what is in force did not move.

    A stale copy of another content says nothing about them.
    """
    counted = {
        (part.kind, part.entity_id)
        for _, part in by_content.values()
        if part.observed and (part.kind, part.entity_id) not in moved
    }
    folded = news.folded.new if news is not None else {}
    heads = {key: news.folded.head(key) for key in counted if key in folded} if news else {}
    heads |= {key: ahead.heads[key] for key in counted - heads.keys() if key in ahead.heads}
    unread = counted - heads.keys()
    in_force = contents_in_force(connection, unread) if unread else {}
    for key, head in heads.items():
        in_force[key] = head.version.content_hash if head.version is not None else None
    copies = [by_content.get((key[0], in_force.get(key) or b"")) for key in counted]
    return [copy for copy in copies if copy is not None and copy[1].observed]


def _brought(readings: Sequence[Reading]) -> dict[ContentKey, Brought]:
    """The latest copy of each content, with its time.

    An older copy, by the `updatedAt` of a shared document, is not the latest; nor is what comes too
    late to say anything about the present.
    """
    by_content: dict[ContentKey, Brought] = {}
    on_time = [reading for reading in readings if not reading.is_late]
    for reading in sorted(on_time, key=lambda reading: reading.arrival.observed_at):
        for part in reading.parts:
            if not _is_older(part, by_content.get((part.kind, part.content_hash))):
                by_content[part.kind, part.content_hash] = (reading.arrival.observed_at, part)
    return by_content


def _is_older(part: Part, known: Brought | None) -> bool:
    seen, newest = part.source_updated_at, known and known[1].source_updated_at
    return seen is not None and newest is not None and seen < newest
