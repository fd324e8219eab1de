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

from etl.sandbox.faults import NO_FAULT
from etl.sandbox.listing import page_of
from etl.sandbox.rendering import (
    BLANK,
    EPOCH,
    LISTED_FIELDS,
    Json,
    dump,
    render,
    shuffled,
    timestamp,
)
from etl.sandbox.reshape import Reshape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from etl.sandbox.faults import Fault

SHARED_KINDS = ("avatars", "voices", "tools", "knowledge")
KINDS = ("personas", *SHARED_KINDS)


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
        # Nothing in here is ever edited in place, so that copies need not be deep.
        self._things: dict[str, dict[str, Json]] = {
            "personas": {},
            "avatars": {thing["id"]: thing for thing in avatars},
            "voices": {thing["id"]: thing for thing in voices},
            "tools": {thing["id"]: thing for thing in tools},
            "knowledge": {thing["id"]: thing for thing in knowledge},
        }
        self._deleted: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self._shared: dict[str, dict[str, Json | None]] = {}
        self._verbatim: dict[str, bytes] = {}
        self._reshape: Callable[[Json], Any] | None = None
        self._fetches = 0
        self._latest = EPOCH
        self._still: dict[str, bytes] = {}  # answers of a world where nothing moves
        self._lock = threading.RLock()
        for kind in SHARED_KINDS:
            self._changed(kind)
        self.remember()

    @property
    def persona_ids(self) -> list[str]:
        """The ids of the live personas, in the list endpoint's order."""
        with self._lock:
            gone = self._deleted["personas"]
            return [id_ for id_ in self._things["personas"] if id_ not in gone]

    def shared_ids(self, kind: str) -> list[str]:
        """The ids of all `avatars`, `voices`, `tools` or `knowledge`."""
        with self._lock:
            return list(self._things[kind])

    def knows(self, persona_id: str) -> bool:
        """Whether there is, or was until it was deleted, a persona of that id."""
        with self._lock:
            known = self._things["personas"], self._verbatim
            return any(persona_id.lower() in ids for ids in known)

    def overview(self, kind: str) -> list[Json]:
        """Everything of a kind, deleted or not: its id, its name, and what is odd about it."""
        with self._lock:
            things = self._things[kind]
            ids = list(things)
            if kind == "personas":
                ids += [id_ for id_ in self._verbatim if id_ not in things]
            return [
                {
                    "id": id_,
                    "name": things.get(id_, {}).get("name", things.get(id_, {}).get("displayName")),
                    "deleted": id_ in self._deleted[kind],
                    **({"verbatim": id_ in self._verbatim} if kind == "personas" else {}),
                }
                for id_ in ids
            ]

    def stored(self, kind: str, id_: str) -> Json:
        """A thing as it is kept: a persona names its shared things by their ids."""
        with self._lock:
            return deepcopy(self._things[kind][_key(kind, id_)])

    def payload(self, persona_id: str) -> Any:  # noqa: ANN401  any JSON can have been set
        """What a fetch now would bring, parsed; None for a 404. It counts as a fetch."""
        body = self.body(persona_id)
        return None if body is None else json.loads(body)

    def body(self, persona_id: str) -> bytes | None:
        """The persona as the API would serve it; None for a 404."""
        persona_id = persona_id.lower()
        with self._lock:
            if persona_id in self._deleted["personas"]:
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

    def page(self, *, page: int, per_page: int, search: str = "", fault: Fault = NO_FAULT) -> bytes:
        """One page of the list, trimmed, with the documented `meta`; `search` looks at names.

        A fault makes it drift.
        """
        with self._lock:
            personas = [self._things["personas"][id_] for id_ in self.persona_ids]
            wanted = search.casefold()
            found = [p for p in personas if wanted in str(p.get("name", "")).casefold()]
            number = self._next_fetch()
            listed, meta = page_of(found, page=page, per_page=per_page, fault=fault)
            trimmed = [{name: p[name] for name in LISTED_FIELDS if name in p} for p in listed]
            items = [render(persona, self._shared, number) for persona in trimmed]
            if isinstance(self._reshape, Reshape):
                reshape = self._reshape.of_list()
                items = [reshape(deepcopy(item), number) for item in items]
            return dump({"data": items, "meta": meta})

    def add(self, thing: Mapping[str, Any], kind: str = "personas", *, blanks: bool = True) -> str:
        """Adds a persona, or one of another kind, and returns its id; one of that id is replaced.

        What a persona leaves out is blank; without `blanks`, it is left out of the payload too.
        Its `avatar`, `voice` and the elements of `tools` and `knowledge` are ids of shared things;
        an object there is served as it is.
        """
        with self._lock:
            things = self._things[kind]
            id_ = _id_of(thing) or str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind} {len(things)}"))
            now = self._now()
            made: Json = {}
            if blanks:
                blank = BLANK if kind == "personas" else {}
                made = {"id": id_} | blank | {"createdAt": now, "updatedAt": now}
            things[_key(kind, id_)] = deepcopy(made | dict(thing))
            self._changed(kind)
            return id_

    def edit(
        self,
        id_: str,
        changes: Mapping[str, Any],
        kind: str = "personas",
        *,
        touch: bool = True,
    ) -> None:
        """Merges `changes` in: objects member by member, all else is replaced; None sets null.

        Moves its own `updatedAt`, unless `touch` is False, and not that of personas that share it.
        A persona's new voice resets its generation options, as at the vendor's.
        """
        if kind == "personas" and "voice" in changes:
            changes = {"voiceGenerationOptions": None} | dict(changes)
        id_ = _key(kind, id_)
        with self._lock:
            thing = self._things[kind][id_]
            stamp = {"updatedAt": self._now()} if touch else {}
            self._things[kind][id_] = _merged(thing, stamp | dict(changes))
            self._changed(kind)

    def delete(self, id_: str, kind: str = "personas") -> None:
        """From now on the persona is a 404 and not listed, until `restore`.

        A shared thing is gone from all its personas.
        """
        self._mark(kind, id_, deleted=True)

    def restore(self, id_: str, kind: str = "personas") -> None:
        """Undoes `delete`."""
        self._mark(kind, id_, deleted=False)

    def set_payload(self, persona_id: str, payload: Any) -> None:  # noqa: ANN401  any JSON
        """Serves `payload` for this id, known or not: bytes verbatim, all else as JSON.

        None ends it. The list goes on to show the persona itself.
        """
        persona_id = persona_id.lower()
        with self._lock:
            if payload is None:
                self._verbatim.pop(persona_id, None)
            else:
                self._verbatim[persona_id] = (
                    payload if isinstance(payload, bytes) else dump(payload)
                )

    def reshape(self, function: Callable[[Json], Any] | None) -> None:
        """Sends every persona's payload through `function`: the API's shape moves. None ends it.

        No `updatedAt` moves. A `Reshape` is told the number of the fetch, and reshapes the list.
        """
        with self._lock:
            self._reshape = function
            self._changed("personas")

    @property
    def reshaped_by(self) -> Callable[[Json], Any] | None:
        """What `reshape` was given."""
        return self._reshape

    def remember(self) -> None:
        """What is here now is what `reset` brings back."""
        with self._lock:
            things = {kind: dict(things) for kind, things in self._things.items()}
            deleted = {kind: set(ids) for kind, ids in self._deleted.items()}
            self._start = things, deleted, dict(self._verbatim), self._reshape, self._fetches

    def reset(self) -> None:
        """All is as it was when `remember` was called."""
        with self._lock:
            things, deleted, verbatim, self._reshape, self._fetches = self._start
            self._things = {kind: dict(of_kind) for kind, of_kind in things.items()}
            self._deleted = {kind: set(ids) for kind, ids in deleted.items()}
            self._verbatim = dict(verbatim)
            for kind in KINDS:
                self._changed(kind)

    def _rendered(self, persona_id: str) -> bytes:
        number = self._next_fetch()
        payload: Any = render(self._things["personas"][persona_id], self._shared, number)
        # A copy, lest the function edits the shared things for good.
        if isinstance(self._reshape, Reshape):
            payload = self._reshape(deepcopy(payload), number)
        elif self._reshape:
            payload = self._reshape(deepcopy(payload))
        if self.shuffle_keys:
            payload = shuffled(payload, Random(self._fetches))  # noqa: S311  repeatable on purpose
        return dump(payload)

    def _next_fetch(self) -> int:
        self._fetches += 1
        return self._fetches if self.moving else 0

    def _mark(self, kind: str, id_: str, *, deleted: bool) -> None:
        id_ = _key(kind, id_)
        with self._lock:
            if id_ not in self._things[kind] and not (kind == "personas" and id_ in self._verbatim):
                raise KeyError(id_)
            (self._deleted[kind].add if deleted else self._deleted[kind].discard)(id_)
            self._changed(kind)

    def _changed(self, kind: str) -> None:
        """Forgets what was made of the state before."""
        self._still.clear()
        if kind != "personas":
            self._shared[kind] = self._things[kind] | dict.fromkeys(self._deleted[kind])

    def _now(self) -> str:
        # Two edits within one millisecond must still be told apart.
        self._latest = max(datetime.now(UTC), self._latest + timedelta(milliseconds=1))
        return timestamp(self._latest)


def _merged(old: Any, new: Any) -> Any:  # noqa: ANN401  any JSON
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return deepcopy(new)
    return old | {key: _merged(old.get(key), value) for key, value in new.items()}


def _key(kind: str, id_: str) -> str:
    """What a thing is kept under. Only personas are asked for in URLs, in any case of letters."""
    return id_.lower() if kind == "personas" else id_


def _id_of(thing: Mapping[str, Any]) -> str | None:
    """The thing's own id, if it brings one; ValueError when no URL could name it."""
    id_ = thing.get("id")
    if id_ is None:
        return None
    if not isinstance(id_, str) or not id_ or "/" in id_:
        raise ValueError(f"id: {id_!r} can't be asked for; write a UUID as a string")
    return id_
