"""`persona-etl verify` as a person or cron meets it: what it prints, and how it ends."""

from __future__ import annotations

import json
import signal

import pytest

from etl.sandbox import Fault
from tests.cli.test_sync_command import environment, rows, run, sandbox, started, wait_until

__all__ = ["environment", "sandbox"]  # fixtures

KEYS = ["command", "status", "started_at", "finished_at", "counts", "differences", "first"]
KEYS += ["lost", "ahead", "moved", "http_requests"]
COUNTS = ["requested", "equal", "behind", "differing", "overtaken"]
COUNTS += ["forbidden", "rejected", "failed", "not_attempted"]


@pytest.fixture
def url(environment):
    """The URL of a database into which all four personas were copied."""
    assert run("sync").exit_code == 0
    return environment["PERSONA_ETL_DATABASE__URL"]


def spoil(url: str, statement: str) -> None:
    rows(url, f"{statement} RETURNING 1")


def test_where_nothing_differs_it_says_so(url):
    result = run("verify")
    assert (result.exit_code, result.stderr) == (0, "")
    first, *counts = result.stdout.splitlines()
    assert first.startswith("verify nothing differs in ")
    assert [line.split() for line in counts] == [
        ["requested", "4"],
        ["equal", "4"],
        ["requests", "4"],
    ]
    assert run("-q", "verify").output == ""
    assert rows(url, "SELECT command FROM runs") == [("sync",)]


def test_differences_are_told_by_sort_and_the_error_says_what_to_do(url, sandbox):
    spoil(url, f"UPDATE personas SET name = 'Bob' WHERE persona_id = '{sandbox.persona_ids[0]}'")
    sandbox.world.edit(sandbox.persona_ids[1], {"name": "Ada\n\x1b[31m"})
    result = run("verify")
    assert result.exit_code == 8
    lines = result.stdout.splitlines()
    assert lines[0] == "Not what follows from the observations:"
    assert lines[1].startswith(f'personas {sandbox.persona_ids[0]}: name is "Bob", should be "')
    assert lines[2] == "At the API, not copied yet:"
    assert lines[3] == f"persona {sandbox.persona_ids[1]} Ada\\u000a\\u001b[31m: updated"
    assert lines[4].startswith("  name: ")
    assert [line.split() for line in lines[-4:]] == [
        ["equal", "2"],
        ["behind", "1"],
        ["differing", "1"],
        ["requests", "4"],
    ]
    assert result.stderr == (
        "persona-etl: error: versions and tables: 1 difference; `persona-etl backfill replay`"
        " mends it, when no other run holds the lock; 1 change at the API is not copied yet;"
        " `persona-etl sync` does that\n"
    )
    # A difference is no success: quiet or not.
    assert len(run("-q", "verify").stdout.splitlines()) == len(lines)
    assert run("backfill", "replay").exit_code == 0
    assert run("sync").exit_code == 0
    assert run("verify").exit_code == 0


def test_of_many_differences_the_first_are_told_and_all_are_counted(url):
    spoil(url, "UPDATE personas SET name = 'x', description = 'x', avatar_model = 'x'")
    spoil(url, "UPDATE brains SET system_prompt = 'x', personality = 'x', extra = '[1]'")
    result = run("verify")
    lines = result.stdout.splitlines()
    total = json.loads(run("verify", "--json").stdout)["differences"]
    assert lines[21] == f"… and {sum(total.values()) - 20} more"
    assert total.keys() == {"personas", "brains"}


def test_json_is_one_object_with_the_documented_keys(url, sandbox):
    equal = json.loads(run("verify", "--json", "--sample", "3").stdout)
    assert (list(equal), list(equal["counts"])) == (KEYS, COUNTS)
    assert (equal["status"], equal["counts"]["requested"], equal["counts"]["equal"]) == (
        "succeeded",
        3,
        3,
    )
    spoil(url, "UPDATE voices SET provider = 'Bob'")
    sandbox.world.edit(sandbox.persona_ids[0], {"skipGreeting": None})
    found = json.loads(run("verify", "--json").stdout)
    assert (found["status"], set(found["differences"])) == ("failed", {"voices"})
    assert {one["is"] for one in found["first"]} == {"Bob"}
    assert [change["id"] for change in found["ahead"]] == [sandbox.persona_ids[0]]


def test_it_says_under_v_whom_it_has_chosen_and_what_became_of_them(url, sandbox):
    told = run("-v", "verify", "--sample", "1").stderr
    (persona_id,) = [id_ for id_ in sandbox.persona_ids if f"chosen: {id_}" in told]
    assert f"persona {persona_id}: equal" in told


@pytest.mark.parametrize("size", ["0", "-1", "many"])
def test_a_sample_of_nobody_is_a_mistake(environment, size):
    result = run("verify", "--sample", size)
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_database_that_is_not_there_is_6_and_no_key_2(environment, monkeypatch):
    monkeypatch.delenv("ANAM_API_KEY")
    assert run("verify").exit_code == 2
    monkeypatch.setenv("ANAM_API_KEY", "any")
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", "postgresql://nobody@127.0.0.1:1/none")
    assert run("verify").exit_code == 6


def test_an_embedded_database_is_not_made_for_it(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", f"embedded:{tmp_path}/none")
    assert run("verify").exit_code != 0
    assert not (tmp_path / "none").exists()


def test_no_secret_is_told(url, sandbox):
    """Neither the key nor what cleaning takes out of a payload that was not yet copied."""
    link = {"id": "00000000-0000-4000-8000-00000000000a", "token": "canary-token"}
    sandbox.world.edit(sandbox.persona_ids[0], {"shareLinks": [link], "apiKey": "canary-secret"})
    sandbox.world.edit(sandbox.persona_ids[1], {"shot": "https://a/b?sig=canary-signature"})
    for options in ([], ["--json"]):
        result = run("-v", "verify", *options)
        assert result.exit_code == 8
        assert "shareLinks" in result.stdout
        assert "canary" not in result.output


def test_a_signal_ends_it_and_what_was_found_is_told(url, sandbox):
    sandbox.world.edit(sandbox.persona_ids[0], {"name": "Ada"})
    sandbox.order(Fault(delay_seconds=30, target=sandbox.persona_ids[3]))
    with started("verify", "--json") as process:
        wait_until(lambda: sandbox.requests.total >= 8)
        wait_until(lambda: sandbox.requests.in_flight == 1)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=20)
    told = json.loads(stdout)
    assert (process.returncode, told["status"]) == (143, "interrupted")
    assert told["counts"] | {"equal": 2, "behind": 1, "not_attempted": 1} == told["counts"]
    assert "Traceback" not in stderr
