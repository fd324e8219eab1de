"""Turns a stored persona into the bytes of an answer; pure.

Whatever the vendor moves at every fetch, signatures and counters, is a function of the
number of the fetch, so a world that is asked the same things in the same order says the same.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

Json = dict[str, Any]

# What the list endpoint shows of a persona.
LISTED_FIELDS = (
    "id",
    "name",
    "description",
    "personaPreset",
    "avatar",
    "voice",
    "voiceSpeed",
    "createdAt",
    "updatedAt",
)
# A persona of which nothing was said.
BLANK: Json = {
    "name": "Untitled",
    "description": None,
    "personaPreset": "",
    "avatar": None,
    "avatarModel": None,
    "voice": None,
    "voiceSpeed": None,
    "llmId": None,
    "brain": {"personality": None, "systemPrompt": None},
    "tools": [],
    "knowledge": [],
    "shareLinks": None,
    "primaryShareLink": None,
    "enableAudioPassthrough": False,
    "skipGreeting": False,
    "zeroDataRetention": False,
    "voiceDetectionOptions": None,
    "voiceGenerationOptions": None,
    "widgetConfig": {},
}
# Whatever is generated is older; signatures and edits are later, also where a clock is wrong.
EPOCH = datetime(2026, 5, 1, tzinfo=UTC)


def timestamp(moment: datetime) -> str:
    """The API's format: UTC, milliseconds, `Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def render(persona: Json, shared: Mapping[str, Mapping[str, Json | None]], fetch: int) -> Json:
    """The persona, or a part of it, with the shared things that it names put in.

    A shared thing that is None was deleted, and no persona has it. `fetch` is the number of the
    fetch, 0 when nothing shall move. What stands in the place of an id and is none stays.
    """
    payload = dict(persona)
    for field, kind in (("avatar", "avatars"), ("voice", "voices")):
        if _names_one(payload.get(field), shared[kind]):
            payload[field] = shared[kind][payload[field]]
            if field == "avatar" and payload[field] and "videoUrl" in payload[field]:
                url = signed(payload[field]["videoUrl"], fetch)
                payload[field] = payload[field] | {"videoUrl": url}
    for field, counter in (("tools", "usageCount"), ("knowledge", "documentCount")):
        if isinstance(things := payload.get(field), list):
            found = [shared[field][t] if _names_one(t, shared[field]) else t for t in things]
            payload[field] = [
                _counted(thing, counter, fetch)
                for thing, named in zip(found, things, strict=True)
                if thing is not None or named is None
            ]
    if isinstance(links := payload.get("shareLinks"), list):
        payload["shareLinks"] = [_counted(link, "usageCount", fetch) for link in links]
    return payload


def signed(url: Any, fetch: int) -> Any:  # noqa: ANN401  any JSON
    """The URL as presigned for an hour; one that already has a query is left alone."""
    if not isinstance(url, str) or "?" in url:
        return url
    moment = EPOCH + timedelta(seconds=fetch)
    signature = hashlib.sha256(f"{url} {fetch}".encode()).hexdigest()
    return (
        f"{url}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD"
        f"&X-Amz-Credential=a1b2c3d4e5f6%2F{moment:%Y%m%d}%2Fauto%2Fs3%2Faws4_request"
        f"&X-Amz-Date={moment:%Y%m%dT%H%M%SZ}&X-Amz-Expires=3600"
        f"&X-Amz-Signature={signature}&X-Amz-SignedHeaders=host&x-id=GetObject"
    )


def shuffled(value: Any, rng: Random) -> Any:  # noqa: ANN401  any JSON
    """The same value with the members of every object in another order; arrays keep theirs."""
    if isinstance(value, dict):
        members = [(key, shuffled(member, rng)) for key, member in value.items()]
        rng.shuffle(members)
        return dict(members)
    if isinstance(value, list):
        return [shuffled(element, rng) for element in value]
    return value


def dump(value: Any) -> bytes:  # noqa: ANN401  any JSON
    """As JavaScript's JSON.stringify writes it: no spaces, UTF-8, lone surrogates escaped."""
    # backslashreplace happens to write a lone surrogate the way JSON escapes it.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def _names_one(id_: Any, things: Mapping[str, Json | None]) -> bool:  # noqa: ANN401  any JSON
    return isinstance(id_, str) and id_ in things


def _counted(thing: Any, counter: str, fetch: int) -> Any:  # noqa: ANN401  any JSON
    if not isinstance(thing, dict) or type(count := thing.get(counter)) is not int:
        return thing
    return thing | {counter: count + fetch}
