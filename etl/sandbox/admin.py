"""What a person with curl can order of a running sandbox, below `/_sandbox/`.

    GET    state                  what is there and what was asked for
    POST   personas               add one; what the JSON leaves out is blank
    PATCH  personas/<id>          merge this JSON into it; avatars, voices, tools, knowledge too
    DELETE personas/<id>          make it a 404
    POST   personas/<id>/restore  undo that
    PUT    personas/<id>/payload  serve these bytes for it
    DELETE personas/<id>/payload  undo that
    POST   script                 {"target": <id>|"list"|null, "faults": [{…}], "last_stays": false}
    DELETE script                 all goes well again

No key is asked for: the server only ever listens on loopback, and nothing in it is real.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from etl.sandbox.faults import Fault  # noqa: TC001  msgspec reads the annotation
from etl.sandbox.messages import Answer, Request, json_answer, refusal

if TYPE_CHECKING:
    from etl.sandbox.faults import Script
    from etl.sandbox.rendering import Json
    from etl.sandbox.traffic import RequestLog
    from etl.sandbox.world import World

PREFIX = "/_sandbox/"
_DONE: Json = {"done": True}


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    faults: list[Fault]
    target: str | None = None
    last_stays: bool = False


def administer(request: Request, world: World, script: Script, log: RequestLog) -> Answer:
    """Does what is ordered; 404 for unknown ids and paths, 400 for a body that makes no sense."""
    try:
        result = _do(request, world, script, log)
    except KeyError as exc:
        return refusal(404, f"Nothing here has the id {exc}")
    except (ValueError, msgspec.MsgspecError) as exc:
        return refusal(400, str(exc))
    return refusal(404, "No such order") if result is None else json_answer(200, result)


def _do(request: Request, world: World, script: Script, log: RequestLog) -> Json | None:
    match request.method, request.path.removeprefix(PREFIX).split("/"):
        case "GET", ["state"]:
            return _state(world, script, log)
        case "POST", ["script"]:
            order = msgspec.json.decode(request.body, type=_Order)
            script.add(order.target, *order.faults, last_stays=order.last_stays)
        case "DELETE", ["script"]:
            script.clear()
        case "POST", ["personas"]:
            return {"id": world.add(_object(request.body))}
        case "PATCH", [kind, id_]:
            return _edit(kind, id_, _object(request.body), world)
        case method, ["personas", persona_id, *rest]:
            return _rule(method, persona_id, rest, request.body, world)
        case _:
            return None
    return _DONE


def _edit(kind: str, id_: str, changes: Json, world: World) -> Json:
    edits = {
        "personas": world.edit,
        "avatars": world.edit_avatar,
        "voices": world.edit_voice,
        "tools": world.edit_tool,
        "knowledge": world.edit_knowledge_group,
    }
    edits[kind](id_, changes)
    return _DONE


def _rule(method: str, persona_id: str, rest: list[str], body: bytes, world: World) -> Json | None:
    """Everything about one persona that is no edit of it."""
    match method, rest:
        case "DELETE", []:
            world.delete(persona_id)
        case "POST", ["restore"]:
            world.restore(persona_id)
        case "PUT", ["payload"]:
            world.set_payload(persona_id, body)
        case "DELETE", ["payload"]:
            world.set_payload(persona_id, None)
        case _:
            return None
    return _DONE


def _state(world: World, script: Script, log: RequestLog) -> Json:
    return {
        "moving": world.moving,
        "personas": world.persona_ids,
        **{kind: world.shared_ids(kind) for kind in ("avatars", "voices", "tools", "knowledge")},
        "faults_waiting": script.waiting,
        "requests": {
            "total": log.total,
            "in_flight": log.in_flight,
            "most_in_flight": log.most_in_flight,
        },
    }


def _object(body: bytes) -> Json:
    value = json.loads(body)
    if not isinstance(value, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004  a ValueError is a 400
    return value
