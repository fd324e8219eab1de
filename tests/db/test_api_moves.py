"""The story, over the socket: the API moves, each new field gets a column, the past has it too.

What the columns must hold is told from the payloads alone (`later.py`), not by map or flattening.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from etl.jobs.drift import propose_revision
from etl.jobs.migrate import migrate
from etl.map import lines_of
from etl.payload.canonical import same
from etl.report.fields import fields
from etl.settings import load_settings
from etl.store.engine import make_engine
from etl.store.mapped import read_map
from etl.tables import KINDS
from tests.db.later import LATER, NEW, ONLY_SHAPE, Field, fetched, told, told_over_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from etl.jobs.drift import Revised
    from etl.map import Line, Map
    from tests.db.conftest import Target

# The story as a whole: its steps have test_local_migration, test_stored_values, test_replay.
pytestmark = pytest.mark.one_server

KEYS = {
    "personas": "persona_id",
    "share_links": "share_link_id",
    "avatars": "avatar_id",
    "voices": "voice_id",
    "tools": "tool_id",
    "knowledge_groups": "knowledge_group_id",
}
# How a column of a type says what JSON says.
READ: dict[str, Callable[[Any], Any]] = {
    "uuid": UUID,
    "timestamptz": datetime.fromisoformat,
    "double precision": float,
}
# What has no value yet, and a name that no column can be made of.
WITHOUT_COLUMN = {"experimentsYy", "successorIdYy", '["n\u0430meYy"]'}


class Story:
    """A target whose API moves, and what was served at each moment."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target = target
        self.folder = folder
        self.moments: dict[datetime, list[Any]] = {}

    def sync(self) -> dict[str, int]:
        """Copies all. Nobody fails. Returns the counts that are not 0."""
        summary = self.target.sync(self.target.world.persona_ids)
        assert summary.error is None
        self.moments[self.target.now()] = fetched(self.target.sandbox)
        return {name: count for name, count in summary.counts.items() if count}

    def propose(self) -> Revised:
        settings = self.target.environment()
        settings["PERSONA_ETL_MIGRATIONS__LOCAL_DIR"] = str(self.folder)
        found = load_settings(settings, cwd=self.target.folder)
        return propose_revision(found, url=self.target.url, name=None, dry_run=False)

    def migrate(self, local_to: str | None = None) -> str:
        engine = make_engine(self.target.url, self.target.schema)
        return migrate(engine, self.target.schema, local_dir=self.folder, local_to=local_to)

    def map(self) -> Map:
        with make_engine(self.target.url, self.target.schema).connect() as connection:
            return read_map(connection)

    def lines(self) -> dict[Field, Line]:
        rows = self.target.query("SELECT * FROM local_columns")
        return {Field(line.kind, line.path.removesuffix("[]")): line for line in lines_of(rows)}

    def requests(self) -> int:
        return self.target.sandbox.requests.total


@pytest.fixture
def story(copying: Any, tmp_path: Path) -> Iterator[Story]:
    # So many that each field has a value somewhere.
    with copying(count=20) as target:
        yield Story(target, tmp_path / "revisions")


def test_the_api_moves_and_every_new_field_becomes_a_typed_column(story: Story) -> None:
    target, world = story.target, story.target.world
    everybody = len(world.persona_ids)
    assert story.sync() == {"requested": everybody, "created": everybody}
    assert story.sync() == {"requested": everybody, "unchanged": everybody}

    world.reshape(ONLY_SHAPE)
    assert story.sync() == {"requested": everybody, "reshaped": everybody}
    world.edit(world.persona_ids[0], {"name": "Ada"})
    assert story.sync() == {"requested": everybody, "updated": 1, "unchanged": everybody - 1}
    assert edits(target) == [("persona", ["name"])]
    world.reshape(LATER)
    story.sync()
    assert story.sync() == {"requested": everybody, "unchanged": everybody}

    asked = story.requests()
    revised = story.propose()
    assert {found.drift.path for found in revised.refusals if found.drift.problem == "unknown"} == (
        WITHOUT_COLUMN
    )
    assert target.query("SELECT count(*) AS n FROM local_columns")[0]["n"] == 0
    assert story.migrate() == "local_0001"
    told_before_replay = told_over_time(story.moments, with_columns())
    assert_past(story, told_before_replay)
    assert target.replay().error is None
    assert story.requests() == asked

    assert_now(story)
    assert_past(story, told_before_replay)
    assert target.check().error is None
    assert {row["problem"] for row in target.rows("drift_paths", status="open")} == {
        "unknown",
        "missing",
        "new_value",
    }
    # From here on the columns are filled as any other.
    assert story.sync() == {"requested": everybody, "unchanged": everybody}
    world.edit(world.persona_ids[1], {"brain": {"systemPrompt": "You are brief."}})
    world.reshape(None)
    story.sync()
    assert_now(story)
    assert_past(story, told_over_time(story.moments, with_columns()))


def test_what_was_added_can_be_taken_back_and_added_again(story: Story) -> None:
    target, world = story.target, story.target.world
    story.sync()
    world.reshape(LATER)
    story.sync()
    story.propose()
    extras = {name: target.rows(name) for name in ("personas", "brains", "voices", "share_links")}
    story.migrate()
    assert target.replay().error is None
    assert story.migrate(local_to="base") == "base"
    assert target.replay().error is None
    assert {name: target.rows(name) for name in extras} == extras
    assert story.migrate() == "local_0001"
    assert target.replay().error is None
    assert_now(story)


def edits(target: Target) -> list[tuple[str, list[str]]]:
    """The versions that are told as somebody's edit."""
    found = target.query(
        "SELECT kind, changed_paths FROM document_versions WHERE change = 'updated' ORDER BY 1, 2"
    )
    return [(row["kind"], row["changed_paths"]) for row in found]


def with_columns() -> list[Field]:
    return [field for field in NEW if path_of(field) not in WITHOUT_COLUMN]


def path_of(field: Field) -> str:
    """A path as drift tells it: names that are no words stand in quotes."""
    if field.path.replace("[]", "").replace(".", "").replace("_", "a").isascii() and (
        field.path.replace("[].", ".").replace(".", "a").replace("_", "a").isalnum()
    ):
        return field.path
    quoted = field.path.replace('"', '\\"')
    return f'["{quoted}"]'


def assert_now(story: Story) -> None:
    """Each column, or list, holds what the API serves now: of every entity."""
    lines = story.lines()
    for field, values in told(fetched(story.target.sandbox), with_columns()).items():
        line = lines[Field(field.kind, path_of(field))]
        found = present(story.target, line)
        assert values
        for id_, value in values.items():
            assert is_equal(line, found.get(UUID(id_)), value), (field, id_)


def present(target: Target, line: Line) -> dict[UUID, Any]:
    """What the table has, by the owner of its rows."""
    if line.is_list:
        key = "share_link_id" if line.path.startswith("shareLinks") else f"{line.kind}_id"
        rows = target.query(
            f'SELECT "{key}" AS id, array_agg(value ORDER BY position) AS value'
            f' FROM "{line.table}" GROUP BY 1'
        )
        return {row["id"]: row["value"] for row in rows}
    key = KEYS.get(line.table, "persona_id")
    rows = target.query(f'SELECT "{key}" AS id, "{line.column}" AS value FROM "{line.table}"')
    return {row["id"]: row["value"] for row in rows}


def assert_past(story: Story, expected: dict[Field, dict[str, dict[datetime, Any]]]) -> None:
    """At each moment the version in force shows what was served then; share links have no view."""
    the_map, lines = story.map(), story.lines()
    reporting = f"{story.target.schema}_reporting"
    versions = {
        kind: story.target.query(f"SELECT *, {kind}_id AS id FROM {reporting}.{kind}_history")
        for kind in KINDS
    }
    for field, by_id in expected.items():
        line = lines[Field(field.kind, path_of(field))]
        if field.path.startswith("shareLinks[]"):
            continue
        name = next(
            found.name
            for found in fields(the_map, line.kind)
            if (found.column.table.name, found.column.name) == (line.table, line.column)
        )
        for row in versions[line.kind]:
            for moment, value in by_id.get(str(row["id"]), {}).items():
                if row["valid_from"] <= moment and (
                    row["valid_to"] is None or moment < row["valid_to"]
                ):
                    assert is_equal(line, row[name], value), (field, row, moment)


def is_equal(line: Line, there: Any, served: Any) -> bool:
    """Whether a column's value is the JSON value that was served. An empty list may be no rows."""
    if line.is_list:
        elements = served or []
        return len(there or []) == len(elements) and all(
            is_value(line.type, one, other)
            for one, other in zip(there or [], elements, strict=True)
        )
    return is_value(line.type, there, served)


def is_value(type_: str, there: Any, served: Any) -> bool:
    if served is None or there is None or type_ == "jsonb":
        return same(there, served)
    read = READ.get(type_, lambda value: value)
    if type_ == "text" and not isinstance(served, str):
        # Of a field that came in two types: all digits, as a text.
        there, read = Decimal(there), lambda value: Decimal(str(value))
    return type(there) is type(read(served)) and bool(there == read(served))
