"""What a person sees when a command fails is found in docs/operations.md by searching for it."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from click.testing import CliRunner

from etl.cli.main import cli
from etl.sandbox import Fault, running_sandbox
from etl.store.lock import WriterLock
from tests.message_page import looked_up

STRANGER = "00000000-0000-4000-8000-000000000001"
# What stands around a message: who speaks, or when and how loudly, or of what `check` tells.
AROUND = re.compile(
    r"persona-etl: (?:error: )?(?=.)|Error: |\S+Z (?:warning|error) +|wrong  \S+ +|  (?=\S+: )"
)


@pytest.fixture(scope="module")
def sandbox():
    with running_sandbox(count=2, key="the-key") as running:
        yield running


@pytest.fixture
def meet(url, monkeypatch):
    """The exit code of a command, and the messages that it prints."""

    def run(*command: str, **environ: str) -> tuple[int, list[str]]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(cli, command)
        told = result.stderr or result.stdout
        found = [AROUND.sub("", line, count=1) for line in told.splitlines() if AROUND.match(line)]
        return result.exit_code, found

    return run


def in_the_manual(exit_code: int, line: str) -> bool:
    return any(
        {str(exit_code), "log", "item"} & set(entry.ends_with.split(", "))
        for entry in looked_up(line)
    )


NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
MET = {
    "a misspelt variable": (2, ["check"], {"PERSONA_ETL_DATABASE__ULR": "x"}),
    "two mistakes": (2, ["sync"], {"PERSONA_ETL_API__CONCURRENCY": "0", "ANAM_API_URL": "ftp:/"}),
    "a key of another kind": (2, ["sync"], {"ANAM_API_KEY": "two words"}),
    "no API key": (2, ["sync"], {"ANAM_API_KEY": ""}),
    "no such command": (2, ["snyc"], {}),
    "no moment": (2, ["report", "--since", "yesterday"], {}),
    "no such file": (2, ["backfill", "files", "nowhere.json"], {}),
    "nobody of that name": (2, ["diff", STRANGER], {}),
    "no such run": (2, ["runs", "12345678"], {}),
    "nothing to forget": (2, ["forget", STRANGER, "--yes"], {}),
    "wrong SQL": (2, ["query", "SELECT nme FROM personas"], {}),
    "SQL that writes": (2, ["query", "DELETE FROM anam.runs"], {}),
    "nobody at the database": (6, ["sync"], {"PERSONA_ETL_DATABASE__URL": NOWHERE}),
    "no tables": (6, ["status"], {"PERSONA_ETL_DATABASE__SCHEMA": "elsewhere"}),
    "a key that is refused": (4, ["sync"], {"ANAM_API_KEY": "another-key"}),
    "nobody at the API": (5, ["verify"], {"ANAM_API_URL": "http://127.0.0.1:1"}),
    "an id that is nobody's": (0, ["sync", STRANGER], {}),
    "no sync as yet": (8, ["status", "--max-age", "1h"], {}),
}


@pytest.mark.parametrize("case", MET)
def test_what_is_printed_can_be_looked_up(meet, case):
    expected, command, environ = MET[case]
    exit_code, lines = meet(*command, **environ)
    assert exit_code == expected
    assert lines
    assert [line for line in lines if not in_the_manual(exit_code, line)] == []


def test_what_is_told_of_a_busy_target_and_of_a_refused_persona_can_be_looked_up(
    meet, sandbox, url
):
    with WriterLock(url, "anam", command="sync", run_id=UUID(int=1)):
        code, (line,) = meet("sync")
    assert code == 75
    assert in_the_manual(code, line)
    sandbox.order(Fault(status=403, target=sandbox.persona_ids[0], times=1))
    code, (line,) = meet("sync")
    assert code == 3
    assert in_the_manual(code, line)


def test_an_unknown_line_is_found_nowhere():
    assert looked_up("the weather is fine; take a walk") == []
