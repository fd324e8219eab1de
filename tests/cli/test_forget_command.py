"""`persona-etl forget` as a person meets it: what it asks, what it prints, and how it ends."""

from __future__ import annotations

import json
import signal
import sys
from typing import NamedTuple
from uuid import uuid4

import psycopg
import pytest

from etl.sandbox import running_sandbox
from etl.store.lock import WriterLock
from tests.cli.terminal import Terminal
from tests.cli.test_signals import at_once
from tests.cli.test_sync_command import LOCKS, rows, run, started, wait_until

KEYS = ["run_id", "command", "status", "started_at", "finished_at"]
KEYS += ["persona_id", "rows_deleted", "shared", "forgotten_at"]
STRANGER = "00000000-0000-4000-8000-000000000001"


class Copied(NamedTuple):
    """Which personas were copied, and whereto."""

    persona_ids: list[str]
    database_url: str


@pytest.fixture
def copied(database_url, tmp_path, monkeypatch):
    """An API with three personas, copied into a database."""
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", database_url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with running_sandbox(count=3, moving=False) as made:
        monkeypatch.setenv("ANAM_API_KEY", made.key)
        monkeypatch.setenv("ANAM_API_URL", made.url)
        monkeypatch.setenv("PERSONA_ETL_PERSONAS__IDS", ",".join(made.persona_ids))
        assert run("sync").exit_code == 0
        yield Copied(made.persona_ids, database_url)


def known(copied: Copied) -> set[str]:
    return {str(id_) for (id_,) in rows(copied.database_url, "SELECT persona_id FROM personas")}


def test_it_says_what_would_go_and_then_what_went(copied):
    gone = copied.persona_ids[0]
    foretold = run("forget", gone, "--dry-run")
    assert (foretold.exit_code, foretold.stderr) == (0, "")
    first, *lines = foretold.stdout.splitlines()
    assert first == "forget, a dry run: nothing was written"
    assert [line.split() for line in lines if line.startswith("  personas ")] == [["personas", "1"]]
    assert any(line.startswith("avatar ") and "brought it" in line for line in lines)
    assert gone in known(copied)
    result = run("forget", gone)
    assert (result.exit_code, result.stderr) == (0, "")
    first, *went = result.stdout.splitlines()
    (run_id,) = rows(copied.database_url, "SELECT run_id FROM runs WHERE command = 'forget'")[0]
    assert first.startswith("forget succeeded in ")
    assert first.endswith(f" s, run {run_id}")
    assert went == lines
    assert known(copied) == {*copied.persona_ids[1:]}


def test_json_has_the_same_members_on_every_way(copied):
    gone = copied.persona_ids[0]
    foretold = json.loads(run("forget", gone, "--dry-run", "--json").stdout)
    told = json.loads(run("forget", gone, "--json").stdout)
    again = json.loads(run("forget", gone, "--json").stdout)
    assert [*foretold] == [*told] == [*again] == KEYS
    assert (told["command"], told["status"], told["persona_id"]) == ("forget", "succeeded", gone)
    assert foretold["rows_deleted"] == told["rows_deleted"] != again["rows_deleted"] == {}
    assert foretold["shared"] == told["shared"]
    assert {*told["shared"][0]} == {"kind", "id", "name", "goes"}
    assert (foretold["run_id"], again["run_id"]) == (None, None)
    assert told["forgotten_at"] == again["forgotten_at"] is not None


def test_who_was_forgotten_before_is_told_of_and_a_stranger_is_a_mistake(copied):
    gone = copied.persona_ids[0]
    assert run("-q", "forget", gone).output == ""
    result = run("forget", gone)
    (at,) = rows(copied.database_url, "SELECT erased_at FROM erasures")[0]
    assert result.exit_code == 0
    assert result.stdout == (
        f"persona {gone} was forgotten at {at:%Y-%m-%dT%H:%M:%SZ}: nothing is kept\n"
    )
    assert run("-q", "forget", gone).output == ""
    result = run("forget", STRANGER)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"persona-etl: error: nothing is known of persona {STRANGER};"
        " nothing was done: is the id right?\n"
    )
    result = run("forget", "persona-1")
    assert result.exit_code == 2
    assert '"persona-1" is not a UUID' in result.stderr
    assert len(rows(copied.database_url, "SELECT FROM erasures")) == 1


def test_a_configured_persona_that_was_forgotten_is_named_by_sync(copied):
    gone = copied.persona_ids[0]
    run("forget", gone)
    result = run("-q", "sync")
    assert (result.exit_code, result.stdout) == (0, "")
    (line,) = result.stderr.splitlines()
    assert f"forgotten and left out: persona {gone} (on " in line
    assert "never seen" not in run("status").stdout
    assert gone not in known(copied)
    assert run("-q", "sync", "--unforget").output == ""
    assert gone in known(copied)
    assert run("-q", "sync").output == ""


def test_on_a_terminal_it_asks_first(copied):
    gone = copied.persona_ids[0]
    for answer, code in (("n", 130), ("", 130), ("y", 0)):
        with Terminal([sys.executable, "-m", "etl", "forget", gone]) as terminal:
            terminal.read_until("[y/N]: ")
            assert gone in known(copied)
            terminal.type(f"{answer}\n")
            assert terminal.read_to_the_end() == code
        assert (gone in known(copied)) == (code != 0)


def test_on_a_terminal_yes_is_an_answer(copied):
    gone = copied.persona_ids[0]
    with Terminal([sys.executable, "-m", "etl", "forget", gone, "--yes"]) as terminal:
        assert terminal.read_to_the_end() == 0
        assert "[y/N]" not in terminal.raw
    assert gone not in known(copied)


def test_while_another_run_holds_the_lock_nothing_is_done(copied):
    lock = WriterLock(copied.database_url, "anam", command="sync", run_id=uuid4())
    assert lock.acquire()
    try:
        result = run("forget", copied.persona_ids[0])
    finally:
        lock.release()
    assert result.exit_code == 75
    assert "nothing was done" in result.stderr
    assert known(copied) == {*copied.persona_ids}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_on_the_way_nothing_is_gone_and_it_can_be_done_again(copied, number):
    gone = copied.persona_ids[0]
    before = rows(copied.database_url, "SELECT count(*) FROM observations")
    with psycopg.connect(copied.database_url) as other:
        # The last table that it comes to.
        other.execute("LOCK TABLE anam.erasures IN EXCLUSIVE MODE")
        with started("forget", gone) as process:
            waiting = f"{LOCKS} AND NOT granted AND relation = 'anam.erasures'::regclass"
            wait_until(lambda: rows(copied.database_url, waiting))
            if number == signal.SIGTERM:
                at_once(process, number, number)
            else:
                process.kill()
            assert process.wait(20) == (143 if number == signal.SIGTERM else -number)
    assert known(copied) == {*copied.persona_ids}
    assert rows(copied.database_url, "SELECT count(*) FROM observations") == before
    assert rows(copied.database_url, "SELECT FROM erasures") == []
    wait_until(lambda: run("forget", gone).exit_code == 0)
    assert known(copied) == {*copied.persona_ids[1:]}
