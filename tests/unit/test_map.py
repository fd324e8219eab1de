"""Paths, and the map with lines of a target's own: where a field's rows are, what fills them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.flatten import flatten
from etl.map import SHIPPED, Line, extended, home, names, steps, ways
from etl.payload.paths import member
from etl.tables import projections, source
from tests.unit.strategies import properties

AN_ID = UUID("c0000000-0000-4000-8000-000000000001")
LINK = "c0000000-0000-4000-8000-000000000002"


def line(path: str, table: str, column: str = "value", type_: str = "text", kind: Any = "persona"):
    return Line(kind, path, table, column, type_, (), "A comment.")


@properties(200)
@given(st.lists(st.text(max_size=5) | st.sampled_from(["a", "b_c", "[]", ".", '"', "\\"])))
def test_a_path_leads_through_the_names_that_it_was_made_of(keys):
    path = ""
    for key in keys:
        path = member(path, key)
    assert steps(path) == tuple(keys)
    assert [*steps(f"{path}[]")] == [*keys, None]
    assert len(ways(path)) == len(keys)
    assert all(path.startswith(way) for way in ways(path))


@pytest.mark.parametrize("path", ["a.*", ".a", "a..b", "a b", "a.", '["a', 'a["b]', "a[0]", "[]a"])
def test_what_is_no_path_of_a_member_is_refused(path):
    with pytest.raises(ValueError, match="is no path"):
        steps(path)


def test_the_ways_to_a_path_are_those_of_all_around_it():
    assert ways('shareLinks[].x["y.z"]') == (
        'shareLinks[].x["y.z"]',
        "shareLinks[].x",
        "shareLinks[]",
        "shareLinks",
    )


@pytest.mark.parametrize(
    ("path", "table"),
    [
        ("mood", "personas"),
        ("brainWaves[]", "personas"),
        ("brain.mood", "brains"),
        ('brain["odd name"]', "brains"),
        ("brain.keywords[]", "brains"),
        ("primaryShareLink.tags[]", "personas"),
        ("shareLinks[].label", "share_links"),
        ('shareLinks[]["odd name"][]', "share_links"),
        ("shareLinksToo[]", "personas"),
        ("voiceDetectionOptions.a.b", "voice_detection_options"),
    ],
)
def test_a_field_is_in_the_rows_of_the_innermost_object_around_it(path, table):
    assert home("persona", path) == table


def test_a_path_is_told_as_the_document_has_it():
    told = {
        f"{table.name}.{column.name}": SHIPPED.path(column)
        for table in projections("persona")
        for column in table.columns
    }
    assert told["personas.name"] == "name"
    assert told["personas.avatar_id"] == "avatar.id"
    assert told["brains.system_prompt"] == "brain.systemPrompt"
    assert told["share_links.usage_count"] == "shareLinks[].usageCount"
    assert told["share_link_allowed_origins.origin"] == "shareLinks[].allowedOrigins[]"
    assert told["personas.persona_id"] is told["personas.extra"] is told["personas.removed_at"]
    assert told["personas.persona_id"] is None
    mapped = extended((line('brain["odd name"]', "brains", "odd"),))
    assert mapped.path(mapped.tables["brains"].c.odd) == 'brain["odd name"]'


@pytest.mark.parametrize(
    "wrong",
    [
        line("mood", "brains", "mood"),
        line("brain.mood", "personas", "mood"),
        line("mood", "nowhere", "mood"),
        line("tools[].mood", "personas", "mood"),
        line("matrix[][]", "persona_matrix"),
        line("*.mood", "personas", "mood"),
        line("", "personas", "mood"),
        line("x", "personas", "mood", "money"),
        replace(line("x", "personas", "mood"), kind="people"),
        replace(line("x", "personas", "mood"), json_types=("integer",)),
    ],
    ids=lambda wrong: wrong.path,
)
def test_a_line_that_no_row_can_have_is_refused(wrong):
    with pytest.raises(ValueError, match=r"mood|matrix"):
        extended((wrong,))


def test_a_line_fills_its_column_wherever_its_object_stands():
    the_map = extended(
        (
            line("mood", "personas", "mood"),
            line("brain.mood", "brains", "mood"),
            line("a.b.c", "personas", "deep"),
            line("shareLinks[].mood", "share_links", "mood"),
            line("voiceGenerationOptions.mood", "voice_generation_options", "mood", "bigint"),
        )
    )
    document: Any = {
        "mood": "own",
        "brain": {"mood": "brain's", "rest": 1},
        "a": {"b": {"c": "deep", "d": 1}},
        "shareLinks": [{"id": LINK, "mood": "link's"}],
        "voiceGenerationOptions": {"mood": "7"},
    }
    flat = flatten("persona", AN_ID, document, the_map=the_map)
    (persona,), (brain,), (link,) = (
        flat.rows[table] for table in ("personas", "brains", "share_links")
    )
    assert (persona["mood"], persona["deep"]) == ("own", "deep")
    assert persona["extra"] == {"a": {"b": {"d": 1}}}
    assert (brain["mood"], brain["extra"]) == ("brain's", {"rest": 1})
    assert (link["mood"], link["extra"]) == ("link's", None)
    assert flat.rows["voice_generation_options"][0]["mood"] == 7
    assert {finding[:3] for finding in flat.findings} == {
        ("unknown", "brain.rest", "number"),
        ("unknown", "a.b.d", "number"),
    }
    assert flat.issues == []


LISTS = (
    line("languages[]", "persona_languages"),
    line("brain.keywords[]", "persona_brain_keywords"),
    line("brainWaves[]", "persona_brain_waves", type_="bigint"),
    line("primaryShareLink.tags[]", "persona_primary_share_link_tags"),
    line("shareLinks[].labels[]", "share_link_labels"),
    line('["a.b"]["c[].d"][]', "persona_odd"),
)


def test_a_list_has_a_row_a_place_wherever_it_stands():
    the_map = extended(LISTS)
    document: Any = {
        "languages": ["de", None, "de", [1], True],
        "brain": {"keywords": ["a"], "Waves": 1, "tags": 2},
        "brainWaves": [2, "x"],
        "primaryShareLink": {"tags": ["b"], "new": 1},
        "shareLinks": [{"id": LINK, "labels": ["c", "c"]}, {"id": "none", "labels": ["d"]}],
        "a.b": {"c[].d": ["e"]},
    }
    flat = flatten("persona", AN_ID, document, the_map=the_map)
    values = {
        added.table: [(row["position"], row["value"]) for row in flat.rows[added.table]]
        for added in LISTS
    }
    assert values == {
        "persona_languages": [(0, "de"), (1, None), (2, "de"), (3, None), (4, "true")],
        "persona_brain_keywords": [(0, "a")],
        "persona_brain_waves": [(0, 2), (1, None)],
        "persona_primary_share_link_tags": [(0, "b")],
        "share_link_labels": [(0, "c"), (1, "c")],
        "persona_odd": [(0, "e")],
    }
    issues = {issue.path for issue in flat.issues}
    assert issues == {"languages[3]", "brainWaves[1]", "shareLinks[1].id"}
    # What the map has elsewhere is none of the brain's members.
    assert flat.rows["brains"][0]["extra"] == {"Waves": 1, "tags": 2}
    assert flat.rows["personas"][0]["extra"] == {"primaryShareLink": {"new": 1}}


@pytest.mark.parametrize(
    ("document", "issue"),
    [
        ({"languages": "de"}, "languages"),
        ({"languages": {}}, "languages"),
        ({"brain": [], "primaryShareLink": None}, "brain"),
        ({"primaryShareLink": "x"}, "primaryShareLink"),
        ({"a.b": 1}, '["a.b"]'),
        ({"shareLinks": [{"id": LINK, "labels": 1}]}, f"shareLinks[{LINK}].labels"),
    ],
)
def test_what_is_no_list_is_an_issue_and_not_lost_silently(document, issue):
    flat = flatten("persona", AN_ID, document, the_map=extended(LISTS))
    assert all(flat.rows[added.table] == [] for added in LISTS)
    assert [found.path for found in flat.issues] == [issue]


def test_a_list_inside_of_what_a_column_takes_whole_leaves_the_rest_there():
    the_map = extended((line("widgetConfig.colors[]", "persona_widget_config_colors"),))
    document: Any = {"widgetConfig": {"colors": ["red"], "new": 1}}
    flat = flatten("persona", AN_ID, document, the_map=the_map)
    assert flat.rows["personas"][0]["widget_config"] == document["widgetConfig"]
    assert flat.rows["personas"][0]["extra"] is None
    assert flat.rows["persona_widget_config_colors"][0]["value"] == "red"


def test_an_extended_map_leaves_the_release_s_alone():
    before = {t.name: [c.name for c in t.columns] for t in projections()}
    the_map = extended((line("mood", "personas", "mood"), *LISTS))
    assert {t.name: [c.name for c in t.columns] for t in projections()} == before
    assert "mood" in the_map.tables["personas"].columns
    assert all(source(c) is not None for c in the_map.tables["share_link_labels"].columns)
    assert names('["a.b"].c') == ("a.b", "c")
