"""What the README shows of the commands is what they print: each example is run, in order.

A `console` block holds commands after `$ ` and what they print. They run in one shell, in an empty
folder, against the sandbox and an empty database. Between two blocks a comment, `<!-- meanwhile:
… -->`, names what happens at the API or in the database. Times, durations and ids of runs may
differ.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from etl.sandbox import Fault, Sandbox, running_sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

README = Path(__file__).parents[2] / "README.md"
MARK = "\x1e"
# Where the examples say that they run.
FOLDER = "/home/you/personas"

_PIECE = re.compile(
    r"^<!-- meanwhile: (?P<event>.*?) -->$|^```console\n(?P<block>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "<time>"),
    (re.compile(r"\bin \d+(\.\d)? m?s\b"), "in <duration>"),
    (re.compile(r"seen \d+ \w+( to \d+ \w+)? ago(, median \d+ \w+)?"), "seen <age> ago"),
    (re.compile(r"\b\d+ (s|min) ago"), "<age> ago"),
    (re.compile(r"\btook \d+ s\b"), "took <duration>"),
    (re.compile(r"""(run |run_id = '|"run_id": ?")[0-9a-f-]{36}"""), r"\1<run>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8787"),
    (re.compile(r"Postgres \d+(\.\d+)?, database \S+ as \S+"), "Postgres"),
)


class Example(NamedTuple):
    """A command, what it should print, and what happens before it."""

    command: str
    output: str
    events: list[str]


def examples() -> list[Example]:
    found: list[Example] = []
    events: list[str] = []
    for piece in _PIECE.finditer(README.read_text(encoding="utf-8")):
        if piece["event"]:
            events.append(piece["event"])
            continue
        for part in re.split(r"^\$ ", piece["block"], flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append(Example(command, output, events))
            events = []
    return found


def without_what_may_differ(text: str) -> str:
    for pattern, instead in _VOLATILE:
        text = pattern.sub(instead, text)
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


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


HAPPENS: dict[str, Callable[[Sandbox, str], None]] = {
    "a week of work": a_week_of_work,
    "two personas are forbidden": two_personas_are_forbidden,
    "a persona is forbidden": a_persona_is_forbidden,
    "somebody renames a persona by hand": somebody_renames_a_persona,
    "a persona is edited, and another's row is changed by hand": (
        one_is_edited_and_one_changed_by_hand
    ),
}


class Shell:
    """One shell that lives through all examples."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            ["bash", "--norc", "-s"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            text=True,
        )

    def run(self, command: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # The exit code of the example goes on to be $? in the next.
        self.process.stdin.write(f"{command}\n{{ s=$?; echo {MARK}; (exit $s); }}\n")
        self.process.stdin.flush()
        lines: list[str] = []
        while (line := self.process.stdout.readline()) and not line.endswith(f"{MARK}\n"):
            lines.append(line)
        return "".join([*lines, line.removesuffix(f"{MARK}\n")])


def test_what_the_readme_shows_is_what_the_commands_print(
    tmp_path: Path, empty_database_url: str
) -> None:
    with running_sandbox(count=50, key="sandbox-key", moving=True) as sandbox:
        shell = Shell(
            tmp_path,
            {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "LANG": "C.UTF-8",
                "ANAM_API_URL": sandbox.url,
                "ANAM_API_KEY": sandbox.key,
                "PERSONA_ETL_DATABASE__URL": empty_database_url,
            },
        )
        with shell.process:
            for example in examples():
                for event in example.events:
                    HAPPENS[event](sandbox, empty_database_url)
                printed = shell.run(example.command).replace(str(tmp_path), FOLDER)
                assert without_what_may_differ(printed) == without_what_may_differ(
                    example.output
                ), example.command
            assert shell.process.stdin is not None
            shell.process.stdin.close()
    with psycopg.connect(empty_database_url) as connection:
        for query in re.findall(
            r"^```sql\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL
        ):
            assert connection.execute(query).description is not None


@pytest.mark.parametrize(
    "command", ["init", "check", "migrate", "sync", "status", "backfill replay", "verify"]
)
def test_the_readme_shows_each_command_at_work(command: str) -> None:
    assert any(f"persona-etl {command}" in example.command for example in examples())
