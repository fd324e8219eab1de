"""A net below all else: what this process was given as a secret, it prints in no error and no log.

Messages are written without secrets. Those that libraries write of a bug, and words that were typed
in the wrong place, are not ours.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HIDDEN = "[hidden]"
# What is shorter, or a plain word like `postgres`, would be found where it is no secret.
_LEAST_LENGTH, _LEAST_WORD = 8, 16

_SECRETS = ("ANAM_API_KEY", "PGPASSWORD")
_URLS = ("PERSONA_ETL_DATABASE__URL", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


class Hiding:
    """The secrets that are known so far."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._spellings: set[str] = set()
        for name in _SECRETS:
            self.add(environ.get(name, ""))
        for name in _URLS:
            for variable in (name, name.lower()):
                self.add(*_passwords(environ.get(variable, "")))
        self.add_address(environ.get("PERSONA_ETL_NOTIFY__PING_URL", ""))

    def add(self, *secrets: str) -> None:
        """Hide these too."""
        for secret in map(str.strip, secrets):
            if len(secret) >= (_LEAST_WORD if secret.isalpha() else _LEAST_LENGTH):
                # What is typed as an option ends at its =.
                for whole in (secret, secret.rstrip("=")):
                    for spelt in (whole, quote(whole), quote(whole, safe="")):
                        self._spellings |= {spelt, json.dumps(spelt)[1:-1]}

    def add_url(self, url: str) -> None:
        """Hide the password in this URL too."""
        self.add(*_passwords(url))

    def add_address(self, url: str) -> None:
        """Hide this URL, what in it looks like a key, and its password too."""
        with suppress(ValueError):
            parts = urlsplit(url.strip())
            found = [piece for piece in re.split(r"[/&=]", f"{parts.path}&{parts.query}") if piece]
            # Not the host alone, which may be told, nor a slug like `persona-etl`.
            self.add(*([url] if found else []), *filter(_is_telling, found))
            self.add_url(url)

    def without(self, text: str) -> str:
        """The text without them."""
        for spelt in sorted(self._spellings, key=len, reverse=True):
            text = text.replace(spelt, _HIDDEN)
        return text


def _is_telling(piece: str) -> bool:
    return piece.isalpha() or any(character.isdigit() for character in piece)


def _passwords(url: str) -> Iterator[str]:
    """As it stands there, and as it is meant. Only of what looks like a URL."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        return
    yield password
    yield unquote(password)
