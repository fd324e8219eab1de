"""`persona-etl prompts` as a person or a program meets it: what it prints, and how it ends."""

from __future__ import annotations

import json
import sys

import pytest
from wcwidth import width

from etl.jobs.grants import reader_grants
from etl.sandbox import running_sandbox
from tests.cli.terminal import Terminal
from tests.cli.test_status_command import execute
from tests.cli.test_sync_command import run

PROMPT = "You are a concierge. Be kind to each guest, and never promise a discount.\nThank them."
LONG = " ".join(f"word{number}" for number in range(60))
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202e漢字 <script>" * 9


@pytest.fixture
def sandbox():
    with running_sandbox(count=6, moving=False) as running:
        for number, persona_id in enumerate(running.persona_ids):
            running.world.edit(
                persona_id, {"name": f"P{number}", "brain": {"systemPrompt": f"Only {number}."}}
            )
        yield running


@pytest.fixture
def told_prompts(sandbox, url):
    """What gives the personas these prompts, in order, and copies them."""

    def tell(*prompts: str) -> list[str]:
        for persona_id, prompt in zip(sandbox.persona_ids, prompts, strict=False):
            sandbox.world.edit(persona_id, {"brain": {"systemPrompt": prompt}})
        assert run("sync").exit_code == 0
        return list(sandbox.persona_ids)

    return tell


def shown(*arguments: str, exit_code: int = 0) -> list[str]:
    """What it prints to people, which fits their terminal and can't steer it."""
    result = run("prompts", *arguments)
    assert (result.exit_code, result.stderr) == (exit_code, "")
    lines: list[str] = result.stdout.splitlines()
    assert max(map(width, lines)) <= 80, lines
    assert all(line.isprintable() for line in lines)
    return lines


def told(*arguments: str, exit_code: int = 0):
    result = run("prompts", *arguments, "--json")
    assert (result.exit_code, result.stderr) == (exit_code, "")
    return json.loads(result.stdout)


# ── search ───────────────────────────────────────────────────────────────────────────────────────


def test_a_phrase_is_shown_where_it_stands_and_a_shared_prompt_once(told_prompts):
    ids = told_prompts(PROMPT, PROMPT, "Promise A  DISCOUNT\n" * 5)
    both = sorted(ids[:2])
    lines = shown("search", "promise\na discount")
    assert lines[0] == "2 of 5 distinct prompts contain it, of 3 personas"
    assert lines[2].endswith(", 2 personas, once")
    assert [line.split()[0] for line in lines[3:5]] == both
    assert "»promise a discount«. Thank them." in lines[5]
    assert lines[7].endswith(", 1 persona, 5 times")
    assert lines[-1] == "    … 2 more times …"
    found = told("search", "promise a discount")
    assert (found["searched"], found["count"], found["personas"]) == (5, 2, 3)
    first, second = found["prompts"]
    assert [one["persona_id"] for one in first["personas"]] == both
    assert first["first"] == [
        {
            "line": 1,
            "before": PROMPT[: PROMPT.index("promise")],
            "passage": "promise a discount",
            "after": ".\nThank them.",
        }
    ]
    assert second["passages"] == 5
    assert [one["line"] for one in second["first"]] == [1, 2, 3]


def test_what_no_prompt_contains_ends_with_8(told_prompts):
    told_prompts()
    assert shown("search", "discount", exit_code=8) == ["none of 6 distinct prompts contains it"]
    assert told("search", "discount", exit_code=8)["prompts"] == []
    assert run("-q", "prompts", "search", "discount").exit_code == 8
    quiet = run("-q", "prompts", "search", "only")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


def test_an_expression_is_searched_for_and_a_wrong_one_is_told(told_prompts):
    told_prompts()
    assert told("search", "--regex", "^only [23]")["count"] == 2
    assert told("search", "only [23]", exit_code=8)["count"] == 0
    for arguments, complaint in (
        (("--regex", "(x"), "PHRASE is no regular expression: missing )"),
        ((" ",), "PHRASE is blank"),
    ):
        result = run("prompts", "search", *arguments)
        assert result.exit_code == 2
        assert complaint in result.stderr


def test_history_tells_who_was_told_something_and_until_when(sandbox, told_prompts):
    ids = told_prompts(PROMPT, PROMPT)
    told_prompts("Nothing of the kind.")
    sandbox.world.delete(ids[1])
    run("sync")
    assert told("search", "discount", exit_code=8)["searched"] == 5
    (prompt,) = told("search", "--history", "discount")["prompts"]
    holders = {one["persona_id"]: one for one in prompt["personas"]}
    assert set(holders) == set(ids[:2])
    assert all(one["valid_from"] < one["valid_to"] for one in holders.values())
    lines = shown("search", "--history", "discount")
    assert lines[0] == "1 of 6 distinct prompts contains it, of 2 personas"
    assert all(" to 20" in line for line in lines[3:5])
    (prompt,) = told("search", "--history", "only 5")["prompts"]
    assert prompt["personas"][0]["valid_to"] is None
    assert " to now  P5" in shown("search", "--history", "only 5")[3]
    assert prompt["prompt_id"] == told("search", "only 5")["prompts"][0]["prompt_id"]


def test_only_so_many_are_shown_and_hostile_text_steers_nothing(sandbox, told_prompts):
    sandbox.world.edit(sandbox.persona_ids[1], {"name": HOSTILE})
    told_prompts(HOSTILE, f"{HOSTILE} and more", "漢" * 500)
    lines = shown("search", "漢字", "--limit", "1")
    assert lines[0] == "2 of 6 distinct prompts contain it, of 2 personas"
    assert lines[-1] == "… 1 more; --limit shows them …"
    assert len(told("search", "漢字", "--limit", "1")["prompts"]) == 1
    shown("search", "--regex", "漢+")
    shown("search", "--regex", r"\s")
    shown("similar", "--at-least", "60")


def test_a_terminal_has_the_passage_reversed(told_prompts):
    told_prompts(PROMPT)
    with Terminal([sys.executable, "-m", "etl", "prompts", "search", "kind to"]) as terminal:
        assert terminal.read_to_the_end() == 0
    assert "\x1b[7mkind to\x1b[0m each guest" in terminal.raw


@pytest.mark.parametrize(
    ("command", "how_far"),
    [(["search", "--history", "kind to"], "personas 0/6"), (["similar"], "prompts 0/6")],
)
def test_what_takes_long_says_on_a_terminal_how_far_it_is(told_prompts, command, how_far):
    told_prompts(PROMPT)
    with Terminal([sys.executable, "-m", "etl", "prompts", *command]) as terminal:
        assert terminal.read_to_the_end() == 0
    assert how_far in terminal.raw
    assert not any(how_far in line for line in terminal.screen.shown)


# ── similar ──────────────────────────────────────────────────────────────────────────────────────


def test_nearly_alike_prompts_are_a_group_and_told_by_what_differs(told_prompts):
    ids = told_prompts(LONG, f"{LONG} more", LONG, LONG.replace("word7 ", "word8 "), "Other.")
    lines = shown("similar")
    assert lines[:4] == [
        "5 distinct prompts of 6 personas",
        "3 prompts of 4 personas are in 1 group at least 90 % alike",
        "",
        "3 prompts, 4 personas",
    ]
    assert lines[4].endswith(", 2 personas")
    assert [line.split()[0] for line in lines[5:7]] == sorted([ids[0], ids[2]])
    assert lines[7].startswith("    word0 word1 word2")
    assert lines[8].endswith(", 1 persona, 99 % like it")
    assert lines[9].split()[0] == ids[1]
    assert any(line.endswith("word59{+ more+}") for line in lines[10:14])
    assert "    word0 word1 word2 word3 word4 word5 word6 [-word7-]{+word8+} word8 word9" in lines
    found = told("similar", "--variants", "1")
    (group,) = found["groups"]
    assert (found["count"], group["prompts"], group["personas"]) == (1, 3, 4)
    assert group["reference"]["system_prompt"] == LONG
    (variant,) = group["variants"]
    assert variant["similarity"] == 0.9917
    assert variant["words"] == [["=", LONG], ["+", " more"]]
    assert shown("similar", "--variants", "1")[-1] == "… 1 more prompt; --variants shows them …"
    assert shown("similar", "--at-least", "100")[1:] == ["no two of them are at least 100 % alike"]


def test_too_long_prompts_are_not_compared_which_is_said(told_prompts):
    told_prompts("x " * 60_000, "x " * 60_000 + "y", "x " * 40_000, "x " * 40_000 + "y")
    lines = shown("similar", "--variants", "0", "--limit", "1")
    assert lines[1] == "2 not compared: longer than 100,000 characters"
    assert lines[2] == "2 prompts of 2 personas are in 1 group at least 90 % alike"


# ── configurations ───────────────────────────────────────────────────────────────────────────────


def set_up(url: str, sandbox) -> list[str]:
    """All alike; then the sixth otherwise, the fifth with another speed, the fourth both."""
    execute(
        url,
        "UPDATE personas SET (avatar_id, avatar_model, voice_id, llm_id) = (NULL, 'x', NULL, 'x'),"
        " persona_preset = NULL, voice_speed = 1, enable_audio_passthrough = false,"
        " skip_greeting = false, zero_data_retention = false, widget_config = NULL",
    )
    execute(url, "UPDATE brains SET system_prompt = 'Be kind to all.', personality = NULL")
    for table in ("persona_tools", "persona_knowledge_groups"):
        execute(url, f"DELETE FROM {table}")
    for table in ("voice_detection_options", "voice_generation_options"):
        execute(url, f"DELETE FROM {table}")
    ids = sorted(sandbox.persona_ids)
    for persona_id in ids[3:5]:
        execute(url, f"UPDATE personas SET voice_speed = 1.1 WHERE persona_id = '{persona_id}'")
    for persona_id in (ids[3], ids[5]):
        execute(
            url,
            "UPDATE brains SET system_prompt = 'Be kind to most.'"
            f" WHERE persona_id = '{persona_id}'",
        )
    return ids


def test_configurations_are_counted_and_shown_where_one_setting_differs(sandbox, url, told_prompts):
    told_prompts()
    ids = set_up(url, sandbox)
    found = told("configurations")
    assert (found["distinct"], found["personas"], found["shared"]) == (4, 6, 1)
    (shared,) = found["most_shared"]
    assert [one["persona_id"] for one in shared["personas"]] == ids[:3]
    assert shared["settings"]["avatar_model"] == "x"
    assert [(odd["setting"], odd["personas"]) for odd in found["one_apart"]] == [
        ("system_prompt", 4),
        ("voice_speed", 4),
        ("system_prompt", 2),
        ("voice_speed", 2),
    ]
    assert [one["value"] for one in found["one_apart"][1]["first"]] == [1, 1.1]
    lines = shown("configurations", "--limit", "2")
    assert lines[0] == "6 live personas in 4 distinct configurations, 1 shared"
    at = lines.index("voice_speed: 2 configurations, 4 personas")
    assert lines[at + 1] == "1  3 personas"
    assert lines[at + 5] == "1.1  1 persona"
    assert "    Be kind to [-all-]{+most+}." in lines
    assert lines[-1] == "… 2 more sets; --limit shows them …"


def test_numbers_of_settings_have_all_their_digits(sandbox, url, told_prompts):
    told_prompts()
    set_up(url, sandbox)
    number = f"1{'0' * 320}.5"
    execute(url, f"UPDATE personas SET widget_config = '{{\"x\": {number}}}'")
    printed = run("prompts", "configurations", "--json").stdout
    assert f'"x":{number}' in printed
    assert "Infinity" not in printed


def test_where_all_are_set_up_otherwise_it_says_so(told_prompts):
    told_prompts()
    assert shown("configurations") == [
        "6 live personas in 6 distinct configurations, none shared",
        "",
        "no two of them differ in one setting only",
    ]


# ── Who may ──────────────────────────────────────────────────────────────────────────────────────


def test_a_role_that_may_read_the_reports_is_enough(told_prompts, plain_role, monkeypatch):
    told_prompts(PROMPT)
    reader, as_owner = plain_role
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", reader)
    refused = run("prompts", "similar")
    assert refused.exit_code == 6
    assert "migrate --grant-reader" in refused.stderr
    for statement in reader_grants("anam", "THE_ROLE"):
        as_owner(statement.replace('"THE_ROLE"', "{role}"))
    assert told("search", "discount")["count"] == 1
    assert told("search", "discount", "--history")["count"] == 1
    assert told("similar")["distinct"] == 6
    assert told("configurations")["personas"] == 6


def test_an_empty_database_is_told_plainly(url):
    assert shown("similar") == [
        "0 distinct prompts of 0 personas",
        "no two of them are at least 90 % alike",
    ]
    assert shown("configurations")[0] == (
        "0 live personas in 0 distinct configurations, none shared"
    )
    assert shown("search", "x", exit_code=8) == ["none of 0 distinct prompts contains it"]
