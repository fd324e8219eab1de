"""Versions as they follow from the observations, held against those that are written.

The first half of a replay. On the way each document is held against its own hash; what hangs on
one that is not what it was is left as it is.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from etl.fold import CREATED, REMOVED, Change, change_of, fold_in_order
from etl.jobs.findings import Findings
from etl.payload.canonical import content_hash
from etl.report.discrepancy import Discrepancy
from etl.store.chains import COLUMNS, documents_in_order, mend, observed, written
from etl.store.pasts import pruned_within
from etl.store.rows import Standing
from etl.tables import document_versions, documents

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.flatten import Row
    from etl.fold import Observation, Pruned, Version
    from etl.payload.decode import JsonObject
    from etl.store.chains import Picked, Span, Stored
    from etl.tables import Kind

    # A version as `COLUMNS` has it.
    Values = tuple[Any, ...]
    # What follows, and what is written; None: there is none.
    Pair = tuple[Values | None, Values | None]

# Versions whose documents are looked for at once, and versions that are written at once.
_READ_AT_ONCE = 200
_WRITTEN_AT_ONCE = 1000

_KEY = itemgetter(COLUMNS.index("entity_id"), COLUMNS.index("version"))
_CONTENT = COLUMNS.index("content_hash")
_VALID_FROM = COLUMNS.index("valid_from")
_CHANGE = COLUMNS.index("change")
_PATHS = COLUMNS.index("changed_paths")


@dataclass(frozen=True, slots=True)
class _Step:
    """A version that follows, and what it replaces."""

    entity_id: UUID
    version: Version
    before: bytes | None
    """The content that it replaces, looking through a removal."""
    was_removed: bool
    fresh: list[bytes]
    """What was seen for the first time in its days, whether it won or not, and is to be checked."""
    told: Change | None
    """What it is, where that can't be told by comparing: it is not kept, or the one before."""

    @property
    def contents(self) -> list[bytes]:
        """The documents to look at: what is fresh, then what is to be compared."""
        own = self.version.content_hash
        # Of the only version there is nothing to compare, nor of one that brings nothing new.
        is_only = self.before is None and self.version.valid_to is None
        if own is None or own == self.before or own in self.fresh or is_only:
            return self.fresh
        return [*self.fresh, own]


def replay_chains(
    connection: Connection,
    kind: Kind,
    span: Span | Picked,
    found: Findings | None,
    *,
    write: bool,
) -> dict[UUID, Standing | None]:
    """Compares the versions of these entities; with `write`, makes them what they should be.

    Without `found` nobody asks what was wrong: documents are read only to tell what changed.
    Returns where those should stand whose versions were not right; None: nowhere.
    """
    mended: dict[UUID, Standing | None] = {}
    rows: list[Row] = []
    gone: list[Row] = []
    told = found or Findings()
    with (
        closing(_follow(connection, kind, span, found)) as follows,
        closing(written(connection, kind, span)) as are,
    ):
        for entity_id, chain in groupby(_paired(follows, are), key=_entity_of):
            told.checked["entities"] += 1
            standing: Standing | None = None
            is_right = True
            for follow, is_ in chain:
                told.checked["versions"] += is_ is not None
                should_be = follow and _settled(follow, is_)
                if should_be is not None:
                    standing = _standing(should_be, standing)
                if should_be == is_:
                    continue
                is_right = False
                row, there = _as_row(should_be), _as_row(is_)
                told.compare(document_versions, there, row)
                if write:
                    (gone if row is None else rows).append(row or there or {})
                if len(rows) + len(gone) >= _WRITTEN_AT_ONCE:
                    mend(connection, rows, gone)
                    rows, gone = [], []
            if not is_right:
                mended[entity_id] = standing
        mend(connection, rows, gone)
    return mended


def _follow(
    connection: Connection, kind: Kind, span: Span | Picked, found: Findings | None
) -> Generator[Values]:
    """The versions that follow from the observations, by entity, the oldest first.

    `changed_paths` are None where they hang on a document that is not what it was.
    """
    pasts = pruned_within(connection, kind, span)
    seen: Iterable[tuple[UUID, Observation]] = observed(connection, kind, span)
    steps = _steps(kind, _counted(seen, found) if found else seen, pasts, check=found is not None)
    before: JsonObject | None = None
    while window := list(islice(steps, _READ_AT_ONCE)):
        contents = [content for step in window for content in step.contents]
        read = documents_in_order(connection, kind, contents)
        for step in window:
            own, now = step.version.content_hash, before
            for place, content in enumerate(step.contents):
                is_new = place < len(step.fresh)
                document = sound(
                    kind, step.entity_id, content, next(read), found if is_new else None
                )
                if content == own:
                    now = document
            yield _values(kind, step, _change(kind, step, before, now))
            before = now


def _steps(
    kind: Kind,
    found: Iterable[tuple[UUID, Observation]],
    pasts: Mapping[UUID, Pruned],
    *,
    check: bool,
) -> Iterator[_Step]:
    for entity_id, group in groupby(found, key=itemgetter(0)):
        pruned = pasts.get(entity_id)
        first_seen: dict[bytes, datetime] = {}
        unread: list[bytes] = []
        before: bytes | None = None
        was_removed = False
        observations = (observation for _, observation in group)
        if check:
            observations = _noted(observations, first_seen, unread)
        for version in fold_in_order(observations, owned=kind == "persona", pruned=pruned):
            # The fold has looked ahead, to where the next version begins.
            end = version.valid_to
            later = [c for c in unread if end is not None and first_seen[c] >= end]
            fresh = unread[: len(unread) - len(later)]
            told = pruned.told(version) if pruned else None
            yield _Step(entity_id, version, before, was_removed, fresh, told)
            unread[:] = later
            was_removed = version.content_hash is None
            before = version.content_hash or before


def _noted(
    observations: Iterable[Observation], first_seen: dict[bytes, datetime], unread: list[bytes]
) -> Generator[Observation]:
    """The observations; on the way each content is noted when it is seen for the first time."""
    for observation in observations:
        content = observation.content_hash
        if content is not None and content not in first_seen:
            first_seen[content] = observation.observed_at
            unread.append(content)
        yield observation


def _counted(
    observations: Iterable[tuple[UUID, Observation]], found: Findings
) -> Iterator[tuple[UUID, Observation]]:
    for observation in observations:
        found.checked["observations"] += 1
        yield observation


def sound(
    kind: Kind, entity_id: UUID, content: bytes, stored: Stored | None, found: Findings | None
) -> JsonObject | None:
    """A document that is what it was. None for any other, which is entered, and left as it is."""
    if stored is None:
        if found:
            key = {"kind": kind, "content_hash": content}
            found.checked["documents"] += 1
            found.add(Discrepancy(documents.name, key, "missing"), is_mendable=False)
        return None
    document = stored.document
    # Anything may stand there; the hash of what is no document is nobody's.
    digest = content_hash(kind, document) if isinstance(document, dict) else None
    if found:
        found.checked["documents"] += 1
        are = {"entity_id": stored.entity_id, "document": digest}
        should_be = {"entity_id": entity_id, "document": content}
        for name in (name for name in are if are[name] != should_be[name]):
            key = {"kind": kind, "content_hash": content}
            told = Discrepancy(documents.name, key, "differs", name, are[name], should_be[name])
            found.add(told, is_mendable=False)
    return document if digest == content else None


def _change(
    kind: Kind, step: _Step, before: JsonObject | None, now: JsonObject | None
) -> Change | None:
    if step.told is not None:
        return step.told
    if step.version.content_hash is None:
        return REMOVED
    if step.before is None:
        return CREATED
    if before is None or now is None:
        return None
    return change_of(kind, before, now, was_removed=step.was_removed)


def _values(kind: Kind, step: _Step, change: Change | None) -> Values:
    version = step.version
    unknown = "restored" if step.was_removed else "updated"
    return (
        kind,
        step.entity_id,
        version.version,
        version.valid_from,
        version.valid_to,
        version.last_observed_at,
        version.content_hash,
        version.source_updated_at,
        change.change if change else unknown,
        change.changed_paths if change else None,
        version.run_id,
    )


def _settled(follows: Values, is_: Values | None) -> Values:
    """The version as it should be. What nobody can tell any more is left as it is written."""
    if follows[_PATHS] is not None:
        return follows
    known = is_ is not None and is_[_CONTENT] == follows[_CONTENT]
    change, paths = (is_[_CHANGE], is_[_PATHS]) if is_ and known else (follows[_CHANGE], [])
    return (*follows[:_CHANGE], change, paths, *follows[_PATHS + 1 :])


def _as_row(values: Values | None) -> Row | None:
    return None if values is None else dict(zip(COLUMNS, values, strict=True))


def _standing(version: Values, before: Standing | None) -> Standing:
    """Where the entity stands with this version."""
    entity_id, _ = _KEY(version)
    content: bytes | None = version[_CONTENT]
    return Standing(
        entity_id,
        content or (before.content_hash if before else None),
        before.first_seen_at if before else version[_VALID_FROM],
        last_changed_at=version[_VALID_FROM],
        is_removed=content is None,
    )


def _entity_of(pair: Pair) -> UUID:
    entity_id: UUID = _KEY(pair[0] or pair[1] or ())[0]
    return entity_id


def _paired(follows: Iterator[Values], are: Iterator[Values]) -> Iterator[Pair]:
    """Each version that follows beside the one that is written."""
    one, other = next(follows, None), next(are, None)
    while one is not None or other is not None:
        if other is None or (one is not None and _KEY(one) < _KEY(other)):
            yield one, None
            one = next(follows, None)
        elif one is None or _KEY(other) < _KEY(one):
            yield None, other
            other = next(are, None)
        else:
            yield one, other
            one, other = next(follows, None), next(are, None)
