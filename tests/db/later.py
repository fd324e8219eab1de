"""What a world under `LATER` says of each new field, to hold typed columns and tables against.

Told from the payloads that were served, cleaned, and from what `LATER` orders: no map and no
flattening has a hand in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
from msgspec.structs import replace

from etl.payload.clean import clean
from etl.sandbox import LATER as SHIPPED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from etl.sandbox import Sandbox

Json = dict[str, Any]

SHARED: Final = {
    "avatar": "avatar",
    "voice": "voice",
    "tools": "tool",
    "knowledge": "knowledge_group",
}


def _apart(path: str) -> str:
    """The path under a name that nobody proposes: a checkout may have columns for the others."""
    return f"{path}Yy"


LATER: Final = replace(
    SHIPPED,
    rename={path: _apart(name) for path, name in SHIPPED.rename.items()},
    add={_apart(path): value for path, value in SHIPPED.add.items()},
    choose={_apart(path): values for path, values in SHIPPED.choose.items()},
    sign=[_apart(path) for path in SHIPPED.sign],
)
"""The sandbox's later shape, its new fields under names of their own."""


class Field(NamedTuple):
    """A field by its kind and its path in the document, `shareLinks[].label`, as drift tells it."""

    kind: str
    path: str


def _field(ordered: str) -> Field:
    """The field at a path of a `Reshape`."""
    first, dot, rest = ordered.partition(".")
    if dot and first in SHARED:
        return Field(SHARED[first], rest)
    return Field("persona", f"shareLinks[].{rest}" if first == "shareLinks" else ordered)


RENAMED: Final = {
    _field(".".join([*path.split(".")[:-1], name])): _field(path)
    for path, name in LATER.rename.items()
}
"""The new fields that have an old one's values, with that one."""

NEW: Final = (*(_field(path) for path in (*LATER.add, *LATER.choose)), *RENAMED)
"""The fields that the first shape does not have."""


ONLY_SHAPE: Final = replace(
    LATER,
    retype={},
    recode={},
    choose={path: values for path, values in LATER.choose.items() if "Options." not in path},
)
"""`LATER` without what section 6 of the design calls an edit: other values, members of options."""


def fetched(sandbox: Sandbox) -> list[Any]:
    """Every live persona as it is served now, over the socket, cleaned."""
    headers = {"Authorization": f"Bearer {sandbox.key}"}
    with httpx.Client(base_url=sandbox.url, headers=headers, trust_env=False) as client:
        answers = [client.get(f"/v1/personas/{id_}") for id_ in sandbox.persona_ids]
    return [clean(answer.raise_for_status().json()) for answer in answers]


def told(payloads: Iterable[Json], fields: Iterable[Field] = NEW) -> dict[Field, dict[str, Any]]:
    """By field and the entity's id, a share link's its own, the JSON value that it should have.

    None is null or nothing at all: a column does not tell them apart.
    """
    expected: dict[Field, dict[str, Any]] = {field: {} for field in fields}
    for payload in payloads:
        for kind, prefix, thing in _things(payload):
            for field, values in expected.items():
                if field.kind == kind and _prefix(field) == prefix:
                    values[thing["id"]] = _value(thing, field.path.removeprefix(prefix))
    return expected


def told_over_time(
    moments: Mapping[datetime, Iterable[Json]], fields: Iterable[Field] = NEW
) -> dict[Field, dict[str, dict[datetime, Any]]]:
    """By field, id and moment the value: the row in force at the moment should have it.

    What was in no payload of a moment has no value at it.
    """
    over_time: dict[Field, dict[str, dict[datetime, Any]]] = {}
    for moment, payloads in sorted(moments.items()):
        for field, values in told(payloads, fields).items():
            of_field = over_time.setdefault(field, {})
            for id_, value in values.items():
                of_field.setdefault(id_, {})[moment] = value
    return over_time


def _things(payload: Json) -> Iterator[tuple[str, str, Json]]:
    """Whatever has an id: its kind, what its paths begin with, and itself."""
    yield "persona", "", payload
    for link in payload["shareLinks"] or []:
        yield "persona", "shareLinks[].", link
    for name, kind in SHARED.items():
        value = payload[name]
        for thing in value if isinstance(value, list) else [value] if value else []:
            yield kind, "", thing


def _prefix(field: Field) -> str:
    return "shareLinks[]." if field.path.startswith("shareLinks[].") else ""


def _value(thing: Any, path: str) -> Any:
    for name in path.split("."):
        thing = thing.get(name) if isinstance(thing, dict) else None
    return thing
