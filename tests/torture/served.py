"""What the sandbox has served, and what a database may therefore say."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

from etl.errors import PayloadRejectedError
from etl.payload.clean import clean
from etl.payload.decode import decode
from etl.payload.documents import take_apart
from etl.tables import metadata
from tests.torture.judging import OF_THE_MOMENT, brought

if TYPE_CHECKING:
    from etl.sandbox import World
    from tests.db.conftest import Target

HISTORY = {"documents", "observations", "document_versions", "value_issues", "drift_paths"}
HISTORY |= {"rejected_payloads", "runs", "run_items", "persona_sync_state"}


class Served:
    """Everything that a world was asked for, in order, as the content that it shows."""

    def __init__(self, world: World) -> None:
        self.contents: dict[tuple[str, UUID, UUID], list[bytes | None]] = defaultdict(list)
        body = world.body
        self._read: dict[tuple[str, bytes], list[tuple[str, UUID, bytes]]] = {}

        def watched(persona_id: str) -> bytes | None:
            found = body(persona_id)
            # Whoever edits a world looks at it too.
            if threading.current_thread().name == "sandbox":
                self._note(persona_id, found)
            return found

        world.body = watched  # type: ignore[method-assign]

    def check(self, target: Target) -> None:
        """What each persona brought was really served, in that order; the last of it came in."""
        told = brought(target)
        for what, contents in told.items():
            served = iter(self.contents[what])
            at: object = ()
            for content in contents:
                while at != content:
                    at = next(served, StopIteration)
                    assert at is not StopIteration, (
                        f"{what}: never served, or not then: {content!r}"
                    )
        for persona_id in map(UUID, target.world.persona_ids):
            own = ("persona", persona_id, persona_id)
            assert told[own][-1] == self.contents[own][-1], own

    def _note(self, persona_id: str, body: bytes | None) -> None:
        id_ = UUID(persona_id)
        if body is None:
            self._add(("persona", id_, id_), None)
            return
        if (persona_id, body) not in self._read:
            self._read[persona_id, body] = self._parts(id_, body)
        for kind, entity_id, content in self._read[persona_id, body]:
            self._add((kind, entity_id, id_), content)

    def _add(self, what: tuple[str, UUID, UUID], content: bytes | None) -> None:
        known = self.contents[what]
        if not known or known[-1] != content:
            known.append(content)

    @staticmethod
    def _parts(persona_id: UUID, body: bytes) -> list[tuple[str, UUID, bytes]]:
        try:
            payload = decode(body).value
        except PayloadRejectedError:
            return []
        parts = take_apart(clean(payload), persona_id).parts()
        return [(part.kind, part.entity_id, part.content_hash) for part in parts]


def tables_by_owner(target: Target) -> dict[tuple[str, Any], list[str]]:
    """What the current tables, the open versions and the open issues say of each entity."""
    found = defaultdict(list)
    for name in sorted(metadata.tables.keys() - HISTORY):
        table = metadata.tables[name]
        owner = (
            "persona_id" if "persona_id" in table.columns else next(iter(table.primary_key)).name
        )
        for row in target.rows(name):
            shown = {c: v for c, v in row.items() if c not in OF_THE_MOMENT}
            found[name, row[owner]].append(repr(shown))
    for row in target.rows("document_versions", valid_to=None):
        found["open version", row["entity_id"]].append(repr((row["kind"], row["content_hash"])))
    return {what: sorted(rows) for what, rows in found.items()}
