"""Whatever befalls the API's shape, and whatever people do about it, nothing is lost.

Random stories of edits, shapes that come and go, runs, decisions, proposals, migrations there and
back, and replays. What is held after each step is in sections 6, 8 and 10 of the design.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given

from etl.sandbox import World
from tests.db.shape_story import (
    HOSTILE,
    NEW,
    PERSONAS,
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
    from collections.abc import Callable, Iterable

    from etl.jobs.summary import Summary
    from tests.db.conftest import Row
    from tests.db.shape_story import Status
    from tests.oracle import Oracle

# Random stories are made of statements that other tests run on each server.
pytestmark = pytest.mark.one_server

Statuses = dict[tuple[str, str, str], "Status"]

ENTITIES = {
    "persona": ("personas", "persona_id"),
    "avatar": ("avatars", "avatar_id"),
    "voice": ("voices", "voice_id"),
    "tool": ("tools", "tool_id"),
    "knowledge_group": ("knowledge_groups", "knowledge_group_id"),
}
HISTORIES = {"persona": "persona_history", "avatar": "avatar_history", "voice": "voice_history"}
CLOCK = {"created_at", "updated_at", "first_seen_at", "last_changed_at"}
PARTS = ("brain.", "shareLinks[].", "voiceDetectionOptions.")
COMING = [
    *map(place, NEW),
    Place("persona", "greetingSkippedYy"),
    Place("voice", "countryCodeYy"),
]
GOING = {
    Place("persona", "skipGreeting"),
    Place("persona", "personaPreset"),
    Place("persona", "brain.personality"),
    Place("persona", "shareLinks[].usageLimit"),
    Place("voice", "country"),
    Place("avatar", "variantName"),
}
SPEED = {"path": "voiceSpeed", "type": "double precision", "json_types": ["number"]}
TYPES = {bool: "boolean", str: "string", int: "number", float: "number", list: "array"}
VERSIONS = """
SELECT versions.*, documents.document
  FROM document_versions AS versions LEFT JOIN documents USING (kind, content_hash)
 ORDER BY kind, entity_id, version
"""

SYNC, ALL = ("sync", None, True, False), [("propose", None), ("migrate", None), ("replay",)]
# Each field outgrows its column; then all is widened, put back, and done again.
OUTGROWN = [
    *(("show", field, 0) for field in NEW),
    *(SYNC, *ALL),
    *(("show", field, 1) for field in NEW),
    *(("sync", None, False, True), *ALL, ("migrate", 0), SYNC, ("migrate", 1), ("replay",)),
]
# A voice that has what the others lost is let go of, and taken up again.
ORPHAN = [
    *(("speak_with", 0, 2), ("move", "country", 0), ("sync", [1, 2, 3], False, False)),
    *(("speak_with", 0, 1), SYNC, ("delete", 3), ("move", "country", None), SYNC),
]


@properties(1)
@given(told=stories)
@example(told=OUTGROWN)
@example(told=ORPHAN)
def test_whatever_is_told_of_shapes_nothing_is_lost(copying, new_database, template, told):
    with new_database(template) as url, copying(World(), url=url) as target:
        story = ShapeStory(target)
        for name, *about in [("sync", None, False, False), *told, *ALL, SYNC, ("replay",)]:
            before, lines, requests = story.statuses(), story.lines(), story.requests()
            done = getattr(story, name)(*about)
            if name == "sync":
                assert_it_ran_well(story, done, before, is_strict=about[1])
                assert_it_told_what_is_new(story, done, before)
            else:
                assert story.requests() == requests
            if name == "migrate":
                assert_settled(story, before)
            else:
                assert story.lines() == lines
            if name in {"decide", "propose"}:
                assert_decided(before, story.statuses())
            if name in {"sync", "replay"} and not story.needs_replay:
                target.check_replay()
        assert_all_columns_are_filled(story)
        assert_all_versions_are_stored(story)
        story.engine.dispose()


def test_it_does_not_matter_when_the_columns_came(copying, new_database, template):
    fields = [("show", field, 0) for field in NEW]
    half: list[Any] = [
        *fields,
        ("sync", [0, 1], False, False),
        *ALL,
        ("sync", [2, 3], False, False),
    ]
    whole: list[Any] = [*fields, ("sync", None, False, False), ("migrate", None), ("replay",)]
    dumps, local_dir = [], None
    for steps in (half, whole):
        with new_database(template) as url, copying(World(), url=url) as target:
            story = ShapeStory(target)
            story.local_dir = local_dir or story.local_dir
            local_dir = story.local_dir
            for name, *about in steps:
                getattr(story, name)(*about)
            assert len(story.lines()) > len(NEW) / 2
            tables = {line["table_name"] for line in story.lines()}
            dumps.append({name: rows_of(story, name) for name in sorted(tables)})
            story.engine.dispose()
    for name, rows in dumps[0].items():
        assert rows == dumps[1][name]


def rows_of(story: ShapeStory, table: str) -> list[dict[str, str]]:
    """Without the times, which the sandbox's clock gives."""
    rows = story.target.query(f"SELECT * FROM {table} ORDER BY 1, 2")
    return [{name: str(row[name]) for name in row if name not in CLOCK} for row in rows]


def assert_it_ran_well(
    story: ShapeStory, summary: Summary, before: Statuses, *, is_strict: bool
) -> None:
    """No run fails for a shape. A rehearsal foretells it, but for what is missed at the end."""
    is_stopped = is_strict and summary.new_drift_paths > 0
    assert summary.exit_code == (7 if is_stopped else 0), summary
    assert summary.counts["failed"] + summary.counts["rejected"] == 0
    assert summary.counts["requested"] <= PERSONAS
    if (said := story.foretold) is not None:
        missed = [key for key in opened(before, story.statuses()) if key[2] == "missing"]
        assert (said.counts, said.value_issues) == (summary.counts, summary.value_issues)
        assert said.new_drift_paths == summary.new_drift_paths - len(missed)


def opened(before: Statuses, now: Statuses) -> list[tuple[str, str, str]]:
    return [
        key
        for key, (status, members) in now.items()
        if status == "open"
        and (before.get(key, ("mapped",))[0] == "mapped" or before[key][1] != members)
    ]


def assert_it_told_what_is_new(story: ShapeStory, summary: Summary, before: Statuses) -> None:
    """Each difference is told once, when it comes; what people decided stands."""
    now, oracle = story.statuses(), story.tell()
    told = opened(before, now)
    assert summary.new_drift_paths == len(told)
    for key, (status, _) in now.items():
        if key in before and key not in told and status != before[key][0]:
            assert (key[2], status) == ("missing", "mapped"), "it came back"
    assert before.keys() <= now.keys()
    assert_unknown(story, oracle, summary, now)
    assert_of_another_type(story, oracle, summary, now)
    assert_missing(story, oracle, summary, now)


def assert_unknown(story: ShapeStory, oracle: Oracle, summary: Summary, now: Statuses) -> None:
    """Unknown is what is in some document, and not in the map."""
    mapped = {place_of(line) for line in story.lines()}
    ever = set()
    for spot in COMING:
        for _, version in documents_of(oracle, spot.kind):
            if values_at(version.document, spot.path):
                ever.add(spot)
                if version.run == summary.run_id and spot not in mapped:
                    assert now[spot.kind, spot.path, "unknown"][0] != "mapped"
    unknown = {Place(*key[:2]): told[0] for key, told in now.items() if key[2] == "unknown"}
    assert unknown.keys() <= ever
    for spot, status in unknown.items():
        assert (status == "mapped") == (spot in mapped), spot


def assert_of_another_type(
    story: ShapeStory, oracle: Oracle, summary: Summary, now: Statuses
) -> None:
    """Of another type is what no column of its field is made for, or can hold."""
    ever = set()
    lines: dict[Place, list[Row]] = {Place("persona", "voiceSpeed"): [SPEED]}
    for line in story.lines():
        lines.setdefault(place_of(line), []).append(line)
    for spot, columns in lines.items():
        for _, version in documents_of(oracle, spot.kind):
            for _, value in values_at(version.document, spot.path):
                for path in misfits(spot.path, columns, value):
                    ever.add((spot.kind, path))
                    if version.run == summary.run_id:
                        assert now[spot.kind, path, "type_changed"][0] != "mapped"
    told = {
        key[:2] for key, (status, _) in now.items() if "type_changed" in key and status != "mapped"
    }
    assert told <= ever


def misfits(path: str, lines: Iterable[Row], value: Any) -> set[str]:
    """The path of the field, or of its elements, where nothing holds what is there."""
    lists = [line for line in lines if line["path"].endswith("[]")]
    columns = [line for line in lines if not line["path"].endswith("[]")]
    if isinstance(value, list) and lists:
        # A column of JSON beside the list takes the array as it is.
        is_held = bool(columns) or all(item is None or holds(lists, item) for item in value)
        return set() if is_held else {f"{path}[]"}
    return set() if value is None or holds(columns, value) else {path}


def holds(columns: Iterable[Row], value: Any) -> bool:
    columns = list(columns)
    name = TYPES.get(type(value), "object")
    return any(name in column["json_types"] for column in columns) and any(
        as_column(column["type"], value) is not None for column in columns
    )


def assert_missing(story: ShapeStory, oracle: Oracle, summary: Summary, now: Statuses) -> None:
    """Missing is what nothing that is in use has, and something had that lacks it now."""
    local = {place_of(line) for line in story.lines() if not line["path"].endswith("[]")}
    for spot in GOING | local:
        used = used_ids(oracle, spot.kind)
        lacks = is_there = False
        for id_, versions in oracle.of_kind(spot.kind).items():
            documents = [version.document for version in versions if version.document is not None]
            if versions[-1].document is None:
                continue
            has = [bool(values_at(document, spot.path)) for document in documents]
            is_there |= has[-1] and id_ in used
            lacks |= versions[-1].run == summary.run_id and has[-2:] == [True, False]
        status = now.get((spot.kind, spot.path, "missing"), ("mapped",))[0]
        if is_there:
            assert status == "mapped", spot
        elif lacks and "Options" not in spot.path:
            assert status != "mapped", spot


def used_ids(oracle: Oracle, kind: str) -> set[str]:
    """The entities that a live persona shows, live personas among them."""
    found = set()
    for id_, versions in oracle.of_kind("persona").items():
        if (document := versions[-1].document) is not None:
            found |= {id_}
            for name in ("avatar", "voice", "tools", "knowledge"):
                value = document.get(name) or []
                things = value if isinstance(value, list) else [value]
                found |= {thing["id"] for thing in things}
    return found & oracle.of_kind(kind).keys()


def assert_decided(before: Statuses, now: Statuses) -> None:
    """Nothing but a person's decision moves a status, and proposing is one."""
    assert now.keys() == before.keys()
    for key in now:
        if now[key] != before[key]:
            assert now[key][0] in {"accepted", "ignored"}
            assert before[key][0] != "mapped"


def assert_settled(story: ShapeStory, before: Statuses) -> None:
    """A migration puts away what has a column now, and opens again what has none any more."""
    mapped = {place_of(line) for line in story.lines()}
    for key, (status, _) in story.statuses().items():
        if key[2] == "unknown":
            assert (status == "mapped") == (Place(*key[:2]) in mapped), key
        if key not in before:
            assert (key[2], status) == ("type_changed", "open")
        elif status != before[key][0]:
            assert status == "mapped" or (status, before[key][0]) == ("open", "mapped")


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
        ] == [(v.change, quoted(v.changed_paths), v.valid_from) for v in versions], entity
        for row, version in zip(found[entity], versions, strict=True):
            assert canonical(row["document"]) == canonical(version.document)


def quoted(paths: Iterable[str]) -> frozenset[str]:
    """The oracle writes every key as it is."""
    return frozenset(place(path).path if path == HOSTILE else path for path in paths)


def assert_all_columns_are_filled(story: ShapeStory) -> None:
    """Each local column and list has its payload's values, now and in the past; extra the rest."""
    oracle = story.tell()
    for line in story.lines():
        spot, as_shown = place_of(line), shown_by(line)
        expected = {}
        for id_, document in last_of(oracle, spot.kind).items():
            for inner, value in values_at(document, spot.path):
                if (as_told := as_shown(value)) is not None:
                    expected[inner or id_] = as_told
        assert table_of(story, line) == expected, spot
        if spot.kind in HISTORIES and "shareLinks" not in spot.path:
            assert_views(story, oracle, line, as_shown)
    assert_extra(story, oracle)


def shown_by(line: Row) -> Callable[[Any], Any]:
    """What a column, or the array of a list, shows of a value; None for an empty one too."""
    if not line["path"].endswith("[]"):
        return lambda value: as_column(line["type"], value)

    def elements(value: Any) -> list[Any] | None:
        found = value if isinstance(value, list) else []
        return [as_column(line["type"], element) for element in found] or None

    return elements


def table_of(story: ShapeStory, line: Row) -> dict[str, Any]:
    """What is filled from a line, by the id that a row begins with."""
    table, column = line["table_name"], line["column_name"]
    is_list = line["path"].endswith("[]")
    found: dict[str, Any] = {}
    for row in story.target.query(f"SELECT * FROM {table}{' ORDER BY position' * is_list}"):
        id_ = str(next(iter(row.values())))
        if is_list:
            found.setdefault(id_, []).append(row[column])
        elif row[column] is not None:
            found[id_] = row[column]
    return found


def assert_views(
    story: ShapeStory, oracle: Oracle, line: Row, as_shown: Callable[[Any], Any]
) -> None:
    """The views have it for each version, for each live persona, and as of each moment."""
    spot, query = place_of(line), story.target.query
    name = line["column_name"]
    if line["path"].endswith("[]"):
        name = line["table_name"].removeprefix(f"{spot.kind}_")
    elif line["table_name"] == "voice_detection_options":
        name = f"voice_detection_{name}"
    key = ENTITIES[spot.kind][1]
    past = {
        (str(row["id"]), row["valid_from"]): row["value"]
        for row in query(
            f"SELECT {key} AS id, valid_from, {name} AS value"
            f"  FROM anam_reporting.{HISTORIES[spot.kind]}"
        )
    }
    for id_, version in documents_of(oracle, spot.kind):
        (value,) = [as_shown(v) for _, v in values_at(version.document, spot.path)] or [None]
        assert (past[id_, version.valid_from] or None) == (value or None), spot
        if spot.kind == "persona":
            moment = f"personas_as_of('{version.valid_from}')"
            for relation in [moment] if version.valid_to else [moment, "personas"]:
                (row,) = query(
                    f"SELECT {name} AS value FROM anam_reporting.{relation} WHERE persona_id = %s",
                    [id_],
                )
                assert (row["value"] or None) == (value or None), (spot, relation)


def assert_extra(story: ShapeStory, oracle: Oracle) -> None:
    """What the map does not know is in `extra`, and nothing else is."""
    mapped = {place_of(line) for line in story.lines()}
    for kind, (table, key) in ENTITIES.items():
        rows = story.target.query(f"SELECT {key}::text AS id, extra FROM {table}")
        spots = [
            spot
            for spot in COMING
            if spot.kind == kind and spot not in mapped and not spot.path.startswith(PARTS)
        ]
        documents = last_of(oracle, kind)
        for row in rows:
            expected = {
                HOSTILE if ";" in spot.path else spot.path: value
                for spot in spots
                for _, value in values_at(documents[row["id"]], spot.path)
            }
            assert row["extra"] == (expected or None), (kind, row["id"])


def last_of(oracle: Oracle, kind: str) -> dict[str, Any]:
    """The last document of each entity, removed or not."""
    return {id_: version.document for id_, version in documents_of(oracle, kind)}


def place_of(line: Row) -> Place:
    return Place(line["kind"], line["path"].removesuffix("[]"))
