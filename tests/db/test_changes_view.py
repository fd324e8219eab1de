"""The view `changes`: one row a changed field, with what stood there before and after."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeGuard
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings

from etl.payload.canonical import canonical, with_sorted_sets
from etl.payload.decode import decode, dumps
from etl.payload.differences import ABSENT, differences
from etl.sandbox import World
from tests.db.odd_documents import pairs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.db.conftest import Row, Target

PERSONA = "00000000-0000-4000-8000-000000000001"
OTHER_PERSONA = "00000000-0000-4000-8000-000000000002"
AVATAR = "00000000-0000-4000-8000-0000000000a1"
OTHER_AVATAR = "00000000-0000-4000-8000-0000000000a2"
VOICE = "00000000-0000-4000-8000-0000000000b1"
TOOL = "00000000-0000-4000-8000-0000000000c1"
OTHER_TOOL = "00000000-0000-4000-8000-0000000000c2"
GROUP = "00000000-0000-4000-8000-0000000000d1"
LINK = "00000000-0000-4000-8000-0000000000e1"
OTHER_LINK = "00000000-0000-4000-8000-0000000000e2"
OLD = "2026-04-20T10:00:00.000Z"
NEW = "2026-04-21T10:00:00.000Z"

Field = tuple[str, str | None, str | None]


def thing(entity_id: str, **members: object) -> dict[str, object]:
    return {"id": entity_id, "createdAt": OLD, "updatedAt": NEW, **members}


def link(link_id: str, **members: object) -> dict[str, object]:
    return {"id": link_id, "type": "LINK", "usageLimit": 5, "allowedOrigins": []} | members


LINKS = [link(LINK, allowedOrigins=["https://a", "https://b"]), link(OTHER_LINK)]


def sharing(names: Mapping[str, str]) -> World:
    """Personas of these names, by their ids, that share all they have."""
    world = World(
        avatars=[
            thing(AVATAR, displayName="Liv", availableVersions=["v1", "v2"]),
            thing(OTHER_AVATAR, displayName="Leo", availableVersions=[]),
        ],
        voices=[thing(VOICE, displayName="Lucy", displayTags=["fast", "warm"])],
        tools=[
            thing(TOOL, name="map", config={"steps": ["a", "b"]}),
            thing(OTHER_TOOL, name="search", config={}),
        ],
        knowledge=[thing(GROUP, name="Prices", description=None)],
    )
    for persona_id, name in names.items():
        world.add(
            {
                "id": persona_id,
                "name": name,
                "avatar": AVATAR,
                "voice": VOICE,
                "tools": [TOOL],
                "knowledge": [GROUP],
                "brain": {"systemPrompt": "Be kind.", "personality": "Warm"},
                "widgetConfig": {"theme": "light", "pages": ["a", "b"]},
            }
        )
        world.edit(persona_id, {"shareLinks": LINKS[:1]})
    world.remember()
    return world


@pytest.fixture
def made(copying):
    """Two of them, copied once."""
    with copying(sharing({PERSONA: "Ada", OTHER_PERSONA: "Grace"})) as target:
        target.sync()
        yield target


def seen(target: Target, entity_id: str = PERSONA, version: int | None = None) -> list[Row]:
    """An entity's rows by version and path; without a version all of them."""
    return target.query(
        "SELECT * FROM anam_reporting.changes"
        " WHERE entity_id = %s AND version = coalesce(%s, version)"
        " ORDER BY version, path, old_value, new_value",
        [UUID(entity_id), version],
    )


def fields(target: Target, entity_id: str = PERSONA, version: int = 2) -> list[Field]:
    """What a version changed: path, old and new value as JSON. None: nothing stood there."""
    rows = target.query(
        "SELECT path, old_value::text, new_value::text FROM anam_reporting.changes"
        " WHERE entity_id = %s AND version = %s ORDER BY path, old_value, new_value",
        [UUID(entity_id), version],
    )
    return [(row["path"], row["old_value"], row["new_value"]) for row in rows]


EDITS: dict[str, tuple[dict[str, Any], list[Field]]] = {
    "a scalar": ({"name": "Bea"}, [("name", '"Ada"', '"Bea"')]),
    "a prompt": (
        {"brain": {"systemPrompt": "Be\nbrief."}},
        [("brain.systemPrompt", '"Be kind."', '"Be\\nbrief."')],
    ),
    "several fields": (
        {"name": "Bea", "skipGreeting": True, "voiceSpeed": 1.5},
        [
            ("name", '"Ada"', '"Bea"'),
            ("skipGreeting", "false", "true"),
            ("voiceSpeed", "null", "1.5"),
        ],
    ),
    "a value that becomes null": ({"name": None}, [("name", '"Ada"', "null")]),
    "a tool attached": (
        {"tools": [TOOL, OTHER_TOOL]},
        [(f"tools[{OTHER_TOOL}]", None, f'{{"id": "{OTHER_TOOL}"}}')],
    ),
    "a tool detached": ({"tools": []}, [(f"tools[{TOOL}]", f'{{"id": "{TOOL}"}}', None)]),
    "a tool in the place of another": (
        {"tools": [OTHER_TOOL]},
        [
            (f"tools[{TOOL}]", f'{{"id": "{TOOL}"}}', None),
            (f"tools[{OTHER_TOOL}]", None, f'{{"id": "{OTHER_TOOL}"}}'),
        ],
    ),
    "all tools unset": ({"tools": None}, [("tools", f'[{{"id": "{TOOL}"}}]', "null")]),
    "an avatar swapped": (
        {"avatar": OTHER_AVATAR},
        [("avatar.id", f'"{AVATAR}"', f'"{OTHER_AVATAR}"')],
    ),
    "an avatar taken away": ({"avatar": None}, [("avatar", f'{{"id": "{AVATAR}"}}', "null")]),
    "a share link's limit": (
        {"shareLinks": [LINKS[0] | {"usageLimit": None}]},
        [(f"shareLinks[{LINK}].usageLimit", "5", "null")],
    ),
    "a share link's member that goes": (
        {"shareLinks": [{k: v for k, v in LINKS[0].items() if k != "usageLimit"}]},
        [(f"shareLinks[{LINK}].usageLimit", "5", None)],
    ),
    "a share link's origins": (
        {"shareLinks": [LINKS[0] | {"allowedOrigins": ["https://c", "https://b", "https://d"]}]},
        [
            (f"shareLinks[{LINK}].allowedOrigins", '"https://a"', None),
            (f"shareLinks[{LINK}].allowedOrigins", None, '"https://c"'),
            (f"shareLinks[{LINK}].allowedOrigins", None, '"https://d"'),
        ],
    ),
    "a share link's origins unset": (
        {"shareLinks": [LINKS[0] | {"allowedOrigins": None}]},
        [(f"shareLinks[{LINK}].allowedOrigins", '["https://a", "https://b"]', "null")],
    ),
    "a share link more": (
        {"shareLinks": LINKS},
        [
            (
                f"shareLinks[{OTHER_LINK}]",
                None,
                f'{{"id": "{OTHER_LINK}", "type": "LINK", "usageLimit": 5, "allowedOrigins": []}}',
            )
        ],
    ),
    "an ordered list": (
        {"widgetConfig": {"pages": ["b", "a"]}},
        [("widgetConfig.pages", '["a", "b"]', '["b", "a"]')],
    ),
    "keys that read like paths": (
        {"widgetConfig": {"a.b": 1, 'q"[0]\\': {"": 2}}},
        [
            ('widgetConfig["a.b"]', None, "1"),
            ('widgetConfig["q\\"[0]\\\\"]', None, '{"": 2}'),
        ],
    ),
    "a member of a name that is known elsewhere": (
        {"widgetConfig": {"displayTags": ["b"]}},
        [("widgetConfig.displayTags", None, '["b"]')],
    ),
}


def test_each_changed_field_has_a_row_with_both_values(copying):
    """A persona an edit, there and back."""
    ids = {name: f"00000000-0000-4000-8000-0000000001{n:02}" for n, name in enumerate(EDITS)}
    with copying(sharing(dict.fromkeys(ids.values(), "Ada"))) as target:
        target.sync()
        for name, (edit, _) in EDITS.items():
            target.world.edit(ids[name], edit)
        target.sync()
        expected = {name: rows for name, (_, rows) in EDITS.items()}
        assert {name: fields(target, ids[name]) for name in EDITS} == expected
        target.world.reset()
        target.sync()
        back = {name: Counter((p, new, old) for p, old, new in EDITS[name][1]) for name in EDITS}
        found = {name: Counter(fields(target, ids[name], version=3)) for name in EDITS}
        assert found == back


def test_a_row_says_whose_change_it_is_and_when(made):
    made.sync()
    confirmed = made.state(PERSONA)["last_success_at"]
    made.world.edit(PERSONA, {"name": "Bea"})
    run = made.sync()
    first, second = made.versions(PERSONA)
    assert seen(made) == [
        {
            "kind": "persona",
            "entity_id": UUID(PERSONA),
            "name": "Bea",
            "version": 2,
            "change": "updated",
            "changed_at": second["valid_from"],
            "not_before": confirmed,
            "path": "name",
            "old_value": "Ada",
            "new_value": "Bea",
            "run_id": run.run_id,
        }
    ]
    assert first["last_observed_at"] == confirmed < second["valid_from"]


def test_what_is_seen_for_the_first_time_or_removed_has_no_row(made):
    assert made.query("SELECT * FROM anam_reporting.changes") == []
    made.world.delete(PERSONA)
    made.sync([PERSONA, OTHER_PERSONA])
    made.world.restore(PERSONA)
    made.sync()
    assert made.changes(PERSONA) == ["created", "removed", "restored"]
    assert made.query("SELECT * FROM anam_reporting.changes") == []


def test_what_was_edited_while_it_was_removed_is_held_against_the_last_document(made):
    made.world.delete(PERSONA)
    made.sync([PERSONA, OTHER_PERSONA])
    made.world.edit(PERSONA, {"name": "Bea", "tools": []})
    made.world.restore(PERSONA)
    made.sync()
    name, tool = rows = seen(made)
    assert {(row["change"], row["version"]) for row in rows} == {("restored", 3)}
    assert (name["path"], name["old_value"], name["new_value"]) == ("name", "Ada", "Bea")
    assert (tool["path"], tool["old_value"]) == (f"tools[{TOOL}]", {"id": TOOL})
    # It may have been edited before it was removed.
    assert name["not_before"] == made.versions(PERSONA)[0]["last_observed_at"]
    made.world.edit(PERSONA, {"name": "Cleo"})
    made.sync()
    assert fields(made, version=4) == [("name", '"Bea"', '"Cleo"')]


def test_flapping_is_a_row_each_time(made):
    for name in ("Bea", "Ada", "Bea"):
        made.world.edit(PERSONA, {"name": name})
        made.sync()
    assert [(row["version"], row["old_value"], row["new_value"]) for row in seen(made)] == [
        (2, "Ada", "Bea"),
        (3, "Bea", "Ada"),
        (4, "Ada", "Bea"),
    ]


def test_a_shared_thing_s_change_is_its_own_and_not_its_personas(made):
    made.world.edit(AVATAR, {"displayName": "Olivia", "imageUrl": None}, "avatars")
    made.sync()
    assert fields(made, AVATAR) == [
        ("displayName", '"Liv"', '"Olivia"'),
        ("imageUrl", None, "null"),
    ]
    assert {(row["kind"], row["name"]) for row in seen(made, AVATAR)} == {("avatar", "Olivia")}
    assert seen(made, PERSONA) == []


LISTS: dict[str, tuple[str, str, dict[str, Any], list[Field]]] = {
    "another order": (VOICE, "voices", {"displayTags": ["warm", "fast"]}, []),
    "some that came and some that went": (
        VOICE,
        "voices",
        {"displayTags": ["slow", "warm", "deep"]},
        [
            ("displayTags", '"fast"', None),
            ("displayTags", None, '"deep"'),
            ("displayTags", None, '"slow"'),
        ],
    ),
    "one that stands twice, and a null": (
        VOICE,
        "voices",
        {"displayTags": ["fast", "fast", "warm", None]},
        [("displayTags", None, '"fast"'), ("displayTags", None, "null")],
    ),
    "all gone": (
        VOICE,
        "voices",
        {"displayTags": []},
        [("displayTags", '"fast"', None), ("displayTags", '"warm"', None)],
    ),
    "a list within": (
        VOICE,
        "voices",
        {"displayTags": ["fast", ["warm"]]},
        [("displayTags", '["fast", "warm"]', '["fast", ["warm"]]')],
    ),
    "no list any more": (
        VOICE,
        "voices",
        {"displayTags": "x"},
        [("displayTags", '["fast", "warm"]', '"x"')],
    ),
    "versions": (
        AVATAR,
        "avatars",
        {"availableVersions": ["v2"]},
        [("availableVersions", '"v1"', None)],
    ),
    "an ordered list": (
        TOOL,
        "tools",
        {"config": {"steps": ["a", "b", "c"]}},
        [("config.steps", '["a", "b"]', '["a", "b", "c"]')],
    ),
    "no list at all": (
        GROUP,
        "knowledge",
        {"description": "All."},
        [("description", "null", '"All."')],
    ),
}


@pytest.mark.parametrize(("entity_id", "kind", "edit", "expected"), LISTS.values(), ids=LISTS)
def test_a_list_without_order_has_a_row_for_each_element_that_came_or_went(
    made, entity_id, kind, edit, expected
):
    made.world.edit(entity_id, edit, kind)
    made.sync()
    assert fields(made, entity_id) == expected


def test_the_sets_of_what_stays_inside_a_persona_are_sets_too(made):
    for tags in (["a", "b"], ["b", "c"]):
        made.world.edit(PERSONA, {"voice": {"displayName": "Own", "displayTags": tags}})
        made.sync()
    assert fields(made, version=3) == [
        ("voice.displayTags", '"a"', None),
        ("voice.displayTags", None, '"c"'),
    ]


def test_a_reshaping_says_so(made):
    made.world.reshape(lambda payload: payload | {"mood": None})
    made.sync()
    (row,) = seen(made)
    assert (row["change"], row["path"], row["name"]) == ("reshaped", "mood", "Ada")
    assert fields(made) == [("mood", None, "null")]
    made.world.reshape(None)
    made.sync()
    assert fields(made, version=3) == [("mood", "null", None)]


@pytest.mark.parametrize(
    ("name", "shown"), [(None, None), ({"a": 1}, None), ([], None), (7, "7"), (True, "true")]
)
def test_a_name_is_text_or_nothing(made, name, shown):
    made.world.edit(PERSONA, {"name": name})
    made.sync()
    assert [row["name"] for row in seen(made)] == [shown] == [made.persona(PERSONA)["name"]]


def test_one_odd_document_fails_nothing(made):
    """As nothing that we store could be: only a path or a value may be lost."""
    made.is_corrupted = True
    made.world.edit(PERSONA, {"name": "Bea"})
    made.world.edit(OTHER_PERSONA, {"name": "Bea"})
    made.sync()
    odd_paths = ["", "[", "]", '["', "a.b", "[0]", "[99999999999]", "name", "shareLinks", "\\"]
    for odd in (
        "null",
        "[]",
        '"text"',
        "7",
        '{"name": []}',
        '{"shareLinks": {}, "a": [{"id": 1}]}',
    ):
        made.query("UPDATE documents SET document = %s WHERE entity_id = %s", [odd, UUID(PERSONA)])
        made.query(
            "UPDATE document_versions SET changed_paths = %s WHERE entity_id = %s AND version = 2",
            [odd_paths, UUID(PERSONA)],
        )
        assert len(seen(made)) == len(odd_paths)
        assert fields(made, OTHER_PERSONA) == [("name", '"Grace"', '"Bea"')]


def test_a_list_that_has_the_same_elements_still_has_its_row(made):
    """Its path is among the changed ones, so that something changed is not kept from readers."""
    made.is_corrupted = True
    made.world.edit(VOICE, {"description": "Soft."}, "voices")
    made.sync()
    made.query(
        "UPDATE document_versions SET changed_paths = '{displayTags}' WHERE entity_id = %s"
        " AND version = 2",
        [UUID(VOICE)],
    )
    assert fields(made, VOICE) == [("displayTags", '["fast", "warm"]', '["fast", "warm"]')]


STORE = """
    WITH stored AS (
        INSERT INTO anam.documents (kind, content_hash, entity_id, document)
        SELECT %(kind)s, convert_to(version::text, 'UTF8'), %(id)s, document
        FROM unnest(%(documents)s::jsonb[]) WITH ORDINALITY AS _ (document, version)
    )
    INSERT INTO anam.document_versions (kind, entity_id, version, valid_from, valid_to,
        last_observed_at, content_hash, change, changed_paths)
    VALUES (%(kind)s, %(id)s, 1, '2026-01-01', '2026-01-02', '2026-01-01', '1', 'created', '{}'),
           (%(kind)s, %(id)s, 2, '2026-01-02', NULL, '2026-01-02', '2', 'updated', %(paths)s)
"""


@pytest.fixture(scope="module")
def connection(new_database, template) -> Iterator[psycopg.Connection[Any]]:
    with new_database(template) as url, psycopg.connect(url, autocommit=True) as opened:
        yield opened


# Kept apart from the map on purpose.
SET = re.compile(
    r"avatar:availableVersions|voice:displayTags|persona:(tools|knowledge|shareLinks"
    r"|shareLinks\[[0-9a-f-]{36}\]\.allowedOrigins|avatar\.availableVersions|voice\.displayTags)"
)


@given(pairs())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_the_rows_are_the_differences_of_two_documents(connection, pair):
    kind, *both = pair
    old, new = (with_sorted_sets(kind, document) for document in both)
    found = differences(kind, old, new)
    expected: Counter[tuple[str, bytes | None, bytes | None]] = Counter()
    for difference in found:
        path, before, after = difference.path, difference.old, difference.new
        if SET.fullmatch(f"{kind}:{path}") and is_plain_list(before) and is_plain_list(after):
            olds, news = Counter(map(canonical, before)), Counter(map(canonical, after))
            expected += Counter({(path, value, None): n for value, n in (olds - news).items()})
            expected += Counter({(path, None, value): n for value, n in (news - olds).items()})
        else:
            expected[path, form(before), form(after)] += 1
    stored = {
        "kind": kind,
        "id": UUID(PERSONA),
        "documents": [dumps(old).decode(), dumps(new).decode()],
        "paths": [difference.path for difference in found],
    }
    with connection.transaction(force_rollback=True):
        connection.execute(STORE, stored)
        rows = connection.execute(
            "SELECT path, old_value::text, new_value::text FROM anam_reporting.changes"
        )
        shown = [(path, *map(read, values)) for path, *values in rows]
    assert Counter(shown) == expected


def is_plain_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)


def form(value: Any) -> bytes | None:
    return None if value is ABSENT else canonical(value)


def read(text: str | None) -> bytes | None:
    return None if text is None else canonical(decode(text.encode()).value)
