"""What is in use, each once: prompts and whole configurations, with the personas that have it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from etl.sandbox import World
from tests.db.local_lines import add_lines, line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.db.conftest import Row, Target

IDS = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 8)]
TOOLS = [{"id": f"00000000-0000-4000-8000-0000000000c{n}", "name": f"tool {n}"} for n in (1, 2)]
LINK = "00000000-0000-4000-8000-0000000000e"
SET_UP = {
    "voice": {"id": "00000000-0000-4000-8000-0000000000bb"},
    "llmId": "some-llm",
    "brain": {"systemPrompt": "Be kind."},
    "tools": TOOLS,
    "widgetConfig": {"colour": "red"},
}


@pytest.fixture
def alike(copying) -> Iterator[Target]:
    """Seven personas, each of which differs in its own way from the first."""
    payloads: list[dict[str, Any]] = [
        {
            "name": "First",
            "description": "The one.",
            "createdAt": "2026-01-01T00:00:00Z",
            "shareLinks": [{"id": f"{LINK}1", "token": "a"}],
            "primaryShareLink": {"token": "a", "enabled": True, "notes": "mine"},
        },
        {"name": None, "unheardOf": 1, "tools": TOOLS[::-1], "updatedAt": "2026-02-01T00:00:00Z"},
        {"name": "Other tools", "tools": TOOLS[:1]},
        {"name": "Other widget", "widgetConfig": {"colour": "blue"}},
        {"name": "Other prompt", "brain": {"systemPrompt": ""}},
        {"name": "No prompt", "brain": None},
        {"name": "Gone"},
    ]
    world = World()
    with copying(world) as target:
        add_lines(
            target.url,
            line("persona", "primaryShareLink.notes", "personas", column="notes"),
            line("persona", "opened", "personas", "timestamptz", column="opened"),
            line("persona", "visits[]", "persona_visits", "timestamptz"),
        )
        for persona_id, members in zip(IDS, payloads, strict=True):
            world.set_payload(persona_id, {"id": persona_id, **SET_UP, **members})
        target.sync(IDS)
        world.delete(IDS[-1])
        target.sync(IDS)
        yield target


def shown(target: Target, view: str) -> list[Row]:
    return target.query(f"SELECT * FROM anam_reporting.{view} ORDER BY persona_count DESC, 3")


def test_each_prompt_is_told_once_with_the_live_personas_that_have_it(alike):
    rows = {row["system_prompt"]: row for row in shown(alike, "prompts")}
    assert rows.keys() == {"Be kind.", ""}
    kind = rows["Be kind."]
    assert kind == {
        "prompt_id": sha256(b"Be kind.").hexdigest(),
        "system_prompt": "Be kind.",
        "prompt_length": 8,
        "persona_count": 4,
        "persona_ids": [UUID(persona_id) for persona_id in IDS[:4]],
        "persona_names": ["First", None, "Other tools", "Other widget"],
    }
    assert (rows[""]["prompt_length"], rows[""]["persona_names"]) == (0, ["Other prompt"])


def test_personas_that_are_set_up_alike_are_one_configuration(alike):
    rows = shown(alike, "configurations")
    assert rows[0]["persona_names"] == ["First", None]
    assert sorted(row["persona_names"][0] for row in rows[1:]) == [
        "No prompt",
        "Other prompt",
        "Other tools",
        "Other widget",
    ]
    assert rows[0]["persona_ids"] == [UUID(persona_id) for persona_id in IDS[:2]]
    settings = rows[0]["settings"]
    assert settings["tool_ids"] == [tool["id"] for tool in TOOLS]
    assert settings["knowledge_group_ids"] == []
    assert (settings["system_prompt"], settings["llm_id"]) == ("Be kind.", "some-llm")
    assert settings["widget_config"] == {"colour": "red"}
    own = {"name", "description", "created_at", "updated_at", "extra", "notes", "persona_id"}
    assert own.isdisjoint(settings)
    assert not [name for name in settings if "share_link" in name]
    columns = alike.query("SELECT * FROM anam_reporting.personas LIMIT 1")[0].keys()
    assert settings.keys() - columns == {"tool_ids", "knowledge_group_ids"}


def test_a_configuration_is_the_same_in_every_session(alike):
    moments = {"opened": "2026-03-01T12:00:00Z", "visits": ["2026-03-01T12:00:00.5Z", None]}
    for persona_id in IDS[:2]:
        alike.world.set_payload(persona_id, alike.world.payload(persona_id) | moments)
    alike.sync(IDS[:2])
    here = shown(alike, "configurations")
    assert here[0]["settings"]["opened"] == "2026-03-01T12:00:00.000000Z"
    assert here[0]["settings"]["visits"] == ["2026-03-01T12:00:00.500000Z", None]
    alike.query("SET TimeZone TO 'Asia/Kathmandu'")
    alike.query("SET DateStyle TO 'German'")
    assert shown(alike, "configurations") == here


def test_odd_values_are_told_apart_and_fail_nothing(alike):
    alike.is_corrupted = True
    odd = ["NaN", "infinity", "-infinity", "1e308"]
    for persona_id, value in zip(IDS, odd, strict=False):
        statement = "UPDATE personas SET voice_speed = %s::float8 WHERE persona_id = %s"
        alike.query(statement, [value, UUID(persona_id)])
    alike.query("UPDATE personas SET opened = 'infinity'")
    alike.query("UPDATE brains SET system_prompt = repeat(E'\\u0001\\u263a', 1000000)")
    rows = alike.query("""
        SELECT settings ->> 'voice_speed' AS speed, length(settings ->> 'system_prompt') AS long
          FROM anam_reporting.configurations""")
    assert {row["speed"] for row in rows} >= {"NaN", "Infinity", "-Infinity"}
    assert {row["long"] for row in rows} == {2000000}
    (prompt,) = shown(alike, "prompts")
    assert (prompt["persona_count"], prompt["prompt_length"]) == (6, 2000000)
