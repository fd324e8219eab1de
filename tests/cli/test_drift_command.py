"""`persona-etl drift` as a person meets it: what differs, deciding about it, and a revision for it.

All tests share one database, whose personas have two fields that the map does not know, and one
that is always null. What is known of them is written anew for each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner

from etl.cli.main import cli
from etl.sandbox import running_sandbox
from etl.store.lock import WriterLock
from tests.cli.test_sync_command import run
from tests.db.revisions import url_as

CHECKOUT = Path(__file__).parents[2]

KEYS = ["kind", "path", "problem", "status", "json_types", "shapes", "new_members"]
KEYS += ["first_seen_at", "last_seen_at", "occurrences", "proposal", "refusal"]
PROPOSAL = ["table", "column", "type", "is_list", "json_types", "comment", "values"]
PROPOSAL += ["beside", "renamed_from"]
PROPOSED = ["revision", "files", "contents", "lines", "refusals"]

ODD = '["mo\x1b[31mod \\"quoted\\" \u202e"]'

# kind, path, problem, JSON types, shapes, status, new members
KNOWN = [
    ("persona", "moodGrade", "unknown", ["number"], ["whole number"], "open", []),
    ("persona", "languages", "unknown", ["array"], [], "open", []),
    ("persona", "note", "unknown", ["null"], [], "open", []),
    ("persona", "debugInfo", "unknown", ["boolean"], [], "ignored", []),
    ("persona", "oldName", "unknown", ["string"], ["text"], "mapped", []),
    ("persona", ODD, "unknown", ["string"], ["text"], "ignored", []),
    ("avatar", "grade", "missing", ["string"], [], "open", []),
    ("voice", "grade", "missing", ["string"], [], "open", []),
    ("voice", "provider", "new_value", ["string"], [], "accepted", ["ACME"]),
]


@pytest.fixture(scope="module")
def copied(new_database, template, tmp_path_factory):
    """A database into which four such personas were copied."""
    with new_database(template) as url, running_sandbox(count=4, moving=False) as sandbox:
        for number, id_ in enumerate(sandbox.persona_ids):
            new = {"moodGrade": number, "languages": ["en", f"l{number}"], "note": None}
            sandbox.world.edit(id_, new)
        environment = {
            "ANAM_API_KEY": sandbox.key,
            "ANAM_API_URL": sandbox.url,
            "PERSONA_ETL_DATABASE__URL": url,
            "XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("none")),
        }
        done = CliRunner().invoke(cli, ["-q", "sync", *sandbox.persona_ids], env=environment)
        assert done.exit_code == 0, done.output
        yield url


@pytest.fixture
def url(copied, tmp_path, monkeypatch):
    """The same, configured, with what is KNOWN; revisions go to `revisions`."""
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", copied)
    monkeypatch.setenv("PERSONA_ETL_MIGRATIONS__LOCAL_DIR", str(tmp_path / "revisions"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with session(copied) as connection:
        connection.execute("DELETE FROM drift_paths")
        connection.cursor().executemany(
            "INSERT INTO drift_paths (kind, path, problem, json_types, shapes, status, new_members,"
            " first_seen_at, last_seen_at, occurrences)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, '2026-11-20 10:00Z', '2026-11-23 10:00Z', 4)",
            KNOWN,
        )
    return copied


def session(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(url, autocommit=True, options="-c search_path=anam -c timezone=utc")


def statuses(url: str) -> dict[tuple[str, str], str]:
    with session(url) as connection:
        rows = connection.execute("SELECT kind, path, status FROM drift_paths").fetchall()
    return {(str(kind), str(path)): str(status) for kind, path, status in rows}


def before() -> dict[tuple[str, str], str]:
    return {(kind, path): status for kind, path, _, _, _, status, _ in KNOWN}


def columns(url: str) -> list[tuple[object, ...]]:
    """Everything that a revision could alter."""
    query = "SELECT table_name, column_name FROM information_schema.columns ORDER BY 1, 2"
    with session(url) as connection:
        return connection.execute(query).fetchall()


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


# ── Looking ──────────────────────────────────────────────────────────────────────────────────────


def test_it_shows_by_kind_what_differs_and_what_would_be_proposed(url):
    result = run("drift")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert [line.split()[0] for line in lines if "first seen" in line] == [
        "persona",
        "avatar",
        "voice",
    ]
    mood = lines.index(f"  {'moodGrade':<43}  2026-11-20  2026-11-23          4")
    assert lines[mood + 1 : mood + 3] == [
        "    new field: number (whole number)",
        "    → personas.mood_grade bigint",
    ]
    assert "    → table persona_languages (value text)" in lines
    assert "    new value: ACME; accepted" in lines
    assert "debugInfo" not in result.stdout
    assert "oldName" not in result.stdout
    assert lines[-2] == "6 differences, and 3 ignored or mapped: --all shows them."
    assert lines[-1].startswith("Next: `persona-etl drift propose` writes a revision")
    assert [line for line in lines if len(line) > 80] == []


def test_all_shows_what_was_decided_and_proposes_nothing_for_it(url):
    told = json.loads(run("drift", "--all", "--json").stdout)
    decided = {each["path"]: each for each in told["differences"] if each["status"] != "open"}
    assert decided.keys() == {"debugInfo", "oldName", ODD, "provider"}
    assert {decided[path]["proposal"] for path in ("debugInfo", "oldName", ODD)} == {None}
    assert told["hidden"] == 0
    assert "    new field: boolean; ignored\n" in run("drift", "--all").stdout


def test_json_is_one_object_with_the_documented_keys(url):
    result = run("drift", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert list(told) == ["schema", "knows_proposals", "hidden", "differences"]
    assert (told["schema"], told["knows_proposals"], told["hidden"]) == ("anam", True, 3)
    assert {tuple(each) for each in told["differences"]} == {tuple(KEYS)}
    (mood,) = (each for each in told["differences"] if each["path"] == "moodGrade")
    assert list(mood["proposal"]) == PROPOSAL
    assert mood["proposal"] | {"table": "personas", "column": "mood_grade"} == mood["proposal"]
    assert mood["proposal"] | {"type": "bigint", "is_list": False, "values": 4} == mood["proposal"]
    assert (mood["first_seen_at"], mood["refusal"]) == ("2026-11-20T10:00:00+00:00", None)
    (note,) = (each for each in told["differences"] if each["path"] == "note")
    assert (note["proposal"], bool(note["refusal"])) == (None, True)


def test_quiet_says_nothing_as_a_difference_is_no_error(url):
    result = run("-q", "drift")
    assert (result.exit_code, result.output) == (0, "")
    assert json.loads(run("-q", "drift", "--json").stdout)["schema"] == "anam"


def test_where_nothing_differs_one_line_says_so(url):
    with session(url) as connection:
        connection.execute("DELETE FROM drift_paths")
    assert run("drift").stdout == "The API and the map agree.\n"
    assert run("drift", "propose").stdout == (
        "Nothing to propose: `persona-etl drift --all` shows what is known.\n"
    )


def test_options_of_the_list_are_refused_before_another_command(url):
    result = run("drift", "--json", "propose")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "options of propose go after it" in " ".join(result.stderr.split())


def test_it_does_not_wait_for_a_run_nor_does_a_decision(url):
    with WriterLock(url, "anam", command="sync", run_id=uuid4()):
        assert run("drift").exit_code == 0
        assert run("drift", "accept", "moodGrade").exit_code == 0
        assert run("drift", "propose", "moodGrade").exit_code == 0


# ── Deciding ─────────────────────────────────────────────────────────────────────────────────────


def test_a_decision_is_told_in_a_line_each_and_is_the_same_twice(url):
    first = run("drift", "accept", "moodGrade", "voice:grade")
    assert (first.exit_code, first.stderr) == (0, "")
    assert first.stdout == "persona:moodGrade is accepted now\nvoice:grade is accepted now\n"
    decided = {("persona", "moodGrade"): "accepted", ("voice", "grade"): "accepted"}
    assert statuses(url) == before() | decided
    again = run("drift", "accept", "moodGrade", "persona:moodGrade")
    assert (again.exit_code, again.stdout) == (0, "persona:moodGrade is accepted already\n")
    assert statuses(url) == before() | decided
    assert run("-q", "drift", "ignore", "moodGrade").output == ""
    assert statuses(url)["persona", "moodGrade"] == "ignored"
    assert "moodGrade" not in run("drift").stdout


def test_what_is_ignored_can_be_accepted_again(url):
    assert run("drift", "accept", "debugInfo").stdout == "persona:debugInfo is accepted now\n"
    assert statuses(url)["persona", "debugInfo"] == "accepted"


def test_of_what_has_its_column_nothing_is_left_to_decide(url):
    result = run("drift", "ignore", "oldName")
    assert result.exit_code == 0
    assert result.stdout == "persona:oldName has its column already: there is nothing to decide\n"
    assert statuses(url) == before()


def test_what_has_its_column_is_not_meant_where_something_else_may_be(url):
    with session(url) as connection:
        connection.execute("UPDATE drift_paths SET path = 'oldName' WHERE kind = 'voice'"
                           " AND path = 'grade'")  # fmt: skip
    assert run("drift", "accept", "oldName").stdout == "voice:oldName is accepted now\n"


def test_a_path_of_several_kinds_is_refused_with_the_ways_to_write_it(url):
    result = run("drift", "ignore", "grade")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "several kinds; write one of avatar:grade, voice:grade" in result.stderr
    assert statuses(url) == before()


def test_an_unknown_path_is_refused_with_what_is_near_and_nothing_else_is_decided(url):
    result = run("drift", "ignore", "moodGrade", "provder")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "did you mean provider" in result.stderr
    assert "`persona-etl drift --all` lists them" in result.stderr
    assert statuses(url) == before()
    far = run("drift", "ignore", "\x1b[31m")
    assert far.exit_code == 2
    assert "did you mean" not in far.stderr
    assert "\x1b" not in far.stderr


@pytest.mark.parametrize("kind", ["", "persona:"])
def test_an_odd_path_is_taken_as_it_is_printed(url, kind):
    (printed,) = (line for line in run("drift", "--all").stdout.splitlines() if "quoted" in line)
    assert printed.isprintable()
    path = printed.strip().partition("  ")[0]
    assert run("drift", "accept", f"{kind}{path}").exit_code == 0
    assert statuses(url) == before() | {("persona", ODD): "accepted"}


def test_a_decision_needs_a_path(url):
    assert run("drift", "accept").exit_code == 2
    assert run("drift", "ignore").exit_code == 2


# ── Who may ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def reader(url, new_role, monkeypatch):
    """A role that may log in, which the settings name now, and what runs SQL about it."""
    role = new_role()
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", url_as(url, role))
    with session(url) as connection:

        def execute(statement: str) -> None:
            connection.execute(statement.format(role=role).encode())

        yield execute
        execute("DROP OWNED BY {role} CASCADE")


def test_who_may_only_read_the_tables_sees_all_and_decides_nothing(url, reader, tmp_path):
    reader(
        "GRANT USAGE ON SCHEMA anam TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA anam TO {role}"
    )
    assert "    → personas.mood_grade bigint\n" in run("drift").stdout
    for arguments in (["accept", "moodGrade"], ["propose"]):
        refused = run("drift", *arguments)
        assert (refused.exit_code, refused.stdout) == (6, "")
        assert "permission denied for table drift_paths" in refused.stderr
    assert not files(tmp_path)
    assert run("drift", "propose", "--dry-run").exit_code == 0
    assert statuses(url) == before()
    reader("GRANT UPDATE ON anam.drift_paths TO {role}")
    assert run("drift", "accept", "moodGrade").exit_code == 0
    assert run("drift", "propose").exit_code == 0


def test_who_may_only_read_the_views_sees_what_differs_but_no_proposals(url, reader):
    refused = run("drift")
    assert (refused.exit_code, refused.stdout) == (6, "")
    assert "may read neither the tables in anam nor the view anam_reporting.drift" in refused.stderr
    assert "migrate --grant-reader" in refused.stderr
    reader("GRANT USAGE ON SCHEMA anam_reporting TO {role};"
           "GRANT SELECT ON ALL TABLES IN SCHEMA anam_reporting TO {role}")  # fmt: skip
    result = run("drift")
    assert result.exit_code == 0
    assert "    new field: number (whole number)\n" in result.stdout
    assert "→" not in result.stdout
    assert "told to roles that may read the tables" in result.stdout
    told = json.loads(run("drift", "--all", "--json").stdout)
    assert (told["knows_proposals"], len(told["differences"])) == (False, len(KNOWN))
    assert run("drift", "accept", "moodGrade").exit_code == 6


@pytest.mark.parametrize("arguments", [[], ["propose"], ["accept", "moodGrade"]])
def test_a_schema_that_is_not_at_the_head_or_not_reached_is_6(
    empty_database_url, monkeypatch, tmp_path, arguments
):
    monkeypatch.setenv("PERSONA_ETL_MIGRATIONS__LOCAL_DIR", str(tmp_path / "revisions"))
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", empty_database_url)
    empty = run("drift", *arguments)
    assert (empty.exit_code, empty.stdout) == (6, "")
    assert "run `persona-etl migrate`" in empty.stderr
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", "postgresql://nobody@127.0.0.1:1/none")
    assert run("drift", *arguments).exit_code == 6
    assert not files(tmp_path)


def test_an_embedded_database_is_not_made_for_it(url, tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", f"embedded:{tmp_path}/none")
    assert run("drift").exit_code != 0
    assert run("drift", "accept", "moodGrade").exit_code != 0
    assert not (tmp_path / "none").exists()


def test_a_schema_of_an_earlier_release_is_6(database_url, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", database_url)
    with session(database_url) as connection:
        connection.execute("DROP TABLE local_columns")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    told = run("drift")
    assert (told.exit_code, told.stdout) == (6, "")
    assert "is at revision 0001" in told.stderr


# ── Proposing ────────────────────────────────────────────────────────────────────────────────────


def test_propose_writes_a_revision_and_alters_no_table(url, tmp_path):
    tables = columns(url)
    result = run("drift", "propose")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert "persona:moodGrade → personas.mood_grade bigint; from 4 values" in lines
    assert any("→ table persona_languages (value text); from " in line for line in lines)
    assert any(line.startswith("persona:note: ") for line in lines)
    (written,) = files(tmp_path)
    assert lines[lines.index("Revision local_0001:") + 1] == f"  {written}"
    assert lines[-2:] == ["  persona-etl migrate", "  persona-etl backfill replay"]
    assert columns(url) == tables
    proposed = {("persona", "moodGrade"): "accepted", ("persona", "languages"): "accepted"}
    assert statuses(url) == before() | proposed


def test_what_waits_to_be_migrated_is_not_proposed_twice(url, tmp_path):
    assert run("drift", "propose", "moodGrade").exit_code == 0
    first = files(tmp_path)
    again = run("drift", "propose", "moodGrade")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "nothing to propose: persona:moodGrade: " in again.stderr
    assert files(tmp_path) == first
    (mood,) = (
        each
        for each in json.loads(run("drift", "--json").stdout)["differences"]
        if each["path"] == "moodGrade"
    )
    assert (mood["proposal"], bool(mood["refusal"])) == (None, True)


def test_only_what_is_named_is_proposed_under_the_name_that_is_given(url, tmp_path):
    result = run("drift", "propose", "persona:moodGrade", "--name", "mood", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert list(told) == PROPOSED
    (line,) = told["lines"]
    assert list(line) == ["kind", "path", *PROPOSAL]
    assert (line["path"], line["table"], line["column"]) == ("moodGrade", "personas", "mood")
    assert (told["revision"], told["refusals"], told["contents"]) == ("local_0001", [], {})
    assert [Path(file) for file in told["files"]] == [tmp_path / name for name in files(tmp_path)]
    assert statuses(url) == before() | {("persona", "moodGrade"): "accepted"}


def test_a_name_goes_with_one_path(url):
    for paths in ([], ["moodGrade", "languages"]):
        result = run("drift", "propose", *paths, "--name", "mood")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "exactly one PATH" in result.stderr


def test_what_is_named_and_cannot_be_proposed_is_2_unless_something_else_was(url, tmp_path):
    refused = run("drift", "propose", "note", "voice:grade")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.startswith("persona-etl: error: nothing to propose: persona:note: ")
    assert "; voice:grade: " in refused.stderr
    as_json = run("drift", "propose", "note", "--json")
    assert as_json.exit_code == 2
    assert [each["path"] for each in json.loads(as_json.stdout)["refusals"]] == ["note"]
    assert not files(tmp_path)
    assert statuses(url) == before()
    some = run("drift", "propose", "note", "moodGrade")
    assert some.exit_code == 0
    assert "persona:note: " in some.stdout
    assert files(tmp_path)


def test_where_nothing_can_be_proposed_it_says_why_and_that_is_no_error(url, tmp_path):
    with session(url) as connection:
        connection.execute("DELETE FROM drift_paths WHERE path IN ('moodGrade', 'languages')")
    result = run("drift", "propose")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "persona:note: " in result.stdout
    assert not files(tmp_path)
    assert run("-q", "drift", "propose").output == ""


def test_what_is_ignored_has_to_be_accepted_first(url, tmp_path):
    refused = run("drift", "propose", "debugInfo")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "`persona-etl drift accept persona:debugInfo` first" in refused.stderr
    mapped = run("drift", "propose", "oldName")
    assert mapped.exit_code == 2
    assert "has its column already" in mapped.stderr
    assert not files(tmp_path)


def test_a_dry_run_shows_what_would_be_written_and_writes_nothing(url, tmp_path):
    shown = json.loads(run("drift", "propose", "moodGrade", "--dry-run", "--json").stdout)
    told = run("drift", "propose", "moodGrade", "--dry-run")
    assert (told.exit_code, told.stderr) == (0, "")
    assert not files(tmp_path)
    assert statuses(url) == before()
    ((name, text),) = shown["contents"].items()
    assert shown["files"] == [name]
    assert f"\n# {Path(name).relative_to(tmp_path)}\n" in told.stdout
    assert text in told.stdout
    assert told.stdout.endswith("Nothing was written. Without --dry-run these files are.\n")
    assert run("drift", "propose", "moodGrade").exit_code == 0
    (written,) = files(tmp_path).items()
    assert (str(tmp_path / written[0]), shown["revision"]) == (name, "local_0001")
    assert run("drift", "propose", "languages", "--dry-run", "--json").exit_code == 0


def test_where_the_folder_cannot_be_written_nothing_is_accepted(url, tmp_path):
    (tmp_path / "revisions").write_text("a file", encoding="utf-8")
    refused = run("drift", "propose")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert str(tmp_path / "revisions") in refused.stderr
    assert statuses(url) == before()


def in_tree(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the program of another tree than this."""
    return subprocess.run(
        [sys.executable, "-m", "etl", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tree)},
    )


def copied_to(folder: Path, *parts: str, source: Path = CHECKOUT) -> None:
    for part in parts:
        target = folder / part
        if (source / part).is_dir():
            shutil.copytree(source / part, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source / part, target)


def test_in_a_checkout_the_revision_and_the_line_go_where_they_belong(url, tmp_path, monkeypatch):
    monkeypatch.delenv("PERSONA_ETL_MIGRATIONS__LOCAL_DIR")
    tree = tmp_path / "checkout"
    tree.mkdir()
    copied_to(tree, "etl", "migrations", "alembic.ini", "pyproject.toml")
    (tree / "setup.py").write_text("no revision", encoding="utf-8")
    there = files(tree)
    shown = in_tree(tree, "drift", "propose", "moodGrade", "--dry-run")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert files(tree) == there
    assert "\n--- a/etl/tables.py\n+++ b/etl/tables.py\n" in shown.stdout
    done = in_tree(tree, "drift", "propose", "moodGrade")
    assert (done.returncode, done.stderr) == (0, "")
    changed = {name for name, content in files(tree).items() if there.get(name) != content}
    assert "etl/tables.py" in changed
    assert any(name.startswith("migrations/versions/") for name in changed - there.keys())
    assert all(f"  checkout/{name}\n" in done.stdout for name in changed)
    again = in_tree(tree, "drift")
    assert again.returncode == 6, "the revision is not run yet"
    assert "run `persona-etl migrate`" in again.stderr


def test_an_installed_program_without_a_folder_asks_for_one(url, tmp_path, monkeypatch):
    monkeypatch.delenv("PERSONA_ETL_MIGRATIONS__LOCAL_DIR")
    copied_to(tmp_path, "etl")
    copied_to(tmp_path / "etl", "migrations", "alembic.ini")
    refused = in_tree(tmp_path, "drift", "propose")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "set migrations.local_dir" in refused.stderr
    assert in_tree(tmp_path, "-q", "drift").returncode == 0
    assert statuses(url) == before()
