"""The views of what was: a row a version, typed as the tables are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.map import SHIPPED
from etl.report.catalogue import all_views
from etl.report.history import persona_history
from etl.sandbox import Fault, World
from etl.tables import KINDS, entity_table, source
from tests.db.odd_documents import nothing_fits
from tests.unit.strategies import payload_files, raw_personas

if TYPE_CHECKING:
    from tests.db.conftest import Row, Target

PERSONAS = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 9)]
AVATAR, VOICE, TOOL, GROUP, LINK = (f"a0000000-0000-4000-8000-00000000000{n}" for n in range(5))


@pytest.fixture
def bare(copying):
    """A target of which nothing is served yet."""
    with copying(World()) as made:
        yield made


def serve(target: Target, persona_id: str = PERSONAS[0], **members: Any) -> None:
    """Serves these members, and copies the persona."""
    target.world.set_payload(persona_id, json.dumps({"id": persona_id, **members}).encode())
    target.sync([persona_id])


def history(target: Target, view: str = "persona_history", **where: object) -> list[Row]:
    conditions = " AND ".join(f"{name} = %s" for name in where) or "true"
    order = "persona_id, valid_from" if view == "prompt_history" else "valid_from"
    query = f"SELECT * FROM anam_reporting.{view} WHERE {conditions} ORDER BY {order}"
    return target.query(query, list(where.values()))


def shared_columns(target: Target, one: str, other: str) -> list[str]:
    query = """
        SELECT one.attname, format_type(one.atttypid, one.atttypmod) AS one,
               format_type(other.atttypid, other.atttypmod) AS other
        FROM pg_attribute AS one JOIN pg_attribute AS other USING (attname)
        WHERE one.attrelid = %s::regclass AND other.attrelid = %s::regclass
          AND one.attnum > 0 AND other.attnum > 0
    """
    found = target.query(query, [one, other])
    assert all(row["one"] == row["other"] for row in found), found
    return [row["attname"] for row in found]


def assert_open_versions_are_the_tables(target: Target, *, but: tuple[str, ...] = ()) -> None:
    """In all columns that both have; of what is live."""
    for kind in KINDS:
        view, table = f"anam_reporting.{kind}_history", entity_table(kind).name
        live = "true"
        if kind == "persona":
            table, live = "anam_reporting.personas", "removed_at IS NULL"
        columns = shared_columns(target, view, table)
        stored = {c.name for c in entity_table(kind).columns if (s := source(c)) and not s.observed}
        assert stored < set(columns)
        listed = ", ".join(f'"{column}"' for column in columns if column not in but)
        past = f"SELECT {listed} FROM {view} WHERE valid_to IS NULL AND change <> 'removed'"
        present = f"SELECT {listed} FROM {table} WHERE {live}"
        for left, right in ((past, present), (present, past)):
            assert target.query(f"{left} EXCEPT ALL {right}") == []


def test_the_open_version_is_what_the_tables_say(target):
    assert_open_versions_are_the_tables(target)
    ids = target.world.persona_ids
    target.world.edit(ids[0], {"name": "Edited", "brain": {"systemPrompt": "Be brief."}})
    target.world.delete(ids[1])
    target.sync(ids)
    target.sync(ids[2:4])
    assert_open_versions_are_the_tables(target)
    assert len(history(target)) == 8


@pytest.mark.parametrize("path", payload_files(), ids=lambda path: path.stem)
def test_the_open_version_of_each_payload_file_is_what_the_tables_say(bare, path):
    payload = json.loads(path.read_bytes())
    bare.world.set_payload(payload["id"], path.read_bytes())
    assert bare.sync([payload["id"]]).counts["created"] == 1
    assert_open_versions_are_the_tables(bare)


wild = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@wild
@given(payload=raw_personas)
def test_the_open_version_of_any_persona_is_what_the_tables_say(bare, payload):
    bare.world.set_payload(payload["id"].lower(), json.dumps(payload).encode())
    bare.sync([payload["id"].lower()])
    assert_open_versions_are_the_tables(bare)


# The test above asks the same of the server.
@pytest.mark.one_server
@wild
@given(payloads=st.lists(raw_personas, min_size=2, max_size=8))
def test_the_open_versions_of_personas_that_share_are_what_the_tables_say(bare, payloads):
    for persona_id, payload in zip(PERSONAS, payloads, strict=False):
        bare.world.set_payload(persona_id, json.dumps(payload | {"id": persona_id}).encode())
    bare.sync(PERSONAS[: len(payloads)])
    # A link that two personas show belongs to one of them; either's document has it.
    assert_open_versions_are_the_tables(bare, but=("share_link_count",))


def test_a_version_is_a_row_with_its_place_in_time(target):
    ids = target.world.persona_ids
    target.world.edit(ids[0], {"name": "Edited"})
    target.sync(ids)
    for kind in KINDS:
        rows = history(target, f"{kind}_history")
        versions = target.query(
            "SELECT * FROM document_versions WHERE kind = %s ORDER BY valid_from", [kind]
        )
        taken = ("version", "valid_to", "change", "changed_paths", "source_updated_at", "run_id")
        by_key = {(row["entity_id"], row["valid_from"]): row for row in versions}
        assert len(rows) == len(by_key) > 0
        for row in rows:
            version = by_key[row[f"{kind}_id"], row["valid_from"]]
            assert [row[name] for name in taken] == [version[name] for name in taken]
            first = target.versions(row[f"{kind}_id"])[0]
            assert row["first_seen_at"] == first["valid_from"]
            assert row["last_changed_at"] == row["valid_from"]


def test_the_past_stays_as_it_was(bare):
    serve(bare, name="Ada", voiceSpeed=1.5, brain={"systemPrompt": "Be kind."})
    serve(bare, name="Ada", voiceSpeed="fast", brain={"systemPrompt": "Be brief."}, new=[1])
    old, new = history(bare)
    assert (old["name"], old["voice_speed"], old["extra"]) == ("Ada", 1.5, None)
    assert (new["name"], new["voice_speed"], new["extra"]) == ("Ada", None, {"new": [1]})
    assert (old["system_prompt"], new["system_prompt"]) == ("Be kind.", "Be brief.")
    assert old["valid_to"] == new["valid_from"]
    assert new["changed_paths"] == ["brain.systemPrompt", "new", "voiceSpeed"]


def test_a_set_is_an_array_of_what_fits_in_the_order_of_first_places(bare):
    def tags() -> object:
        return history(bare, "voice_history")[-1]["display_tags"]

    for shown, told in (
        (["b", "a", "b", None, {}, 1, "x" * 2001, "a", "1"], ["b", "a", "1"]),
        ([], []),
        ("b", None),
        (None, None),
    ):
        serve(bare, voice={"id": VOICE, "displayTags": shown})
        assert tags() == told
        rows = bare.query("SELECT tag FROM voice_display_tags ORDER BY position")
        assert [row["tag"] for row in rows] == (told or [])


def test_what_the_map_does_not_know_is_there_however_deep(bare):
    shown = {"token": "one", "enabled": True, "new": {"a": None}}
    serve(bare, primaryShareLink=shown, avatar={"id": AVATAR, "odd": 1}, odd=None)
    (row,) = history(bare)
    assert row["extra"] == {"primaryShareLink": {"new": {"a": None}}, "odd": None}
    assert history(bare, "avatar_history")[0]["extra"] == {"odd": 1}
    serve(bare, primaryShareLink={"token": "one", "enabled": True})
    assert history(bare)[-1]["extra"] is None
    serve(bare, primaryShareLink=[shown])
    assert history(bare)[-1]["extra"] is None


def test_a_removal_is_a_row_of_which_only_the_times_are_known(bare):
    serve(bare, name="Ada", tools=[{"id": TOOL}], shareLinks=[{"id": LINK}])
    bare.world.set_payload(PERSONAS[0], None)
    bare.sync([PERSONAS[0]])
    serve(bare, name="Ada")
    created, removed, restored = history(bare)
    assert [row["change"] for row in history(bare)] == ["created", "removed", "restored"]
    assert removed["removed_at"] == removed["valid_from"] == created["valid_to"]
    assert removed["valid_to"] == restored["valid_from"]
    known = {*persona_history(SHIPPED).columns} - {
        name for name in removed if removed[name] is not None
    }
    assert known >= {"name", "system_prompt", "extra", "created_at", "tool_count"}
    assert removed["tool_count"] is removed["share_link_count"] is None
    assert (created["tool_count"], created["share_link_count"]) == (1, 1)
    assert (restored["tool_count"], restored["share_link_count"]) == (0, 0)
    assert created["removed_at"] is restored["removed_at"] is None


def test_a_confirmation_extends_the_open_version_alone(target):
    ids = target.world.persona_ids
    target.world.edit(ids[0], {"name": "Edited"})
    target.sync(ids)
    target.sync(ids)
    old, new = history(target, persona_id=UUID(ids[0]))
    assert new["last_observed_at"] == target.state(ids[0])["last_success_at"]
    assert old["last_observed_at"] == target.versions(ids[0])[0]["last_observed_at"]
    target.sandbox.order(Fault(status=403, target=ids[0]))
    target.sync(ids)
    assert history(target, persona_id=UUID(ids[0]))[-1] == new


def test_what_is_shared_is_confirmed_by_those_that_have_it_now(bare):
    def last_seen(view: str) -> object:
        return history(bare, view)[-1]["last_observed_at"]

    views = ("avatar_history", "voice_history", "tool_history", "knowledge_group_history")
    shown: dict[str, Any] = {
        "avatar": {"id": AVATAR},
        "voice": {"id": VOICE},
        "tools": [{"id": TOOL}],
        "knowledge": [{"id": GROUP}],
    }
    one, other, gone = PERSONAS[:3]
    for persona_id in (one, other, gone):
        serve(bare, persona_id, **shown)
    serve(bare, one)
    bare.world.set_payload(gone, None)
    bare.sync([gone])
    for persona_id in (other, one):
        bare.sync([persona_id])
    confirmed = bare.state(other)["last_success_at"]
    assert confirmed < bare.state(one)["last_success_at"]
    assert [last_seen(view) for view in views] == [confirmed] * 4
    # A removed one has them in its rows still, and says nothing about the present.
    bare.query(
        "UPDATE persona_sync_state SET last_success_at = now() WHERE persona_id = %s", [gone]
    )
    assert [last_seen(view) for view in views] == [confirmed] * 4


# ── Prompts ──────────────────────────────────────────────────────────────────────────────────────


def told(target: Target, persona_id: str = PERSONAS[0]) -> list[Row]:
    return history(target, "prompt_history", persona_id=UUID(persona_id))


def test_versions_with_the_same_prompt_are_one_stretch(bare):
    brain = {"systemPrompt": "Be kind.", "personality": "warm"}
    serve(bare, name="Ada", brain=brain)
    serve(bare, name="Ada II", brain=brain)
    serve(bare, name="Ada II", brain=brain | {"systemPrompt": "Be brief."})
    serve(bare, name="Ada II", brain=brain)
    serve(bare, name="Ada II", brain=brain | {"personality": "cool"})
    serve(bare, name="Ada III", brain=brain | {"personality": "cool", "new": 1})
    bare.sync([PERSONAS[0]])
    rows = told(bare)
    versions = bare.versions(PERSONAS[0])
    shown = ("prompt_version", "name", "system_prompt", "personality", "prompt_length")
    assert [tuple(row[name] for name in shown) for row in rows] == [
        (1, "Ada", "Be kind.", "warm", 8),
        (2, "Ada II", "Be brief.", "warm", 9),
        (3, "Ada II", "Be kind.", "warm", 8),
        (4, "Ada II", "Be kind.", "cool", 8),
    ]
    starts = [versions[n]["valid_from"] for n in (0, 2, 3, 4)]
    assert [row["valid_from"] for row in rows] == starts
    assert [row["valid_to"] for row in rows] == [*starts[1:], None]
    assert rows[0]["last_observed_at"] == versions[1]["last_observed_at"]
    assert rows[-1]["last_observed_at"] == bare.state(PERSONAS[0])["last_success_at"]


def test_a_removal_ends_a_stretch_and_makes_none(bare):
    brain = {"systemPrompt": "Be kind."}
    serve(bare, brain=brain)
    bare.world.set_payload(PERSONAS[0], None)
    bare.sync([PERSONAS[0]])
    (row,) = told(bare)
    created, removed = bare.versions(PERSONAS[0])
    assert (row["valid_from"], row["valid_to"]) == (created["valid_from"], removed["valid_from"])
    serve(bare, brain=brain)
    first, second = told(bare)
    assert first == row
    assert second["valid_from"] == bare.versions(PERSONAS[0])[-1]["valid_from"]
    assert (second["prompt_version"], second["valid_to"]) == (2, None)


def test_no_prompt_is_a_stretch_too(bare):
    serve(bare, name="Ada")
    serve(bare, name="Ada", brain={"systemPrompt": ""})
    serve(bare, name="Ada", brain={"systemPrompt": ["odd"]})
    bare.world.set_payload(PERSONAS[0], None)
    bare.sync([PERSONAS[0]])
    serve(bare, name="Ada")
    rows = told(bare)
    assert [row["prompt_version"] for row in rows] == [1, 2, 3, 4]
    assert [row["system_prompt"] for row in rows] == [None, "", None, None]
    assert [row["prompt_length"] for row in rows] == [None, 0, None, None]


def test_each_persona_has_stretches_of_its_own(bare):
    for persona_id in PERSONAS[:3]:
        serve(bare, persona_id, brain={"systemPrompt": "The same."})
    rows = history(bare, "prompt_history")
    assert [row["prompt_version"] for row in rows] == [1, 1, 1]


# ── Whatever may stand in a document ─────────────────────────────────────────────────────────────

ODD = [
    "1",
    '"text"',
    "null",
    "true",
    "[]",
    '["id", "name", {"id": 1}]',
    "{}",
    '{"brain": [1], "avatar": [{"id": 1}], "tools": {"id": 1}, "shareLinks": "x"}',
    '{"tools": [1, null, "id", ["id"], {"id": []}, {"id": {"id": 1}}], "knowledge": [[]]}',
    '{"voiceSpeed": 1e400, "createdAt": {"at": 1}, "llmId": [1e400], "name": {}}',
    '{"primaryShareLink": 1, "skipGreeting": "Infinity", "voice": {"id": "1"}}',
    '{"displayTags": [[], {}, null, "a", "a"], "availableVersions": {"a": 1}}',
    '{"createdAt": "9999-99-99T99:99:99.9Z", "voiceSpeed": "1e999999", "avatar": {"id": "0f"}}',
]


def test_whatever_stands_in_a_document_no_view_fails(target):
    target.world.edit(target.world.persona_ids[0], {"name": "Edited", "unheardOf": 1})
    target.sync()
    target.is_corrupted = True
    nothing_fits(target)
    views = [view.name for view in all_views()]
    for document in ODD:
        target.query("UPDATE documents SET document = %s::jsonb", [document])
        for source_ in (*views, "personas_as_of(now())", "personas_as_of('infinity')"):
            shown = target.query(f"SELECT shown::text FROM anam_reporting.{source_} AS shown")
            assert shown, (source_, document)
