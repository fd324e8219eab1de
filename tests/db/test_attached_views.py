"""What personas have, as the views tell it: shared things, uses, share links and options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row

from etl.jobs.migrate import migrate
from etl.map import extended
from etl.report.catalogue import all_functions, all_views
from etl.sandbox import World
from etl.store.engine import make_engine
from tests.db.local_lines import add_lines, line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.map import Line
    from etl.tables import Kind
    from tests.db.conftest import Row, Target

ONE, TWO, BARE = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))
AVATAR, VOICE, FIRST_TOOL, SECOND_TOOL, GROUP = (
    f"00000000-0000-4000-8000-0000000000{n}" for n in ("aa", "bb", "c1", "c2", "dd")
)


def link(number: int, **members: Any) -> dict[str, Any]:
    return {"id": f"00000000-0000-4000-8000-0000000000e{number}", "token": f"t{number}", **members}


def persona(persona_id: str, **members: Any) -> dict[str, Any]:
    return {
        "id": persona_id,
        "name": f"Persona {persona_id[-1]}",
        "avatar": {"id": AVATAR, "displayName": "Liv", "availableVersions": []},
        "voice": {"id": VOICE, "displayName": "Ada", "displayTags": ["warm", "low"]},
        "tools": [
            {"id": SECOND_TOOL, "name": "hang_up", "type": "SYSTEM"},
            {"id": FIRST_TOOL, "name": "look_up", "type": "CLIENT"},
        ],
        "knowledge": [{"id": GROUP, "name": "Opening hours"}],
        "voiceGenerationOptions": {"stability": 0.3},
        **members,
    }


@pytest.fixture
def attached(copying) -> Iterator[Target]:
    """Two personas that share everything, of which the second is gone; one that has nothing."""
    world = World()
    with copying(world) as target:
        world.set_payload(ONE, persona(ONE))
        world.set_payload(TWO, persona(TWO, voiceDetectionOptions={}))
        world.set_payload(BARE, {"id": BARE, "name": None})
        target.sync([ONE, TWO, BARE])
        world.delete(TWO)
        target.sync([ONE, TWO, BARE])
        yield target


def shown(target: Target, view: str, order: str = "1, 2") -> list[Row]:
    return target.query(f"SELECT * FROM anam_reporting.{view} ORDER BY {order}")


def test_what_is_shared_is_shown_with_its_users(attached):
    seen_at = attached.state(ONE)["last_success_at"]
    for view, key in {
        "avatars": "avatar_id",
        "voices": "voice_id",
        "tools": "tool_id",
        "knowledge_groups": "knowledge_group_id",
    }.items():
        for row in shown(attached, view):
            (stored,) = attached.query(f"SELECT * FROM {view} WHERE {key} = %s", [row[key]])
            assert {name: row[name] for name in stored} == stored
            assert row["persona_count"] == 1
            assert row["last_observed_at"] == seen_at
    assert shown(attached, "voices")[0]["display_tags"] == ["warm", "low"]
    # An empty list is not a list that was never sent.
    assert shown(attached, "avatars")[0]["available_versions"] == []
    attached.world.set_payload(ONE, persona(ONE, avatar={"id": AVATAR}))
    attached.sync([ONE])
    assert shown(attached, "avatars")[0]["available_versions"] is None


def test_what_nobody_has_any_more_stays_and_says_so(attached):
    last_seen = shown(attached, "voices")[0]["last_observed_at"]
    attached.world.set_payload(ONE, {"id": ONE, "name": "Persona 1"})
    attached.sync([ONE])
    for view in ("avatars", "voices", "tools", "knowledge_groups"):
        assert {row["persona_count"] for row in shown(attached, view)} == {0}
        assert {row["last_observed_at"] for row in shown(attached, view)} == {last_seen}
    (bare,) = attached.query(
        "SELECT * FROM anam_reporting.personas WHERE persona_id = %s", [UUID(ONE)]
    )
    assert bare["avatar_name"] is bare["voice_name"] is bare["voice_provider"] is None
    assert (bare["tool_count"], bare["knowledge_group_count"]) == (0, 0)


def test_the_latest_that_shows_this_very_copy_says_when_it_was_last_seen(attached):
    """Of two personas the one that was asked later goes on showing an older copy."""
    attached.world.restore(TWO)
    attached.sync([TWO])
    newer = {"id": VOICE, "displayName": "Ada II", "updatedAt": "2026-05-01T00:00:00Z"}
    attached.world.set_payload(ONE, persona(ONE, voice=newer))
    attached.sync([ONE])
    attached.sync([TWO])
    (voice,) = shown(attached, "voices")
    assert (voice["display_name"], voice["persona_count"]) == ("Ada II", 2)
    assert voice["last_observed_at"] == attached.state(ONE)["last_success_at"]
    assert voice["last_observed_at"] < attached.state(TWO)["last_success_at"]


def test_who_has_what_is_told_by_name_and_of_the_removed_too(attached):
    uses = [tuple(row.values()) for row in shown(attached, "persona_tools", "1, position")]
    first, second = UUID(FIRST_TOOL), UUID(SECOND_TOOL)
    assert uses == [
        (UUID(persona_id), f"Persona {persona_id[-1]}", persona_id == ONE, *tool)
        for persona_id in (ONE, TWO)
        for tool in ((second, "hang_up", "SYSTEM", 0), (first, "look_up", "CLIENT", 1))
    ]
    groups = [
        (row["persona_name"], row["is_live"], row["knowledge_group_name"])
        for row in shown(attached, "persona_knowledge_groups")
    ]
    assert groups == [("Persona 1", True, "Opening hours"), ("Persona 2", False, "Opening hours")]
    options = shown(attached, "voice_generation_options")
    assert [(row["persona_name"], row["is_live"], row["stability"]) for row in options] == [
        ("Persona 1", True, 0.3),
        ("Persona 2", False, 0.3),
    ]
    assert [row["persona_name"] for row in shown(attached, "voice_detection_options")] == [
        "Persona 2"
    ]


LARGE = 2**63 - 1
# What a link says, whether it opens, and how often.
LINKS: list[tuple[dict[str, Any], str, int | None]] = [
    ({}, "open", None),
    ({"enabled": True, "usageLimit": 5, "usageCount": 2}, "open", 3),
    ({"enabled": None, "usageLimit": 5}, "open", 5),
    ({"enabled": False, "usageLimit": 1, "usageCount": 1}, "disabled", 0),
    ({"expiresAt": "2001-01-01T00:00:00Z"}, "expired", None),
    ({"expiresAt": "9999-01-01T00:00:00Z", "usageCount": LARGE}, "open", None),
    ({"usageLimit": 5, "usageCount": 7}, "used up", 0),
    ({"usageLimit": 0}, "used up", 0),
    ({"usageLimit": -LARGE - 1, "usageCount": LARGE}, "used up", 0),
    ({"usageLimit": LARGE, "usageCount": -LARGE - 1}, "open", 2 * LARGE + 1),
]


def test_a_share_link_says_whether_it_opens_and_how_often(attached):
    links = [link(number, **members) for number, (members, _, _) in enumerate(LINKS)]
    links[0]["allowedOrigins"] = ["https://b.example", "https://a.example"]
    attached.world.set_payload(ONE, persona(ONE, shareLinks=links))
    attached.sync([ONE])
    rows = shown(attached, "share_links", "share_link_id")
    assert [(row["state"], row["uses_left"]) for row in rows] == [told[1:] for told in LINKS]
    assert {(row["persona_name"], row["is_live"]) for row in rows} == {("Persona 1", True)}
    origins = [row["allowed_origins"] for row in rows]
    assert origins == [["https://b.example", "https://a.example"]] + [[]] * (len(LINKS) - 1)
    attached.world.delete(ONE)
    attached.sync([ONE, BARE])
    gone = shown(attached, "share_links")
    assert {(row["is_live"], row["state"]) for row in gone} == {(False, "persona removed")}


# Each is called like something that a view has of its own, or like an alias in its SQL.
CLASHES = {
    "share_links": (
        "state",
        "uses_left",
        "persona_name",
        "is_live",
        "link",
        "persona",
        "allowed_origins",
    ),
    "voice_generation_options": ("persona_name", "is_live", "options", "name"),
    "tools": ("persona_count", "last_observed_at", "version", "tool", "used", "state"),
    "avatars": ("persona_count", "name", "valid_to", "available_versions", "avatar"),
    "personas": ("setting", "settings", "tool_ids", "persona", "age", "digest", "state", "told"),
    "brains": ("persona_ids", "prompt_id", "brain"),
}
PATHS: dict[str, tuple[Kind, str]] = {
    "share_links": ("persona", "shareLinks[].{}"),
    "voice_generation_options": ("persona", "voiceGenerationOptions.{}"),
    "tools": ("tool", "{}"),
    "avatars": ("avatar", "{}"),
    "personas": ("persona", "{}"),
    "brains": ("persona", "brain.{}"),
}
LISTS = {
    "shareLinks[].states[]": "share_link_state",
    "shareLinks[].select[]": "share_link_select",
    "shareLinks[].expires[]": "share_link_expires_at",
}


def test_no_name_of_a_target_s_own_stands_in_the_way_of_a_view(attached):
    def own(kind: Kind, path: str, table: str, column: str) -> Line:
        return line(kind, path.format(f"my{column.title()}"), table, column=column)

    lines = [own(*PATHS[table], table, name) for table, names in CLASHES.items() for name in names]
    lines += [line("persona", path, table) for path, table in LISTS.items()]
    add_lines(attached.url, *lines)
    mine = {
        table: {f"my{name.title()}": f"{table} {name}" for name in names}
        for table, names in CLASHES.items()
    }
    lists = {path.split(".")[1].removesuffix("[]"): [path] for path in LISTS}
    whole = persona(ONE, **mine["personas"], brain={"systemPrompt": "p", **mine["brains"]})
    whole["shareLinks"] = [link(1, **mine["share_links"], **lists)]
    whole["avatar"] |= mine["avatars"]
    whole["voiceGenerationOptions"] |= mine["voice_generation_options"]
    whole["tools"] = [tool | mine["tools"] for tool in whole["tools"]]
    attached.world.set_payload(ONE, whole)
    assert attached.sync([ONE]).exit_code == 0
    views = {view.name: view for view in all_views(extended(tuple(lines)))}
    rows = {name: attached.query(f"SELECT * FROM anam_reporting.{name}") for name in views}
    for table in CLASHES.keys() - {"brains"}:
        told = str(rows[table])
        assert [value for value in mine[table].values() if f"'{value}'" not in told] == []
    of_the_brain = str(rows["personas"])
    assert [value for value in mine["brains"].values() if f"'{value}'" not in of_the_brain] == []
    (found,) = rows["share_links"]
    assert (found["state"], found["share_link_state"]) == ("open", "share_links state")
    names = ("share_link_state_2", "share_link_select", "share_link_expires_at")
    assert [found[name] for name in names] == [[path] for path in LISTS]
    (tool, *_) = rows["tools"]
    assert (tool["persona_count"], tool["tool_persona_count"]) == (1, "tools persona_count")
    (settings,) = (row["settings"] for row in rows["configurations"] if row["persona_count"] == 1
                   and row["persona_names"] == ["Persona 1"])  # fmt: skip
    assert settings["persona_tool_ids"] == "personas tool_ids"
    assert sorted(settings["tool_ids"]) == [FIRST_TOOL, SECOND_TOOL]
    assert {"personas setting", "brains brain"} <= set(map(str, settings.values()))
    listed = {
        (row["table_name"], row["column_name"])
        for row in rows["dictionary"]
        if row["is_local"] and row["schema_name"] == "anam_reporting"
    }
    assert {
        ("share_links", "share_link_state"),
        ("share_links", "share_link_state_2"),
        ("voice_generation_options", "voice_generation_is_live"),
        ("tools", "tool_persona_count"),
        ("avatars", "name"),
    } <= listed


def test_a_reader_sees_every_view_and_function_and_no_table(role, target):
    migrate(make_engine(target.url, target.schema), target.schema, readers=[role])
    url = sa.make_url(target.url).set(username=role, password="p@ss")
    named = url.render_as_string(hide_password=False)
    with psycopg.connect(named, autocommit=True, row_factory=dict_row) as reader:
        for view in all_views():
            found = reader.execute(f"SELECT count(*) AS rows FROM anam_reporting.{view.name}")
            assert found.fetchone()
        assert "personas_as_of" in {function.name for function in all_functions()}
        found = reader.execute("SELECT FROM anam_reporting.personas_as_of(now())")
        assert len(found.fetchall()) == len(target.world.persona_ids)
        for table in target.normalized():
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(f"SELECT FROM anam.{table}")
