"""A target to copy into: a stand-in API, a migrated database, and `sync` from one to the other."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.rows import dict_row

import etl
from etl.files.lines import Line
from etl.jobs.backfill_api import backfill_api
from etl.jobs.backfill_files import backfill_files
from etl.jobs.dry_run import dry_run
from etl.jobs.replay import check, replay
from etl.jobs.sync import sync
from etl.jobs.verify import verify
from etl.sandbox import World, running_sandbox
from etl.settings import load_settings
from etl.tables import metadata, projections
from tests.db.revisions import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from etl.jobs.backfill_files import FilesSummary
    from etl.jobs.replay import Replayed
    from etl.jobs.summary import Summary
    from etl.jobs.verify import Verified
    from etl.report.foreseen import Foreseen
    from etl.sandbox import Sandbox

Row = dict[str, Any]


def encoded(value: object) -> bytes:
    """A value as a line of JSON, times and ids as texts."""
    return json.dumps(value, default=str).encode()


# What a run moves though nothing changed, besides the observed columns.
LEDGER = ("persona_sync_state", "runs", "run_items")

# How many personas `target` has.
TARGETED = 6
# So old may its copy be.
COPY_SECONDS = 20


class Target:
    """A database and the stand-in API that is copied into it."""

    def __init__(
        self,
        url: str,
        sandbox: Sandbox,
        folder: Path,
        schema: str,
        admin: psycopg.Connection[Row],
    ) -> None:
        self.url = url
        self.owners_url = url
        self.admin = admin
        self.sandbox = sandbox
        self.world = sandbox.world
        self.folder = folder
        self.schema = schema
        self.reports: list[Summary] = []
        self.is_corrupted = False
        """Set by a test that spoils or loses tables on purpose: a check would say so."""

    def sync(
        self,
        ids: Sequence[str] | None = None,
        *,
        discover: bool = False,
        strict: bool = False,
        allow_mass_removal: bool = False,
        wait_seconds: float = 0,
        **settings: str,
    ) -> Summary:
        """Runs the job: settings are named as in the environment, `API__CONCURRENCY="1"`.

        The books are checked on every way out.
        """
        wanted = self.uuids(ids)
        reported: list[Summary] = []
        try:
            sync(
                load_settings(self.environment(**settings), cwd=self.folder),
                wanted,
                url=self.url,
                discover=discover,
                strict=strict,
                allow_mass_removal=allow_mass_removal,
                wait_seconds=wait_seconds,
                report=reported.append,
            )
        finally:
            self.reports += reported
            for summary in reported:
                self.check_books(summary)
        (summary,) = reported
        assert discover or summary.counts["requested"] == len(wanted)
        return summary

    def backfill_api(
        self,
        ids: Sequence[str] | None = None,
        *,
        discover: bool = False,
        since: datetime | None = None,
        resume: str | None = None,
        allow_mass_removal: bool = False,
        **settings: str,
    ) -> Summary:
        """Runs that job, and checks the books; without ids for all, with `resume` for none."""
        reported: list[Summary] = []
        try:
            backfill_api(
                load_settings(self.environment(**settings), cwd=self.folder),
                self.uuids([] if resume is not None and ids is None else ids),
                url=self.url,
                discover=discover,
                since=since,
                resume=resume,
                allow_mass_removal=allow_mass_removal,
                report=reported.append,
            )
        finally:
            self.reports += reported
            for summary in reported:
                self.check_books(summary)
        (summary,) = reported
        return summary

    def dry_run(
        self,
        ids: Sequence[str] | None = None,
        *,
        discover: bool = False,
        strict: bool = False,
        allow_mass_removal: bool = False,
        **settings: str,
    ) -> tuple[Summary, list[Foreseen]]:
        """Rehearses the job, as `sync` runs it, and checks that it left no trace."""
        wanted = self.uuids(ids)
        reported: list[Summary] = []
        foreseen: list[Foreseen] = []
        before = self.stamps()
        dry_run(
            load_settings(self.environment(**settings), cwd=self.folder),
            wanted,
            url=self.url,
            discover=discover,
            strict=strict,
            allow_mass_removal=allow_mass_removal,
            tell=foreseen.append,
            report=reported.append,
        )
        assert self.stamps() == before
        (summary,) = reported
        assert summary.run_id is None
        assert summary.counts["requested"] == sum(summary.counts.values()) / 2
        return summary, foreseen

    def verify(
        self,
        ids: Sequence[str] | None = None,
        *,
        discover: bool = False,
        sample: int | None = None,
        **settings: str,
    ) -> Verified:
        """Compares with the API, and checks that it left no trace and accounts for each."""
        wanted = self.uuids(ids)
        reported: list[Verified] = []
        before = self.stamps()
        verify(
            load_settings(self.environment(**settings), cwd=self.folder),
            wanted,
            url=self.url,
            discover=discover,
            sample=sample,
            report=reported.append,
        )
        assert self.stamps() == before
        (verified,) = reported
        assert verified.counts["requested"] == sum(verified.counts.values()) / 2
        return verified

    def load(
        self,
        *values: Any,
        dated: datetime | None = None,
        name: str = "test",
        unforget: bool = False,
    ) -> FilesSummary:
        """Loads lines, as `backfill files` does: JSON values, or bytes as they are.

        The books are checked.
        """
        lines = [
            Line(name, number, value if isinstance(value, bytes) else encoded(value), dated)
            for number, value in enumerate(values, start=1)
        ]
        reported: list[FilesSummary] = []
        settings = load_settings(self.environment(), cwd=self.folder)
        backfill_files(settings, lines, url=self.url, unforget=unforget, report=reported.append)
        (summary,) = reported
        counts = summary.counts
        assert counts["requested"] == sum(counts.values()) - counts["requested"]
        (run,) = self.rows("runs", run_id=summary.run_id)
        assert {name: run[name] for name in counts} == counts
        assert (run["command"], run["status"]) == ("backfill files", summary.status)
        return summary

    def check(self, *tables: str) -> Replayed:
        """Compares the tables with their history, as `backfill replay --check` does."""
        return check(
            load_settings(self.environment(), cwd=self.folder),
            url=self.url,
            tables=tables,
        )

    def replay(self, *tables: str) -> Replayed:
        """Mends what differs from history, as `backfill replay` does."""
        reported: list[Replayed] = []
        replay(
            load_settings(self.environment(), cwd=self.folder),
            url=self.url,
            tables=tables,
            report=reported.append,
        )
        (replayed,) = reported
        return replayed

    def check_replay(self) -> None:
        """After whatever has happened, a replay would find nothing."""
        self.url = self.owners_url
        found = self.check().findings
        assert [difference.as_line() for difference in found.first] == []

    def uuids(self, ids: Sequence[str] | None) -> list[UUID]:
        """These personas; None: all that are live."""
        return [UUID(id_) for id_ in (self.world.persona_ids if ids is None else ids)]

    def environment(self, **settings: str) -> dict[str, str]:
        """What a process needs to copy from this API into this database."""
        return {
            "ANAM_API_KEY": self.sandbox.key,
            "ANAM_API_URL": self.sandbox.url,
            "PERSONA_ETL_DATABASE__URL": self.url,
            "PERSONA_ETL_DATABASE__SCHEMA": self.schema,
            **{f"PERSONA_ETL_{name}": value for name, value in settings.items()},
        }

    def check_books(self, summary: Summary) -> None:
        """Every id is accounted for, and the ledger says what the summary says."""
        counts = summary.counts
        assert counts["requested"] == sum(counts.values()) - counts["requested"]
        if summary.finished_at is None:
            # Postgres is gone: such a run has not succeeded.
            assert (summary.status, summary.exit_code) == ("failed", 6)
            return
        (run,) = self.rows("runs", run_id=summary.run_id)
        assert {name: run[name] for name in counts} == counts
        told = ("command", "status", "started_at", "finished_at")
        numbers = ("value_issues", "new_drift_paths", "http_requests")
        for name in (*told, *numbers):
            assert run[name] == getattr(summary, name), name
        assert run["error"] == (str(summary.error) if summary.error else run["error"])
        items = Counter(item["outcome"] for item in self.rows("run_items", run_id=summary.run_id))
        nothing_to_tell = {"requested", "unchanged"}
        if summary.command != "backfill api" or not items["not_attempted"]:
            # It keeps a list of those, once it knows whom it asks for.
            nothing_to_tell.add("not_attempted")
        assert items == Counter({k: n for k, n in counts.items() if n and k not in nothing_to_tell})

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Runs any SQL in the target's schema, as the tables' owner. Rows, if it gives any."""
        cursor = self.admin.execute(statement, parameters or None)
        return list(cursor.fetchall()) if cursor.description else []

    def now(self) -> datetime:
        """The database's clock."""
        moment: datetime = self.query("SELECT clock_timestamp() AS now")[0]["now"]
        return moment

    @contextmanager
    def at(self, url: str) -> Iterator[None]:
        """Another database for the length of the block."""
        before = self.url, self.admin
        with session(url, self.schema) as admin:
            self.url, self.admin = url, admin
            yield
        self.url, self.admin = before

    def rows(self, table: str, **where: object) -> list[Row]:
        """The rows of a table that have these values, by its key."""
        matches: list[sql.Composable] = [
            sql.SQL("{} = %s").format(sql.Identifier(name)) for name in where
        ]
        key = [sql.Identifier(c.name) for c in metadata.tables[table].primary_key.columns]
        statement = sql.SQL("SELECT * FROM {} WHERE {} ORDER BY {}").format(
            sql.Identifier(table),
            sql.SQL(" AND ").join(matches or [sql.SQL("true")]),
            sql.SQL(", ").join(key),
        )
        return list(self.admin.execute(statement, list(where.values())).fetchall())

    def row(self, table: str, **where: object) -> Row:
        """The one row that has these values."""
        (found,) = self.rows(table, **where)
        return found

    def persona(self, persona_id: str) -> Row:
        """A persona's row."""
        return self.row("personas", persona_id=UUID(persona_id))

    def versions(self, entity_id: str | UUID) -> list[Row]:
        """An entity's versions, the oldest first."""
        return self.rows("document_versions", entity_id=UUID(str(entity_id)))

    def changes(self, entity_id: str | UUID) -> list[str]:
        """What an entity's versions are."""
        return [version["change"] for version in self.versions(entity_id)]

    def outcome(self, persona_id: str) -> Row:
        """What the last run did to a persona."""
        found = {"run_id": self.reports[-1].run_id, "persona_id": UUID(persona_id)}
        return self.row("run_items", **found)

    def outcome_in(self, summary: FilesSummary, persona_id: str) -> str:
        """What a run did to a persona."""
        outcome: str = self.row("run_items", run_id=summary.run_id, persona_id=UUID(persona_id))[
            "outcome"
        ]
        return outcome

    def normalized(self) -> list[str]:
        """The tables that follow from documents, referenced ones first."""
        return [table.name for table in projections()]

    def state(self, persona_id: str) -> Row:
        """Where a persona stands."""
        return self.row("persona_sync_state", persona_id=UUID(persona_id))

    def dump(self) -> dict[str, list[Row]]:
        """Every table, row by row."""
        return {name: self.rows(name) for name in metadata.tables}

    def stamps(self) -> dict[str, list[str]]:
        """Which transaction wrote each row, and where it is: the same again when none was written.

        An update leaves a row with both another stamp and another place, whatever it wrote.
        """
        found: dict[str, list[str]] = {name: [] for name in metadata.tables}
        of_each = (f"SELECT '{name}' AS name, xmin, ctid FROM {name}" for name in found)
        union = " UNION ALL ".join(of_each)
        rows = self.query(f"SELECT name, concat_ws(' ', xmin, ctid) AS stamp FROM ({union}) AS r")
        for row in rows:
            found[row["name"]].append(row["stamp"])
        return {name: sorted(stamps) for name, stamps in found.items()}


@contextmanager
def session(url: str, schema: str) -> Iterator[psycopg.Connection[Row]]:
    """A session of the test's own, in autocommit."""
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        named = sql.Identifier(schema)
        connection.execute(sql.SQL("SET search_path TO {}").format(named))
        connection.execute("SET TimeZone TO 'UTC'")
        yield connection


@pytest.fixture
def copying(database_url, tmp_path):
    """What makes a target of a world: count, seed and the like as for the sandbox."""

    @contextmanager
    def make(
        world: World | None = None,
        *,
        url: str = database_url,
        schema: str = "anam",
        moving: bool = False,
        **options: Any,
    ) -> Iterator[Target]:
        with (
            running_sandbox(world=world, moving=moving, **options) as sandbox,
            session(url, schema) as admin,
        ):
            made = Target(url, sandbox, tmp_path, schema, admin)
            yield made
            if not made.is_corrupted:
                made.check_replay()

    return make


@pytest.fixture
def impatience(monkeypatch):
    """Hardly any time passes between attempts. How much does is tested in tests/unit."""
    monkeypatch.setattr("etl.jobs.circuit._FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("etl.source.retry._FIRST_WAIT_SECONDS", 0.01)


class FirstCopy(NamedTuple):
    """What `target` starts from: the name of a database, and the runs that filled it."""

    database: str
    reports: list[Summary]


@pytest.fixture(scope="session")
def latest_copies(new_database, template, tmp_path_factory):
    """Gives a copy of a few generated personas: a template, as a run in each test takes 0.15 s.

    Nobody is connected to it. It is made anew when it is not of just now: tests ask for ages.
    """
    folder = tmp_path_factory.mktemp("first_copy")
    with ExitStack() as kept:
        made_at, latest = -math.inf, None

        def copied() -> FirstCopy:
            nonlocal made_at, latest
            if latest is None or time.monotonic() - made_at > COPY_SECONDS:
                kept.close()
                made_at = time.monotonic()
                latest = _first_copy(kept.enter_context(new_database(template)), folder)
            return latest

        yield copied


def _first_copy(url: str, folder: Path) -> FirstCopy:
    with running_sandbox(count=TARGETED, moving=False) as sandbox, session(url, "anam") as admin:
        made = Target(url, sandbox, folder, "anam", admin)
        assert made.sync().counts["created"] == TARGETED
        made.check_replay()
    return FirstCopy(str(sa.make_url(url).database), made.reports)


@pytest.fixture
def first_copy(latest_copies):
    """The same for a test and its database."""
    return latest_copies()


@pytest.fixture
def database_url(request, new_database, template):
    """A database of this test's own, at the head; for a `target` the personas are in it."""
    is_copied = "target" in request.fixturenames
    origin = request.getfixturevalue("first_copy").database if is_copied else template
    with new_database(origin) as url:
        yield url


@pytest.fixture
def target(copying, first_copy):
    """A target with a few generated personas, copied once, of which nothing moves by itself."""
    # A world made of the same number and seed is the same, to the byte.
    with copying(count=TARGETED) as made:
        made.reports += first_copy.reports
        yield made


@pytest.fixture
def copied_checkout(tmp_path, monkeypatch):
    """A checkout whose revisions a test may add to."""
    (tmp_path / "etl").mkdir()
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    for file in ("pyproject.toml", "alembic.ini", "migrations/env.py", "migrations/script.py.mako"):
        (tmp_path / file).write_text((CHECKOUT / file).read_text())
    for revision in (CHECKOUT / "migrations" / "versions").glob("*.py"):
        (versions / revision.name).write_text(revision.read_text())
    monkeypatch.setattr(etl, "__file__", str(tmp_path / "etl" / "__init__.py"))
    return tmp_path


@pytest.fixture
def role(new_role):
    """The name of one such role."""
    return new_role()
