"""A line of a file → what it brings, or why it is rejected. Touches no database.

Exports made day by day repeat themselves: what a body comes to is remembered by its hash, as a sync
remembers the last body of each persona.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, cast

from etl.errors import PayloadRejectedError
from etl.files.envelope import parse_envelope, parse_pruned
from etl.files.observed import as_time
from etl.flatten import flatten
from etl.jobs.reading import mended_issues
from etl.jobs.taken import Body, Brought, Refused, Taken, Taking, rows_of
from etl.payload.canonical import content_hash
from etl.payload.clean import RULES, clean, clean_document, mask_urls
from etl.payload.decode import decode
from etl.payload.documents import Part, take_apart, without_observed
from etl.payload.paths import usable_uuid
from etl.store.unfolded import encoded_copy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from uuid import UUID

    from msgspec import Raw

    from etl.files.envelope import Envelope, LooseDocument
    from etl.files.lines import Line
    from etl.flatten import ValueIssue
    from etl.map import Map
    from etl.payload.decode import Json, Location
    from etl.store.observations import ContentKey, EntityKey

# In memory some 2 KB each.
_BODIES_REMEMBERED = 20_000

# Larger ones cost memory, smaller ones pay the round trips more often.
LINES_A_BATCH = 1000

BYTES_A_BATCH = 4 * 2**20


class LineReader:
    """Reads lines, and remembers the bodies that it has read."""

    def __init__(self, the_map: Map, *, now: datetime) -> None:
        """`now`: nothing can have been observed later."""
        self._map = the_map
        self._now = now
        self._known: OrderedDict[bytes, Body] = OrderedDict()

    def batches(self, lines: Iterable[Line]) -> Iterator[Taking]:
        """What the lines bring, some hundreds at a time."""
        batch, size = Taking(), 0
        for line in lines:
            if not self._read_pruned(line, batch):
                self._read(line, batch)
            size += len(line.raw)
            if batch.lines >= LINES_A_BATCH or size >= BYTES_A_BATCH:
                yield batch
                batch, size = Taking(), 0
        if batch.lines:
            yield batch

    def documents_of(self, line: Line) -> dict[ContentKey, Part]:
        """The documents of a payload once more."""
        batch = Taking()
        envelope = parse_envelope(line.raw, line.dated)
        if envelope.payload is not None:
            self._taken_apart(line, envelope, envelope.payload, batch)
        return batch.documents

    def _read(self, line: Line, batch: Taking) -> None:
        if line.problem is not None:
            batch.refused.append(Refused(line, line.problem))
            return
        try:
            envelope = parse_envelope(line.raw, line.dated)
        except PayloadRejectedError as exc:
            batch.refused.append(Refused(line, str(exc)))
            return
        found = self._take(line, envelope, batch)
        if isinstance(found, Taken):
            batch.taken.append(found)
        else:
            batch.refused.append(found)

    def _take(self, line: Line, envelope: Envelope, batch: Taking) -> Taken | Refused:
        at, named = envelope.observed_at, envelope.observations
        if at > self._now:
            reason = f"observed_at {at.isoformat()} lies in the future"
            return Refused(line, reason, envelope.persona_id, at)
        body = self._brought(line, envelope, batch)
        if isinstance(body, Refused):
            return body
        observed, rows, known = body.brought, body.rows, []
        if named is not None or envelope.documents:
            observed = [b for b in body.brought if named is None or b.key in named]
            known = [b for b in body.brought if named is not None and b.key not in named]
            # Before any is stored: one content is one entity's.
            if told := _contradiction(body, envelope):
                return Refused(line, told, body.persona_id, at)
            observed += [
                self._loose(document, body.persona_id, batch) for document in envelope.documents
            ]
            rows = rows_of(observed)
        return Taken(
            line,
            body.persona_id,
            at,
            observed,
            rows,
            known,
            is_missing=envelope.payload is None and named is None,
            is_confirmation=not observed and envelope.payload is not None,
        )

    def _read_pruned(self, line: Line, batch: Taking) -> bool:
        """Reads a line that says whose beginning is not kept. Whether it is one."""
        try:
            found = parse_pruned(line.raw) if line.problem is None else None
        except PayloadRejectedError as exc:
            batch.refused.append(Refused(line, str(exc)))
            return True
        if found is None:
            return False
        kind, entity_id, pruned = found
        if pruned.valid_to > self._now:
            reason = f"valid_to {pruned.valid_to.isoformat()} lies in the future"
            batch.refused.append(Refused(line, reason))
        else:
            batch.pruned.append(((kind, entity_id), pruned))
        return True

    def _brought(self, line: Line, envelope: Envelope, batch: Taking) -> Body | Refused:
        """Whose payload it is, and the documents in it; a 404 is one of the persona itself."""
        body = envelope.payload
        if body is None:
            gone = cast("UUID", envelope.persona_id)
            own = Brought(("persona", gone), None, None, None)
            brought = [own] if envelope.observations is None else []
            return Body(gone, brought, rows_of(brought))
        # A body can be refused for whose it is said to be.
        whose = envelope.persona_id.bytes if envelope.persona_id else b""
        digest = hashlib.sha256(RULES + whose + mask_urls(body)).digest()
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
            return known
        found = self._taken_apart(line, envelope, body, batch)
        if not isinstance(found, Refused):
            self._known[digest] = found
            if len(self._known) > _BODIES_REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _taken_apart(
        self, line: Line, envelope: Envelope, body: bytes, batch: Taking
    ) -> Body | Refused:
        at, persona_id = envelope.observed_at, envelope.persona_id
        payload: Json = None
        try:
            decoded = decode(body)
            payload = clean(decoded.value)
            if persona_id is None and isinstance(payload, dict):
                persona_id = usable_uuid(payload.get("id"))
            if persona_id is None:
                return Refused(line, _without_id(payload), None, at, payload)
            apart = take_apart(payload, persona_id)
        except PayloadRejectedError as exc:
            return Refused(line, str(exc), persona_id, at, payload)
        issues: dict[EntityKey, list[ValueIssue]] = {}
        for issue in mended_issues(apart, decoded):
            issues.setdefault((issue.kind, issue.entity_id), []).append(issue)
        brought = []
        for part in apart.parts():
            key = (part.kind, part.entity_id)
            batch.documents[part.kind, part.content_hash] = part
            brought.append(
                Brought(
                    key,
                    part.content_hash,
                    part.source_updated_at,
                    self._observed(part, persona_id, issues.get(key, [])),
                )
            )
        return Body(persona_id, brought, rows_of(brought))

    def _observed(self, part: Part, persona_id: UUID, mended: list[ValueIssue]) -> Raw | None:
        if not part.observed and not mended:
            return None
        flat = flatten(part.kind, part.entity_id, part.whole(), "observed", the_map=self._map)
        issues = [(i.path, i.problem, i.expected, i.got) for i in (*mended, *flat.issues)]
        rows = {name: rows for name, rows in flat.rows.items() if rows}
        return encoded_copy(persona_id, rows, issues)

    def _loose(self, document: LooseDocument, persona_id: UUID, batch: Taking) -> Brought:
        """A document that the payload does not hold. Whoever wrote it need not have cleaned it."""
        stored = without_observed(document.kind, clean_document(document.kind, document.document))
        digest = content_hash(document.kind, stored)
        batch.loose[document.kind, digest] = (document.entity_id, stored)
        updated_at = document.source_updated_at
        observed: dict[Location, Json] = {}
        if updated_at is not None:
            observed["updatedAt",] = as_time(updated_at)
        part = Part(
            document.kind, document.entity_id, stored, observed, digest, updated_at, location=()
        )
        copy = self._observed(part, persona_id, [])
        key = (document.kind, document.entity_id)
        return Brought(key, digest, updated_at, copy, is_beside=True)


def _without_id(payload: Json) -> str:
    if isinstance(payload, dict) and isinstance(payload.get("data"), list):
        # What the list endpoint answers: loading its items would empty what they leave out.
        return (
            "it is a page of the API's list, where personas lack their prompts and more;"
            " save what GET /v1/personas/{id} answers"
        )
    return "it has no id that is a uuid"


def _contradiction(body: Body, envelope: Envelope) -> str | None:
    """Why what the envelope names and holds besides does not go with its payload."""
    held = {brought.key for brought in body.brought}
    named = held if envelope.observations is None else envelope.observations
    if lost := named - held:
        kind, entity_id = min(lost)
        return f"observations names {kind} {entity_id}, which the payload does not hold"
    told = set(named)
    for loose in envelope.documents:
        key = (loose.kind, loose.entity_id)
        if usable_uuid(loose.document.get("id")) != loose.entity_id:
            return "documents: one does not have its entity_id as its id"
        if loose.kind == "persona" and loose.entity_id != body.persona_id:
            return "documents: one is another persona, of which nobody else brings any"
        if key in told:
            return "documents: one stands there twice, or is told by the payload too"
        told.add(key)
    return None
