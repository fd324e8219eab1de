"""`persona-etl diff` as a person or a program meets it: what it prints, and how it ends."""

from __future__ import annotations

import json
import sys

import pytest

from etl.jobs.grants import reader_grants
from etl.sandbox import running_sandbox
from tests.cli.terminal import Terminal
from tests.cli.test_sync_command import run

UNKNOWN = "00000000-0000-4000-8000-0000000000ff"
KEYS = ["persona_id", "name", "from", "to", "first_seen_at", "kept_since", "is_reshaped"]
KEYS += ["changes", "not_kept", "events", "unfolded"]
OLD = "You are a concierge. Be kind to each guest, and never promise a discount.\nThank them."
NEW = OLD.replace("kind to", "brief with")


@pytest.fixture
def persona(database_url, tmp_path, monkeypatch):
    """The id of a persona whose prompt was edited, then its voice. The API is gone, and its key."""
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", database_url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with running_sandbox(count=1, moving=False) as sandbox, monkeypatch.context() as meanwhile:
        meanwhile.setenv("ANAM_API_KEY", sandbox.key)
        meanwhile.setenv("ANAM_API_URL", sandbox.url)
        (persona_id,) = sandbox.persona_ids
        voice = sandbox.world.payload(persona_id)["voice"]["id"]
        for entity_id, changes, kind in (
            (persona_id, {"name": "Ada", "brain": {"systemPrompt": OLD}}, "personas"),
            (persona_id, {"name": "Bea", "brain": {"systemPrompt": NEW}}, "personas"),
            (voice, {"displayName": "Luce"}, "voices"),
        ):
            sandbox.world.edit(entity_id, changes, kind)
            assert run("sync", persona_id).exit_code == 0
    return persona_id


def test_it_says_from_when_to_when_and_what_became_of_each_field(persona):
    result = run("diff", persona, "--from", "v1", "--to", "2")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"{persona}  Bea"
    assert [line[-9:] for line in lines[1:3]] == ["version 1", "version 2"]
    assert lines[3] == "1 change:"
    assert lines[4].endswith("Z  persona, version 2, updated")
    assert lines[5:] == [
        "",
        "brain.systemPrompt:",
        "    You are a concierge. Be [-kind to-]{+brief with+} each guest, and never",
        "    promise a discount.",
        "    Thank them.",
        'name: "Ada" → "Bea"',
    ]


def test_without_options_it_is_the_last_change_also_of_what_it_shares(persona):
    lines = run("diff", persona).stdout.splitlines()
    assert lines[1].endswith("version 2, just before the change")
    assert lines[-3].startswith("voice Luce, shared, versions 1 → 2")
    assert lines[-1].startswith("voice.displayName: ")
    assert lines[-1].endswith(' → "Luce"')


def test_no_change_is_said_plainly_and_is_no_failure(persona):
    result = run("diff", persona, "--from", "2", "--to", "v2")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "No change.")
    assert run("-q", "diff", persona).output == ""


def test_json_is_one_object_with_the_documented_keys(persona):
    told = json.loads(run("-q", "diff", persona, "--from", "1", "--json").stdout)
    assert list(told) == KEYS
    assert (told["persona_id"], told["name"]) == (persona, "Bea")
    assert list(told["from"]) == ["at", "state", "version", "valid_from", "shown_version"]
    prompt, name, voice = told["changes"]
    assert (prompt["document"], prompt["path"]) == ("persona", "brain.systemPrompt")
    assert (prompt["old"], prompt["new"], prompt["change"]) == (OLD, NEW, "changed")
    assert prompt["words"][1:3] == [["-", "kind to"], ["+", "brief with"]]
    assert "".join(text for sign, text in prompt["words"] if sign != "+") == OLD
    assert "words" not in name
    assert voice["document"].startswith("voice ")
    assert (voice["path"], voice["new"]) == ("displayName", "Luce")
    persona_event, voice_event = told["events"]
    assert persona_event["changed_paths"] == ["brain.systemPrompt", "name"]
    assert persona_event["not_before"] < persona_event["at"] < voice_event["at"]
    assert (voice_event["document"], voice_event["name"]) == (voice["document"], "Luce")
    # What it says can be asked again.
    again = ("--from", told["from"]["at"], "--to", told["to"]["at"])
    assert json.loads(run("diff", persona, *again, "--json").stdout) == told


def test_neither_text_nor_json_can_steer_a_terminal(persona, tmp_path):
    name = "\x9b2J\x1b[31m\u202eAda"
    (tmp_path / "p.json").write_text(json.dumps({"id": persona, "name": name}))
    assert run("backfill", "files", "p.json").exit_code == 0
    for options in ((), ("--json",)):
        shown = run("diff", persona, *options).stdout
        assert not set(shown) & set("\x9b\x1b\u202e")
    assert json.loads(shown)["name"] == name


def test_a_day_is_its_midnight_and_a_moment_needs_no_zone(persona):
    for before in ("2001-02-03", "2001-02-03T04:05:06", "2001-02-03 04:05:06.5+01:00"):
        told = json.loads(run("diff", persona, "--from", before, "--json").stdout)
        assert (told["from"]["state"], told["changes"]) == ("unseen", [])
        assert told["from"]["at"].startswith("2001-02-03T0")
    assert "No change." in run("diff", persona, "--from", "now").stdout


def test_what_can_t_be_answered_is_2_and_says_why_on_one_line(persona):
    for arguments, told in {
        (UNKNOWN,): f"nothing is known of persona {UNKNOWN}; `persona-etl sync` copies it",
        ("ada\x1b[2J",): '"ada\\u001b[2J" is not a UUID; ids look like 0000',
        (persona, "--from", "v7"): "has no version 7: its last is 2; a day is written like 2026-",
        (persona, "--from", "2", "--to", "1"): "; the earlier goes to --from",
        (persona, "--from", "yesterday"): "'yesterday' is no moment; write it like 2026-11-03",
        (persona, "--from", "2026-02-30"): "'2026-02-30' is no moment",
    }.items():
        result = run("diff", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert told in result.stderr.splitlines()[-1]
        assert "\x1b" not in result.stderr


def test_a_role_that_may_read_only_the_views_is_6_and_told_where_to_look(
    persona, plain_role, monkeypatch
):
    role_url, grant = plain_role
    for statement in reader_grants("anam", "THE_ROLE"):
        grant(statement.replace('"THE_ROLE"', "{role}"))
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", role_url)
    result = run("diff", persona)
    assert (result.exit_code, result.stdout) == (6, "")
    (error,) = result.stderr.splitlines()
    assert error.endswith("use the tables' owner, or ask anam_reporting.changes")


def test_on_a_terminal_what_changed_is_coloured_unless_that_is_not_wanted(persona):
    program = [sys.executable, "-m", "etl", "diff", persona, "--to", "v2"]
    for no_color, term in (("", "xterm"), ("1", "xterm"), ("", "dumb")):
        with Terminal(program, NO_COLOR=no_color, TERM=term) as terminal:
            assert terminal.read_to_the_end() == 0
        if (no_color, term) == ("", "xterm"):
            assert "\x1b[31;9mkind to\x1b[0m\x1b[32;4mbrief with\x1b[0m" in terminal.raw
        else:
            assert "[-kind to-]{+brief with+}" in terminal.raw
            assert "\x1b" not in terminal.raw
