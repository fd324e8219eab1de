"""The API key in what the API says: whoever repeats it, it gets no further than here."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from etl.payload.clean import BLANK

if TYPE_CHECKING:
    import httpx

# A shorter one would be found in words that have nothing to do with it.
_LEAST_LENGTH = 8


class Echo:
    """Knows the key as an answer may spell it: as it is, or escaped for URLs, JSON or HTML."""

    def __init__(self, api_key: str) -> None:
        self._pattern = re.compile("".join(map(_spellings, api_key)).encode())
        # Letters and digits are never escaped. What lacks the first of them needs no closer look.
        runs = re.findall(r"[A-Za-z0-9]+", api_key)
        self._longest = max(runs, key=len, default="").encode()
        self._is_telling = len(api_key) >= _LEAST_LENGTH

    def out_of(self, said: bytes) -> bytes:
        """What was said, without the key."""
        if not self._is_telling or self._longest not in said:
            return said
        return self._pattern.sub(BLANK.encode(), said)

    def out_of_headers(self, response: httpx.Response) -> None:
        """Take it out of all headers, before any of them is looked at."""
        if any(self._longest in value for _, value in response.headers.raw):
            response.headers = type(response.headers)(
                [(name, self.out_of(value)) for name, value in response.headers.raw]
            )


def _spellings(character: str) -> str:
    """A pattern for one character of the key."""
    if character.isalnum():
        return character
    code = f"{ord(character):02x}"
    either_case = "".join(f"[{digit}{digit.upper()}]" for digit in code)
    spelt = [
        f"&#(?:{ord(character)}|x{either_case});",
        # Escaped for being in a URL or a string, and again with that. Bounded, as a body may well
        # hold a million backslashes.
        f"%(?:25){{0,3}}{either_case}",
        rf"\\{{1,4}}u00{either_case}",
        rf"\\{{0,4}}{re.escape(character)}",
    ]
    if (entity := html.escape(character)) != character:
        spelt.insert(0, entity)
    return f"(?:{'|'.join(spelt)})"
