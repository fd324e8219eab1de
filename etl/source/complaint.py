"""What the API itself says of an error: a few words, fit for a log and without secrets."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from etl.errors import PayloadRejectedError
from etl.payload.clean import BLANK, clean
from etl.payload.decode import decode
from etl.payload.paths import UUID_FORM
from etl.source.answer import SourceError
from etl.source.body import read_body
from etl.source.room import BodyRoom
from etl.source.trouble import TROUBLE

if TYPE_CHECKING:
    import httpx

    from etl.payload.decode import Json

_MOST_BYTES = 16 * 1024
_MOST_CHARACTERS = 200
# Letters and digits in one long word: a key, a token, perhaps only half of one. Words of a language
# have no digits, and ids are welcome. In doubt it is a secret. Passwords hold any character.
_WORD = re.compile(r"[^\s\"'`()<>\[\]{},;]{8,}")
# As many of the key's first characters, and what follows is taken for the key, or a piece of it.
_TELLING = 8


async def read_complaint(response: httpx.Response, *, authorization: str, seconds: float) -> str:
    """Return the `message`, else the `error`, of an error's JSON body; "" where there is none.

    The status is the news: for the sake of its words an error neither takes longer than `seconds`
    nor becomes another. `authorization` is the header that was sent, as an API may quote the key.
    """
    try:
        async with asyncio.timeout(seconds):
            body = await read_body(response, _MOST_BYTES, BodyRoom().place())
        payload = clean(decode(body).value)
    except (SourceError, PayloadRejectedError, *TROUBLE):
        return ""
    told = _without_key(_words(payload), authorization.removeprefix("Bearer "))
    return _on_one_line(_WORD.sub(_without_secret, told))


def _words(value: Json) -> str:
    """A string, several of them, or those of an object in turn: frameworks differ."""
    if isinstance(value, dict):
        return _words(value.get("message")) or _words(value.get("error"))
    if isinstance(value, list):
        return "; ".join(filter(None, map(_words, value)))
    return value if isinstance(value, str) else ""


def _without_key(text: str, key: str) -> str:
    starts = {re.escape(form[:_TELLING]) for form in (key, quote(key, safe=""))}
    return re.sub(rf"(?:{'|'.join(starts)})\S*", BLANK, text, flags=re.IGNORECASE)


def _without_secret(match: re.Match[str]) -> str:
    rest = UUID_FORM.sub("", match[0])
    is_mixed = any(c.isdigit() for c in rest) and any(c.isalpha() for c in rest)
    return BLANK if is_mixed else match[0]


def _on_one_line(text: str) -> str:
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= _MOST_CHARACTERS else f"{words[:_MOST_CHARACTERS]}…"
