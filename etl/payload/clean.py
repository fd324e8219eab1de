"""Takes the secrets out of a payload, before anything of it is stored, logged or hashed.

The walk knows where in a payload secrets stand; `secret_names` which names sound like one,
`secret_urls` how they hide in text. Cleaning twice is cleaning once.
"""

from __future__ import annotations

import hashlib
import re
from enum import IntEnum, auto
from functools import lru_cache
from typing import TYPE_CHECKING

from etl.payload.decode import Json, dumps
from etl.payload.secret_names import describes, sounds_secret, words
from etl.payload.secret_urls import BLANK, clean_text, mask_urls

if TYPE_CHECKING:
    from decimal import Decimal

    from etl.payload.decode import JsonObject

__all__ = ["BLANK", "clean", "mask_urls"]


class _Place(IntEnum):
    """Where in a payload a value stands: what happens to it, and to what is below it."""

    PLAIN = auto()
    REQUEST = auto()
    """In a tool, a webhook, beside a URL: `headers` are HTTP's."""
    NAMES = auto()
    """A JSON schema's `properties`: the keys are names, of which the schemas tell."""
    SHARE = auto()
    """A share link, or a list of them."""
    TOKEN = auto()
    """A share link's token: stored as its hash, so that readers can still tell links apart."""
    HEADERS = auto()
    SECRET = auto()
    """Under a secret name: blanked, and objects keep what only describes the secret."""
    DESCRIBING = auto()
    """Such a describing member: kept, though an object in it is still under the secret name."""
    BLANKED = auto()
    """No member of this is known to be harmless."""


_HIDDEN = frozenset({_Place.HEADERS, _Place.SECRET, _Place.BLANKED})
_ALTERING = _HIDDEN | {_Place.TOKEN}
_UNDER_SECRET = frozenset({_Place.SECRET, _Place.DESCRIBING})

_SHARE_LINKS = frozenset({("share", "links"), ("share", "link"), ("primary", "share", "link")})
_SCHEMA_NAMES = frozenset({"properties", "patternProperties", "definitions", "$defs"})
_SCHEMA_KEYWORDS = frozenset(
    {"$ref", "allOf", "anyOf", "const", "description", "enum", "items", "oneOf", "properties"}
    | {"title", "type"}
)
_REQUEST_WORDS = frozenset({"tools", "webhook", "webhooks"})
_REQUEST_KEYS = frozenset({"endpoint", "method", "uri", "url"})

# {"name": "X-API-Key", "value": "…"}: the name of the value is a value itself.
_NAME_KEYS = frozenset({"Key", "Name", "field", "header", "key", "name", "type"})
_VALUE_KEYS = frozenset({"Value", "val", "value", "values"})
_DEFAULT_KEYS = frozenset({"default", "defaultValue"})

_HASHED = re.compile(r"sha256:[0-9a-f]{64}")
# A word that can be a token: long enough not to be one of a language.
_TOKEN = re.compile(r"[A-Za-z0-9_\-]{12,}+")
_FEW_TOKENS = 50

# Keys come from payloads: longer ones are looked at each time rather than kept in memory.
_CACHED_LENGTH = 64


def clean(payload: Json) -> Json:
    """A copy of the payload without secrets, wherever they stand, in unknown fields too.

    Booleans and nulls are never blanked: they can't hold a secret, and tell whether one is set.
    """
    cleaned = _clean(payload, _Place.PLAIN)
    tokens = _share_tokens(payload) if isinstance(payload, dict) else frozenset()
    return _without_tokens(cleaned, tokens) if tokens else cleaned


def _share_tokens(payload: JsonObject) -> frozenset[str]:
    """The tokens of the share links: they may be repeated elsewhere, in a URL's path, in a text."""
    links: list[Json] = []
    for key, value in payload.items():
        if len(key) <= _CACHED_LENGTH and words(key) in _SHARE_LINKS:
            links += value if isinstance(value, list) else [value]
    tokens = (link.get("token") for link in links if isinstance(link, dict))
    return frozenset(
        token
        for token in tokens
        if isinstance(token, str) and _TOKEN.fullmatch(token) and not _HASHED.fullmatch(token)
    )


def _without_tokens(value: Json, tokens: frozenset[str]) -> Json:
    if isinstance(value, str):
        # Most texts hold none, and few tokens are looked for faster than words are taken out.
        if len(tokens) <= _FEW_TOKENS and not any(token in value for token in tokens):
            return value
        return _TOKEN.sub(lambda found: BLANK if found[0] in tokens else found[0], value)
    if isinstance(value, dict):
        return {
            key: item if key == "id" else _without_tokens(item, tokens)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_without_tokens(item, tokens) for item in value]
    return value


def _clean(value: Json, place: _Place) -> Json:
    """One frame a level: payloads are as deep as `decode` lets them be."""
    if isinstance(value, str):
        return clean_text(value) if place not in _ALTERING else _clean_scalar(value, place)
    if isinstance(value, dict):
        if place is _Place.PLAIN and not value.keys().isdisjoint(_REQUEST_KEYS):
            place = _Place.REQUEST
        paired = _places_in_pair(value, place)
        of_names = place is _Place.NAMES
        members: dict[str, Json] = {}
        alike: dict[str, int] = {}
        for key, item in value.items():
            name = _clean_key(key, value, members, alike) if "/" in key else key
            if name in paired:
                below = paired[name]
            elif of_names and _is_schema(item):
                below = _Place.SECRET if sounds_secret(name) else _Place.REQUEST
            else:
                below = _below(place, name)
            members[name] = _clean(item, below)
        return members
    if isinstance(value, list):
        items: list[Json] = []
        for item in value:
            # A list of headers: of {name, value} the name stays; all else could be a value.
            named = place is _Place.HEADERS and isinstance(item, dict) and _is_pair(item)
            items.append(_clean(item, _Place.SECRET if named else place))
        return items
    return _clean_scalar(value, place)


def _clean_key(
    key: str, members: dict[str, Json], cleaned: dict[str, Json], alike: dict[str, int]
) -> str:
    """The key without a URL's credentials, still unlike the object's other keys.

    `alike` counts the keys that became the same, so that finding another name is no search.
    """
    plain = name = clean_text(key)
    while name != key and (name in members or name in cleaned):
        alike[plain] = alike.get(plain, 0) + 1
        name = f"{plain}~{alike[plain]}"
    return name


def _clean_scalar(value: str | float | Decimal | None, place: _Place) -> Json:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and (value == BLANK or _HASHED.fullmatch(value)):
        return value
    if place in _HIDDEN:
        return BLANK
    if place is _Place.TOKEN:
        token = value.encode() if isinstance(value, str) else dumps(value)
        return f"sha256:{hashlib.sha256(token).hexdigest()}"
    return value


def _below(place: _Place, name: str) -> _Place:
    """Where a member of an object at this place stands, by its name alone."""
    if len(name) <= _CACHED_LENGTH:
        return _cached_below(place, name)
    return _judge_below(place, name)


def _judge_below(place: _Place, name: str) -> _Place:
    if place in (_Place.HEADERS, _Place.TOKEN, _Place.BLANKED):
        return _Place.BLANKED
    if place in _UNDER_SECRET:
        return _Place.DESCRIBING if describes(name) else _Place.SECRET
    parts = words(name)
    in_request = place in (_Place.REQUEST, _Place.NAMES)
    below = _Place.PLAIN
    if place is _Place.SHARE and parts == ("token",):
        below = _Place.TOKEN
    elif parts in _SHARE_LINKS:
        below = _Place.SHARE
    elif in_request and parts[-1:] == ("headers",):
        below = _Place.HEADERS
    elif sounds_secret(name):
        below = _Place.SECRET
    elif name in _SCHEMA_NAMES:
        below = _Place.NAMES
    elif in_request or not _REQUEST_WORDS.isdisjoint(parts):
        below = _Place.REQUEST
    return below


_cached_below = lru_cache(maxsize=4096)(_judge_below)


def _is_pair(members: dict[str, Json]) -> bool:
    return not (members.keys().isdisjoint(_VALUE_KEYS) or members.keys().isdisjoint(_NAME_KEYS))


def _places_in_pair(members: dict[str, Json], place: _Place) -> dict[str, _Place]:
    """Places that a {name, value} pair gives its members, other than by their own names."""
    is_pair = _is_pair(members)
    if is_pair and place in _UNDER_SECRET:
        return dict.fromkeys(_NAME_KEYS, _Place.DESCRIBING)
    if place in _ALTERING or not (is_pair or not members.keys().isdisjoint(_DEFAULT_KEYS)):
        return {}
    names = (members.get(key) for key in _NAME_KEYS)
    if any(isinstance(name, str) and sounds_secret(clean_text(name)) for name in names):
        return dict.fromkeys(_VALUE_KEYS | _DEFAULT_KEYS, _Place.SECRET)
    return {}


def _is_schema(value: Json) -> bool:
    return isinstance(value, dict) and not value.keys().isdisjoint(_SCHEMA_KEYWORDS)
