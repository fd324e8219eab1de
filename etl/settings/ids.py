"""Persona ids as people write them: one rule for the file, the environment, arguments and stdin."""

from __future__ import annotations

import json
import re
from uuid import UUID

from etl.errors import UsageError

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SHOWN_CHARACTERS = 60
# A word that is no mistyped id, and long and mixed like a key: only its beginning is shown.
_SECRET_CHARACTERS = 16
_NOT_OF_AN_ID = re.compile(r"[^\s0-9a-fA-F{}-]")
# The wrong file (a CSV, a binary) is wrong on every line; a few lines are enough to see that.
_SHOWN_MISTAKES = 20


def parse_ids(text: str, where: str) -> list[UUID]:
    """Read one id a line, without repetitions, in the order of first appearance.

    Blank lines and everything after a `#` are skipped.

    Raises:
        UsageError: a line for each line that holds no UUID, as `<where>:<line>: …`.
    """
    ids: dict[UUID, None] = {}
    mistakes: list[str] = []
    # Not splitlines(): editors and `sed -n` count only \n, and so must the line numbers.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        written = line.partition("#")[0].strip()
        if not written:
            continue
        try:
            ids[to_uuid(written)] = None
        except ValueError as exc:
            mistakes.append(f"{where}:{number}: {exc}")
    if mistakes:
        raise UsageError("\n".join(shorten(mistakes, where)))
    return list(ids)


def to_uuid(value: object) -> UUID:
    """Take only the form that the API writes; `uuid.UUID` also takes braces, urn: and no dashes.

    Raises:
        ValueError: anything else; its message says what an id looks like.
    """
    if isinstance(value, UUID):
        return value
    if isinstance(value, str) and _UUID.fullmatch(value.strip()):
        return UUID(value.strip())
    raise ValueError(f"{shown(value)} is not a UUID; ids look like {UUID(int=0)}")


def shorten(mistakes: list[str], where: str) -> list[str]:
    """Keep the first mistakes of one list and say how many there are besides."""
    more = len(mistakes) - _SHOWN_MISTAKES
    if more <= 0:
        return mistakes
    return [*mistakes[:_SHOWN_MISTAKES], f"{where}: … and {more} more like these"]


def shown(value: object) -> str:
    """Show a value as TOML would write it, on one short line."""
    if isinstance(value, str):
        return _shown_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(value)
    if isinstance(value, int):
        # str() of an int beyond 4300 digits raises, and TOML writes those in hexadecimal.
        return str(value) if value.bit_length() <= 64 else "so large a number"  # noqa: PLR2004  of a bigint
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list | tuple) else "a date or time"


def _shown_text(text: str) -> str:
    if looks_secret(text):
        return f"{json.dumps(text[:4])}… ({len(text)} characters)"
    beginning = json.dumps(text[:_SHOWN_CHARACTERS])
    return beginning if len(text) <= _SHOWN_CHARACTERS else f"{beginning}…"


def looks_secret(text: str) -> bool:
    """Whether a key or a password may have been put where something else belongs."""
    return any(
        len(word) >= _SECRET_CHARACTERS
        and len(_NOT_OF_AN_ID.findall(word)) >= _SECRET_CHARACTERS // 4
        and any(c.isdigit() for c in word)
        and any(c.isalpha() for c in word)
        for word in text.split()
    )
