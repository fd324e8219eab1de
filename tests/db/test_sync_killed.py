"""Killed at any statement, the next run ends where an undisturbed one would."""

from __future__ import annotations

from contextlib import contextmanager, suppress

import psycopg
import pytest
import sqlalchemy as sa

from etl.errors import DatabaseError
from etl.tables import metadata

# What differs between two histories of the same things: when it was seen, and in which run.
OF_THE_MOMENT = {
    "first_seen_at",
    "last_changed_at",
    "last_observed_at",
    "last_seen_at",
    "observed_at",
    "resolved_at",
    "run_id",
    "valid_from",
    "valid_to",
}
LEDGER = {"runs", "run_items", "persona_sync_state"}


class Executioner:
    """Ends the session that is about to send the nth statement or commit.

    Or, when that is a commit and `afterwards`, the session whose commit was done: only the answer
    to it is lost.
    """

    def __init__(self, url: str, nth: int, *, afterwards: bool = False) -> None:
        self.url = url
        self.nth = nth
        self.afterwards = afterwards
        self.seen = 0

    @property
    def has_struck(self) -> bool:
        return self.nth <= self.seen

    def __call__(self, connection: sa.Connection, *_more: object) -> None:
        self.seen += 1
        if self.seen == self.nth:
            driver_connection = connection.connection.driver_connection
            assert isinstance(driver_connection, psycopg.Connection)
            pid = driver_connection.info.backend_pid
            if self.afterwards:
                driver_connection.commit()
            with psycopg.connect(self.url, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            if self.afterwards:
                # The driver would not notice before the next statement.
                raise psycopg.OperationalError("the connection was lost")


@contextmanager
def at_work(executioner: Executioner):
    events = ["commit"] if executioner.afterwards else ["commit", "before_cursor_execute"]
    for event in events:
        sa.event.listen(sa.Engine, event, executioner)
    try:
        yield
    finally:
        for event in events:
            sa.event.remove(sa.Engine, event, executioner)


def timeless(target) -> dict[str, list[str]]:
    """All tables but the ledger; of times only whether there is one."""
    found = {}
    for name in metadata.tables.keys() - LEDGER:
        rows = [
            {
                column: value is None if column == "removed_at" else value
                for column, value in row.items()
                if column not in OF_THE_MOMENT
            }
            for row in target.rows(name)
        ]
        found[name] = sorted(map(repr, rows))
    return found


@pytest.fixture
def edited(copying):
    """A target where the second sync has one of everything to do."""
    with copying(count=7, seed=2) as target:
        ids = target.world.persona_ids
        target.sync(ids[:6])
        world = target.world
        links = next(links for i in ids if (links := world.payload(i)["shareLinks"]))
        world.edit(ids[0], {"name": "Edited", "tools": [], "avatar": None, "voiceSpeed": "fast"})
        world.edit(ids[1], {"shareLinks": [*links, *(world.payload(ids[1])["shareLinks"] or [])]})
        world.edit(world.payload(ids[2])["voice"]["id"], {"displayName": "Edited"}, "voices")
        world.set_payload(ids[3], world.payload(ids[3]) | {"new": 1})
        world.set_payload(ids[4], b"not JSON")
        world.delete(ids[5])
        yield target, ids


@pytest.mark.parametrize(
    # Every fourth of some 70 statements: a transaction has many, and ends the same at each.
    ("step", "afterwards"),
    [(4, False), (1, True)],
)
def test_killed_at_any_statement_the_next_run_heals(edited, new_database, step, afterwards):
    # One connection: to whom a link goes that two personas show hangs on the order of arrival.
    target, ids = edited
    template = sa.make_url(target.url).database
    target.admin.close()
    undisturbed: dict[str, list[str]] = {}
    for nth in range(0, 999, step):
        with new_database(template) as url, target.at(url):
            executioner = Executioner(url, nth, afterwards=afterwards)
            # Before the run exists it is raised, later reported.
            with at_work(executioner), suppress(DatabaseError):
                target.sync(ids, API__CONCURRENCY="1")
            if nth == 0:
                undisturbed = timeless(target)
                continue
            if not executioner.has_struck:
                break
            target.sync(ids, API__CONCURRENCY="1")
            statuses = {row["status"] for row in target.rows("runs")}
            assert statuses <= {"succeeded", "partial", "failed", "crashed"}, nth
            healed = timeless(target)
            # Each run keeps what it rejected.
            assert len(set(healed.pop("rejected_payloads"))) <= 2
            for name, rows in healed.items():
                assert rows == undisturbed[name], (nth, name)
    assert nth > (4 if afterwards else 30)
