"""Loads one batch of arrivals: reads it, reckons what it comes to, and writes that.

A dry run stops before the last step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from etl.errors import PayloadRejectedError
from etl.flatten import flatten
from etl.jobs.observe import news_of
from etl.jobs.reading import read, unread
from etl.store.ahead import Ahead
from etl.store.drift import Unknown, record_unknown, unknown_paths
from etl.store.issues import Found, Issues, issues_of, record_issues
from etl.store.ledger import Item, Rejection, State, add_items, add_rejections, save_states, states
from etl.store.observations import add_documents, stored_documents
from etl.store.projections import Projected, project, update_observed
from etl.store.versions import write
from etl.tables import FAILURES, SUCCESSES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.flatten import Flat, ValueIssue
    from etl.jobs.arrival import Arrival
    from etl.jobs.observe import News
    from etl.jobs.reading import Reading
    from etl.payload.documents import Part
    from etl.store.observations import ContentKey, EntityKey
    from etl.store.versions import Moved
    from etl.tables import Kind


@dataclass(slots=True)
class Loaded:
    """What a batch came to."""

    items: list[Item] = field(default_factory=list)
    value_issues: int = 0
    new_drift_paths: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrivals, read as far as is needed; each persona stands in it once."""

    arrivals: Sequence[Arrival]
    known: dict[UUID, State]
    """Where those personas stood."""
    readings: list[Reading]
    """Of the arrivals that have a body."""


def read_batch(connection: Connection, arrivals: Sequence[Arrival]) -> Batch:
    """Decodes, cleans and takes apart what differs from last time. Writes nothing."""
    known = states(connection, [arrival.persona_id for arrival in arrivals])
    readings = [
        read(arrival, arrival.answer, arrival.answer.body, known.get(arrival.persona_id))
        for arrival in arrivals
        if arrival.answer is not None and arrival.answer.body is not None
    ]
    return Batch(arrivals, known, readings)


@dataclass(slots=True)
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
    unknown: Unknown
    items: list[Item] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)

    def loaded(self) -> Loaded:
        """In numbers."""
        return Loaded(self.items, self.issues.opened, [f"{k}: {p}" for k, p in self.unknown.new])


def load(connection: Connection, batch: Batch, run_id: UUID) -> Loaded:
    """Compares, observes, versions, projects and records.

    A 404 is only entered in the ledger: removals are judged together, at the end of the run. Raises
    the driver's error when Postgres refuses the data; the caller splits the batch then.
    """
    reckoned = reckon(connection, batch, run_id, Ahead())
    if reckoned.news is not None:
        add_documents(connection, reckoned.news.documents)
        write(connection, reckoned.news.folded)
    project(connection, reckoned.projected)
    project(connection, reckoned.stored)
    update_observed(connection, reckoned.observed)
    record_issues(connection, reckoned.issues)
    record_unknown(connection, reckoned.unknown)
    save_states(connection, reckoned.states)
    add_items(connection, run_id, reckoned.items)
    add_rejections(connection, run_id, reckoned.rejections)
    return reckoned.loaded()


def reckon(connection: Connection, batch: Batch, run_id: UUID, ahead: Ahead) -> Reckoned:
    """Works out all that a batch comes to. Writes nothing."""
    arrivals, known, readings = batch.arrivals, batch.known, batch.readings
    news = news_of(connection, [r for r in readings if r.is_changed], run_id, ahead)
    moved = news.folded.moved() if news is not None else {}
    reckoned = _reckon_rows(connection, readings, moved, run_id, ahead)
    reckoned.news = news
    by_persona = {reading.arrival.persona_id: reading for reading in readings}
    for arrival in sorted(arrivals, key=lambda arrival: arrival.persona_id):
        reading = by_persona.get(arrival.persona_id)
        item = _item(arrival, reading, moved)
        reckoned.items.append(item)
        before = known.get(arrival.persona_id)
        reckoned.states.append(_state(arrival, item.outcome, reading, before, run_id))
        if rejection := unread(arrival) if reading is None else reading.rejection:
            reckoned.rejections.append(rejection)
    return reckoned


def _reckon_rows(
    connection: Connection,
    readings: Sequence[Reading],
    moved: dict[EntityKey, Moved],
    run_id: UUID,
    ahead: Ahead,
) -> Reckoned:
    """The rows of what moved, the observed columns of the rest, and what did not fit."""
    latest, by_content = _brought(readings)
    mended: dict[ContentKey, list[ValueIssue]] = {}
    for reading in readings:
        content_of = {(part.kind, part.entity_id): part.content_hash for part in reading.parts}
        for issue in reading.mended:
            found_in = (issue.kind, content_of[issue.kind, issue.entity_id])
            mended.setdefault(found_in, []).append(issue)
    in_force = {
        key: (found, content)
        for key, found in moved.items()
        if (content := found.version.content_hash) is not None
    }
    unseen = {(key[0], content) for key, (_, content) in in_force.items()} - by_content.keys()
    unseen -= ahead.documents.keys()
    documents = stored_documents(connection, unseen) if unseen else {}
    documents |= ahead.documents

    projected: list[Projected] = []
    stored: list[Projected] = []
    found: list[Found] = []
    flats: list[tuple[Kind, Flat]] = []
    for (kind, entity_id), (head, content) in in_force.items():
        at, part = by_content.get((kind, content), (head.version.last_observed_at, None))
        if part is not None:
            flat = flatten(kind, entity_id, part.whole(), "all")
        else:
            flat = flatten(kind, entity_id, documents[kind, content], "stored")
        (stored if part is None else projected).append(
            Projected(
                kind,
                entity_id,
                flat,
                head.first_seen_at,
                head.version.valid_from,
                is_new=head.is_first,
            )
        )
        flats.append((kind, flat))
        issues = [*flat.issues, *mended.get((kind, content), ())]
        found.append(Found(kind, entity_id, at, issues, whole=True))
    observed = {key: seen for key, seen in latest.items() if key not in moved and seen[1].observed}
    beside = {key: flatten(*key, part.whole(), "observed") for key, (_, part) in observed.items()}
    found += [
        Found(*key, observed[key][0], flat.issues, whole=False) for key, flat in beside.items()
    ]
    return Reckoned(
        None,
        projected,
        stored,
        list(beside.values()),
        issues_of(connection, found, run_id, ahead),
        unknown_paths(connection, flats, max(f.observed_at for f in found), ahead)
        if flats
        else Unknown([], []),
    )


def _brought(
    readings: Sequence[Reading],
) -> tuple[dict[EntityKey, tuple[datetime, Part]], dict[ContentKey, tuple[datetime, Part]]]:
    """The latest copy of each entity and of each content, with its time.

    An older copy, by the `updatedAt` of a shared document, is not the latest.
    """
    latest: dict[EntityKey, tuple[datetime, Part]] = {}
    by_content: dict[ContentKey, tuple[datetime, Part]] = {}
    for reading in sorted(readings, key=lambda reading: reading.arrival.observed_at):
        for part in reading.parts:
            seen = (reading.arrival.observed_at, part)
            if not _is_older(part, by_content.get((part.kind, part.content_hash))):
                by_content[part.kind, part.content_hash] = seen
            if not _is_older(part, latest.get((part.kind, part.entity_id))):
                latest[part.kind, part.entity_id] = seen
    return latest, by_content


def _is_older(part: Part, known: tuple[datetime, Part] | None) -> bool:
    seen, newest = part.source_updated_at, known and known[1].source_updated_at
    return seen is not None and newest is not None and seen < newest


def _item(arrival: Arrival, reading: Reading | None, moved: dict[EntityKey, Moved]) -> Item:
    """What became of one persona."""
    error, answer = arrival.error, arrival.answer
    if error is not None:
        return Item(
            persona_id=arrival.persona_id,
            outcome="rejected" if isinstance(error, PayloadRejectedError) else "failed",
            http_status=error.http_status,
            attempts=error.attempts,
            duration_ms=error.duration_ms,
            message=str(error),
        )
    if answer is None:
        raise ValueError("an arrival has an answer or an error")
    message = None
    if reading is None:
        outcome = "missing" if answer.status == 404 else "forbidden"  # noqa: PLR2004
        message = f"the API answers {answer.status}"
    elif reading.rejection is not None:
        outcome, message = "rejected", reading.rejection.reason
    else:
        own = moved.get(("persona", arrival.persona_id))
        outcome = own.change.change if own is not None and own.is_opened else "unchanged"
    return Item(
        persona_id=arrival.persona_id,
        outcome=outcome,
        http_status=answer.status,
        attempts=answer.attempts,
        duration_ms=answer.duration_ms,
        message=message,
    )


def _state(
    arrival: Arrival,
    outcome: str,
    reading: Reading | None,
    before: State | None,
    run_id: UUID,
) -> State:
    """Where a persona stands after this attempt."""
    now = State(
        persona_id=arrival.persona_id,
        last_attempt_at=arrival.observed_at,
        last_success_at=None,
        last_outcome=outcome,
        consecutive_failures=0,
        last_run_id=run_id,
        body_sha256=None,
        content_sha256=None,
    )
    if outcome in SUCCESSES and reading is not None:
        return replace(
            now,
            last_success_at=arrival.observed_at,
            body_sha256=reading.body_sha256,
            content_sha256=reading.content_sha256,
        )
    if before is None:
        return replace(now, consecutive_failures=int(outcome in FAILURES))
    return replace(
        before,
        last_attempt_at=now.last_attempt_at,
        last_outcome=outcome,
        consecutive_failures=before.consecutive_failures + 1 if outcome in FAILURES else 0,
        last_run_id=run_id,
    )
