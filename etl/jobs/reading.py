"""A body → documents, compared with what this persona brought last. Touches no database."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from etl.errors import PayloadRejectedError
from etl.flatten import ValueIssue
from etl.payload.clean import RULES, clean, mask_urls
from etl.payload.decode import decode
from etl.payload.documents import take_apart
from etl.payload.paths import path_of
from etl.payload.secret_urls import clean_text
from etl.source.answer import BodyTooBigError, storable_type
from etl.store.ledger import Rejection

if TYPE_CHECKING:
    from uuid import UUID

    from etl.jobs.arrival import Arrival
    from etl.payload.decode import Decoded, Json, Location
    from etl.payload.documents import Apart, Part
    from etl.source.answer import Answer
    from etl.store.states import State


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer with a body says."""

    arrival: Arrival
    state: State | None
    body_sha256: bytes
    content_sha256: bytes | None = None
    apart: Apart | None = None
    """None when the body alone tells that nothing changed, and when it was rejected."""
    mended: list[ValueIssue] = field(default_factory=list)
    rejection: Rejection | None = None

    @property
    def parts(self) -> list[Part]:
        """Its documents; none when it was not taken apart."""
        return self.apart.parts() if self.apart else []

    @property
    def is_changed(self) -> bool:
        """Whether it brings documents other than this persona's last payload."""
        return self.apart is not None and (
            self.state is None or self.is_late or self.state.content_sha256 != self.content_sha256
        )

    @property
    def is_late(self) -> bool:
        """Whether it is not later than the last attempt: it has to find its place in the past."""
        return self.state is not None and self.arrival.is_late(self.state)


def read(arrival: Arrival, answer: Answer, body: bytes, state: State | None) -> Reading:
    """Reads a body as far as is needed to tell what it brings."""
    masked = hashlib.sha256(RULES + mask_urls(body)).digest()
    is_late = state is not None and arrival.is_late(state)
    if state is not None and state.body_sha256 == masked and not is_late:
        return Reading(arrival, state, masked, state.content_sha256)
    if arrival.refused is not None:
        # Not even its cleaned body: that may be what Postgres does not take.
        found = rejection(arrival, answer, arrival.refused, body, None)
        return Reading(arrival, state, masked, rejection=found)
    try:
        decoded = decode(body)
    except PayloadRejectedError as exc:
        # HTML says that somebody else has answered: a proxy, a login page.
        reason = f"{exc} ({answer.media_type})"
        return Reading(
            arrival, state, masked, rejection=rejection(arrival, answer, reason, body, None)
        )
    payload = clean(decoded.value)
    try:
        apart = take_apart(payload, arrival.persona_id)
    except PayloadRejectedError as exc:
        return Reading(
            arrival, state, masked, rejection=rejection(arrival, answer, str(exc), body, payload)
        )
    return Reading(
        arrival,
        state,
        masked,
        content_sha256=_digest(apart),
        apart=apart,
        mended=mended_issues(apart, decoded),
    )


def mended_issues(apart: Apart, decoded: Decoded) -> list[ValueIssue]:
    """What decoding had to mend, by the document that holds it."""
    return [
        *_issues(apart, decoded.mended, "not valid Unicode", "text"),
        *_issues(apart, decoded.oversized, "a number too large to store", "number"),
    ]


def rejection(
    arrival: Arrival, answer: Answer, reason: str, body: bytes, payload: Json
) -> Rejection:
    """What is kept of an answer that is no persona."""
    return Rejection(
        id=uuid4(),
        persona_id=arrival.persona_id,
        observed_at=arrival.observed_at,
        reason=reason,
        body=payload,
        length=len(body),
        sha256=hashlib.sha256(body).digest(),
        content_type=storable_type(answer.content_type),
    )


def unread(arrival: Arrival) -> Rejection | None:
    """What is kept of a body that was too big to be read."""
    if not isinstance(arrival.error, BodyTooBigError):
        return None
    return Rejection(
        id=uuid4(),
        persona_id=arrival.persona_id,
        observed_at=arrival.observed_at,
        reason=arrival.error.what,
        body=None,
        length=arrival.error.length,
        sha256=None,
        content_type=storable_type(arrival.error.content_type),
    )


def _digest(apart: Apart) -> bytes:
    """One hash for all that would make an observation: contents, and updatedAt of shared ones."""
    lines = [
        f"{part.kind} {part.entity_id} {part.content_hash.hex()}"
        + ("" if part.kind == "persona" else f" {part.source_updated_at}")
        for part in apart.parts()
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).digest()


def _issues(
    apart: Apart, locations: list[Location], problem: str, expected: str
) -> list[ValueIssue]:
    """Issues of the strings that decoding had to mend, by the document that holds them.

    The locations are from before cleaning: keys can hold secrets too.
    """
    issues: dict[tuple[str, UUID, str], ValueIssue] = {}
    whole: dict[Location, Json] = {}
    for found in locations:
        location = tuple(clean_text(step) if isinstance(step, str) else step for step in found)
        part = next(
            (p for p in apart.shared if location[: len(p.location)] == p.location), apart.persona
        )
        if part.location not in whole:
            whole[part.location] = part.whole()
        path = path_of(whole[part.location], location[len(part.location) :])
        issue = ValueIssue(part.kind, part.entity_id, path, problem, expected, "replaced")
        issues[part.kind, part.entity_id, path] = issue
    return list(issues.values())
