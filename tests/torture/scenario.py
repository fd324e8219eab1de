"""A target before a run that has one of everything to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl.sandbox import Fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.db.conftest import Target

COUNT, SEED = 10, 2


def one_of_everything(target: Target) -> Sequence[str]:
    """Copies twice, then edits: the next run of the ids that it returns meets all there is.

    Created, edited, shared documents, a removal, one that is back, a rejected answer, a forbidden
    one, share links that move, issues that open and that close, and a field that is new.
    """
    world, ids = target.world, target.world.persona_ids
    world.edit(ids[1], {"shareLinks": [link(1), link(2)]})
    world.edit(ids[2], {"voiceSpeed": "slow", "shareLinks": [link(3)]})
    world.edit(ids[7], {"shareLinks": [link(4)]})
    target.sync(ids[:8])
    world.delete(ids[6])
    target.sync(ids[:8])
    world.restore(ids[6])
    world.edit(ids[0], {"name": "Edited", "tools": [], "avatar": None, "voiceSpeed": "fast"})
    # One link goes from a persona to another, one is shown by two.
    world.edit(ids[1], {"shareLinks": [link(1)]})
    world.edit(ids[2], {"voiceSpeed": 1.5, "shareLinks": [link(2), link(3), link(4)]})
    world.edit(world.payload(ids[2])["voice"]["id"], {"displayName": "Edited"}, "voices")
    world.set_payload(ids[3], world.payload(ids[3]) | {"new": 1})
    world.set_payload(ids[4], b"not JSON")
    world.delete(ids[5])
    target.sandbox.order(Fault(status=403, target=ids[9], times=None))
    return ids


def link(number: int) -> dict[str, Any]:
    return {
        "id": f"00000000-0000-4000-8000-{number:012}",
        "token": f"of {number}",
        "usageLimit": number,
        "allowedOrigins": ["https://a.example", f"https://{number}.example"],
    }
