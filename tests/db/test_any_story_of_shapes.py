"""Whatever befalls the API's shape, and whatever people do about it, nothing is lost.

Random stories of edits, shapes that come and go, runs, decisions, proposals, migrations there and
back, and replays. What is held after each step is in design sections 6, 8 and 10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import example, given

from etl.sandbox import World
from tests.db.shape_story import (
    MOVES,
    NEW,
    Place,
    ShapeStory,
    as_column,
    documents_of,
    place,
    stories,
    values_at,
)
from tests.oracle import canonical
from tests.unit.strategies import properties

if TYPE_CHECKING:
    from etl.jobs.summary import Summary
    from tests.db.conftest import Row
    from tests.oracle import Oracle

ALL = ("sync", None, False, True)
FOLLOWED = [("propose", None), ("migrate", None), ("replay",)]

TABLES = {
    "persona": ("personas", "persona_id"),
    "avatar": ("avatars", "avatar_id"),
    "voice": ("voices", "voice_id"),
    "tool": ("tools", "tool_id"),
    "knowledge_group": ("knowledge_groups", "knowledge_group_id"),
}
HISTORIES = {"persona": "persona_history", "avatar": "avatar_history", "voice": "voice_history"}
PLACES = [place(field) for field in NEW]
RENAMED = [Place("persona", "greetingSkipped"), Place("voice", "countryCode")]
GOING = {
    Place("persona", "skipGreeting"),
    Place("persona", "personaPreset"),
    Place("persona", "brain.personality"),
    Place("persona", "shareLinks[].usageLimit"),
    Place("voice", "country"),
    Place("avatar", "variantName"),
}
VERSIONS = """
SELECT versions.*, documents.document
  FROM document_versions AS versions LEFT JOIN documents USING (kind, content_hash)
 ORDER BY kind, entity_id, version
"""


@properties(6)
@given(told=stories)
def test_whatever_is_told_of_shapes_nothing_is_lost(copying, new_database, template, told):
    with new_database(template) as url, copying(World(), url=url) as target:
        story = ShapeStory(target)
        steps: list[Any] = [("sync", None, False, False), *told, *FOLLOWED, ALL, ("replay",)]
        for name, *about in steps:
            before, requests = story.statuses(), story.requests()
            lines = story.lines()
            done = getattr(story, name)(*about)
            if name == "sync":
                assert_it_ran_well(story, done, strict=about[1])
                assert_it_told_what_is_new(story, done)
            else:
                assert story.requests() == requests
                if name == "migrate":
                    assert_settled(story, before)
                else:
                    assert_decided(before, story.statuses(), name)
            if name != "migrate":
                assert story.lines() == lines
            if not story.needs_replay:
                target.check_replay()
                assert_all_columns_are_filled(story)
        assert_all_versions_are_stored(story)
        story.engine.dispose()


def assert_it_ran_well(story: ShapeStory, summary: Summary, *, strict: bool) -> None:
    """No run fails for a shape, and a rehearsal foretells it, but for what is missed at the end."""
    is_stopped = strict and summary.new_drift_paths > 0
    assert summary.exit_code == (7 if is_stopped else 0), summary
    assert summary.counts["failed"] + summary.counts["rejected"] == 0
    now = story.statuses()
    opened = {
        key
        for key, (status, members) in now.items()
        if status == "open"
        and key[2] != "missing"
        and story.before.get(key, ("mapped", ()))[0] == "mapped"
    }
    if story.foretold is not None:
        missed = {
            key
            for key, (status, _) in now.items()
            if key[2] == "missing"
            and status == "open"
            and story.before.get(key, ("mapped", ()))[0] == "mapped"
        }
        assert story.foretold.counts == summary.counts
        assert story.foretold.value_issues == summary.value_issues
        assert story.foretold.new_drift_paths == summary.new_drift_paths - len(missed), opened


def assert_it_told_what_is_new(story: ShapeStory, summary: Summary) -> None:
    """Each difference is told once, when it comes; what people decided stands."""
    now, news = story.statuses(), 0
    for key, (status, members) in now.items():
        was, had = story.before.get(key, (None, ()))
        if status == "open" and (was in (None, "mapped") or members != had):
            news += 1
        elif status != was:
            returned = key[2] == "missing" and status == "mapped"
            assert returned, (key, was, status)
    assert story.before.keys() <= now.keys()
    assert summary.new_drift_paths == news
    oracle = story.tell()
    assert_unknown(story, oracle, summary)
    assert_missing(story, oracle)


def assert_unknown(story: ShapeStory, oracle: Oracle, summary: Summary) -> None:
    """Unknown is what is in some document, and not in the map."""
    now = story.statuses()
    mapped = {(line["kind"], plain(line["path"])) for line in story.lines()}
    ever: set[Place] = set()
    for spot in [*PLACES, *RENAMED]:
        for _, version in documents_of(oracle, spot.kind):
            if not values_at(version.document, spot.path):
                continue
            ever.add(spot)
            if version.run == summary.run_id and (spot.kind, spot.path) not in mapped:
                assert now[spot.kind, spot.path, "unknown"][0] != "mapped"
    unknown = {key[:2]: status for key, (status, _) in now.items() if key[2] == "unknown"}
    assert unknown.keys() <= {(spot.kind, spot.path) for spot in ever}
    for key, status in unknown.items():
        assert (status == "mapped") == (key in mapped), key


def assert_missing(story: ShapeStory, oracle: Oracle) -> None:
    """Missing is what no open version has, though one had it once."""
    now = story.statuses()
    local = {Place(line["kind"], plain(line["path"])) for line in story.lines()}
    for spot in GOING | local:
        status = now.get((spot.kind, spot.path, "missing"), ("mapped",))[0]
        open_ = [
            version.document
            for _, version in documents_of(oracle, spot.kind)
            if version.valid_to is None
        ]
        if status != "mapped":
            assert not any(values_at(document, spot.path) for document in open_), spot


def assert_decided(before: Any, now: Any, name: str) -> None:
    """Nothing but a person's decision moves a status, and proposing is one."""
    for key in now:
        if now[key] != before[key]:
            assert name in {"decide", "propose"}
            assert now[key][0] in {"accepted", "ignored"}
            assert before[key][0] != "mapped"
    assert now.keys() == before.keys()


def assert_settled(story: ShapeStory, before: Any) -> None:
    """A migration puts away what has a column now, and opens again what has none any more."""
    mapped = {(line["kind"], plain(line["path"])) for line in story.lines()}
    now = story.statuses()
    for key, (status, _) in now.items():
        if key[2] == "unknown":
            assert (status == "mapped") == (key[:2] in mapped), key
        if key not in before:
            assert key[2] == "type_changed"
        elif status != before[key][0]:
            assert status in {"mapped", "open"}
            assert status != "open" or before[key][0] == "mapped"


def assert_all_versions_are_stored(story: ShapeStory) -> None:
    """The documents are the payloads, taken apart: none is lost, nor called what it is not."""
    oracle = story.tell()
    found: dict[tuple[str, str], list[Row]] = {}
    for row in story.target.query(VERSIONS):
        found.setdefault((row["kind"], str(row["entity_id"])), []).append(row)
    assert found.keys() == oracle.histories.keys()
    for entity, versions in oracle.histories.items():
        assert [
            (row["change"], frozenset(row["changed_paths"]), row["valid_from"])
            for row in found[entity]
        ] == [(v.change, v.changed_paths, v.valid_from) for v in versions], entity
        for row, version in zip(found[entity], versions, strict=True):
            assert (row["document"] is None) == (version.document is None)
            if version.document is not None:
                assert canonical(row["document"]) == canonical(version.document)


def assert_all_columns_are_filled(story: ShapeStory) -> None:
    """Each local column and list has its payload's values, now and in the past; extra the rest."""
    oracle = story.tell()
    for line in story.lines():
        told = Place(line["kind"], line["path"])
        if line["column_name"] == "value":
            assert_list_is_filled(story, oracle, line, told)
        else:
            assert_column_is_filled(story, oracle, line, told)
    assert_extra(story, oracle)


def last_of(oracle: Oracle, kind: str) -> dict[str, Any]:
    """The last document of each entity, removed or not."""
    return {id_: version.document for id_, version in documents_of(oracle, kind)}


def assert_column_is_filled(story: ShapeStory, oracle: Oracle, line: Row, told: Place) -> None:
    table, column, query = line["table_name"], line["column_name"], story.target.query
    (key,) = (
        row["column_name"]
        for row in query(
            "SELECT kcu.column_name FROM information_schema.key_column_usage AS kcu"
            " JOIN information_schema.table_constraints AS tc USING (constraint_name, table_name)"
            " WHERE tc.constraint_type = 'PRIMARY KEY' AND table_name = %s",
            [table],
        )
    )
    shown = {
        str(row["id"]): row["value"]
        for row in query(f"SELECT {key} AS id, {column} AS value FROM {table}")
    }
    expected = {}
    for id_, document in last_of(oracle, told.kind).items():
        for inner, value in values_at(document, told.path):
            expected[inner or id_] = as_column(line["type"], value)
    assert {k: v for k, v in shown.items() if v is not None} == {
        k: v for k, v in expected.items() if v is not None
    }, told
    if told.kind in HISTORIES and table != "share_links":
        name = f"voice_detection_{column}" if table == "voice_detection_options" else column
        assert_history(story, oracle, told, name, lambda value: as_column(line["type"], value))


def assert_list_is_filled(story: ShapeStory, oracle: Oracle, line: Row, told: Place) -> None:
    def elements(value: Any) -> list[Any]:
        found = value if isinstance(value, list) else []
        return [as_column(line["type"], element) for element in found]

    rows = story.target.query(f"SELECT * FROM {line['table_name']} ORDER BY position")
    shown: dict[str, list[Any]] = {}
    for row in rows:
        (id_,) = (str(row[name]) for name in row if name not in {"position", "value"})
        shown.setdefault(id_, []).append(row["value"])
    expected = {}
    for id_, document in last_of(oracle, told.kind).items():
        for inner, value in values_at(document, told.path):
            expected[inner or id_] = elements(value)
    assert shown == {id_: value for id_, value in expected.items() if value}, told
    if told.kind in HISTORIES and "shareLinks" not in told.path:
        name = line["table_name"].removeprefix(f"{told.kind}_")
        assert_history(story, oracle, told, name, lambda v: elements(v) or None)


def assert_history(
    story: ShapeStory, oracle: Oracle, told: Place, name: str, as_shown: Any
) -> None:
    """The view has it for each version."""
    key = TABLES[told.kind][1]
    rows = story.target.query(
        f"SELECT {key}::text AS id, valid_from, {name} AS value"
        f"  FROM anam_reporting.{HISTORIES[told.kind]}"
    )
    shown = {
        (row["id"], row["valid_from"]): row["value"] or None
        if isinstance(row["value"], list)
        else row["value"]
        for row in rows
    }
    for id_, version in documents_of(oracle, told.kind):
        values = [as_shown(value) for _, value in values_at(version.document, told.path)]
        assert shown[id_, version.valid_from] == next(iter(values), None), (told, version)
    if told.kind == "persona":
        own = {
            row["persona_id"]: row
            for row in story.target.query(
                f"SELECT persona_id::text, {name} AS value FROM anam_reporting.personas"
                "  WHERE removed_at IS NULL"
            )
        }
        for id_, versions in oracle.of_kind("persona").items():
            if versions[-1].document is not None:
                values = [as_shown(v) for _, v in values_at(versions[-1].document, told.path)]
                value = own[id_]["value"]
                assert (value or None if isinstance(value, list) else value) == next(
                    iter(values), None
                )


def assert_extra(story: ShapeStory, oracle: Oracle) -> None:
    """What the map does not know is in `extra`, and nothing else is."""
    mapped = {(line["kind"], plain(line["path"])) for line in story.lines()}
    for kind, (table, key) in TABLES.items():
        rows = {
            str(row["id"]): row["extra"] or {}
            for row in story.target.query(f"SELECT {key} AS id, extra FROM {table}")
        }
        for id_, document in last_of(oracle, kind).items():
            expected = {}
            for spot in [*PLACES, *RENAMED]:
                if (
                    spot.kind == kind
                    and (kind, spot.path) not in mapped
                    and not (
                        spot.path.startswith(("brain.", "shareLinks[].", "voiceDetectionOptions."))
                    )
                ):
                    for _, value in values_at(document, spot.path):
                        name = 'mood"; DROP TABLE personas; --' if ";" in spot.path else spot.path
                        expected[name] = value
            assert rows[id_] == expected, (kind, id_)


def plain(path: str) -> str:
    return path.removesuffix("[]")
