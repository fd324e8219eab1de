"""What the README shows of the commands is what they print: each example is run, in order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from etl.sandbox import Fault, Sandbox, running_sandbox
from tests.cli.console import check_document, examples

if TYPE_CHECKING:
    from collections.abc import Callable

README = Path(__file__).parents[2] / "README.md"


def a_week_of_work(sandbox: Sandbox, _url: str) -> None:
    prompted, renamed, gone, *_ = sandbox.persona_ids
    sandbox.world.edit(prompted, {"brain": {"systemPrompt": "You answer in one sentence."}})
    sandbox.world.edit(renamed, {"name": "Ada", "skipGreeting": True})
    sandbox.world.delete(gone)


def two_personas_are_forbidden(sandbox: Sandbox, _url: str) -> None:
    for persona_id in sandbox.persona_ids[:2]:
        sandbox.order(Fault(status=403, target=persona_id))


def a_persona_is_forbidden(sandbox: Sandbox, _url: str) -> None:
    sandbox.order(Fault(status=403, target=sandbox.persona_ids[1]))


def somebody_renames_a_persona(sandbox: Sandbox, url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE anam.personas SET name = 'Bob' WHERE persona_id = %s", [sandbox.persona_ids[0]]
        )


def one_is_edited_and_one_changed_by_hand(sandbox: Sandbox, url: str) -> None:
    sandbox.world.edit(sandbox.persona_ids[0], {"name": "Ben", "avatarModel": "cara-4"})
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE anam.personas SET skip_greeting = false WHERE persona_id = %s",
            [sandbox.persona_ids[1]],
        )


def a_persona_fails_once(sandbox: Sandbox, _url: str) -> None:
    sandbox.clear_faults()
    sandbox.order(Fault(status=400, target=sandbox.persona_ids[1]))


# What a configuration is made of.
SET_UP = (
    *("personas", "brains", "persona_tools", "persona_knowledge_groups"),
    *("voice_detection_options", "voice_generation_options"),
)
PROMPT = """You are the receptionist of Harbour Dental.
Greet each caller, ask for their name and date of birth, and find an appointment in the calendar.
Never give medical advice: offer that a dentist calls back within the hour.
Say goodbye by name."""


def three_are_set_up_nearly_alike(sandbox: Sandbox, url: str) -> None:
    first, second, third = sandbox.persona_ids[10:13]
    with psycopg.connect(url, options="-c search_path=anam") as connection:
        connection.execute("CREATE SCHEMA kept")
        for table in SET_UP:
            connection.execute(f"CREATE TABLE kept.{table} AS TABLE {table}")
        some = {"some": [first, second, third]}
        connection.execute(
            "UPDATE personas SET (persona_preset, avatar_id, avatar_model, voice_id, voice_speed,"
            " llm_id, enable_audio_passthrough, skip_greeting, zero_data_retention, widget_config)"
            " = ROW ('', NULL, 'cara-3', NULL, 1, NULL, false, false, true, NULL)"
            " WHERE persona_id = ANY (%(some)s)",
            some,
        )
        for table in SET_UP[1:]:
            connection.execute(f"DELETE FROM {table} WHERE persona_id = ANY (%(some)s)", some)
        for persona_id, prompt in (
            (first, PROMPT),
            (second, PROMPT),
            (third, PROMPT.replace("medical advice", "medical or legal advice")),
        ):
            connection.execute(
                "INSERT INTO brains (persona_id, system_prompt) VALUES (%s, %s)",
                [persona_id, prompt],
            )


def they_are_as_before(_sandbox: Sandbox, url: str) -> None:
    with psycopg.connect(url, options="-c search_path=anam") as connection:
        # Rows that others refer to go, and come back.
        connection.execute("SET session_replication_role = replica")
        for table in SET_UP:
            connection.execute(f"DELETE FROM {table}")
            connection.execute(f"INSERT INTO {table} SELECT * FROM kept.{table}")
        connection.execute("DROP SCHEMA kept CASCADE")


HAPPENS: dict[str, Callable[[Sandbox, str], None]] = {
    "a week of work": a_week_of_work,
    "two personas are forbidden": two_personas_are_forbidden,
    "a persona is forbidden": a_persona_is_forbidden,
    "a persona can not be fetched once": a_persona_fails_once,
    "somebody renames a persona by hand": somebody_renames_a_persona,
    "a persona is edited, and another's row is changed by hand": (
        one_is_edited_and_one_changed_by_hand
    ),
    "three personas are set up nearly alike": three_are_set_up_nearly_alike,
    "they are as before": they_are_as_before,
}


def test_what_the_readme_shows_is_what_the_commands_print(
    tmp_path: Path, empty_database_url: str
) -> None:
    with running_sandbox(count=50, key="sandbox-key", moving=True) as sandbox:
        check_document(README.read_text(), tmp_path, sandbox, empty_database_url, HAPPENS)


@pytest.mark.parametrize(
    "command",
    [
        *("init", "check", "migrate", "sync", "status", "runs", "backfill api", "backfill files"),
        *("backfill replay", "diff", "query", "report", "export", "verify", "forget", "prune"),
        *("schema", "prompts search", "prompts similar", "prompts configurations"),
    ],
)
def test_the_readme_shows_each_command_at_work(command: str) -> None:
    shown = [example.command for example in examples(README.read_text(encoding="utf-8"))]
    assert any(f"persona-etl {command}" in line for line in shown)
