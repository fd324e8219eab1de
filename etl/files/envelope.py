from __future__ import annotations
import json
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID
import msgspec
from etl.errors import PayloadRejectedError
from etl.payload.times import parse_time
from etl.payload.decode import JsonObject, loads
from etl.tables import Kind


@dataclass(frozen=True, slots=True)
class LooseDocument:
    kind: Kind
    entity_id: UUID
    document: JsonObject
    source_updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Envelope:
    persona_id: UUID | None
    observed_at: datetime
    payload: bytes | None
    observations: frozenset[tuple[Kind, UUID]] | None
    documents: list[LooseDocument] = field(default_factory=list)


def parse_envelope(raw: bytes, dated: datetime | None) -> Envelope:
    try:
        found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except Exception as exc:
        raise PayloadRejectedError(f"not JSON") from exc
    if "payload" not in found:
        if dated is None:
            raise PayloadRejectedError("no observed_at")
        return Envelope(None, dated, raw, None)
    get = lambda n: msgspec.json.decode(found[n]) if n in found else None
    at = get("observed_at")
    payload = bytes(found["payload"])
    obs = get("observations")
    return Envelope(
        UUID(get("persona_id")) if get("persona_id") else None,
        parse_time(at) if at else dated,
        None if payload == b"null" else payload,
        None if obs is None else frozenset((o.split()[0], UUID(o.split()[1])) for o in obs),
        [
            LooseDocument(
                d["kind"],
                UUID(d["entity_id"]),
                loads(msgspec.json.encode(d["document"])),
                d["updated_at"] and parse_time(d["updated_at"]),
            )
            for d in get("documents") or []
        ],
    )
