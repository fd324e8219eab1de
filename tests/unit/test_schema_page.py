"""What the command `schema` tells, whatever the map says: nothing in it breaks its form."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from etl.map import SHIPPED, Line, Map, extended
from etl.report.catalogue import all_functions, all_views
from etl.report.dbt_sources import dbt_sources
from etl.report.erd import diagram
from etl.report.schema_page import HISTORY, schema_page
from etl.report.text import escaped
from etl.report.view_columns import view_key, view_type
from tests.unit.proposals import EVERY_HOME, EVERY_HOSTILE

MARKUP = 'a|b *c* _d_ `e` <i>f</i> [g](h) \\| {{ i }} {% j %} {# k #} "l" \t\N{GRINNING FACE}\x85'
STEERING = "# \x1b[31m\x9b2J\u202eAda\x7f\ufeff\uffff\u2028."
ODD = 'Odd |`name`| "it\'s"'
LINES = (
    Line("persona", "mood", "personas", "mood", "text", ("string",), MARKUP),
    Line("voice", "odd", "voices", ODD, "jsonb", (), "An odd one."),
    Line("avatar", "poses[]", "avatar_poses", "value", "bigint", (), STEERING),
    Line("persona", "shareLinks[].tags[]", "share_link_tags", "value", "text", (), "Its tags."),
)
LOCAL = extended(LINES)
HOSTILE = extended(tuple(each.line for each in [*EVERY_HOME, *EVERY_HOSTILE]))
MAPS = pytest.mark.parametrize(
    "the_map", [SHIPPED, LOCAL, HOSTILE], ids=["ours", "local", "hostile"]
)

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
# Of Mermaid's grammar of these diagrams, what we write.
_COLUMN = rf"        {_NAME}(\[\])? {_NAME}( (PK|FK|PK, FK))?\n"
_TABLE = rf"    {_NAME} \{{\n({_COLUMN})*    \}}\n"
_RELATION = rf'    {_NAME} (\|o|\|\|)--(o\{{|o\||\|\|) {_NAME} : "[^"\n]+"\n'
ERD = re.compile(rf"erDiagram\n    direction LR\n({_TABLE})+({_RELATION})*")


def without_code(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def cells(page: str, heading: str) -> list[list[str]]:
    """The cells of a table on the page, as a reader sees them."""
    below = re.split(r"^#+ ", page.split(f"\n### {heading}\n", 1)[1], flags=re.MULTILINE)[0]
    rows = [line for line in below.splitlines() if line.startswith("| ")][2:]
    return [[read(cell) for cell in re.split(r"(?<!\\) \| ", row[2:-2])] for row in rows]


def read(cell: str) -> str:
    """The text that Markdown makes of a cell."""
    told = re.sub(r"(?<!\\)(`+) ?(.*?) ?(?<!`)\1(?!`)", r"\2", cell)
    return re.sub(r"\\([^A-Za-z0-9\s])", r"\1", told)


@MAPS
def test_every_table_view_and_function_has_its_section(the_map: Map) -> None:
    headings = re.findall(r"^### (.*)", without_code(schema_page(the_map)), flags=re.MULTILINE)
    told = [heading for heading in headings if not heading.startswith("Diagram: ")]
    assert sorted(told) == sorted(
        [f"Table `{name}`" for name in the_map.tables]
        + [f"View `{view.name}`" for view in all_views(the_map)]
        + [f"Function `{function.name}`" for function in all_functions()]
    )


@MAPS
def test_every_link_leads_to_a_heading(the_map: Map) -> None:
    page = schema_page(the_map)
    headings = re.findall(r"^#+ (.*)", without_code(page), flags=re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
    assert len(set(anchors)) == len(anchors)
    assert set(re.findall(r"\]\(#(.*?)\)", page)) <= set(anchors)


@MAPS
def test_every_column_is_a_row_with_its_comment(the_map: Map) -> None:
    page = schema_page(the_map)
    for table in the_map.tables.values():
        rows = cells(page, f"Table `{table.name}`")
        names = [c.name for c in table.columns]
        assert [row[0].split(" °")[0].removesuffix(" **local**") for row in rows] == names
        told = [escaped(" ".join((c.comment or "").split())) for c in table.columns]
        assert [row[-1] for row in rows] == told
        assert {len(row) for row in rows} == {5 if table in the_map.projections() else 4}


def test_what_is_local_is_marked_in_tables_and_views() -> None:
    page = schema_page(LOCAL)
    marked = re.findall(r"^\| (.*) \*\*local\*\* \|", page, flags=re.MULTILINE)
    for name in ("`mood`", '``Odd \\|`name`\\| "it\'s"``', "`position`", "`poses`", "`tags`"):
        assert name in [mark.replace("`` ", "``").replace(" ``", "``") for mark in marked]
    assert "**local**" not in schema_page()


def test_what_is_observed_is_marked() -> None:
    page = schema_page()
    for heading in ("Table `tools`", "View `tools`"):
        told = [name for name, *_ in cells(page, heading) if name.endswith("°")]
        assert told == ["usage_count °", "updated_at °"]


def test_paths_stand_as_the_api_has_them() -> None:
    rows = {name: path for name, _, _, path, _ in cells(schema_page(), "Table `personas`")}
    assert rows["voice_id"] == "voice.id"
    assert rows["persona_id"] == "(the document's id)"
    assert rows["removed_at"] == "(set by history)"
    assert "Made from `shareLinks[]` of a persona." in schema_page()
    assert "Made from `displayTags[]` of a persona's `voice`." in schema_page()


def test_the_schema_may_have_any_name() -> None:
    page = schema_page(SHIPPED, 'Odd "name" it\'s 100%')
    assert '| `Odd "name" it\'s 100%_reporting` |' in page


@MAPS
def test_a_diagram_is_mermaid_s(the_map: Map) -> None:
    assert ERD.fullmatch(diagram(the_map.tables.values()))
    drawn = re.findall(r"^```mermaid\n(.*?)^```$", schema_page(the_map), re.MULTILINE | re.DOTALL)
    assert len(drawn) == 3
    assert all(ERD.fullmatch(drawing) for drawing in drawn)


def test_the_ends_of_a_line_say_how_many() -> None:
    lines = [line.strip() for line in diagram(SHIPPED.tables.values()).splitlines()]
    for line in (
        'voices |o--o{ personas : "voice_id"',
        'personas ||--|| brains : "persona_id"',
        'personas ||--o| voice_detection_options : "persona_id"',
        'tools ||--o{ persona_tools : "tool_id"',
        'document_versions |o--o| document_versions : "kind, entity_id, valid_to"',
    ):
        assert line in lines
    keys = sum(len(table.foreign_key_constraints) for table in SHIPPED.tables.values())
    assert len([line for line in lines if "--" in line]) == keys


def test_a_diagram_shows_only_what_is_asked_for() -> None:
    assert "share_links" not in diagram(HISTORY)
    assert "valid_from" not in diagram(HISTORY, keys_only=True)


@MAPS
def test_dbt_reads_every_view_and_column_with_its_comment(the_map: Map) -> None:
    told = yaml.safe_load(dbt_sources(the_map))
    assert told["version"] == 2
    (source,) = told["sources"]
    found = {table["name"]: table for table in source["tables"]}
    views = {view.name: view for view in all_views(the_map)}
    assert list(found) == list(views)
    for name, view in views.items():
        assert found[name]["description"] == view.comment
        columns = found[name]["columns"]
        described = {c["name"]: rendered(c["description"]) for c in columns}
        assert described == view.columns
        assert [c["data_type"] for c in columns] == [view_type(view, c) for c in view.columns]


def rendered(template: str) -> str:
    """What dbt makes of a description: only what we write of its templates may stand there."""
    told = template.replace("{{ '{' }}", "\0")
    assert not re.search(r"\{[{%#]", told)
    return told.replace("\0", "{")


def test_nothing_in_the_map_can_steer_a_terminal() -> None:
    for told in (schema_page(LOCAL), dbt_sources(LOCAL), diagram(LOCAL.tables.values())):
        assert not set(told) & set("\x1b\x9b\u202e\x7f\x85")


def test_dbt_tests_keys_references_and_what_only_we_write() -> None:
    (source,) = yaml.safe_load(dbt_sources())["sources"]
    tables = {table["name"]: table for table in source["tables"]}

    def tests(table: str, column: str) -> object:
        found = next(c for c in tables[table]["columns"] if c["name"] == column)
        return found.get("data_tests", [])

    assert tests("personas", "persona_id") == ["unique", "not_null"]
    to_avatars = {"to": "source('persona_etl', 'avatars')", "field": "avatar_id"}
    assert tests("personas", "avatar_id") == [{"relationships": {"arguments": to_avatars}}]
    whose = {"to": "source('persona_etl', 'personas')", "field": "persona_id"}
    assert tests("persona_history", "persona_id") == [
        "not_null",
        {"relationships": {"arguments": whose}},
    ]
    # Who was never seen is in no other view.
    assert tests("freshness", "persona_id") == ["unique", "not_null"]
    assert tests("run_items", "persona_id") == ["not_null"]
    assert tests("voices", "provider") == []
    ((_, change),) = tests("voice_history", "change")[0].items()  # type: ignore[index]
    assert change["arguments"]["values"][-1] == "pruned"
    views = {view.name: view for view in all_views()}
    for table in tables.values():
        key = view_key(views[table["name"]])
        together = [t["unique"]["arguments"]["column_name"] for t in table.get("data_tests", [])]
        expected = [f"jsonb_build_array({', '.join(key)})"] if len(key) > 1 else []
        assert together == expected


def test_dbt_asks_for_freshness_where_every_run_leaves_a_trace() -> None:
    (source,) = yaml.safe_load(dbt_sources())["sources"]
    fresh = {t["name"]: t["config"] for t in source["tables"] if "config" in t}
    assert {name: config["loaded_at_field"] for name, config in fresh.items()} == {
        "personas": "last_success_at",
        "runs": "finished_at",
        "freshness": "last_success_at",
    }
    assert all(config["freshness"]["warn_after"]["count"] == 2 for config in fresh.values())


@pytest.mark.parametrize("schema", ["anam", 'it\'s "odd" {{ x }} \\ \N{GRINNING FACE}'])
def test_dbt_finds_the_schema_in_the_variable_that_we_read_ourselves(schema: str) -> None:
    (source,) = yaml.safe_load(dbt_sources(SHIPPED, schema))["sources"]
    before, name, after = re.fullmatch(r"(.*?, )(\".*\")(.*)", source["schema"]).groups()  # type: ignore[union-attr]
    assert before == "{{ env_var('PERSONA_ETL_DATABASE__SCHEMA', "
    assert after == ") }}_reporting"
    assert json.loads(name) == schema
