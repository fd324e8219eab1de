"""One line of a file → what was observed when: a bare payload, or one in its envelope.

Or, in an export, whose history begins later than it did.

The payload is not parsed here, so that whoever does sees its bytes as they are. What an envelope
means to history is not known here either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from etl.errors import PayloadRejectedError
from etl.files.values import members_of
from etl.fold import Pruned
from etl.payload.decode import decode
from etl.payload.paths import usable_uuid
from etl.payload.times import parse_time
from etl.tables import KINDS

if TYPE_CHECKING:
    from uuid import UUID

    from etl.payload.decode import Json, JsonObject
    from etl.tables import Kind


@dataclass(frozen=True, slots=True)
class LooseDocument:
    """A document that was observed though the payload does not hold it."""

    kind: Kind
    entity_id: UUID
    document: JsonObject
    source_updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Envelope:
    """What was observed when."""

    persona_id: UUID | None
    """As the envelope says; None where it does not."""
    observed_at: datetime
    payload: bytes | None
    """The JSON of a persona, for `etl.payload.decode.decode`; None: there was none, a 404."""
    observations: frozenset[tuple[Kind, UUID]] | None = None
    """Of which documents of the payload this is an observation; None: of all."""
    documents: list[LooseDocument] = field(default_factory=list)


def parse_envelope(raw: bytes, dated: datetime | None) -> Envelope:
    """Read a JSON object: with a member `payload` an envelope, else itself a payload.

    One without a time of its own was observed when `dated` says, which is in UTC.

    Raises:
        PayloadRejectedError: it is no such thing. The message is one line and quotes nothing.
    """
    members = _quickly(raw) or _thoroughly(raw)
    if members.payload is UNSET:
        return Envelope(None, _dated(dated), raw)
    payload: bytes | None = bytes(members.payload)
    if payload == b"null":
        payload = None
    observed_at = _dated(dated) if members.observed_at is UNSET else parse_time(members.observed_at)
    if observed_at is None:
        raise PayloadRejectedError(
            "observed_at is no time; times look like 2026-11-03T14:00:00.123456Z"
        )
    persona_id = None
    if members.persona_id is not UNSET:
        persona_id = usable_uuid(members.persona_id)
        if persona_id is None:
            raise PayloadRejectedError("persona_id is not a uuid")
    elif payload is None:
        raise PayloadRejectedError("a payload of null needs a persona_id")
    observations = None
    if members.observations is not UNSET:
        observations = frozenset(map(_observation, members.observations))
    documents = [] if members.documents is UNSET else _documents(bytes(members.documents))
    return Envelope(persona_id, observed_at, payload, observations, documents)


def parse_pruned(raw: bytes) -> tuple[Kind, UUID, Pruned] | None:
    """Whose beginning is not kept, and what is known of it; None: it is another line.

    Raises:
        PayloadRejectedError: it is such a line, and something is wrong with it.
    """
    if _PRUNED.match(raw) is None:
        return None
    value = decode(raw).value
    if not isinstance(value, dict) or value.keys() != {"pruned"}:
        return None
    try:
        told = msgspec.convert(value["pruned"], _Told)
    except msgspec.ValidationError as exc:
        # It names types and places, and quotes nothing.
        raise PayloadRejectedError(f"pruned: {exc}") from None
    kind, entity_id = _entity(told.kind, told.entity_id, "pruned")
    times = [parse_time(t) for t in (told.valid_from, told.last_observed_at, told.valid_to)]
    in_order = [time for time in times if time is not None]
    if len(in_order) < len(times):
        raise PayloadRejectedError("pruned: one of its times is none")
    if in_order != sorted(in_order) or in_order[1] == in_order[2]:
        raise PayloadRejectedError("pruned: its times are not in their order")
    valid_from, last_observed_at, valid_to = in_order
    return (
        kind,
        entity_id,
        Pruned(
            told.version,
            valid_from,
            valid_to,
            last_observed_at,
            bytes.fromhex(told.next_content_hash),
            told.next_change,
            told.next_changed_paths,
            None,
        ),
    )


def needs_a_date(raw: bytes) -> bool:
    """Whether nothing is wrong with it but that it does not say when it was observed."""
    try:
        if parse_pruned(raw) is not None:
            return False
        parse_envelope(raw, None)
    except PayloadRejectedError:
        try:
            parse_envelope(raw, datetime.now(UTC))
        except PayloadRejectedError:
            return False
        return True
    return False


class _Members(msgspec.Struct, gc=False):
    """An object's members that matter, as they stand in it."""

    observed_at: str | UnsetType = UNSET
    persona_id: str | UnsetType = UNSET
    payload: Raw | UnsetType = UNSET
    observations: list[str] | UnsetType = UNSET
    documents: Raw | UnsetType = UNSET


class _Told(msgspec.Struct):
    """What `etl.files.writing.pruned_line` writes."""

    kind: str
    entity_id: str
    version: Annotated[int, Meta(ge=1, lt=2**31)]
    valid_from: str
    valid_to: str
    last_observed_at: str
    next_content_hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    next_change: Literal["updated", "reshaped", "restored"]
    next_changed_paths: list[str]


# Most lines are others: those are not parsed for it.
_PRUNED = re.compile(rb'\s*\{\s*"pruned"\s*:')

_NAMES = [f'"{name}"'.encode() for name in _Members.__struct_fields__]
_decoder = msgspec.json.Decoder(_Members)


def _quickly(raw: bytes) -> _Members | None:
    """The members of what is plain and right; None for what has to be looked at thoroughly.

    Takes a tenth of the time, and gives up on bytes that aren't UTF-8 and half a surrogate pair,
    which decoding mends.
    """
    try:
        members = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if members.payload is not UNSET:
        # Of two members of one name the last was taken: none may stand twice around the payload,
        # nor be spelled with escapes.
        payload = bytes(members.payload)
        begins = raw.find(payload[:1], raw.find(b'"payload"') + len(b'"payload"'))
        if not raw.startswith(payload, begins):
            return None
        around = raw[:begins] + raw[begins + len(payload) :]
        if b"\\" in around or any(around.count(name) > 1 for name in _NAMES):
            return None
    return members


def _thoroughly(raw: bytes) -> _Members:
    """The members of anything. Raises PayloadRejectedError, with what is wrong."""
    value = decode(raw).value
    if not isinstance(value, dict):
        raise PayloadRejectedError("not a JSON object")
    if "payload" not in value:
        return _Members()
    for name in ("observed_at", "persona_id"):
        if name in value and not isinstance(value[name], str):
            raise PayloadRejectedError(f"{name} is not a string")
    observations = value.get("observations", [])
    if not isinstance(observations, list) or not all(isinstance(o, str) for o in observations):
        raise PayloadRejectedError("observations is not a list of strings")
    members: dict[str, Any] = {n: value[n] for n in _Members.__struct_fields__ if n in value}
    for key, text in members_of(raw):
        name = str(decode(key).value)
        if name in ("payload", "documents"):
            members[name] = Raw(text)
    return _Members(**members)


def _dated(dated: datetime | None) -> datetime:
    if dated is None:
        raise PayloadRejectedError("no observed_at: say --observed-at, or use an envelope")
    return dated


def _observation(text: str) -> tuple[Kind, UUID]:
    kind, _, entity_id = text.partition(" ")
    return _entity(kind, entity_id, "observations")


def _documents(raw: bytes) -> list[LooseDocument]:
    items = decode(raw).value
    if not isinstance(items, list):
        raise PayloadRejectedError("documents is not a list")
    return [_document(item) for item in items]


def _document(item: Json) -> LooseDocument:
    if not isinstance(item, dict) or not isinstance(document := item.get("document"), dict):
        raise PayloadRejectedError("documents: one is no object with an object as its document")
    kind, entity_id = _entity(item.get("kind"), item.get("entity_id"), "documents")
    updated_at = item.get("updated_at")
    source_updated_at = parse_time(updated_at) if isinstance(updated_at, str) else None
    if updated_at is not None and source_updated_at is None:
        raise PayloadRejectedError("documents: updated_at is no time")
    return LooseDocument(kind, entity_id, document, source_updated_at)


def _entity(kind: Json, entity_id: Json, where: str) -> tuple[Kind, UUID]:
    found = usable_uuid(entity_id)
    if kind not in KINDS:
        raise PayloadRejectedError(f"{where}: no kind but {', '.join(KINDS)} is known")
    if found is None:
        raise PayloadRejectedError(f"{where}: the id of an entity is not a uuid")
    return cast("Kind", kind), found
