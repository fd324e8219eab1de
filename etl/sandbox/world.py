"""The sandbox's state: personas, and the shared things that they hold by reference.

Editing an avatar therefore shows in every persona that uses it, as it does at the vendor's.
Every method may be called from any thread; an id that nobody knows raises KeyError.
"""

from __future__ import annotations

import json
import threading
import uuid
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from etl.sandbox.rendering import EPOCH, LISTED_FIELDS, Json, dump, render, shuffled, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_BLANK: Json = {
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


class World:
    """Everything the stand-in API can be asked for.

    Attributes:
        moving: whether signatures and counters change at every fetch, as the vendor's do.
        shuffle_keys: whether each fetch has the members of its objects in another order.
    """

    def __init__(
        self,
        *,
        avatars: Iterable[Json] = (),
        voices: Iterable[Json] = (),
        tools: Iterable[Json] = (),
        knowledge: Iterable[Json] = (),
    ) -> None:
        self.moving = True
        self.shuffle_keys = False
        self._things: dict[str, dict[str, Json]] = {
            "personas": {},
            "avatars": {thing["id"]: thing for thing in avatars},
            "voices": {thing["id"]: thing for thing in voices},
            "tools": {thing["id"]: thing for thing in tools},
            "knowledge": {thing["id"]: thing for thing in knowledge},
        }
        self._deleted: set[str] = set()
        self._verbatim: dict[str, bytes] = {}
        self._reshape: Callable[[Json], Any] | None = None
        self._fetches = 0
        self._latest = EPOCH
        self._still: dict[str, bytes] = {}  # answers of a world where nothing moves
        self._lock = threading.RLock()

    @property
    def persona_ids(self) -> list[str]:
        """The ids of the live personas, in the list endpoint's order."""
        with self._lock:
            return [id_ for id_ in self._things["personas"] if id_ not in self._deleted]

    def shared_ids(self, kind: str) -> list[str]:
        """The ids of all `avatars`, `voices`, `tools` or `knowledge`."""
        with self._lock:
            return list(self._things[kind])

    def payload(self, persona_id: str) -> Any:  # noqa: ANN401  any JSON can have been set
        """What a fetch now would bring, parsed; None for a 404. It counts as a fetch."""
        body = self.body(persona_id)
        return None if body is None else json.loads(body)

    def body(self, persona_id: str) -> bytes | None:
        """The persona as the API would serve it; None for a 404."""
        with self._lock:
            if persona_id in self._deleted:
                return None
            if persona_id in self._verbatim:
                return self._verbatim[persona_id]
            if persona_id not in self._things["personas"]:
                return None
            if self.moving or self.shuffle_keys:
                return self._rendered(persona_id)
            if persona_id not in self._still:
                self._still[persona_id] = self._rendered(persona_id)
            return self._still[persona_id]

    def page(self, *, page: int, per_page: int, search: str = "") -> bytes:
        """One page of the list, trimmed, with the documented `meta`; `search` looks at names."""
        with self._lock:
            personas = [self._things["personas"][id_] for id_ in self.persona_ids]
            found = [p for p in personas if search.casefold() in str(p["name"]).casefold()]
            last = -(-len(found) // per_page)
            number = self._next_fetch()
            items = [
                render({field: p[field] for field in LISTED_FIELDS}, self._things, number)
                for p in found[(page - 1) * per_page : page * per_page]
            ]
            meta = {
                "total": len(found),
                "lastPage": last,
                "currentPage": page,
                "perPage": per_page,
                "prev": page - 1 if page > 1 else None,
                "next": page + 1 if page < last else None,
            }
            return dump({"data": items, "meta": meta})

    def add(self, persona: Mapping[str, Any]) -> str:
        """Adds a persona and returns its id; what is left out is blank.

        `avatar`, `voice` and the elements of `tools` and `knowledge` are ids of shared things;
        an object there is served as it is.
        """
        with self._lock:
            personas = self._things["personas"]
            now = self._now()
            id_ = str(persona.get("id") or uuid.uuid5(uuid.NAMESPACE_OID, str(len(personas))))
            blank = {"id": id_} | _BLANK | {"createdAt": now, "updatedAt": now}
            personas[id_] = deepcopy(blank | dict(persona))
            self._still.clear()
            return id_

    def edit(self, persona_id: str, changes: Mapping[str, Any], *, touch: bool = True) -> None:
        """Merges `changes` into the persona: objects member by member, all else is replaced.

        None sets null. `touch=False` leaves `updatedAt` where it was. A new voice resets the
        generation options, as at the vendor's.
        """
        if "voice" in changes:
            changes = {"voiceGenerationOptions": None} | dict(changes)
        self._edit("personas", persona_id, changes, touch=touch)

    def edit_avatar(
        self, avatar_id: str, changes: Mapping[str, Any], *, touch: bool = True
    ) -> None:
        """As `edit`; moves the avatar's `updatedAt`, not its personas'."""
        self._edit("avatars", avatar_id, changes, touch=touch)

    def edit_voice(self, voice_id: str, changes: Mapping[str, Any], *, touch: bool = True) -> None:
        """As `edit_avatar`, for a voice."""
        self._edit("voices", voice_id, changes, touch=touch)

    def edit_tool(self, tool_id: str, changes: Mapping[str, Any], *, touch: bool = True) -> None:
        """As `edit_avatar`, for a tool."""
        self._edit("tools", tool_id, changes, touch=touch)

    def edit_knowledge_group(
        self, group_id: str, changes: Mapping[str, Any], *, touch: bool = True
    ) -> None:
        """As `edit_avatar`, for a knowledge group."""
        self._edit("knowledge", group_id, changes, touch=touch)

    def delete(self, persona_id: str) -> None:
        """From now on the persona is a 404 and not listed, until `restore`."""
        with self._lock:
            self._deleted.add(self._things["personas"][persona_id]["id"])

    def restore(self, persona_id: str) -> None:
        """Undoes `delete`."""
        with self._lock:
            self._deleted.discard(self._things["personas"][persona_id]["id"])

    def set_payload(self, persona_id: str, payload: Any) -> None:  # noqa: ANN401  any JSON
        """Serves `payload` for this id, known or not: bytes verbatim, all else as JSON.

        None ends it. The list goes on to show the persona itself.
        """
        with self._lock:
            if payload is None:
                self._verbatim.pop(persona_id, None)
            else:
                self._verbatim[persona_id] = (
                    payload if isinstance(payload, bytes) else dump(payload)
                )

    def reshape(self, function: Callable[[Json], Any] | None) -> None:
        """Sends every persona's payload through `function`: the API's shape moves. None ends it."""
        with self._lock:
            self._reshape = function
            self._still.clear()

    def _rendered(self, persona_id: str) -> bytes:
        number = self._next_fetch()
        payload: Any = render(self._things["personas"][persona_id], self._things, number)
        if self._reshape:
            # A copy, lest the function edits the shared things for good.
            payload = self._reshape(deepcopy(payload))
        if self.shuffle_keys:
            payload = shuffled(payload, Random(self._fetches))  # noqa: S311  repeatable on purpose
        return dump(payload)

    def _next_fetch(self) -> int:
        self._fetches += 1
        return self._fetches if self.moving else 0

    def _edit(self, kind: str, id_: str, changes: Mapping[str, Any], *, touch: bool) -> None:
        with self._lock:
            thing = self._things[kind][id_]
            stamp = {"updatedAt": self._now()} if touch else {}
            self._things[kind][id_] = _merged(thing, stamp | dict(changes))
            self._still.clear()

    def _now(self) -> str:
        # Two edits within one millisecond must still be told apart.
        self._latest = max(datetime.now(UTC), self._latest + timedelta(milliseconds=1))
        return timestamp(self._latest)


def _merged(old: Any, new: Any) -> Any:  # noqa: ANN401  any JSON
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return deepcopy(new)
    return old | {key: _merged(old.get(key), value) for key, value in new.items()}
