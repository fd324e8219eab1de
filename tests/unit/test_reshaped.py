"""`reshaped` from both sides: no edit is ever called so, and no move of the API's shape otherwise.

Payloads are taken apart before and after; each document that differs is looked at. Single cases,
path by path, are in test_differences.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from hypothesis import assume, given
from hypothesis import strategies as st

from etl.fold import change_of
from etl.payload.canonical import canonical, content_hash
from etl.payload.clean import clean
from etl.payload.differences import differences, is_reshaped
from etl.payload.documents import take_apart
from etl.payload.paths import usable_uuid
from etl.sandbox.generate import generate
from tests.unit.strategies import DOCUMENTED, decoded, documents, scalars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Payload = dict[str, Any]
    Draw = Callable[[st.SearchStrategy[Any]], Any]

FREE = re.compile("config|widgetConfig|voice.*Options", re.DOTALL)
NEW_ID = "dddddddd-dddd-4ddd-8ddd-dddddddddddd"

WORLD = generate(30, seed=7)
PAYLOADS = [decoded(WORLD.payload(persona_id)) for persona_id in WORLD.persona_ids]

payloads = st.sampled_from(PAYLOADS).map(copy.deepcopy)
nested = st.sampled_from([{}, [], {"a": None}, {"a": {"b": [1, None]}}, [{"a": 1}], [{"id": "x"}]])
anything = (scalars | nested).map(decoded)


def contents(payload: Payload) -> dict[tuple[str, str], Any]:
    """The documents of a payload."""
    apart = take_apart(clean(payload), usable_uuid(payload["id"]))  # type: ignore[arg-type]
    return {(part.kind, str(part.entity_id)): part for part in apart.parts()}


def changes(before: Payload, after: Payload) -> dict[tuple[str, str], str]:
    """What becomes of each document that both have and that differs."""
    old, new = contents(before), contents(after)
    return {
        key: change_of(key[0], old[key].document, new[key].document, was_removed=False).change  # type: ignore[arg-type]
        for key in old.keys() & new.keys()
        if old[key].content_hash != new[key].content_hash
    }


# ── Edits ────────────────────────────────────────────────────────────────────────────────────────

# Where a member's name says what stands there: not for a person to edit, or edited otherwise.
NOT_A_FIELD = {"id", "createdAt", "updatedAt", "usageCount", "documentCount", "token"} | {
    *("avatar", "voice", "brain", "tools", "knowledge", "shareLinks", "primaryShareLink"),
    *("config", "widgetConfig", "voiceDetectionOptions", "voiceGenerationOptions"),
    *("displayTags", "availableVersions", "allowedOrigins"),
}


def things(payload: Payload) -> Iterator[tuple[str, Payload]]:
    """Every documented object of a payload, by what it is."""
    yield "persona", payload
    names = {"tools": "tool", "knowledge": "knowledge_group", "shareLinks": "shareLink"}
    for name, value in payload.items():
        for thing in value if isinstance(value, list) else [value]:
            if isinstance(thing, dict) and (what := names.get(name, name)) in DOCUMENTED:
                yield what, thing


def a_field(payload: Payload, draw: Draw) -> None:
    """Any mapped field gets another value; null is one."""
    thing, field = draw(
        st.sampled_from(
            [
                (thing, field)
                for what, thing in things(payload)
                for field in DOCUMENTED[what].split()
                if field in thing and field not in NOT_A_FIELD
            ]
        )
    )
    thing[field] = draw(scalars.map(decoded))


def what_people_fill_in(payload: Payload, draw: Draw) -> None:
    """A member comes, goes or changes below config, widgetConfig or voice options."""
    free = [thing[name] for _, thing in things(payload) for name in thing if FREE.fullmatch(name)]
    inside = draw(st.sampled_from([found for found in free if isinstance(found, dict)]))
    while inner := [value for value in inside.values() if isinstance(value, dict)]:
        if draw(st.booleans()):
            break
        inside = draw(st.sampled_from(inner))
    if inside and draw(st.booleans()):
        del inside[draw(st.sampled_from(sorted(inside)))]
    else:
        inside[draw(st.sampled_from(["style", "new", "config", "id", ""]))] = draw(anything)


def a_list(payload: Payload, draw: Draw) -> None:
    """An element of a list comes, goes, or all do."""
    names = ("displayTags", "availableVersions", "allowedOrigins")
    found = [thing[n] for _, thing in things(payload) for n in names if thing.get(n) is not None]
    assume(found)
    elements = draw(st.sampled_from(found))
    if elements and draw(st.booleans()):
        elements.pop(draw(st.integers(0, len(elements) - 1)))
    else:
        elements.insert(draw(st.integers(0, len(elements))), draw(st.sampled_from(["v9", "warm"])))


def what_is_attached(payload: Payload, draw: Draw) -> None:
    """A tool, knowledge group or share link is attached or detached."""
    name = draw(st.sampled_from(["tools", "knowledge", "shareLinks"]))
    elements = payload[name] = payload.get(name) or []
    if elements and draw(st.booleans()):
        elements.pop(draw(st.integers(0, len(elements) - 1)))
    else:
        elements.insert(draw(st.integers(0, len(elements))), {"id": NEW_ID, "name": "new"})


def the_face_or_the_voice(payload: Payload, draw: Draw) -> None:
    """Swapped for another, also for one without a usable id; or unset."""
    name = draw(st.sampled_from(["avatar", "voice"]))
    payload[name] = draw(
        st.sampled_from(
            [None, {"id": NEW_ID}, {"id": NEW_ID, "displayName": "Eve"}, {"id": "stock"}]
        )
    )
    if name == "voice":
        payload["voiceGenerationOptions"] = None


def the_brain(payload: Payload, draw: Draw) -> None:
    """Emptied."""
    payload["brain"] = dict.fromkeys(payload["brain"], draw(st.sampled_from([None, ""])))


EDITS = [
    a_field,
    what_people_fill_in,
    a_list,
    what_is_attached,
    the_face_or_the_voice,
    the_brain,
]


@given(before=payloads, edits=st.lists(st.sampled_from(EDITS), min_size=1, max_size=3), d=st.data())
def test_what_a_person_does_is_never_called_reshaped(before, edits, d):
    after = copy.deepcopy(before)
    for edit in edits:
        edit(after, d.draw)
    assert set(changes(before, after).values()) <= {"updated"}
    assert set(changes(after, before).values()) <= {"updated"}


# ── Moves of the shape ───────────────────────────────────────────────────────────────────────────


def places(value: Any) -> Iterator[Payload]:
    """Every object in which the API may show a member more or less: none that people fill in."""
    if isinstance(value, dict):
        yield value
        for name, inner in value.items():
            if not FREE.fullmatch(name):
                yield from places(inner)
    elif isinstance(value, list):
        for element in value:
            # Of elements without ids nobody can tell which is which.
            if isinstance(element, dict) and usable_uuid(element.get("id")):
                yield from places(element)


def appear(payload: Payload, draw: Draw) -> None:
    """A new member, null or nested; also of a name below which people fill in."""
    place = draw(st.sampled_from(list(places(payload))))
    name = draw(st.sampled_from(["mood", "a.b", "", "config", "widgetConfig", "voiceIdleOptions"]))
    place.setdefault(name, draw(anything))


def vanish(payload: Payload, draw: Draw) -> None:
    """A member goes, with all that is below it."""
    place = draw(st.sampled_from(list(places(payload))))
    if known := sorted(place.keys() - {"id"}):
        del place[draw(st.sampled_from(known))]


@given(before=payloads, more=st.integers(0, 3), less=st.integers(0, 3), d=st.data())
def test_what_the_api_does_to_its_shape_is_never_called_updated(before, more, less, d):
    after = copy.deepcopy(before)
    # In this order, lest a member that went comes again with another value: that is an edit.
    for move in (*[appear] * more, *[vanish] * less):
        move(after, d.draw)
    assert set(changes(before, after).values()) <= {"reshaped"}
    assert set(changes(after, before).values()) <= {"reshaped"}


@given(before=payloads, edit=st.sampled_from(EDITS), d=st.data())
def test_an_edit_beside_a_new_member_is_updated_and_the_member_alone_reshaped(before, edit, d):
    edited = copy.deepcopy(before)
    edit(edited, d.draw)
    by_edit = changes(before, edited)
    for what, thing in things(edited):
        if not FREE.fullmatch(what):
            thing["mood"] = d.draw(anything)
    for key, change in changes(before, edited).items():
        assert change == by_edit.get(key, "reshaped")


# ── The definition, written another way ──────────────────────────────────────────────────────────

SETS = {
    "persona": {"tools", "knowledge", "shareLinks", "shareLinks.allowedOrigins"},
    "avatar": {"availableVersions"},
    "voice": {"displayTags"},
}


def in_common(kind: str, one: Any, other: Any, path: str = "") -> Any:
    """`one` without the members that `other` lacks, unless they are below what people fill in.

    Only the API's shape moved when this is the same from both sides, though the documents differ.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            name: value
            if FREE.fullmatch(name)
            else in_common(kind, value, other[name], f"{path}.{name}".lstrip("."))
            for name, value in one.items()
            if name in other
        }
    if isinstance(one, list) and isinstance(other, list):
        ids = [usable_uuid(e.get("id")) if isinstance(e, dict) else None for e in one]
        others = [usable_uuid(e.get("id")) if isinstance(e, dict) else None for e in other]
        is_set = path in SETS.get(kind, ())
        if is_set:
            one = sorted(one, key=canonical)
            if None not in ids and len(set(ids)) == len(ids) and {*ids} == {*others}:
                one = sorted(one, key=lambda e: str(usable_uuid(e["id"])))
                other = sorted(other, key=lambda e: str(usable_uuid(e["id"])))
                ids = others = sorted(map(str, ids))  # type: ignore[assignment]
        if None not in ids and ids == others and len(set(ids)) == len(ids):
            return [in_common(kind, a, b, path) for a, b in zip(one, other, strict=True)]
    return one


def mutated(value: Any, draw: Draw) -> Any:
    """Something near: a member or an element more or less, or another value, somewhere."""
    if isinstance(value, dict):
        keys = sorted(value)
        names = ["config", "new", "voiceXOptions", "id", "avatar", "tools", *keys]
        name = draw(st.sampled_from(names))
        if name not in value:
            return {**value, name: draw(anything)}
        if draw(st.integers(0, 3)) == 0:
            return {key: item for key, item in value.items() if key != name}
        return {**value, name: mutated(value[name], draw)}
    if isinstance(value, list) and value:
        at = draw(st.integers(0, len(value) - 1))
        if draw(st.integers(0, 2)) == 0:
            return value[:at] + value[at + 1 :]
        return [*value[:at], mutated(value[at], draw), *value[at + 1 :]]
    return draw(anything)


@given(kind=st.sampled_from(sorted(documents)), count=st.integers(0, 3), d=st.data())
def test_reshaped_is_what_is_equal_but_for_the_members_of_one(kind, count, d):
    old = d.draw(documents[kind])
    new = old
    for _ in range(count):
        new = mutated(new, d.draw)
    assume(isinstance(new, dict))
    same_hash = content_hash(kind, old) == content_hash(kind, new)
    found = differences(kind, old, new)
    assert (not found) == same_hash
    shape_alone = canonical(in_common(kind, old, new)) == canonical(in_common(kind, new, old))
    assert is_reshaped(found) == (shape_alone and not same_hash)
