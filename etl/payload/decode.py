"""Bytes to JSON and back: strict about what JSON is, exact about numbers, and fit for Postgres.

A value has one form only, so that equal numbers compare and print equally, and no string holds
what Postgres can't store. What a payload means is not known here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import msgspec

from etl.errors import PayloadRejectedError

if TYPE_CHECKING:
    from collections.abc import Callable

Json: TypeAlias = "bool | int | float | Decimal | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = "dict[str, Json]"
Location: TypeAlias = "tuple[str | int, ...]"

# Recursion, here and in the parser, takes one frame a level, and Python's limit is 1000.
MAX_LEVELS = 500

# A persona has some hundreds. In memory one takes up to 300 bytes, and may be written in two.
MAX_VALUES = 1_000_000

REPLACEMENT = "\ufffd"

# Postgres numeric takes more, but not in every operation, and no real field comes near.
MAX_DIGITS = 1000
MAX_EXPONENT = 1000
# jsonb prints 1e999 as a thousand digits, so a small body could grow past what can be read again.
MAX_GROWTH = 1_000_000

_BOM = b"\xef\xbb\xbf"

# Raw NULs become a surrogate that no undecodable byte becomes (those are U+DC80 to U+DCFF): the
# parser lets it pass inside a string, and refuses it anywhere else, as it does other rubbish.
_RAW_NUL = "\udc00"

_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_SUSPECT_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")

# What gives JSON its shape, and strings whole, so that what they hold is passed over. Each match
# ends at the text's end at the latest and none is tried twice: linear for any text.
_SHAPE = re.compile(r'[\[\]{}]|NaN|-?Infinity|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)

# The same for what each value but the outermost stands behind.
_STEPS = re.compile(r'[\[{](?!\s*+[\]}])|,|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)

# A decimal of up to 15 digits survives the way through a float; a sixteenth character is the dot.
_SAFE_FLOAT_LENGTH = 16
_INT64 = range(-(2**63), 2**63)
_INT64_LENGTH = len(str(-(2**63)))

_encoder = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A parsed body, and where it had to be changed to be storable."""

    value: Json
    mended: list[Location]
    """Strings (or the members whose key it was) in which U+FFFD stands for something else."""
    oversized: list[Location]
    """Numbers too long or too large for Postgres, kept as their own text."""


class _Oversized(str):
    """The text of a number that Postgres would not take, until the mending walk meets it."""

    __slots__ = ()


def decode(body: bytes) -> Decoded:
    """Parse a body as RFC 8259 has it, without a repeated key in any object.

    Raises:
        PayloadRejectedError: it is not that, nests deeper than MAX_LEVELS or holds more than
            MAX_VALUES. The message tells the offset in characters (a byte order mark not counted),
            and nothing of the body.
    """
    text, suspect = _text(body)
    brackets = text.count("[") + text.count("{")
    too_many_at = _too_many(text) if brackets + text.count(",") >= MAX_VALUES else None
    if brackets > MAX_LEVELS:
        _check_depth(text[:too_many_at])
    if too_many_at is not None:
        raise PayloadRejectedError(f"more than {MAX_VALUES} values at offset {too_many_at}")
    value, has_oversized = _parse(text)
    mended: list[Location] = []
    oversized: list[Location] = []
    if has_oversized or (suspect and not _is_storable(value)):
        value = _mend(value, [], mended, oversized)
    return Decoded(value, mended, oversized)


def loads(text: str | bytes) -> Json:
    """Parse what jsonb gives back, with numbers in the same form as `decode` leaves them."""
    if isinstance(text, bytes):
        text = text.decode()
    value: Json = _stored.decode(text)
    return value


def dumps(value: Json) -> bytes:
    """Compact JSON in UTF-8, members in their order, numbers exact."""
    return _encoder.encode(value)


def _text(body: bytes) -> tuple[str, bool]:
    """The body's text, and whether a parsed string may hold what can't be stored."""
    body = body.removeprefix(_BOM)
    if not body:
        raise PayloadRejectedError("not JSON: the body is empty")
    try:
        text = body.decode()
        suspect = False
    except UnicodeDecodeError:
        text = body.decode(errors="surrogateescape")
        suspect = True
    if "\0" in text:
        text = text.replace("\0", _RAW_NUL)
        suspect = True
    return text, suspect or _SUSPECT_ESCAPE.search(text) is not None


def _check_depth(text: str) -> None:
    depth = 0
    for match in _SHAPE.finditer(text):
        offset = match.start()
        if text[offset] in "[{":
            depth += 1
            if depth > MAX_LEVELS:
                raise PayloadRejectedError(f"more than {MAX_LEVELS} levels at offset {offset}")
        elif text[offset] in "]}":
            depth -= 1


def _too_many(text: str) -> int | None:
    """Where the first value stands that is one too many."""
    steps = (m.start() for m in _STEPS.finditer(text) if text[m.start()] != '"')
    return next(islice(steps, MAX_VALUES - 1, None), None)


def _parse(text: str) -> tuple[Json, bool]:
    """The text's value, and whether it holds an `_Oversized`."""
    has_oversized = False
    objects = 0
    growth = 0

    def number(token: str) -> int | float | Decimal | str:
        nonlocal has_oversized, growth
        if len(token) > _SAFE_FLOAT_LENGTH or "e" in token or "E" in token:
            digits, power = _scientific(token)
            count = len(digits.removeprefix("-"))
            growth += max(0, abs(power) - len(token))
            too_wide = count > MAX_DIGITS or abs(count - 1 + power) > MAX_EXPONENT
            if too_wide or growth > MAX_GROWTH:
                has_oversized = True
                return _Oversized(token)
        return _number(token)

    def finish(members: list[tuple[str, Json]]) -> dict[str, Json]:
        nonlocal objects
        objects += 1
        finished = dict(members)
        if len(finished) != len(members):
            # Objects are finished in the order of their closing brackets.
            offset = _offset(text, objects, lambda mark: mark == "}")
            raise PayloadRejectedError(f"a repeated key in the object that ends at offset {offset}")
        return finished

    def refuse(constant: str) -> NoReturn:
        offset = _offset(text, 1, lambda mark: mark in "NI-")
        raise PayloadRejectedError(f"not JSON: {constant} at offset {offset}")

    decoder = json.JSONDecoder(
        parse_float=number, parse_int=number, parse_constant=refuse, object_pairs_hook=finish
    )
    try:
        return decoder.decode(text), has_oversized
    except json.JSONDecodeError as exc:
        # Without the parser's own words, which are others in each version of Python.
        raise PayloadRejectedError(f"not JSON at offset {exc.pos}") from None


def _offset(text: str, nth: int, wanted: Callable[[str], bool]) -> int:
    """Where the nth shape-giving mark stands whose first character is wanted."""
    starts = (m.start() for m in _SHAPE.finditer(text) if wanted(text[m.start()]))
    return next(islice(starts, nth - 1, None))


def _number(token: str) -> int | float | Decimal:
    """A number by its value: int if it is whole and fits int64, else float if exact, else Decimal.

    Both `1.0` and `1e0` are the int 1, `-0.0` is 0. A Decimal has no trailing zeros.
    """
    if len(token) <= _SAFE_FLOAT_LENGTH and "e" not in token and "E" not in token:
        if "." not in token:
            return int(token)
        short = float(token)
        return int(short) if short.is_integer() else short
    digits, power = _scientific(token)
    if power >= 0 and len(digits) + power <= _INT64_LENGTH:
        whole = int(digits + "0" * power)
        if whole in _INT64:
            return whole
    # Neither the constructor nor the comparison rounds, whatever the decimal context says.
    exact = Decimal(f"{digits}e{power}")
    nearest = float(exact)
    return nearest if Decimal(repr(nearest)) == exact else exact


def _scientific(token: str) -> tuple[str, int]:
    """The significant digits, signed and without zeros around them, and their power of ten.

    Works on the text, since int() refuses more than 4300 digits and is quadratic in them.
    """
    mantissa, _, exponent = token.lower().partition("e")
    whole, _, fraction = mantissa.removeprefix("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return "0", 0
    # Twenty digits of an exponent are out of any bounds already; the rest can't bring it back.
    power = int(exponent.lstrip("+-0")[:20] or "0")
    if exponent.startswith("-"):
        power = -power
    power += len(digits) - len(significant) - len(fraction)
    return ("-" if mantissa.startswith("-") else "") + significant, power


def _is_storable(value: Json) -> bool:
    """Whether there is nothing to mend, most often: a pair of escapes is one good character."""
    try:
        return rb"\u0000" not in _encoder.encode(value)
    except UnicodeEncodeError:
        return False


def _mend(
    value: Json, path: list[str | int], mended: list[Location], oversized: list[Location]
) -> Json:
    """Replace what can't be stored, and note where. One frame a level."""
    if isinstance(value, dict):
        names = _mended_names(value)
        changed: dict[str, Json] = {}
        for key, item in value.items():
            name = names.get(key, key)
            path.append(name)
            changed[name] = _mend(item, path, mended, oversized)
            if key in names and (not mended or mended[-1] != tuple(path)):
                mended.append(tuple(path))
            path.pop()
        return changed
    if isinstance(value, list):
        items: list[Json] = []
        for index, item in enumerate(value):
            path.append(index)
            items.append(_mend(item, path, mended, oversized))
            path.pop()
        return items
    if isinstance(value, _Oversized):
        oversized.append(tuple(path))
        return str(value)
    if isinstance(value, str) and _UNSTORABLE.search(value):
        mended.append(tuple(path))
        return _UNSTORABLE.sub(REPLACEMENT, value)
    return value


def _mended_names(members: dict[str, Json]) -> dict[str, str]:
    """New names for the keys that can't be stored, each unlike all other names of the object."""
    # Sorted, so that the names don't hang on the order of the members.
    broken = sorted(key for key in members if _UNSTORABLE.search(key))
    taken = set(members)
    names: dict[str, str] = {}
    alike: dict[str, int] = {}
    for key in broken:
        plain = name = _UNSTORABLE.sub(REPLACEMENT, key)
        while name in taken:
            # Counted: to look for a free name from the start each time would be quadratic.
            count = alike[plain] = alike.get(plain, 0) + 1
            name = f"{plain}{REPLACEMENT}{count if count > 1 else ''}"
        taken.add(name)
        names[key] = name
    return names


_stored = json.JSONDecoder(parse_float=_number, parse_int=_number)
