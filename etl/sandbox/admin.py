"""What a person with curl, or a test in any language, can order of a running sandbox.

`CALLS` is all of it. No key is asked for: the server only ever listens on loopback, and nothing
in it is real.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from etl.sandbox.behaviour import Behaviour
from etl.sandbox.faults import Fault
from etl.sandbox.messages import Answer, Request, refusal
from etl.sandbox.reshape import Reshape
from etl.sandbox.shapes import SHAPES
from etl.sandbox.spelling import WORDS, convert, read_fault, read_shape
from etl.sandbox.world import KINDS, SHARED_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.sandbox.rendering import Json
    from etl.sandbox.server import Server

_ROOT = "/_sandbox"
PREFIX = f"{_ROOT}/"
_DONE: Json = {"done": True}
_LINE = 100
_SHOWN, _MOST_SHOWN = 20, 1000


class Call(NamedTuple):
    """One call: `<kind>` in its path is one of `KINDS`, `<id>` and `<number>` are any."""

    method: str
    path: str
    does: str
    do: Callable[[Server, Request, list[str]], Any]


def is_meant(request: Request) -> bool:
    """Whether this is for us, and not for the API."""
    return request.path == _ROOT or request.path.startswith(PREFIX)


def administer(request: Request, server: Server) -> Answer:
    """Does what is ordered. What can't be done is a 4xx whose message says what to write."""
    way = request.path.removeprefix(_ROOT).removeprefix("/").split("/")
    calls = {call.method: call for call in CALLS if _leads_to(way, call.path)}
    if not calls:
        return refusal(404, f"No such call; GET {PREFIX} lists them all")
    if request.method not in calls:
        allowed = ", ".join(calls)
        return refusal(405, f"{request.path} takes {allowed}", {"Allow": allowed})
    try:
        return Answer(200, _readable(calls[request.method].do(server, request, way)))
    except KeyError as exc:
        where = f"GET {PREFIX}{way[0]} lists what is there"
        return refusal(404, f"{exc.args[0]} is not among the {way[0]}; {where}")
    except ValueError as exc:
        return refusal(400, str(exc))
    except RecursionError:
        return refusal(400, "the body is nested too deeply; PUT payload takes any bytes")


def _leads_to(way: list[str], path: str) -> bool:
    steps = path.split("/")
    return len(steps) == len(way) and all(
        step == place or (place in KINDS if step == "<kind>" else step[:1] == "<" and place != "")
        for step, place in zip(steps, way, strict=True)
    )


def _index(_server: Server, _request: Request, _way: list[str]) -> Json:
    return {
        "calls": {f"{call.method} {PREFIX}{call.path}": call.does for call in CALLS},
        "kinds": KINDS,
        "parts of a fault": Fault.__struct_fields__,
        "words for --fault": list(WORDS),
        "parts of a reshape": Reshape.__struct_fields__,
        "shapes": list(SHAPES),
    }


def _state(server: Server, _request: Request, _way: list[str]) -> Json:
    return {
        "personas": server.world.persona_ids,
        **{kind: server.world.shared_ids(kind) for kind in SHARED_KINDS},
        "behaviour": msgspec.to_builtins(server.behaviour),
        "reshape": _reshaped_by(server),
        "faults_waiting": len(server.script.waiting),
        "requests": _counters(server),
    }


def _list(server: Server, _request: Request, way: list[str]) -> list[Json]:
    return server.world.overview(way[0])


def _show(server: Server, _request: Request, way: list[str]) -> Json:
    return server.world.stored(*way)


def _add(server: Server, request: Request, way: list[str]) -> Json:
    return {"id": server.world.add(_object(request.body), way[0])}


def _edit(server: Server, request: Request, way: list[str]) -> Json:
    server.world.edit(way[1], _object(request.body), way[0])
    return _DONE


def _delete(server: Server, _request: Request, way: list[str]) -> Json:
    server.world.delete(way[1], way[0])
    return _DONE


def _restore(server: Server, _request: Request, way: list[str]) -> Json:
    server.world.restore(way[1], way[0])
    return _DONE


def _put_payload(server: Server, request: Request, way: list[str]) -> Json:
    server.world.set_payload(way[1], request.body)
    return _DONE


def _take_payload_back(server: Server, _request: Request, way: list[str]) -> Json:
    server.world.set_payload(way[1], None)
    return _DONE


def _faults(server: Server, _request: Request, _way: list[str]) -> list[Json]:
    return [
        {"number": o.number, "seen": o.seen, "met": o.met, "fault": msgspec.to_builtins(o.fault)}
        for o in server.script.waiting
    ]


def _order(server: Server, request: Request, _way: list[str]) -> Json:
    orders = _json(request.body)
    orders = orders if isinstance(orders, list) else [orders]
    if not orders:
        raise ValueError('no fault was given; write one such as {"status": 500, "times": 3}')
    # All are read before one is ordered: a mistake in the last leaves nothing behind.
    faults = [read_fault(order, server.world.knows) for order in orders]
    return {"numbers": server.script.add(*faults)}


def _clear(server: Server, _request: Request, way: list[str]) -> Json:
    if way[1:]:
        if not way[1].isdecimal():
            raise KeyError(way[1])
        server.script.clear(int(way[1]))
    else:
        server.script.clear()
    return _DONE


def _show_behaviour(server: Server, _request: Request, _way: list[str]) -> Any:  # noqa: ANN401  any JSON
    return msgspec.to_builtins(server.behaviour)


def _behave(server: Server, request: Request, way: list[str]) -> Any:  # noqa: ANN401  any JSON
    wanted = msgspec.to_builtins(server.behaviour) | _object(request.body)
    server.behave(convert(wanted, Behaviour, "behaviour"))
    return _show_behaviour(server, request, way)


def _reshaped_by(server: Server) -> Any:  # noqa: ANN401  any JSON
    function = server.world.reshaped_by
    for name, shape in SHAPES.items():
        if function == shape:
            return {"shape": name}
    return msgspec.to_builtins(function) if isinstance(function, Reshape) else None


def _set_reshape(server: Server, request: Request, _way: list[str]) -> Json:
    server.world.reshape(read_shape(_json(request.body)))
    return _DONE


def _end_reshape(server: Server, _request: Request, _way: list[str]) -> Json:
    server.world.reshape(None)
    return _DONE


def _requests(server: Server, request: Request, _way: list[str]) -> Json:
    last = request.query.get("last", str(_SHOWN))
    if not (last.isdecimal() and len(last) < len("10000")):
        raise ValueError(f"last: write how many requests to show, from 0 to {_MOST_SHOWN}")
    recent = [
        {
            "method": seen.method,
            "path": seen.path,
            "query": seen.query,
            # A key that somebody chose may be a real one.
            "headers": {k: v for k, v in seen.headers.items() if k != "authorization"},
            "status": seen.status,
            "fault": seen.fault,
        }
        for seen in server.log.latest(int(last))
    ]
    return {**_counters(server), "recent": recent}


def _forget_requests(server: Server, _request: Request, _way: list[str]) -> Json:
    server.log.clear()
    return _DONE


def _reset(server: Server, _request: Request, _way: list[str]) -> Json:
    server.reset()
    return _DONE


def _counters(server: Server) -> Json:
    log = server.log
    return {
        "total": log.total,
        "in_flight": log.in_flight,
        "most_in_flight": log.most_in_flight,
        "by_status": {"none" if k is None else str(k): n for k, n in log.by_status.items()},
        "by_target": dict(log.by_target),
    }


def _readable(value: Any) -> bytes:  # noqa: ANN401  any JSON
    """JSON as a person with curl wants it: short on a line, long on many."""
    line = json.dumps(value, ensure_ascii=False)
    text = line if len(line) <= _LINE else json.dumps(value, ensure_ascii=False, indent=2)
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _object(body: bytes) -> Json:
    value = _json(body)
    if not isinstance(value, dict):
        raise ValueError('the body must be a JSON object, such as {"name": "Ada"}')  # noqa: TRY004  a ValueError is a 400
    return value


def _json(body: bytes) -> Any:  # noqa: ANN401  any JSON
    try:
        return json.loads(body)
    except ValueError as exc:
        raise ValueError(f"the body is no JSON: {exc}") from exc


CALLS = (
    Call("GET", "", "these calls", _index),
    Call("GET", "state", "all at a glance", _state),
    Call("GET", "<kind>", "what there is of a kind", _list),
    Call("POST", "<kind>", "add one; what a persona's JSON leaves out is blank", _add),
    Call("GET", "<kind>/<id>", "one as it is kept", _show),
    Call("PATCH", "<kind>/<id>", "merge this JSON into it", _edit),
    Call(
        "DELETE", "<kind>/<id>", "a persona is a 404; a shared thing leaves its personas", _delete
    ),
    Call("POST", "<kind>/<id>/restore", "undo that", _restore),
    Call("PUT", "personas/<id>/payload", "serve these bytes for it", _put_payload),
    Call("DELETE", "personas/<id>/payload", "undo that", _take_payload_back),
    Call("GET", "faults", "the faults that wait to be met", _faults),
    Call("POST", "faults", "order one, or a list: as JSON, or short as for --fault", _order),
    Call("DELETE", "faults", "all goes well again", _clear),
    Call("DELETE", "faults/<number>", "clear this one", _clear),
    Call("GET", "behaviour", "how it behaves where no fault is met", _show_behaviour),
    Call("PATCH", "behaviour", "set latency_seconds, rate_limit, moving, shuffle_keys", _behave),
    Call("POST", "reshape", "move the shape of every persona", _set_reshape),
    Call("DELETE", "reshape", "undo that", _end_reshape),
    Call("GET", "requests", "counters and the last requests; ?last=20", _requests),
    Call("DELETE", "requests", "count anew", _forget_requests),
    Call("POST", "reset", "all is as it was at the start", _reset),
)
