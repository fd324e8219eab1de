"""What docs/operations.md says of exit codes and roles is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from etl.cli.main import cli
from etl.jobs.grants import reader_grants, writer_grants
from etl.sandbox import running_sandbox
from tests.message_page import FILE

PAGE = FILE.read_text(encoding="utf-8")
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
DATABASE = 6

# What each command that the table of roles names is run with. The last one takes a persona away.
RUN = {
    "migrate": (),
    "sync": (),
    "backfill api": ("--all",),
    "backfill files": ("seen.ndjson",),
    "backfill replay": (),
    "backfill replay --check": (),
    "prune": ("--keep-runs-days", "9"),
    "drift accept": ("mood",),
    "drift propose": (),
    "drift": (),
    "verify": (),
    "export": (),
    "diff": ("{id}",),
    "status": (),
    "runs": (),
    "report": (),
    "query": ("SELECT count(*) FROM personas WHERE prompt_length > 0",),
    "prompts": ("search", "you"),
    "check": (),
    "forget": ("{id}", "--yes"),
}


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of the first table whose first column is called so."""
    _, _, table = text.partition(f"\n| {header} |")
    lines = table.split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_page_says_of_each_exit_code_what_the_readme_says():
    of_page = [row[:2] for row in rows(PAGE, "code")]
    assert of_page == [row[:2] for row in rows(README.partition("\n## Exit codes\n")[2], "code")]


ALLOWED = {
    name: {role for role, cell in zip(("writer", "reader"), cells[1:], strict=True) if cell}
    for names, *cells in rows(PAGE, "is run by")
    for name in re.findall("`(.+?)`", names)
}


def test_the_page_says_of_each_command_that_needs_a_database_who_may_run_it():
    assert ALLOWED.keys() == RUN.keys()


@pytest.fixture(scope="module")
def sandbox():
    with running_sandbox(count=2) as running:
        yield running


@pytest.fixture
def id_(url, sandbox, monkeypatch):
    """The id of one of two personas that were copied; there is a file about it too."""
    first = sandbox.persona_ids[0]
    line = {"observed_at": "2026-01-01T00:00:00Z", "payload": {"id": first}}
    Path("seen.ndjson").write_text(json.dumps(line), encoding="utf-8")
    monkeypatch.setenv("PERSONA_ETL_MIGRATIONS__LOCAL_DIR", "ours")
    assert CliRunner().invoke(cli, ["sync"]).exit_code == 0
    return first


@pytest.mark.parametrize(("role", "grants"), [("writer", writer_grants), ("reader", reader_grants)])
def test_a_role_may_do_what_the_page_says_and_no_more(id_, role, grants, plain_role, monkeypatch):
    of_role, execute = plain_role
    for statement in grants("anam", str(sa.make_url(of_role).username)):
        execute(statement)
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", of_role)
    may = set()
    for name, more in RUN.items():
        words = [word.format(id=id_) for word in (*name.split(), *more)]
        result = CliRunner().invoke(cli, words)
        assert result.exit_code != 1, result.output
        if result.exit_code != DATABASE:
            may.add(name)
    assert may == {name for name, roles in ALLOWED.items() if role in roles}
