"""Where in a payload a value stands, told by the names above it: what happens to what is there.

`secret_names` knows which names sound secret anywhere; here is what they mean in their place.
"""

from __future__ import annotations

from enum import IntEnum, auto
from functools import lru_cache
from typing import TYPE_CHECKING

from etl.payload.secret_names import describes, is_credential, sounds_secret, words
from etl.payload.secret_urls import clean_text

if TYPE_CHECKING:
    from etl.payload.decode import Json, JsonObject


class Place(IntEnum):
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
    QUERY = auto()
    """The parameters of a request's URL: judged as those in a URL."""
    HEADERS = auto()
    HEADER = auto()
    """One header: its name, which stays, or more than that."""
    SECRET = auto()
    """Under a secret name: blanked, and objects keep what only describes the secret."""
    DESCRIBING = auto()
    """Such a describing member: kept, though an object in it is still under the secret name."""
    BLANKED = auto()
    """No member of this is known to be harmless."""


HIDDEN = frozenset({Place.HEADERS, Place.SECRET, Place.BLANKED})
ALTERING = HIDDEN | {Place.TOKEN, Place.HEADER}
_IN_REQUEST = frozenset({Place.REQUEST, Place.NAMES, Place.QUERY})
_UNDER_SECRET = frozenset({Place.SECRET, Place.DESCRIBING})

_SHARE_LINKS = frozenset({("share", "links"), ("share", "link"), ("primary", "share", "link")})
_SCHEMA_NAMES = frozenset({"properties", "patternProperties", "definitions", "$defs"})
_SCHEMA_KEYWORDS = frozenset(
    {"$ref", "allOf", "anyOf", "const", "description", "enum", "items", "oneOf", "properties"}
    | {"title", "type"}
)
_REQUEST_WORDS = frozenset({"tools", "webhook", "webhooks"})
_REQUEST_KEYS = frozenset({"endpoint", "method", "uri", "url"})
_QUERIES = frozenset({("query",), ("query", "params"), ("query", "parameters")})
# `headersList` and `headerValue` hold what `headers` does; `headerName` and `headerStyle` do not.
_OF_HEADERS = frozenset(
    {"array", "data", "dict", "entries", "json", "list", "map", "object", "pairs", "raw"}
    | {"string", "value", "values"}
)

# {"name": "X-API-Key", "value": "…"}: the name of the value is a value itself.
_NAME_KEYS = frozenset({"Key", "Name", "field", "header", "key", "name", "type"})
_VALUE_KEYS = frozenset({"Value", "val", "value", "values"})
_DEFAULT_KEYS = frozenset({"default", "defaultValue"})

# Keys come from payloads: longer ones are judged each time rather than kept in memory.
_CACHED_LENGTH = 64


def place_here(place: Place, value: JsonObject | list[Json]) -> Place:
    """The place of an object or array, which what it holds may tell more exactly."""
    if place is Place.HEADER:
        return Place.HEADERS
    if (
        place is Place.PLAIN
        and isinstance(value, dict)
        and not value.keys().isdisjoint(_REQUEST_KEYS)
    ):
        return Place.REQUEST
    return place


def place_below(place: Place, name: str) -> Place:
    """Where a member of an object at this place stands, by its name alone."""
    if len(name) <= _CACHED_LENGTH:
        return _cached_below(place, name)
    return _judge_below(place, name)


def _judge_below(place: Place, name: str) -> Place:
    if place in (Place.HEADERS, Place.HEADER, Place.TOKEN, Place.BLANKED):
        return Place.BLANKED
    if place in _UNDER_SECRET:
        return Place.DESCRIBING if describes(name) else Place.SECRET
    parts = words(name)
    in_request = place in _IN_REQUEST
    below = Place.PLAIN
    if place is Place.SHARE and parts == ("token",):
        below = Place.TOKEN
    elif parts in _SHARE_LINKS:
        below = Place.SHARE
    elif in_request and (of_request := _part_of_request(parts)):
        below = of_request
    elif _is_secret(name, place):
        below = Place.SECRET
    elif name in _SCHEMA_NAMES:
        below = Place.NAMES
    elif in_request or not _REQUEST_WORDS.isdisjoint(parts):
        below = Place.REQUEST
    return below


_cached_below = lru_cache(maxsize=4096)(_judge_below)


def _is_secret(name: str, place: Place) -> bool:
    return sounds_secret(name) or (place is Place.QUERY and is_credential(name, ""))


def _part_of_request(parts: tuple[str, ...]) -> Place | None:
    if parts in _QUERIES:
        return Place.QUERY
    end = len(parts)
    while end > 1 and parts[end - 1] in _OF_HEADERS:
        end -= 1
    last = parts[end - 1] if parts else ""
    if last == "header" and end == len(parts):
        return Place.HEADER
    return Place.HEADERS if last in {"header", "headers"} else None


def is_pair(value: Json) -> bool:
    """Whether it is like {"name": …, "value": …}."""
    return isinstance(value, dict) and not (
        value.keys().isdisjoint(_VALUE_KEYS) or value.keys().isdisjoint(_NAME_KEYS)
    )


def places_in_pair(members: JsonObject, place: Place) -> dict[str, Place]:
    """Places that a {name, value} pair gives its members, other than by their own names."""
    paired = is_pair(members)
    if paired and place in _UNDER_SECRET:
        return dict.fromkeys(_NAME_KEYS, Place.DESCRIBING)
    if place in ALTERING or not (paired or not members.keys().isdisjoint(_DEFAULT_KEYS)):
        return {}
    # Beside a value, `key` is no parameter's name.
    places = dict.fromkeys(_NAME_KEYS, Place.REQUEST) if paired and place is Place.QUERY else {}
    names = [clean_text(name) for key in _NAME_KEYS if isinstance(name := members.get(key), str)]
    if any(_is_secret(name, place) for name in names):
        places |= dict.fromkeys(_VALUE_KEYS | _DEFAULT_KEYS, Place.SECRET)
    return places


def is_schema(value: Json) -> bool:
    """Whether it is what JSON schema has for a name: an object with one of its keywords."""
    return isinstance(value, dict) and not value.keys().isdisjoint(_SCHEMA_KEYWORDS)


def is_share_link(name: str) -> bool:
    """Whether a member of this name holds share links."""
    return len(name) <= _CACHED_LENGTH and words(name) in _SHARE_LINKS
