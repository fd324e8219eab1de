"""How faults, limits and shapes are written: as JSON, or short, as on the command line.

    429:retry_after=2:times=3             a status and parts
    list:shift=1:always                   whom it meets stands in front
    <persona-id>:gzip:truncate            words are short for parts

The parts are those of `Fault`; `-` may stand for `_` in their names. A value is JSON or text, a
dotted name goes into an object (`headers.Location=/login`). What starts with `{` is the JSON.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec

from etl.sandbox.faults import DROPS, Fault
from etl.sandbox.reshape import Reshape
from etl.sandbox.script import GROUPS
from etl.sandbox.shapes import SHAPES
from etl.sandbox.traffic import RateLimit
from etl.sandbox.wrong import WRONG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MANUAL = "`persona-etl sandbox --help`"
S = TypeVar("S", bound=msgspec.Struct)

# A word that needs no value -> the parts that it is short for.
WORDS: dict[str, dict[str, Any]] = {
    "always": {"times": None},
    "truncate": {"truncate_at": 20},
    **{name: {name: True} for name in ("gzip", "chunked", "endless", "shuffle")},
    **{name: {"drop": name} for name in DROPS},
    **{name: {"wrong": name} for name in WRONG},
}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# A colon parts only where what follows can be a part: values may have colons of their own.
_COLON = re.compile(r":(?=[A-Za-z_-]+(?:[:=.]|$)|[0-9]{3}(?::|$))")


def read_fault(written: object, knows: Callable[[str], bool]) -> Fault:
    """A fault from its JSON or from its short form; a ValueError says what to write instead.

    `knows` tells whether a persona has an id, where that is no UUID.
    """
    if isinstance(written, str):
        written = _json(written) if written.lstrip().startswith("{") else _parts(written)
    fault = convert(written, Fault, "fault")
    if not (fault.target in GROUPS or _UUID.fullmatch(fault.target) or knows(fault.target)):
        whom = f"write a persona's id, {', '.join(GROUPS)}"
        _refuse(f'target: "{fault.target}" is nobody', fault.target, GROUPS, whom)
    return fault


def read_rate_limit(written: str) -> RateLimit:
    """`REQUESTS/SECONDS`, and parts of `RateLimit` behind it; ValueError as `read_fault`."""
    first, *others = _COLON.split(written)
    requests, slash, seconds = first.partition("/")
    if not (slash and requests.isdecimal() and re.fullmatch(r"[0-9.]+", seconds)):
        raise ValueError(f'"{first}" is no limit; write REQUESTS/SECONDS, such as 100/60')
    parts = {"requests": _value(requests), "window_seconds": _value(seconds)}
    for piece in others:
        name, equals, value = piece.partition("=")
        if not equals:
            raise ValueError(f'"{piece}": write NAME=VALUE')
        name = name.replace("-", "_")
        parts[name] = _value(value) if name in {"status", "burst"} else value
    return convert(parts, RateLimit, "rate limit")


def read_shape(written: object) -> Reshape:
    """A shape from its JSON, its name, or `{"shape": its name}`; ValueError as `read_fault`."""
    if isinstance(written, str):
        is_json = written.lstrip().startswith("{")
        written = _json(written) if is_json else {"shape": written}
    if not (isinstance(written, dict) and "shape" in written):
        return convert(written, Reshape, "reshape")
    name = written["shape"]
    if len(written) > 1:
        raise ValueError("shape: a shape that has a name is ordered alone; leave the rest out")
    if name not in list(SHAPES):
        _refuse(f'"{name}" is no shape', str(name), SHAPES, f"write {' or '.join(SHAPES)}")
    return SHAPES[name]


def convert(value: object, kind: type[S], what: str) -> S:
    """The JSON value as a `kind`; a ValueError names the member that is wrong."""
    if not isinstance(value, dict):
        raise ValueError(f"a {what} is a JSON object")  # noqa: TRY004  a ValueError is a 400
    for name in value:
        if name not in kind.__struct_fields__:
            parts = kind.__struct_fields__
            _refuse(f'"{name}" is no part of a {what}', name, parts, f"see {MANUAL}")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        what_is_wrong, _, where = str(exc).replace("`", "").partition(" - at $")
        name = where.removeprefix(".")
        raise ValueError(f"{name}: {what_is_wrong}" if name else what_is_wrong) from exc


def _parts(written: str) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for position, piece in enumerate(_COLON.split(written)):
        for name, part in _part(piece, first=position == 0).items():
            if isinstance(part, dict) and isinstance(parts.get(name), dict):
                parts[name] |= part
            elif name in parts:
                raise ValueError(f"{name} is said twice")
            else:
                parts[name] = part
    return parts


def _part(piece: str, *, first: bool) -> dict[str, Any]:
    """What one piece of the short form says."""
    name, equals, value = piece.partition("=")
    if equals:
        name, dot, member = name.partition(".")
        name = name.replace("-", "_")
        # Headers and targets are text, also where they look like numbers.
        said = value if name in {"headers", "target"} else _value(value)
        return {name: {member: said} if dot else said}
    if first and (piece in GROUPS or _UUID.fullmatch(piece)):
        return {"target": piece}
    if re.fullmatch(r"[0-9]{3}", piece):
        return {"status": int(piece)}
    word = piece.replace("-", "_")
    if word not in WORDS:
        known = (*WORDS, *GROUPS) if first else WORDS
        _refuse(f'"{piece}" is no fault', word, known, f"see {MANUAL}")
    return WORDS[word]


def _value(text: str) -> Any:  # noqa: ANN401  any JSON
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise ValueError(f"this is no JSON: {exc}") from exc


def _refuse(what: str, word: str, known: Iterable[str], where: str) -> NoReturn:
    close = difflib.get_close_matches(word, known, n=1)
    raise ValueError(f"{what}; {f'did you mean {close[0]}?' if close else where}")
