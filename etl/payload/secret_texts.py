"""Texts that are data: JSON or `name=value` pairs in a string, as a webhook's body is.

Only a text that is nothing else is judged, so that an example in a prompt stays. It keeps its
form: scalars under secret names are blanked in place, in templates that are not quite JSON too.
"""

from __future__ import annotations

import re

from etl.payload.secret_names import sounds_secret
from etl.payload.secret_urls import BLANK

# Linear in the text for the reasons given in `secret_urls`. Longer names are no names.
_MEMBER = re.compile(
    r'"([^"\\]{1,64}+)"(\s*+:\s*+)("[^"\\]*+(?:\\.[^"\\]*+)*+"|-?[0-9][0-9.eE+\-]*+)', re.DOTALL
)
_PAIR = r"[\w.\[\]%+\- ]{1,64}+=[^\s&;]*+"
_PAIRS = re.compile(rf"\s*+{_PAIR}(?:[&;\s]\s*+{_PAIR})*+[&;\s]*+", re.ASCII)
_ONE_PAIR = re.compile(r"([\w.\[\]%+\- ]{1,64}+)=([^\s&;]++)", re.ASCII)

_EMPTY = '""'


def clean_members(text: str) -> str:
    """The text, without what stands under secret names if it is JSON or a list of pairs."""
    if ":" in text and _is_enclosed(text):
        return _MEMBER.sub(_without_value, text)
    # What reads like a URL has been judged as one.
    if "=" in text and "//" not in text and _PAIRS.fullmatch(text):
        return _ONE_PAIR.sub(_without_paired_value, text)
    return text


def _is_enclosed(text: str) -> bool:
    stripped = text.strip()
    return stripped[:1] + stripped[-1:] in {"{}", "[]"}


def _without_value(member: re.Match[str]) -> str:
    name, colon, value = member.groups()
    return f'"{name}"{colon}"{BLANK}"' if value != _EMPTY and sounds_secret(name) else member[0]


def _without_paired_value(pair: re.Match[str]) -> str:
    return f"{pair[1]}={BLANK}" if sounds_secret(pair[1]) else pair[0]
