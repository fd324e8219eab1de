"""What does not fit a column, what Postgres could choke on, and what it refuses."""

from __future__ import annotations

import json
import random
import string
from typing import Any
from uuid import UUID

import pytest

from etl.sandbox import World

PERSONA = "00000000-0000-4000-8000-000000000001"
OTHERS = [f"00000000-0000-4000-8000-0000000000{n}" for n in range(10, 19)]
TOOL = "00000000-0000-4000-8000-0000000000c1"
LINK = "00000000-0000-4000-8000-0000000000d1"
REPLACEMENT = "\ufffd"


@pytest.fixture
def bare(copying):
    """A target with nine personas of which nothing is known but the name; nothing copied yet."""
    world = World()
    for number, persona_id in enumerate(OTHERS):
        world.add({"id": persona_id, "name": f"other {number}"})
    with copying(world) as made:
        yield made


def serve(target, raw: str | bytes = b"", *, persona_id: str = PERSONA, **members: Any) -> None:
    """Serves these members; `raw` is JSON text that stands for further ones."""
    text = json.dumps({"id": persona_id, **members}).encode()
    if raw:
        raw = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
        text = text[:-1] + b"," + raw + b"}"
    target.world.set_payload(persona_id, text)


def copy(target, ids=(PERSONA,)):
    """Copies them together with the others: none of those may suffer."""
    summary = target.sync([OTHERS[0], *ids, *OTHERS[1:]])
    assert summary.counts["failed"] == summary.counts["rejected"] == 0, target.rows("run_items")
    return summary


def issues(target, **where: object) -> dict[str, str]:
    """The open issues: what is wrong, by path."""
    return {
        row["path"]: row["problem"]
        for row in target.rows("value_issues", **where)
        if row["resolved_at"] is None
    }


def numbered(count: int) -> list[str]:
    """Ids of further personas."""
    return [f"00000000-0000-4000-8000-0000000001{number:02}" for number in range(count)]


MISFITS: list[tuple[str, Any, str, str, str]] = [
    ("name", {"first": "Ada"}, "name", "not a text", "object of 1 members"),
    ("voiceSpeed", "fast", "voice_speed", "not a number", "string of 4 characters"),
    ("skipGreeting", 1, "skip_greeting", "not a boolean", "integer of 1 digits"),
    ("createdAt", "yesterday", "created_at", "not a time", "string of 9 characters"),
    ("llmId", "x" * 5000, "llm_id", "too long for a key", "string of 5000 characters"),
    ("avatar", "none", "avatar_id", "not an object", "string of 4 characters"),
]


def test_a_value_that_does_not_fit_is_null_and_an_issue(bare):
    ids = numbered(len(MISFITS))
    for persona_id, (member, value, *_) in zip(ids, MISFITS, strict=True):
        serve(bare, persona_id=persona_id, **{member: value})
    summary = copy(bare, ids)
    assert summary.value_issues == len(MISFITS)
    for persona_id, (member, value, column, problem, got) in zip(ids, MISFITS, strict=True):
        issue = bare.row("value_issues", entity_id=UUID(persona_id))
        assert (issue["kind"], issue["path"]) == ("persona", member)
        assert (issue["problem"], issue["got"]) == (problem, got)
        assert issue["expected"]
        assert issue["run_id"] == summary.run_id
        observed = bare.versions(persona_id)[0]["valid_from"]
        assert issue["first_seen_at"] == issue["last_seen_at"] == observed
        assert bare.persona(persona_id)[column] is None
        # The document keeps the value.
        (document,) = bare.rows("documents", entity_id=UUID(persona_id))
        assert document["document"][member] == value


def test_an_issue_is_resolved_when_the_value_is_mended_and_opened_again(bare):
    serve(bare, voiceSpeed="fast")
    copy(bare)
    opened = bare.row("value_issues")
    stamps = bare.stamps()["value_issues"]
    assert copy(bare).value_issues == 0
    assert bare.stamps()["value_issues"] == stamps

    serve(bare, voiceSpeed=1.5)
    assert copy(bare).value_issues == 0
    resolved = bare.row("value_issues")
    assert resolved["resolved_at"] == bare.versions(PERSONA)[-1]["valid_from"]
    assert resolved | {"resolved_at": None} == opened

    serve(bare, voiceSpeed="faster")
    again = copy(bare)
    assert again.value_issues == 1
    issue = bare.row("value_issues")
    assert (issue["resolved_at"], issue["first_seen_at"]) == (None, opened["first_seen_at"])
    assert issue["last_seen_at"] == bare.versions(PERSONA)[-1]["valid_from"]
    assert (issue["got"], issue["run_id"]) == ("string of 6 characters", again.run_id)


def test_an_issue_that_stays_while_the_document_changes_is_not_counted_again(bare):
    serve(bare, voiceSpeed="fast")
    copy(bare)
    serve(bare, voiceSpeed="fast", name="Ada")
    assert copy(bare).value_issues == 0
    issue = bare.row("value_issues")
    assert issue["last_seen_at"] == bare.versions(PERSONA)[-1]["valid_from"]
    assert issue["first_seen_at"] == bare.versions(PERSONA)[0]["valid_from"]


def test_counters_that_do_not_fit_open_and_resolve_issues_without_a_version(bare):
    def show(usage, links):
        tools = [{"id": TOOL, "usageCount": usage}]
        serve(bare, tools=tools, shareLinks=[{"id": LINK, "usageCount": links}])

    show(1, 2)
    copy(bare)
    show("many", 10**40)
    summary = copy(bare)
    assert (summary.value_issues, summary.counts["unchanged"]) == (2, 10)
    assert issues(bare) == {
        "usageCount": "not a number",
        f"shareLinks[{LINK}].usageCount": "not a 64-bit integer",
    }
    assert bare.row("tools")["usage_count"] is bare.row("share_links")["usage_count"] is None
    # The body is another each time, what is wrong is the same: nothing is written.
    stamps = bare.stamps()
    for usage in ("more", "most"):
        show(usage, 10**41)
        assert copy(bare).value_issues == 0
    for name in ("value_issues", "tools", "share_links", "observations", "document_versions"):
        assert bare.stamps()[name] == stamps[name], name
    show(3, 4)
    copy(bare)
    assert issues(bare) == {}
    assert bare.row("tools")["usage_count"] == 3
    assert bare.row("share_links")["usage_count"] == 4
    assert bare.changes(PERSONA) == bare.changes(TOOL) == ["created"]


def test_mending_a_counter_resolves_no_other_issue(bare):
    serve(bare, tools=[{"id": TOOL, "usageCount": "many", "name": ["no"]}], voiceSpeed="fast")
    copy(bare)
    serve(bare, tools=[{"id": TOOL, "usageCount": 1, "name": ["no"]}], voiceSpeed="fast")
    copy(bare)
    assert set(issues(bare)) == {"name", "voiceSpeed"}


def test_a_bad_updated_at_is_an_issue_of_the_observed_column(bare):
    serve(bare, updatedAt="soon")
    assert copy(bare).value_issues == 1
    assert bare.persona(PERSONA)["updated_at"] is None
    serve(bare, updatedAt="2026-04-20T10:00:00.000Z")
    assert copy(bare).counts["unchanged"] == 10
    assert issues(bare) == {}


NOT_UNICODE: list[tuple[str | bytes, str]] = [
    (r'"name": "a\u0000b"', "a\ufffdb"),
    ('"name": "a\x00b"', "a\ufffdb"),
    (r'"name": "a\ud800b"', "a\ufffdb"),
    (b'"name": "a\xff\xfeb"', "a\ufffd\ufffdb"),
]


def test_what_is_not_unicode_is_mended_and_named(bare):
    ids = numbered(len(NOT_UNICODE))
    for persona_id, (raw, _) in zip(ids, NOT_UNICODE, strict=True):
        serve(bare, raw, persona_id=persona_id)
    assert copy(bare, ids).value_issues == len(ids)
    for persona_id, (_, mended) in zip(ids, NOT_UNICODE, strict=True):
        assert bare.persona(persona_id)["name"] == mended
        assert issues(bare, entity_id=UUID(persona_id)) == {"name": "not valid Unicode"}
    assert copy(bare, ids).counts["unchanged"] == len(ids) + 9
    for persona_id in ids:
        serve(bare, persona_id=persona_id, name="ab")
    copy(bare, ids)
    assert issues(bare) == {}


def test_a_mended_copy_of_a_shared_thing_that_is_not_in_force_is_no_issue(bare):
    tool = {"id": TOOL, "name": "map", "type": "A", "updatedAt": "2026-04-21T10:00:00.000Z"}
    stale = tool | {"name": "\0", "updatedAt": "2026-04-20T10:00:00.000Z"}
    first, second = numbered(2)
    serve(bare, persona_id=first, tools=[tool])
    serve(bare, persona_id=second, tools=[stale])
    bare.sync([first])
    assert bare.sync([second]).value_issues == 0
    serve(bare, persona_id=first, tools=[tool | {"type": "B"}])
    serve(bare, persona_id=second, tools=[stale], name="Edited")
    bare.sync([first, second])
    assert bare.changes(TOOL) == ["created", "updated"]
    assert issues(bare) == {}


MENDED_MISFITS = [
    r'"createdAt": "2026\u0000"',
    r'"updatedAt": "2026\u0000"',
    '"voiceSpeed": 1e5000',
    r'"voiceSpeed": "1\ud800"',
    r'"skipGreeting": "\u0000"',
    rf'"tools": [{{"id": "{TOOL}", "usageCount": "\u0000"}}]',
    r'"tools": [{"id": "\u0000"}, {"id": "\ud800"}]',
    r'"avatar": {"id": "\u0000"}',
    r'"shareLinks": [{"id": "\u0000"}]',
    rf'"voice": {{"id": "{TOOL}", "displayTags": ["\u0000", "\ud800"]}}',
    r'"brain": "\u0000", "widgetConfig": "\u0000"',
]


def test_a_mended_value_that_does_not_fit_either_is_one_issue(bare):
    """It is met twice, by decoding and by flattening: a table's key holds it once."""
    ids = numbered(len(MENDED_MISFITS))
    for persona_id, raw in zip(ids, MENDED_MISFITS, strict=True):
        serve(bare, raw, persona_id=persona_id)
    summary = copy(bare, ids)
    assert summary.counts["created"] == len(ids) + 9
    entities = {row["entity_id"] for row in bare.rows("value_issues")}
    assert summary.value_issues == len(bare.rows("value_issues"))
    in_tools = {ids[5], ids[9]}
    assert entities == {UUID(TOOL), *(UUID(i) for i in ids if i not in in_tools)}
    assert copy(bare, ids).value_issues == 0


LARGE = [
    ('"voiceSpeed": 1e400', "voiceSpeed"),
    ('"voiceSpeed": 1e5000', "voiceSpeed"),
    (f'"shareLinks": [{{"id": "{LINK}", "usageLimit": 1.5}}]', f"shareLinks[{LINK}].usageLimit"),
]


def test_numbers_that_no_column_holds(bare):
    ids = numbered(len(LARGE))
    for persona_id, (raw, _) in zip(ids, LARGE, strict=True):
        serve(bare, raw, persona_id=persona_id)
    assert copy(bare, ids).value_issues == len(LARGE)
    for persona_id, (_, path) in zip(ids, LARGE, strict=True):
        assert list(issues(bare, entity_id=UUID(persona_id))) == [path]
    assert copy(bare, ids).counts["unchanged"] == len(ids) + 9


NUMBERS = ["1e40", "1e400", "-1e-400", "0.1", "9" * 900, "1e900"]


def test_numbers_in_unknown_places_are_kept_exactly(bare):
    ids = numbered(len(NUMBERS))
    for persona_id, number in zip(ids, NUMBERS, strict=True):
        raw = f'"unknown": {number}, "widgetConfig": {{"n": {number}}}'
        serve(bare, raw, persona_id=persona_id)
    copy(bare, ids)
    for persona_id, number in zip(ids, NUMBERS, strict=True):
        (found,) = bare.query(
            "SELECT (extra->'unknown')::numeric = %s::numeric AS extra,"
            " (widget_config->'n')::numeric = %s::numeric AS config"
            " FROM personas WHERE persona_id = %s",
            [number, number, persona_id],
        )
        assert found == {"extra": True, "config": True}
    assert copy(bare, ids).counts["unchanged"] == len(ids) + 9


def test_a_prompt_of_ten_megabytes(bare):
    prompt = "".join(random.Random(1).choices(string.ascii_letters + " é日", k=8_000_000))
    serve(bare, brain={"systemPrompt": prompt})
    copy(bare)
    assert bare.row("brains", persona_id=UUID(PERSONA))["system_prompt"] == prompt
    assert copy(bare).counts["unchanged"] == 10


def test_a_payload_as_deep_as_is_allowed(bare):
    deep = '{"x":' * 249 + "[" * 249 + "1" + "]" * 249 + "}" * 249
    serve(bare, f'"widgetConfig": {deep}')
    copy(bare)
    (found,) = bare.query(
        "SELECT widget_config = %s::jsonb AS same FROM personas WHERE persona_id = %s",
        [deep, PERSONA],
    )
    assert found["same"]
    deep = deep.replace("1", "2")
    serve(bare, f'"widgetConfig": {deep}')
    assert copy(bare).counts["updated"] == 1


HOSTILE = [
    "",
    '"; DROP TABLE personas; --',
    'it\'s "quoted" \\ %s %(x)s :x $1 {0} \ufeff',
    "a.b[0]",
    "\n\t\x01\x7f",
    "日本語 🦊 é",
    "__proto__",
]


def hostile(key: str, value: str) -> dict[str, Any]:
    return {key: value, "name": key, "widgetConfig": {key: [key]}}


def test_hostile_keys_and_values_arrive_as_they_are(bare):
    ids = numbered(len(HOSTILE))
    for persona_id, key in zip(ids, HOSTILE, strict=True):
        serve(bare, persona_id=persona_id, **hostile(key, key))
    summary = copy(bare, ids)
    assert (summary.value_issues, summary.new_drift_paths) == (0, len(HOSTILE))
    for persona_id, key in zip(ids, HOSTILE, strict=True):
        row = bare.persona(persona_id)
        assert (row["name"], row["widget_config"], row["extra"]) == (key, {key: [key]}, {key: key})
        serve(bare, persona_id=persona_id, **hostile(key, "new"))
    assert copy(bare, ids).counts["updated"] == len(HOSTILE)
    for persona_id in ids:
        assert len(bare.versions(persona_id)[-1]["changed_paths"]) == 1


def test_keys_of_any_length_are_no_reason_to_reject(bare):
    key = "".join(random.Random(2).choices(string.ascii_letters, k=20_000))
    raw = f'"{key}": "\\u0000", "{key}2": 1, "shareLinks": [{{"id": "{LINK}", "{key}": 1}}]'
    serve(bare, raw)
    summary = copy(bare)
    assert (summary.counts["created"], summary.value_issues, summary.new_drift_paths) == (10, 1, 2)
    assert bare.persona(PERSONA)["extra"] == {key: REPLACEMENT, f"{key}2": 1}
    assert copy(bare).counts["unchanged"] == 10
    serve(bare, raw.replace("\\u0000", "mended"))
    assert copy(bare).new_drift_paths == 0
    assert issues(bare) == {}


def test_a_thousand_unknown_members_fill_no_table(bare):
    members: dict[str, Any] = {f"unknown{number}x": 1 for number in range(1000)}
    serve(bare, **members)
    assert copy(bare).new_drift_paths == 500
    assert len(bare.rows("drift_paths")) == 500
    assert len(bare.persona(PERSONA)["extra"]) == 1000


def test_a_culprit_that_postgres_refuses_is_found_and_the_others_are_loaded(bare):
    bare.query("ALTER TABLE personas ADD CONSTRAINT no_mallory CHECK (name <> 'Mallory')")
    serve(bare, name="Mallory")
    summary = bare.sync([*OTHERS[:4], PERSONA, *OTHERS[4:]])
    assert (summary.status, summary.exit_code) == ("partial", 3)
    assert (summary.counts["created"], summary.counts["rejected"]) == (9, 1)
    assert bare.outcome(PERSONA)["message"] == "Postgres does not take it (23514)"
    rejected = bare.row("rejected_payloads")
    assert (rejected["persona_id"], rejected["body"]) == (UUID(PERSONA), None)
    assert rejected["length"] == len(bare.world.body(PERSONA))
    assert bare.versions(PERSONA) == bare.rows("observations", entity_id=UUID(PERSONA)) == []
    assert len(bare.rows("personas")) == 9

    serve(bare, name="Alice")
    assert copy(bare).counts["created"] == 1


def test_several_culprits_are_each_found(bare):
    bare.query("ALTER TABLE brains ADD CONSTRAINT brief CHECK (length(system_prompt) < 9)")
    for persona_id in OTHERS[::3]:
        bare.world.edit(persona_id, {"brain": {"systemPrompt": "far too long"}})
    summary = bare.sync(OTHERS)
    assert (summary.counts["created"], summary.counts["rejected"]) == (6, 3)
    rejected = {str(row["persona_id"]) for row in bare.rows("rejected_payloads")}
    assert rejected == set(OTHERS[::3])


def test_a_refused_change_leaves_the_last_good_version(bare):
    serve(bare, name="Alice")
    copy(bare)
    bare.query("ALTER TABLE personas ADD CONSTRAINT no_mallory CHECK (name <> 'Mallory')")
    serve(bare, name="Mallory")
    for failures in (1, 2):
        assert bare.sync([PERSONA, *OTHERS]).counts["rejected"] == 1
        assert bare.state(PERSONA)["consecutive_failures"] == failures
    assert bare.changes(PERSONA) == ["created"]
    assert bare.persona(PERSONA)["name"] == "Alice"


def test_a_shared_thing_that_postgres_refuses_rejects_all_that_bring_it(bare):
    bare.query("ALTER TABLE tools ADD CONSTRAINT no_bad_tool CHECK (name <> 'bad')")
    for persona_id in OTHERS[:2]:
        bare.world.edit(persona_id, {"tools": [{"id": TOOL, "name": "bad"}]})
    summary = bare.sync(OTHERS)
    assert (summary.counts["created"], summary.counts["rejected"]) == (7, 2)
    assert bare.rows("tools") == []
