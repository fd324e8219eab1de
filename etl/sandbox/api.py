"""The two documented endpoints: a request and the world in, an answer out. No sockets."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from etl.sandbox.faults import NO_FAULT
from etl.sandbox.messages import Answer, refusal
from etl.sandbox.rendering import BLANK, dump

if TYPE_CHECKING:
    from etl.sandbox.faults import Fault
    from etl.sandbox.messages import Request
    from etl.sandbox.world import World

_COLLECTION = "/v1/personas"
_MOST_PER_PAGE = 100


def another_than(target: str, world: World) -> bytes:
    """The body of a persona that was not asked for; of one that is nobody's, if need be."""
    others = (world.body(id_) for id_ in world.persona_ids if id_ != target)
    return next(others, None) or dump(BLANK | {"id": str(uuid.uuid4())})


def target_of(request: Request) -> str:
    """What the request is about: a persona's id, `"list"`, or the path where nothing is."""
    if request.path == _COLLECTION:
        return "list"
    return request.path.removeprefix(f"{_COLLECTION}/").lower()


def answer(request: Request, world: World, key: str, fault: Fault = NO_FAULT) -> Answer:
    """What the API says, in the order in which it looks: key, path, method, parameters.

    The list drifts as the fault says; the rest of the fault is not looked at.
    """
    if request.headers.get("authorization") != f"Bearer {key}":
        return refusal(401, "Missing or invalid API key", {"WWW-Authenticate": "Bearer"})
    target = target_of(request)
    if "/" in target:
        return refusal(404, f"Cannot {request.method} {request.path}")
    if request.method != "GET":
        return refusal(405, "Only GET is allowed here", {"Allow": "GET"})
    if request.path == _COLLECTION:
        return _page(request, world, fault)
    body = world.body(target)
    return refusal(404, "Persona not found") if body is None else Answer(200, body)


def _page(request: Request, world: World, fault: Fault) -> Answer:
    page = _whole_number(request.query.get("page", "1"))
    per_page = _whole_number(request.query.get("perPage", "10"))
    if page is None or page < 1:
        return refusal(400, "page must be a whole number of at least 1")
    if per_page is None or not 1 <= per_page <= _MOST_PER_PAGE:
        return refusal(400, f"perPage must be a whole number from 1 to {_MOST_PER_PAGE}")
    search = request.query.get("search", "")
    return Answer(200, world.page(page=page, per_page=per_page, search=search, fault=fault))


def _whole_number(text: str) -> int | None:
    # int() takes "1_0" and Arabic digits, which no JavaScript server does, and no 5000 digits.
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None
