"""`persona-etl schema`: what is told is what is in docs/, and a target may ask for its own."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
import yaml

from etl.jobs.grants import reader_grants
from tests.cli.test_sync_command import run
from tests.db.local_lines import add_lines, line

DOCS = Path(__file__).parents[2] / "docs"
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


def change(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement)


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("file", "arguments"), [("schema.md", ()), ("dbt/sources.yml", ("--format", "dbt"))]
)
def test_what_is_in_docs_is_what_it_prints(file, arguments) -> None:
    result = run("schema", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    is_same = (DOCS / file).read_bytes() == result.stdout_bytes
    assert is_same, f"docs/{file} is not what the map says: run `make docs`"


def test_it_is_told_in_the_schema_of_the_settings_without_asking_the_database(monkeypatch) -> None:
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", NOWHERE)
    monkeypatch.setenv("PERSONA_ETL_DATABASE__SCHEMA", "acme")
    assert "`acme_reporting`" in run("schema").stdout
    (source,) = yaml.safe_load(run("-q", "schema", "--format", "dbt").stdout)["sources"]
    assert '"acme"' in source["schema"]


def test_mermaid_is_one_diagram_of_every_table() -> None:
    told = run("schema", "--format", "mermaid").stdout
    assert told.startswith("erDiagram\n")
    assert "    runs {\n" in told
    assert "        text system_prompt\n" in told


def test_a_reader_of_the_views_is_told_what_was_added_there(
    new_role, database_url, monkeypatch
) -> None:
    role = new_role()
    since = line("persona", "mood.since", "personas", "timestamptz", column="mood_since")
    add_lines(database_url, since, line("voice", "pitches[]", "voice_pitches", "double precision"))
    for statement in reader_grants("anam", role):
        change(database_url, statement)
    reader = sa.make_url(database_url).set(username=role, password="p@ss")
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", reader.render_as_string(hide_password=False))
    page = run("schema", "--local").stdout
    told = "`mood_since` **local** | `timestamptz` | yes | `mood.since` | What mood.since says."
    assert f"| {told} |" in page
    assert "| `value` **local** | `double precision` | yes | `pitches[]` |" in page
    assert "mood_since" not in run("schema").stdout
    assert "voices ||--o{ voice_pitches" in run("schema", "--local", "--format", "mermaid").stdout
    (source,) = yaml.safe_load(run("schema", "--local", "--format", "dbt").stdout)["sources"]
    (voices,) = (table for table in source["tables"] if table["name"] == "voices")
    types = {column["name"]: column["data_type"] for column in voices["columns"]}
    assert types["pitches"] == "double precision[]"


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        (None, 2, "database"),
        (NOWHERE, 6, "127.0.0.1"),
        ("embedded:/nowhere/at/all", 6, "there is none in /nowhere/at/all yet"),
    ],
)
def test_with_local_a_database_has_to_be_there(url, code, told, monkeypatch) -> None:
    if url:
        monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", url)
    result = run("schema", "--local")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.count("\n") == 1
    assert told in result.stderr


def test_with_local_a_database_that_was_never_migrated_is_said_to_be_so(
    empty_database_url, monkeypatch
) -> None:
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", empty_database_url)
    result = run("schema", "--local")
    assert result.exit_code == 6
    assert "run `persona-etl migrate`" in result.stderr
