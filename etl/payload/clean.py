"""Takes the secrets out of a payload, before anything of it is stored, logged or hashed.

`secret_places` knows where in a payload secrets stand, `secret_names` which names sound like one,
`secret_urls` and `secret_texts` how they hide in text. Cleaning twice is cleaning once.

Prose is left alone, but for URLs and pasted `Authorization` headers: prompts are what is copied
here, and no list of what a key looks like would be complete.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, cast

from etl.payload.decode import Json, dumps
from etl.payload.secret_names import sounds_secret
from etl.payload.secret_places import (
    ALTERING,
    HIDDEN,
    Place,
    is_pair,
    is_schema,
    is_share_link,
    place_below,
    place_here,
    places_in_pair,
)
from etl.payload.secret_texts import clean_members
from etl.payload.secret_urls import BLANK, clean_text, mask_urls
from etl.tables import SHARED

if TYPE_CHECKING:
    from decimal import Decimal

    from etl.payload.decode import JsonObject
    from etl.tables import Kind


__all__ = ["BLANK", "RULES", "clean", "clean_document", "mask_urls"]

# Another with each change of what is cleaned: a body that has not changed since is then read, and
# cleaned, once more.
RULES = b"1"


_HASHED = re.compile(r"sha256:[0-9a-f]{64}")
# A word that can be a token: long enough not to be one of a language.
_TOKEN = re.compile(r"[A-Za-z0-9_\-]{12,}+")
_FEW_TOKENS = 50


def clean(payload: Json) -> Json:
    """A copy of the payload without secrets, wherever they stand, in unknown fields too.

    Booleans and nulls are never blanked: they can't hold a secret, and tell whether one is set.
    """
    cleaned = _clean(payload, Place.PLAIN)
    # What is no persona, such as a list of them, is kept too.
    tokens = _share_tokens(payload if isinstance(payload, list) else [payload])
    return _without_tokens(cleaned, tokens) if tokens and _may_hold(cleaned, tokens) else cleaned


def clean_document(kind: Kind, document: JsonObject) -> JsonObject:
    """A copy of a document that came without its payload: cleaned as in there."""
    name = next((name for name, shared in SHARED.items() if shared == kind), None)
    if name is None:
        return cast("JsonObject", clean(document))
    return cast("JsonObject", cast("JsonObject", clean({name: document}))[name])


def _share_tokens(payloads: list[Json]) -> frozenset[str]:
    """The tokens of the share links: they may be repeated elsewhere, in a URL's path, in a text."""
    links: list[Json] = []
    for payload in payloads:
        for key, value in payload.items() if isinstance(payload, dict) else ():
            if is_share_link(key):
                links += value if isinstance(value, list) else [value]
    tokens = (link.get("token") for link in links if isinstance(link, dict))
    return frozenset(
        token
        for token in tokens
        if isinstance(token, str) and _TOKEN.fullmatch(token) and not _HASHED.fullmatch(token)
    )


def _may_hold(value: Json, tokens: frozenset[str]) -> bool:
    """Whether one of the tokens can stand anywhere in it: most often none does."""
    if len(tokens) > _FEW_TOKENS:
        return True
    # Nothing in a token is escaped in JSON.
    written = dumps(value)
    return any(token.encode() in written for token in tokens)


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


def _clean(value: Json, place: Place) -> Json:
    """One frame a level: payloads are as deep as `decode` lets them be."""
    if isinstance(value, str):
        if place in ALTERING:
            return _clean_scalar(value, place)
        return clean_members(clean_text(value))
    if isinstance(value, dict):
        place = place_here(place, value)
        paired = places_in_pair(value, place)
        of_names = place is Place.NAMES
        members: dict[str, Json] = {}
        alike: dict[str, int] = {}
        for key, item in value.items():
            name = _clean_key(key, value, members, alike) if "/" in key else key
            if name in paired:
                below = paired[name]
            elif of_names and is_schema(item):
                below = Place.SECRET if sounds_secret(name) else Place.REQUEST
            else:
                below = place_below(place, name)
            members[name] = _clean(item, below)
        return members
    if isinstance(value, list):
        place = place_here(place, value)
        items: list[Json] = []
        for item in value:
            # A list of headers: of {name, value} the name stays; all else could be a value.
            named = place is Place.HEADERS and is_pair(item)
            items.append(_clean(item, Place.SECRET if named else place))
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


def _clean_scalar(value: str | float | Decimal | None, place: Place) -> Json:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and (value == BLANK or _HASHED.fullmatch(value)):
        return value
    if place in HIDDEN:
        return BLANK
    if place is Place.HEADER:
        return BLANK if isinstance(value, str) and ":" in value else value
    if place is Place.TOKEN:
        token = value.encode() if isinstance(value, str) else dumps(value)
        return f"sha256:{hashlib.sha256(token).hexdigest()}"
    return value
