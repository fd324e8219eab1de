"""Whatever befalls a target, after each step the reports tell what its tables say, and all of it.

A life in an order and with edits of chance, in a schema of an odd name beside another. What the
digest and the views say is held against the tables, which they are not asked of there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from markupsafe import escape
from msgspec.structs import replace

from etl.cli.report import digest_as_json
from etl.cli.report_screen import as_lines
from etl.jobs.configurations import configurations
from etl.jobs.local_map import local_map
from etl.jobs.migrate import migrate
from etl.jobs.prompts import search, similar
from etl.jobs.prune import Keep
from etl.jobs.query import answered
from etl.report.catalogue import all_views
from etl.report.page import as_page
from etl.report.passages import Span
from etl.report.schema_page import schema_page
from etl.sandbox import Fault
from etl.store.engine import make_engine
from tests.db.conftest import session
from tests.db.local_lines import add_lines, line
from tests.db.test_as_of import NOT_KEPT, OBSERVED
from tests.db.test_forget import settings_of
from tests.db.test_life_of_a_target import EVERYBODY, Life
from tests.db.test_report import found
from tests.db.test_view_session import as_role
from tests.unit.test_schema_page import cells

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from uuid import UUID

    from etl.report.digest import Digest
    from tests.db.conftest import Row, Target

# A random story is made of statements that other tests run on each server.
pytestmark = pytest.mark.one_server

SCHEMA = """anam o'"dd"; %s :x"""
HOSTILE = "</script><b>&\"'"

STEPS: list[tuple[str, Any]] = [
    ("sync", EVERYBODY),
    ("fail", [(0, Fault(status=400)), (1, Fault(status=200, wrong="html"))]),
    ("sync", [0, 1]),
    ("load", [0, 3, 6, 9]),
    ("prune", Keep(history_days=0)),
    ("prune", Keep(history_versions=2, runs_days=0, issues_days=0)),
    ("forget", 2),
    ("unforget", EVERYBODY),
    ("add_column", None),
    ("backfill_api", [0, 3]),
]
EDITS: list[tuple[Any, ...]] = [
    ("edit", 0, {"brain": {"systemPrompt": HOSTILE, "personality": "B"}}, True),
    ("edit", 1, {"name": HOSTILE, "voiceSpeed": "not a number"}, True),
    ("edit", 1, {"brain": None}, True),
    ("edit", 2, {"brain": {"systemPrompt": "Another."}}, True),
    ("edit", 2, {"voiceGenerationOptions": {"stability": 0.5}}, False),
    ("edit_shared", "voice", [0], "B", "now"),
    ("edit_shared", "tools", [0, 1], HOSTILE, "now"),
    ("hold", 0, "voice", [1]),
    ("hold", 1, "tools", [0, 1]),
    ("hold", 2, "avatar", []),
    ("link", 0, {0: ["https://a"], 1: []}),
    ("link", 1, {1: []}),
    ("reshape", "persona", "x"),
    ("reshape", "brain", "y"),
    ("delete", 1),
    ("restore", 1),
    ("restore", 3),
    ("delete", 0),
    ("restore", 0),
]

COLUMNS = """
    SELECT CASE c.relkind WHEN 'v' THEN 'View' ELSE 'Table' END AS sort, c.relname AS name,
           a.attname AS column_name
      FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
     WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN (%s, %s))
       AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped
       AND c.relname NOT LIKE 'alembic%%'
     ORDER BY a.attname COLLATE "C"
"""


@pytest.mark.parametrize("seed", [8])
def test_after_each_step_of_a_life_the_reports_say_what_the_tables_do(
    role, copying, new_database, template, seed
):
    with new_database(template) as url:
        migrate(make_engine(url, SCHEMA), SCHEMA, readers=[role])
        with copying(count=0, url=url, schema=SCHEMA) as target:
            # A column that is added while it lives changes what a plan gives.
            target.admin.prepare_threshold = None
            life, chance = Reported(target, role), Random(seed)
            for name, about in [STEPS[0], *chance.sample(STEPS, len(STEPS))]:
                life.befall(chance.sample(EDITS, 3))
                getattr(life, name)(about)
                life.assert_it_agrees()
                life.assert_the_reports_agree()
            life.befall([("edit", number, {"name": HOSTILE}, True) for number in EVERYBODY])
            life.sync(EVERYBODY)
            life.assert_all_of_it_can_be_shown()


class Reported(Life):
    """A life, and who reads its reports."""

    def __init__(self, target: Target, role: str) -> None:
        super().__init__(target, None, "")
        self.reader = as_role(target, role)

    def fail(self, faults: list[tuple[int, Fault]]) -> None:
        for number, fault in faults:
            wrong = replace(fault, target=self.story.personas[number], times=None)
            self.target.sandbox.order(wrong)
        self.sync(EVERYBODY)
        self.target.sandbox.clear_faults()

    def add_column(self, _: None) -> None:
        """A field that is new gets a column, and a list of its own."""
        added = line("persona", "mood", "personas", column="mood", json_types=("string",))
        add_lines(self.target.url, added, schema=SCHEMA)
        self.target.replay()

    def assert_the_reports_agree(self) -> None:
        settings, before = settings_of(self.target), self.target.stamps()
        with reading(self.reader) as read:
            assert_everything_is_read(read)
            assert_views_agree(read)
            assert_it_tells_the_tables(self.digest(), self.target, read)
        since = timedelta(seconds=60)
        with answered(settings, "TABLE changes", url=self.reader, timeout=since) as answer:
            assert all(len(row) == len(answer.columns) for row in answer.rows)
        with_text = search(settings, whole, url=self.reader, history=True)
        assert with_text.searched == len(with_text.prompts)
        assert similar(
            settings, url=self.reader, at_least=0.5, groups=9, variants=9
        ).distinct == self.count("prompts")
        assert configurations(settings, url=self.reader, limit=9).distinct == self.count(
            "configurations"
        )
        assert self.target.stamps() == before

    def digest(self) -> Digest:
        return found(self.target, url=self.reader, listed=9999, personas_listed=99)

    def count(self, view: str) -> int:
        with reading(self.reader) as read:
            return len(read(f"SELECT FROM {view}"))

    def assert_all_of_it_can_be_shown(self) -> None:
        digest = self.digest()
        names = [str(one.name) for one in digest.personas.first]
        assert HOSTILE in names
        page, screen = as_page(digest), "\n".join(as_lines(digest, coloured=False))
        assert all(str(escape(name)) in page for name in names)
        assert HOSTILE not in page
        assert json.loads(digest_as_json(digest))["totals"]["live"] == digest.totals.live
        assert screen.startswith(SCHEMA)
        told = schema_page(local_map(self.reader, SCHEMA), SCHEMA)
        columns: dict[tuple[str, str], list[str]] = {}
        for row in self.target.query(COLUMNS, [SCHEMA, f"{SCHEMA}_reporting"]):
            columns.setdefault((row["sort"], row["name"]), []).append(row["column_name"])
        for (sort, name), there in columns.items():
            rows = cells(told, f"{sort} `{name}`")
            assert sorted(row[0].split()[0] for row in rows) == there
        assert told.count("\n### Table `") + told.count("\n### View `") == len(columns)


Read = Callable[..., "list[Row]"]


@contextmanager
def reading(url: str) -> Iterator[Read]:
    """What asks the views by their bare names, as a role that may read nothing else."""
    with session(url, f"{SCHEMA}_reporting") as connection:
        yield lambda statement: connection.execute(statement).fetchall()


def whole(text: str) -> Iterator[Span]:
    """Finds all of a text, also an empty one."""
    yield Span(0, len(text))


def assert_everything_is_read(read: Read) -> None:
    """Each view, and the function that a reader calls, row by row as text."""
    for source in (*(view.name for view in all_views()), "personas_as_of(now())"):
        for row in read(f"SELECT CAST(shown AS text) AS text FROM {source} AS shown"):
            assert row["text"].startswith("(")


def assert_views_agree(read: Read) -> None:
    """The present, the open end of the past and what is in use are the same personas."""
    today = by_id(read("SELECT * FROM personas WHERE removed_at IS NULL"))
    for view in ("personas_as_of(now())", "persona_history WHERE valid_to IS NULL"):
        past = by_id(read(f"SELECT * FROM {view}"))
        if "history" in view:
            past = {id_: row for id_, row in past.items() if row["change"] != "removed"}
        assert past.keys() == today.keys(), view
        for id_, row in past.items():
            told = row.keys() & today[id_].keys() - {*NOT_KEPT, *OBSERVED, "last_observed_at"}
            assert {"name", "system_prompt", "voice_id"} <= told
            assert {name: row[name] for name in told} == {name: today[id_][name] for name in told}
    for view, who in {
        "configurations": set(today),
        "prompts": {id_ for id_, row in today.items() if row["system_prompt"] is not None},
    }.items():
        rows = read(f"SELECT * FROM {view}")
        ids = [id_ for row in rows for id_ in row["persona_ids"]]
        assert (len(ids), set(ids)) == (len(who), who)
        assert sum(row["persona_count"] for row in rows) == len(who)
        for row in rows:
            named = zip(row["persona_ids"], row["persona_names"], strict=True)
            assert all(today[id_]["name"] == name for id_, name in named)
            if view == "prompts":
                assert {today[id_]["system_prompt"] for id_ in row["persona_ids"]} == {
                    row["system_prompt"]
                }


def by_id(rows: list[Row]) -> dict[UUID, Row]:
    assert len({row["persona_id"] for row in rows}) == len(rows)
    return {row["persona_id"]: row for row in rows}


def assert_it_tells_the_tables(digest: Digest, target: Target, read: Read) -> None:
    live = {row["persona_id"]: row for row in target.rows("personas") if not row["removed_at"]}

    def of_the_live(table: str, column: str) -> list[Any]:
        return [row[column] for row in target.rows(table) if row["persona_id"] in live]

    totals = digest.totals
    assert totals.live == len(live)
    assert totals.live + totals.removed == len(target.rows("personas"))
    assert totals.avatars == len({row["avatar_id"] for row in live.values()} - {None})
    assert totals.voices == len({row["voice_id"] for row in live.values()} - {None})
    assert totals.tools == len(set(of_the_live("persona_tools", "tool_id")))
    groups = of_the_live("persona_knowledge_groups", "knowledge_group_id")
    assert totals.knowledge_groups == len(set(groups))
    assert totals.share_links == len(of_the_live("share_links", "share_link_id"))
    assert totals.prompts == len(set(of_the_live("brains", "system_prompt")) - {None})
    assert sum(band.personas for band in digest.ages) == len(live)
    assert {one.persona_id for one in digest.personas.first} == {
        row["persona_id"] for row in target.rows("personas")
    }

    versions = target.rows("document_versions")
    begun = Counter((v["valid_from"].date(), v["kind"], v["change"]) for v in versions)
    days = {(day.day, day.kind, day.change): day.versions for day in digest.change_days}
    assert days == begun
    happened = [(one.kind, one.entity_id, one.version) for one in digest.happenings.first]
    keys = ("kind", "entity_id", "version")
    assert Counter(happened) == Counter(tuple(v[key] for key in keys) for v in versions)
    assert digest.happenings.count == len(versions)

    told = sorted((one.persona_id, one.at) for one in digest.prompts.first)
    assert told == sorted(told_otherwise(target))
    assert digest.prompts.count == len(told)
    rows = read("SELECT persona_id, valid_from FROM prompt_history")
    assert set(told) <= {(row["persona_id"], row["valid_from"]) for row in rows}

    states = target.rows("persona_sync_state")
    failing = {row["persona_id"] for row in states if row["consecutive_failures"]}
    assert {one.persona_id for one in digest.failing.first} == failing
    drifting = {
        (d["kind"], d["path"], d["problem"]) for d in target.rows("drift_paths", status="open")
    }
    assert {(one.kind, one.path, one.problem) for one in digest.drift.first} == drifting
    runs = target.rows("runs")
    assert Counter({(one.command, one.status): one.runs for one in digest.run_sums}) == Counter(
        (row["command"], row["status"]) for row in runs
    )
    assert {one.run_id for one in digest.runs.first} == {row["run_id"] for row in runs}
    for run in digest.runs.first:
        requested = run.counts.get("requested", 0)
        assert sum(run.counts.values()) == 2 * requested
    concerns = {one.code: one.count for one in digest.concerns}
    unresolved = [row for row in target.rows("value_issues") if row["resolved_at"] is None]
    assert concerns.get("value_issues", 0) == len(unresolved)
    assert concerns.get("rejected", 0) == len(target.rows("rejected_payloads"))


def told_otherwise(target: Target) -> Iterator[tuple[UUID, datetime]]:
    """When a persona's prompt became another, by its documents; not what the API's shape did."""
    rows = target.query("""
        SELECT v.*, d.document -> 'brain' ->> 'systemPrompt' AS prompt
          FROM document_versions AS v LEFT JOIN documents AS d USING (kind, content_hash)
         WHERE v.kind = 'persona' AND v.change <> 'removed' ORDER BY v.entity_id, v.version
    """)
    for before, after in pairwise(rows):
        if before["entity_id"] != after["entity_id"] or after["change"] == "reshaped":
            continue
        # Of a past that is not kept the paths alone tell.
        if (
            "brain.systemPrompt" in after["changed_paths"]
            if before["change"] == "pruned"
            else before["prompt"] != after["prompt"]
        ):
            yield after["entity_id"], after["valid_from"]
