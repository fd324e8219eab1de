"""Whatever ends a run, its row is closed, and the next one ends where it would have."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from etl.errors import DatabaseError
from etl.sandbox import Fault

# Fails in the middle of a batch, in whatever way the test wants.
TROUBLE = """
    CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {what}; END $$;
    CREATE TRIGGER trouble BEFORE INSERT OR UPDATE ON {table}
       FOR EACH ROW {when} EXECUTE FUNCTION trouble();
"""
A_BUG = "RAISE EXCEPTION 'this is a bug'"
DEATH = "PERFORM pg_terminate_backend(pg_backend_pid())"


def make_trouble(target, what: str, table: str = "brains", when: str = "") -> None:
    target.query(TROUBLE.format(what=what, table=table, when=when))


def mend(target) -> None:
    target.query("DROP FUNCTION trouble CASCADE")


def test_a_run_has_its_row_before_its_work_starts(copying):
    with copying(count=2) as target:
        seen = []
        body = target.world.body

        def look(persona_id):
            seen.append(target.row("runs"))
            return body(persona_id)

        target.world.body = look
        summary = target.sync(API__CONCURRENCY="1")
        for run in seen:
            assert (run["run_id"], run["status"]) == (summary.run_id, "running")
            assert (run["requested"], run["not_attempted"]) == (2, 2)
            assert run["finished_at"] is None
        assert len(seen) == 2
        run = target.row("runs")
        assert run["command"] == "sync"
        assert run["host"]
        assert run["pid"] > 0
        assert run["version"]


def test_a_bug_closes_the_run_and_is_not_hidden(target):
    make_trouble(target, A_BUG)
    edited = target.world.persona_ids[0]
    target.world.edit(edited, {"brain": {"systemPrompt": "A secret recipe."}})
    before = target.dump()
    with pytest.raises(sa.exc.DBAPIError, match="this is a bug") as caught:
        target.sync()
    assert "recipe" not in str(caught.value)
    summary = target.reports[-1]
    assert (summary.status, summary.counts["not_attempted"]) == ("failed", 6)
    run = target.row("runs", run_id=summary.run_id)
    assert run["error"].endswith("see the traceback")
    for name in before.keys() - {"runs"}:
        assert target.rows(name) == before[name], name
    mend(target)
    assert target.sync().counts["updated"] == 1


def test_what_was_loaded_before_a_bug_stays_and_is_counted(copying):
    with copying(count=300) as target:
        late = "WHEN (NEW.system_prompt = 'the last')"
        make_trouble(target, A_BUG, when=late)
        last = target.world.persona_ids[-1]
        target.world.edit(last, {"brain": {"systemPrompt": "the last"}})
        # At least one batch is loaded by then.
        target.sandbox.order(Fault(delay_seconds=0.5, target=last))
        with pytest.raises(sa.exc.DBAPIError):
            target.sync(API__CONCURRENCY="16")
        summary = target.reports[-1]
        loaded = summary.counts["created"]
        assert 250 <= loaded == 300 - summary.counts["not_attempted"] < 300
        assert len(target.rows("personas")) == loaded
        mend(target)
        counts = target.sync().counts
        assert (counts["created"], counts["unchanged"]) == (300 - loaded, loaded)


def test_a_session_that_the_server_ends_ends_the_run(target):
    make_trouble(target, DEATH)
    target.world.edit(target.world.persona_ids[0], {"brain": {"systemPrompt": "new"}})
    summary = target.sync()
    assert (summary.status, summary.exit_code) == ("failed", 6)
    assert isinstance(summary.error, DatabaseError)
    assert summary.counts["not_attempted"] == 6
    assert target.row("runs", run_id=summary.run_id)["status"] == "failed"
    mend(target)
    assert target.sync().counts["updated"] == 1


def test_a_session_that_ends_while_removing_ends_the_run(target):
    make_trouble(target, DEATH, table="personas", when="WHEN (NEW.removed_at IS NOT NULL)")
    gone, *others = target.world.persona_ids
    target.world.delete(gone)
    summary = target.sync([gone, *others])
    assert (summary.status, summary.exit_code) == ("failed", 6)
    assert (summary.counts["missing"], summary.counts["unchanged"]) == (1, 5)
    assert target.changes(gone) == ["created"]
    mend(target)
    assert target.sync([gone, *others]).exit_code == 0
    assert target.changes(gone) == ["created", "removed"]


def test_a_table_that_is_gone_is_told(target):
    target.is_corrupted = True
    target.query("DROP TABLE brains CASCADE")
    target.world.edit(target.world.persona_ids[0], {"brain": {"systemPrompt": "new"}})
    summary = target.sync()
    assert (summary.status, summary.exit_code) == ("failed", 6)
    assert '"brains" does not exist' in str(summary.error)


def test_a_ledger_that_is_gone_ends_the_run_before_it_exists(target):
    target.query("DROP TABLE run_items, runs CASCADE")
    with pytest.raises(DatabaseError, match='"runs" does not exist'):
        target.sync()
    assert len(target.reports) == 1


def test_a_database_that_is_gone_is_reported_all_the_same(copying, new_database, template):
    with new_database(template) as url, copying(count=3, url=url) as target:
        name = sa.make_url(url).database
        target.is_corrupted = True

        def vanish(_payload):
            with psycopg.connect(sa.make_url(url).set(database="postgres").render_as_string(
                hide_password=False), autocommit=True) as admin:  # fmt: skip
                admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
                admin.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = %s AND pid <> pg_backend_pid()",
                    [name],
                )
            return _payload

        target.world.reshape(vanish)
        summary = target.sync([target.world.persona_ids[0]])
        assert (summary.status, summary.exit_code) == ("failed", 6)
        assert summary.finished_at is None


def test_orphaned_runs_are_closed_by_the_next(target):
    orphan = target.reports[0].run_id
    target.query(
        "UPDATE runs SET status = 'running', finished_at = NULL, created = 4, not_attempted = 2"
    )
    summary = target.sync()
    closed = target.row("runs", run_id=orphan)
    assert closed["status"] == "crashed"
    assert closed["finished_at"] <= summary.started_at
    assert closed["error"]
    # What its batches entered stays.
    assert (closed["created"], closed["not_attempted"]) == (4, 2)
    finished = target.row("runs", run_id=summary.run_id)
    assert (finished["status"], finished["error"]) == ("succeeded", None)


def test_a_deadlock_is_tried_again(target):
    target.query("CREATE SEQUENCE tries")
    make_trouble(
        target,
        "IF nextval('anam.tries') < 3 THEN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END IF;"
        " RETURN NEW",
    )
    target.world.edit(target.world.persona_ids[0], {"brain": {"systemPrompt": "new"}})
    assert target.sync().counts["updated"] == 1


def test_a_deadlock_that_stays_ends_the_run(target):
    make_trouble(target, "RAISE EXCEPTION 'x' USING ERRCODE = '40P01'")
    target.world.edit(target.world.persona_ids[0], {"brain": {"systemPrompt": "new"}})
    assert target.sync().exit_code == 6


def test_run_items_tell_how_it_went(target):
    edited, failed, *others = target.world.persona_ids
    target.world.edit(edited, {"name": "Edited"})
    target.sandbox.order(Fault(status=503, target=edited), Fault(delay_seconds=0.2, target=edited))
    target.sandbox.order(Fault(status=400, body={"message": "no such model"}, target=failed))
    summary = target.sync([edited, failed, *others])
    items = {str(i["persona_id"]): i for i in target.rows("run_items", run_id=summary.run_id)}
    assert set(items) == {edited, failed}
    assert items[edited]["attempts"] == 2
    assert items[edited]["duration_ms"] >= 200
    assert items[edited]["message"] is None
    assert items[failed]["message"] == f'GET /v1/personas/{failed}: 400 ("no such model")'
    assert summary.http_requests == 7
