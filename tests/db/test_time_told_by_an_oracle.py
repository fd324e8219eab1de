"""Random stories, copied by the real job, come to the history that the design tells of.

The oracle (`tests/oracle.py`) is told every answer, the database keeps first and last of a stretch.
All stories share one database: each has personas and shared things of its own.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.db.story import NEW, NEWER, OLD, Story, stories
from tests.oracle import Entity, Oracle, Sighting, Version, as_of, canonical, seen_in

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from tests.db.conftest import Row, Target

TICK = timedelta(microseconds=1)

# Where the stories change something: kind -> its table, and column -> member.
SHARED_COLUMNS = {
    "avatar": ("avatars", {"display_name": "displayName", "image_url": "imageUrl"}),
    "voice": ("voices", {"display_name": "displayName", "provider": "provider"}),
    "tool": ("tools", {"name": "name", "config": "config"}),
    "knowledge_group": ("knowledge_groups", {"name": "name"}),
}
SHARED_LISTS = {
    "avatar": ("avatar_available_versions", "version", "availableVersions"),
    "voice": ("voice_display_tags", "tag", "displayTags"),
}
HELD = {
    "persona_tools": ("tool_id", "tools"),
    "persona_knowledge_groups": ("knowledge_group_id", "knowledge"),
}
OPTIONS = {
    "voice_detection_options": (
        "voiceDetectionOptions",
        {"end_of_speech_sensitivity": "endOfSpeechSensitivity"},
    ),
    "voice_generation_options": (
        "voiceGenerationOptions",
        {"stability": "stability", "style": "style"},
    ),
}

VERSIONS = """
SELECT versions.*, documents.document
  FROM document_versions AS versions LEFT JOIN documents USING (kind, content_hash)
 WHERE versions.entity_id = ANY(%s)
 ORDER BY versions.kind, versions.entity_id, versions.version
"""
OBSERVATIONS = """
SELECT observations.*, documents.document
  FROM observations LEFT JOIN documents USING (kind, content_hash)
 WHERE observations.entity_id = ANY(%s)
"""
BROKEN = """
SELECT kind, entity_id FROM document_versions AS version GROUP BY kind, entity_id
HAVING count(*) FILTER (WHERE valid_to IS NULL) <> 1
    OR max(version) <> count(*) OR min(version) <> 1
    OR count(*) FILTER (WHERE valid_from >= valid_to) > 0
    OR count(*) FILTER (WHERE last_observed_at < valid_from OR last_observed_at >= valid_to) > 0
    OR count(*) FILTER (WHERE version > 1 AND NOT EXISTS (
           SELECT FROM document_versions AS before
            WHERE (before.kind, before.entity_id, before.version, before.valid_to)
                = (version.kind, version.entity_id, version.version - 1, version.valid_from))) > 0
"""
THEN = """
SELECT instant, shown.*
  FROM unnest(%s::timestamptz[]) AS instant
 CROSS JOIN LATERAL anam_reporting.personas_as_of(instant) AS shown
 WHERE persona_id = ANY(%s)
"""

ALL = {"asked": [0, 1, 2], "faults": {}, "concurrency": "1", "allow_mass_removal": False}
# An older copy loses, a newer one wins, and the older one is let go of only then.
STALE = [
    ([], ALL),
    ([("show_another", 1, "avatar", "B", OLD), ("show_another", 1, "tools", "B", OLD)], ALL),
    ([("show_another", 2, "avatar", "C", NEWER)], ALL),
    ([("thaw", 1), ("hold", 1, "avatar", []), ("delete", 0)], ALL),
]
# An undated copy wins. Then a persona brings what it brought last time, now undated: it does not.
REPEATED = [
    ([], ALL),
    ([("show_another", 1, "avatar", "B", None)], ALL),
    ([("show_another", 0, "avatar", None, None)], ALL),
]

# Removed and back as it was, removed and back with an edit; all of three together stay.
BACK = [
    ([], ALL),
    ([("delete", 0)], ALL),
    ([("restore", 0), ("delete", 1)], ALL),
    ([("restore", 1), ("edit", 1, {"name": "B"}, True)], ALL),
    ([("delete", number) for number in (0, 1, 2)], ALL),
]


@pytest.fixture
def empty(copying):
    """A target to which stories bring their own personas."""
    with copying(count=0) as made:
        yield made


# Such stories are made of statements that other tests run on each server.
@pytest.mark.one_server
@settings(
    deadline=None,
    max_examples=30,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(told=stories)
@example(told=STALE)
@example(told=REPEATED)
@example(told=BACK)
def test_a_story_comes_to_the_history_that_the_oracle_tells(empty, told):
    story = Story(empty)
    for changes, run in told:
        for name, *about in changes:
            getattr(story, name)(*about)
        story.run(**run)
    story.run(range(len(story.personas)), {}, "16", allow_mass_removal=True)
    oracle = story.tell()
    ids = [UUID(id_) for _, id_ in oracle.histories]
    assert_the_same_versions(empty, oracle, ids)
    assert_first_and_last_were_observed(empty, oracle, ids)
    assert empty.query(BROKEN) == []
    assert_the_tables_show_what_is_in_force(empty, oracle, story)
    assert_the_same_at_any_instant(empty, oracle, ids)


def assert_the_same_versions(target: Target, oracle: Oracle, ids: list[UUID]) -> None:
    found: dict[Entity, list[Row]] = defaultdict(list)
    for row in target.query(VERSIONS, [ids]):
        found[row["kind"], str(row["entity_id"])].append(row)
    assert found.keys() == oracle.histories.keys()
    observed = observations(target, ids)
    for entity, versions in oracle.histories.items():
        assert [as_told(row) for row in found[entity]] == [as_expected(v) for v in versions]
        for row, version in zip(found[entity], versions, strict=True):
            within = [
                o
                for o in observed[entity].values()
                if o["content_hash"] == row["content_hash"] and version.holds_at(o["observed_at"])
            ]
            assert row["last_observed_at"] == max(o["observed_at"] for o in within)
            dates = [o["source_updated_at"] for o in within if o["source_updated_at"]]
            assert row["source_updated_at"] == min(dates, default=None)
            # A 404 of one already removed is no observation; a closed version of a shared document
            # keeps first and last of each persona's stretch, which may end after it.
            assert row["last_observed_at"] <= version.last_observed_at
            if entity[0] == "persona" and version.document is not None:
                confirmed = target.state(entity[1])["last_success_at"]
                last = confirmed if version.valid_to is None else row["last_observed_at"]
                assert last == version.last_observed_at


def as_told(row: Row) -> dict[str, Any]:
    paths = row["changed_paths"]
    assert len(paths) == len(set(paths))
    return {
        "valid_from": row["valid_from"],
        "valid_to": row["valid_to"],
        "content": None if row["content_hash"] is None else canonical(row["document"]),
        "change": row["change"],
        "changed_paths": set(paths),
        "run_id": row["run_id"],
    }


def as_expected(version: Version) -> dict[str, Any]:
    return {
        "valid_from": version.valid_from,
        "valid_to": version.valid_to,
        "content": version.content,
        "change": version.change,
        "changed_paths": version.changed_paths,
        "run_id": version.run,
    }


def assert_first_and_last_were_observed(target: Target, oracle: Oracle, ids: list[UUID]) -> None:
    """Each observation was an answer; what brought something new, or ended a stretch, is one."""
    observed = observations(target, ids)
    for entity, rows in observed.items():
        seen = {(s.observed_at, s.bringer): s for s in oracle.sightings[entity]}
        for at, row in rows.items():
            content = None if row["content_hash"] is None else canonical(row["document"])
            assert content == seen[at].content, (entity, at)
            # Of a persona's confirmation only the time is known.
            if entity[0] != "persona":
                assert row["source_updated_at"] == seen[at].updated_at
    brought: dict[tuple[Entity, str], tuple[str | None, datetime | None]] = {}
    shown: dict[str, dict[Entity, Sighting]] = defaultdict(dict)
    for answer in oracle.answers:
        now, before = seen_in(answer), shown[answer.persona_id]
        for entity, sighting in now.items():
            at = sighting.observed_at, sighting.bringer
            news = sighting.content, None if entity[0] == "persona" else sighting.updated_at
            if news != brought.get((entity, sighting.bringer), (None, None)):
                assert at in observed[entity], (entity, at)
                dated = observed[entity][at]["source_updated_at"]
                assert dated == sighting.updated_at
            brought[entity, sighting.bringer] = news
        for entity, sighting in before.items():
            is_over = entity not in now or now[entity].content != sighting.content
            if is_over and sighting.content is not None:
                at = sighting.observed_at, sighting.bringer
                assert at in observed[entity], (entity, at)
        shown[answer.persona_id] = now


def observations(target: Target, ids: list[UUID]) -> dict[Entity, dict[tuple[datetime, str], Row]]:
    """By entity, time and the persona that brought it."""
    found: dict[Entity, dict[tuple[datetime, str], Row]] = defaultdict(dict)
    for row in target.query(OBSERVATIONS, [ids]):
        at = row["observed_at"], str(row["persona_id"])
        found[row["kind"], str(row["entity_id"])][at] = row
    return found


def assert_the_tables_show_what_is_in_force(target: Target, oracle: Oracle, story: Story) -> None:
    for id_, versions in oracle.of_kind("persona").items():
        assert_the_persona_is_as_shown(target, id_, versions)
        payloads = [a.payload for a in oracle.answers if a.persona_id == id_ and a.payload]
        assert stamp(target.persona(id_)["updated_at"]) == payloads[-1]["updatedAt"]
    for kind, (table, columns) in SHARED_COLUMNS.items():
        for id_, versions in oracle.of_kind(kind).items():
            document = last_document(versions)
            expected = {column: document[member] for column, member in columns.items()}
            expected |= moments(versions) | unmapped(document)
            assert of(target.row(table, **{f"{kind}_id": UUID(id_)}), expected) == expected
            if kind in SHARED_LISTS:
                values, column, member = SHARED_LISTS[kind]
                found = {row[column] for row in target.rows(values, **{f"{kind}_id": UUID(id_)})}
                assert found == set(document[member])
    for link_id in story.links:
        assert_the_link_belongs_to_the_youngest(target, oracle, link_id)


def assert_the_persona_is_as_shown(target: Target, id_: str, versions: list[Version]) -> None:
    document, key = last_document(versions), UUID(id_)
    is_removed = versions[-1].document is None
    expected = {
        "name": document["name"],
        "description": document["description"],
        "avatar_id": reference(document["avatar"]),
        "voice_id": reference(document["voice"]),
        "widget_config": document["widgetConfig"],
        "removed_at": versions[-1].valid_from if is_removed else None,
        **moments(versions),
        **unmapped(document),
    }
    assert of(target.persona(id_), expected) == expected
    brain = document["brain"]
    told = {"personality": brain["personality"], "system_prompt": brain["systemPrompt"]}
    told |= unmapped(brain)
    assert of(target.row("brains", persona_id=key), told) == told
    for table, (column, member) in HELD.items():
        held = {str(row[column]) for row in target.rows(table, persona_id=key)}
        assert held == {thing["id"] for thing in document[member]}
    for table, (member, columns) in OPTIONS.items():
        options = document[member]
        shown = [] if options is None else [{c: options.get(m) for c, m in columns.items()}]
        assert [of(row, columns) for row in target.rows(table, persona_id=key)] == shown


def assert_the_link_belongs_to_the_youngest(target: Target, oracle: Oracle, link_id: str) -> None:
    rows = target.rows("share_links", share_link_id=UUID(link_id))
    claims = [
        (versions[-1].document is not None, versions[-1].valid_from, id_, link)
        for id_, versions in oracle.of_kind("persona").items()
        for link in last_document(versions)["shareLinks"] or []
        if link["id"] == link_id
    ]
    if not claims:
        assert rows == []
        return
    (row,) = rows
    # What a removed persona showed stays, until a live one shows it.
    *_, owner, link = max(claims, key=lambda claim: claim[:3])
    assert (str(row["persona_id"]), row["type"]) == (owner, link["type"])
    assert row["extra"] == unmapped(link)["extra"]
    origins = target.rows("share_link_allowed_origins", share_link_id=UUID(link_id))
    assert {found["origin"] for found in origins} == set(link["allowedOrigins"])


def assert_the_same_at_any_instant(
    target: Target, oracle: Oracle, ids: list[UUID], *, since: datetime | None = None
) -> None:
    edges = {version.valid_from for versions in oracle.histories.values() for version in versions}
    every = {edge + step for edge in edges for step in (-TICK, 0 * TICK, TICK)}
    instants = sorted(instant for instant in every if since is None or instant >= since)
    found: dict[datetime, dict[str, Row]] = {instant: {} for instant in instants}
    for row in target.query(THEN, [instants, ids]):
        found[row.pop("instant")][str(row["persona_id"])] = row
    for instant, rows in found.items():
        told = as_of(oracle, instant)
        assert rows.keys() == told.keys()
        for id_, row in rows.items():
            until = told[id_].pop("observed_until")
            own = oracle.in_force("persona", id_, instant)
            assert own is not None
            assert comparable(row, told[id_]) == told[id_], instant
            # Of what is shared only the first and the last of a stretch are kept.
            assert row["observed_until"] <= own.last_observed_at
            if row["avatar_id"] is None and row["voice_id"] is None:
                assert row["observed_until"] == until


def comparable(row: Row, told: dict[str, Any]) -> Row:
    """What the oracle tells of a row, with ids as it writes them."""
    return {n: str(row[n]) if isinstance(row[n], UUID) else row[n] for n in told}


def last_document(versions: list[Version]) -> dict[str, Any]:
    """What the tables keep: of a removed persona its last document."""
    return next(v.document for v in reversed(versions) if v.document is not None)


def moments(versions: list[Version]) -> dict[str, object]:
    return {"first_seen_at": versions[0].valid_from, "last_changed_at": versions[-1].valid_from}


def unmapped(value: dict[str, Any]) -> dict[str, object]:
    """The stories have one member that the map does not know."""
    return {"extra": {"mood": value["mood"]} if "mood" in value else None}


def of(row: Row, columns: Iterable[str]) -> Row:
    return {column: row[column] for column in columns}


def reference(value: dict[str, str] | None) -> UUID | None:
    return UUID(value["id"]) if value else None


def stamp(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ── Where the code and the oracle differ ─────────────────────────────────────────────────────────


def test_a_last_confirmation_keeps_the_updated_at_that_came_with_it(empty):
    persona_id = str(uuid4())
    empty.world.add({"id": persona_id, "updatedAt": OLD})
    empty.sync([persona_id])
    empty.world.edit(persona_id, {"updatedAt": NEW}, touch=False)
    assert empty.sync([persona_id]).counts["unchanged"] == 1
    empty.world.edit(persona_id, {"name": "Edited", "updatedAt": NEWER}, touch=False)
    empty.sync([persona_id])
    rows = empty.rows("observations", entity_id=UUID(persona_id))
    assert [stamp(row["source_updated_at"]) for row in rows] == [OLD, NEW, NEWER]
