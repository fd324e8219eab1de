"""`persona-etl report` as a person or a program meets it: what it prints, and how it ends."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import datetime, timedelta

import pytest
from wcwidth import width

from etl.cli.report_screen import as_lines
from etl.jobs.report import report
from etl.report.digest import ChangeDay, Digest, Listed
from etl.sandbox import running_sandbox
from etl.settings import load_settings
from tests.cli.test_status_command import execute
from tests.cli.test_sync_command import run
from tests.unit.digests import EMPTY, week

HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202e漢字 👩‍🚀 " * 20


@pytest.fixture
def sandbox():
    with running_sandbox(count=30, moving=False) as running:
        yield running


@pytest.fixture
def busy(sandbox, url):
    """The same after two syncs, between which as much happened as a screen must bear."""
    assert run("-q", "sync").exit_code == 0
    ids = sandbox.persona_ids
    for number, persona_id in enumerate(ids):
        prompt = {"systemPrompt": f"{HOSTILE} {number}"}
        sandbox.world.edit(persona_id, {"name": f"{HOSTILE}{number}", "brain": prompt})
    for kind in ("avatars", "voices"):
        for shared_id in sandbox.world.shared_ids(kind):
            sandbox.world.edit(shared_id, {"displayName": HOSTILE}, kind)
    for persona_id in ids[:4]:
        sandbox.world.delete(persona_id)
    sandbox.world.edit(ids[5], {"voiceSpeed": "fast", "newMember": 1})
    assert run("-q", "sync").exit_code == 0
    return url


def shown(*arguments: str) -> list[str]:
    """What it prints to people, which fits their terminal and can't steer it."""
    result = run("report", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    lines: list[str] = result.stdout.splitlines()
    assert max(map(width, lines)) <= 80, lines
    assert all(line.replace("\u200d", "").isprintable() for line in lines)
    return lines


def told(*arguments: str):
    result = run("report", *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_all_that_happened_fits_one_screen(busy) -> None:
    lines = shown()
    assert len(lines) <= 60
    text = "\n".join(lines)
    assert "26 live (+30 new, -4 gone); 4 removed in all" in text
    for heading in ("Needs attention", "What changed", "Runs"):
        assert heading in lines
    assert any(line.split() == ["personas", "30", "26", "4"] for line in lines)
    assert any(line.startswith("  removed   4: ") for line in lines)
    assert "prompts   26 changed" in text
    assert "and 20 more" in text
    assert "  sync      2 succeeded (median " in text
    assert "  succeeded 100 % of 2 runs" in text


def test_names_with_commas_are_told_apart() -> None:
    first = week().happenings.first[0]
    named = [
        replace(first, kind="persona", change="removed", name=name) for name in ("Ada, sales", "Bo")
    ]
    days = [ChangeDay(first.at.date(), "persona", "removed", 2)]
    digest = replace(EMPTY, happenings=Listed(2, named), change_days=days)
    assert "  removed   2: Ada, sales; Bo" in list(as_lines(digest, coloured=False))


def test_a_moment_a_day_and_a_length_of_time_say_since_when(busy) -> None:
    for since in ("24h", "1d12h", "2020-01-01", "2020-01-01T00:00:00+01:00", "9999d"):
        assert told("--since", since)["runs"]["count"] == 2, since
    last = told()["runs"]["first"][0]["started_at"]
    assert told("--since", last)["runs"]["count"] == 1
    for wrong, why in {"7": "how long ago", "soon": "how long ago", "3000-01-01": "future"}.items():
        result = run("report", "--since", wrong)
        assert result.exit_code == 2
        assert why in result.stderr


def test_json_is_the_whole_digest_in_one_object(busy) -> None:
    digest = told()
    assert list(digest) == [field.name for field in fields(Digest)]
    since = datetime.fromisoformat(digest["since"])
    assert datetime.fromisoformat(digest["now"]) - since == timedelta(days=7)
    assert digest["since"].endswith("+00:00")
    assert digest["totals"]["live"] == 26
    assert digest["prompts"]["first"][0]["name"].startswith("\x1b[2J")
    assert digest["change_days"][0]["day"] == digest["now"][:10]
    assert {concern["code"] for concern in digest["concerns"]} >= {"drift", "value_issues"}
    assert "\x1b" not in run("report", "--json").stdout


def test_where_nothing_happened_it_says_so(url) -> None:
    lines = shown()
    assert any(line.startswith("Nothing changed since ") for line in lines)
    assert any(line.startswith("No run began since ") for line in lines)
    assert "  ! No sync has been completed yet: nothing is here." in lines
    execute(url, "INSERT INTO personas (persona_id) VALUES (gen_random_uuid())")
    assert any(line.startswith("  personas  1 live") for line in shown())


def test_a_report_is_no_verdict_and_quiet_it_says_nothing(url) -> None:
    result = run("-q", "report")
    assert (result.exit_code, result.output) == (0, "")
    assert told()["concerns"]


def test_colours_are_for_terminals(busy, tmp_path) -> None:
    settings = load_settings({"PERSONA_ETL_DATABASE__URL": busy}, cwd=tmp_path)
    digest = report(settings, url=busy, since=timedelta(days=1))
    plain, coloured = ("\n".join(as_lines(digest, coloured=c)) for c in (False, True))
    assert "\x1b" not in plain
    assert coloured.replace("\x1b[1m", "").replace("\x1b[1;31m", "").replace("\x1b[0m", "") == plain
    assert plain != coloured


def test_a_page_is_written_whole_and_only_its_size_is_told(busy, tmp_path) -> None:
    page = tmp_path / "monday.html"
    result = run("report", "--html", str(page))
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{page}: ")
    assert page.read_text().startswith("<!doctype html>")
    assert page.read_text().count("漢字") > 26
    assert run("-q", "report", "--html", str(page)).output == ""
    printed = run("-q", "report", "--html", "-").stdout
    assert printed.startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"] == []


def test_a_page_that_can_not_be_written_is_told(url, tmp_path) -> None:
    result = run("report", "--html", str(tmp_path / "nowhere" / "page.html"))
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert run("report", "--html", "page.html", "--json").exit_code == 2
