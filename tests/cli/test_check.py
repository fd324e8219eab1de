"""`persona-etl check` as a person meets it: a line for each subject, the exit code of the worst."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from msgspec.structs import replace

from etl.cli.main import cli
from etl.errors import DatabaseError
from etl.jobs.check import SUBJECTS, exit_code
from etl.jobs.check_database import server_line
from etl.jobs.check_lines import ok, unknown, wrong
from etl.jobs.grants import writer_grants
from etl.jobs.migrate import migrate
from etl.sandbox import Fault, running_sandbox
from etl.store.access import Server
from etl.store.engine import make_engine
from tests.db.pooler import transaction_pooler
from tests.local_revisions import MOOD, RANK, write

if TYPE_CHECKING:
    from pathlib import Path

HTML = Fault(body=b"<html>Log in</html>", headers={"Content-Type": "text/html"})


@pytest.fixture
def sandbox():
    with running_sandbox(count=4, key="canary-key") as running:
        yield running


@pytest.fixture
def environment(sandbox, database_url, tmp_path, monkeypatch):
    """Settings of which everything is right, to be spoiled."""
    (tmp_path / "persona-etl.toml").write_text(
        f'[personas]\nids = ["{sandbox.persona_ids[0]}", "{sandbox.persona_ids[1]}"]\n'
    )
    found = {
        "ANAM_API_KEY": sandbox.key,
        "ANAM_API_URL": sandbox.url,
        "PERSONA_ETL_DATABASE__URL": database_url,
        "XDG_CONFIG_HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "HOME": str(tmp_path),
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert "canary" not in result.output
    assert result.stderr == ""
    return result


def checked(*more: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and for each subject the verdict and what is told of it."""
    result = run("check")
    lines = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert tuple(dict.fromkeys(subject for _, subject, _ in lines)) == (*SUBJECTS, *more)
    return result.exit_code, {subject: (verdict, told) for verdict, subject, told in lines}


def wrongs(found: dict[str, tuple[str, str]]) -> list[str]:
    return [subject for subject, (verdict, _) in found.items() if verdict == "wrong"]


def test_when_all_is_well_each_subject_says_so(environment, sandbox, database_url):
    result = run("check")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "ok     settings    ./persona-etl.toml, 2 personas",
        "ok     key         from ANAM_API_KEY",
    ]
    assert lines[2].startswith(f"ok     api         {sandbox.url} answers in ")
    assert lines[2].endswith(" ms, personas listed: 4")
    assert lines[3].startswith("ok     database    Postgres 1")
    assert f"database {sa.make_url(database_url).database} as " in lines[3]
    assert lines[4] == "ok     privileges  may read and write, may migrate"
    assert lines[5].startswith("ok     schema      anam is at revision ")
    assert len(lines) == 6


def test_it_asks_for_one_persona(environment, sandbox):
    run("check")
    (request,) = sandbox.requests.recent
    assert (request.method, request.path) == ("GET", "/v1/personas")
    assert request.query == {"page": "1", "perPage": "1"}


def test_quiet_success_says_nothing_and_quiet_trouble_only_itself(environment):
    assert (run("-q", "check").exit_code, run("-q", "check").stdout) == (0, "")
    environment.setenv("ANAM_API_KEY", "another")
    result = run("-q", "check")
    (line,) = result.stdout.splitlines()
    assert (result.exit_code, line[:19]) == (4, "wrong  key         ")


def test_json_is_one_object(environment):
    for options in (["check", "--json"], ["-q", "check", "--json"]):
        told = json.loads(run(*options).stdout)
        assert told["exit_code"] == 0
        assert tuple(line["subject"] for line in told["checks"]) == SUBJECTS
        assert {line["verdict"] for line in told["checks"]} == {"ok"}


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────


def test_mistakes_in_the_settings_are_a_line_each_and_the_rest_is_left_alone(environment, sandbox):
    environment.setenv("PERSONA_ETL_API__CONCURRENCY", "99")
    environment.setenv("PERSONA_ETL_NOPE", "1")
    result = run("check")
    assert result.exit_code == 2
    told = result.stdout.splitlines()
    assert told[0].startswith("wrong  settings    PERSONA_ETL_NOPE: unknown variable")
    assert told[1].startswith("wrong  settings    PERSONA_ETL_API__CONCURRENCY: write a whole")
    assert all(line.startswith("-  ") and "not checked" in line for line in told[2:])
    assert len(told) == 7
    assert sandbox.requests.total == 0


def test_a_single_mistake_is_one_line(environment):
    environment.setenv("PERSONA_ETL_NOPE", "1")
    lines = [line for line in run("check").stdout.splitlines() if " settings  " in line]
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("ids", "discover", "told"),
    [
        ("1", "0", "1 persona"),
        ("2", "1", "2 personas and all that the API lists"),
        ("0", "1", "all that the API lists"),
        ("0", "0", "no personas: set ids or discover, or tell sync"),
    ],
)
def test_whose_personas_are_copied_is_told(environment, sandbox, tmp_path, *, ids, discover, told):
    (tmp_path / "persona-etl.toml").unlink()
    chosen = ",".join(sandbox.persona_ids[: int(ids)])
    environment.setenv("PERSONA_ETL_PERSONAS__IDS", chosen)
    environment.setenv("PERSONA_ETL_PERSONAS__DISCOVER", discover)
    code, found = checked()
    assert (code, found["settings"]) == (0, ("ok", f"no file, the environment alone, {told}"))


def test_what_can_be_checked_is_checked_though_a_setting_is_missing(environment):
    environment.delenv("ANAM_API_KEY")
    code, found = checked()
    assert (code, wrongs(found)) == (2, ["key"])
    assert "set ANAM_API_KEY" in found["key"][1]
    assert found["api"] == ("-", "not checked: no key")
    assert found["schema"][0] == "ok"
    environment.delenv("PERSONA_ETL_DATABASE__URL")
    code, found = checked()
    assert (code, wrongs(found)) == (2, ["key", "database"])


def test_the_file_of_the_key_is_named(environment, tmp_path: Path):
    environment.delenv("ANAM_API_KEY")
    (tmp_path / "key").write_text("canary-key")
    (tmp_path / "key").chmod(0o600)
    environment.setenv("PERSONA_ETL_API__API_KEY_FILE", "key")
    code, found = checked()
    assert (code, found["key"]) == (0, ("ok", f"from {tmp_path / 'key'}"))


# ── Key and API ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "code", "subject", "told"),
    [
        (Fault(status=401), 4, "key", "401, the API refuses the key; check ANAM_API_KEY"),
        (Fault(status=404), 5, "api", "404, there is no list; check api.base_url"),
        (Fault(status=400), 5, "api", '400 ("This answer was ordered.")'),
        (HTML, 5, "api", "no list of personas but text/html: not JSON"),
        (Fault(status=429, headers={"Retry-After": "60"}), 5, "api", "asks to wait 60 s; check"),
    ],
)
def test_what_the_api_refuses_is_put_down_to_whom_it_concerns(
    environment, sandbox, *, fault, code, subject, told
):
    sandbox.order(replace(fault, target="list", times=None))
    found_code, found = checked()
    assert (found_code, wrongs(found)) == (code, [subject])
    assert told in found[subject][1]
    assert found["schema"][0] == "ok"


def test_an_api_that_is_not_there_leaves_the_key_untried(environment):
    environment.setenv("ANAM_API_URL", "http://127.0.0.1:9")
    code, found = checked()
    assert (code, wrongs(found)) == (5, ["api"])
    assert "connection refused by 127.0.0.1:9" in found["api"][1]
    assert found["key"] == ("-", "from ANAM_API_KEY, not tried: no answer from the API")


def test_a_key_that_may_not_list_is_right_if_it_may_read_a_persona(environment, sandbox):
    sandbox.order(Fault(status=403, target="list", times=None))
    code, found = checked()
    assert (code, found["key"][0]) == (0, "ok")
    assert found["api"][1].endswith("; this key may not list personas")
    assert sandbox.requests.by_target == {"list": 1, sandbox.persona_ids[0]: 1}
    sandbox.world.delete(first := sandbox.persona_ids[0])
    code, found = checked()
    assert code == 0
    assert f"knows no persona {first}" in found["api"][1]


def test_a_key_that_may_not_even_read_is_wrong(environment, sandbox):
    sandbox.order(Fault(status=403, times=None))
    code, found = checked()
    assert (code, wrongs(found)) == (4, ["key"])
    assert f"403 for the list and for persona {sandbox.persona_ids[0]}" in found["key"][1]


def test_a_key_that_may_not_list_is_wrong_for_whoever_discovers(environment, sandbox):
    environment.setenv("PERSONA_ETL_PERSONAS__DISCOVER", "true")
    sandbox.order(Fault(status=403, target="list", times=None))
    code, found = checked()
    assert (code, wrongs(found)) == (4, ["key"])
    assert "the key may not list personas" in found["key"][1]


@pytest.mark.parametrize("fault", [Fault(status=418), Fault(drop="close")])
def test_a_key_that_may_not_list_when_the_persona_fails_too_leaves_it_open(
    environment, sandbox, fault
):
    sandbox.order(Fault(status=403, target="list", times=None))
    sandbox.order(replace(fault, target=sandbox.persona_ids[0], times=None))
    code, found = checked()
    assert (code, wrongs(found), found["key"][0]) == (5, ["api"], "-")


# ── Database ─────────────────────────────────────────────────────────────────────────────────────


def test_a_database_that_is_not_there_is_told_and_the_api_is_checked(environment):
    environment.setenv("PERSONA_ETL_DATABASE__URL", "postgresql://u:canary@127.0.0.1:1/x")
    code, found = checked()
    assert (code, wrongs(found)) == (6, ["database"])
    assert "127.0.0.1" in found["database"][1]
    assert found["schema"] == ("-", "not checked: no database")
    assert found["api"][0] == "ok"


def test_a_url_that_is_none_is_a_matter_of_settings(environment):
    environment.setenv("PERSONA_ETL_DATABASE__URL", "postgresql://u:canary@h:canary/x")
    code, found = checked()
    assert (code, wrongs(found)) == (2, ["database"])


def test_an_embedded_database_is_not_made_by_looking(environment, tmp_path: Path):
    for url, folder in (("embedded", "data/persona-etl"), ("embedded:here", "here")):
        environment.setenv("PERSONA_ETL_DATABASE__URL", url)
        code, found = checked()
        assert (code, wrongs(found)) == (6, ["database"])
        assert f"none in {tmp_path / folder} yet; run `persona-etl mig" in found["database"][1]
        assert not (tmp_path / folder).exists()


def test_an_embedded_database_that_is_there_is_started_for_the_look(environment):
    environment.setenv("PERSONA_ETL_DATABASE__URL", "embedded")
    assert run("-q", "migrate").exit_code == 0
    code, found = checked()
    assert (code, wrongs(found)) == (0, [])


def test_a_schema_without_tables_leads_to_migrate(environment):
    environment.setenv("PERSONA_ETL_DATABASE__SCHEMA", "elsewhere")
    code, found = checked()
    assert (code, wrongs(found)) == (6, ["schema"])
    assert "run `persona-etl migrate`" in found["schema"][1]
    assert found["privileges"] == (
        "-",
        "not checked: no tables in schema elsewhere yet; may migrate",
    )


def test_a_schema_of_a_newer_program_is_told(environment, database_url):
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE anam.alembic_version SET version_num = 'ffff'")
    code, found = checked()
    assert (code, wrongs(found)) == (6, ["schema"])
    assert "does not know" in found["schema"][1]


def test_a_read_only_database_is_wrong_and_nothing_is_written_to_find_out(
    environment, database_url
):
    name = sa.make_url(database_url).database
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())
    code, found = checked()
    assert (code, wrongs(found)) == (6, ["database"])
    assert (found["privileges"][0], found["schema"][0]) == ("ok", "ok")
    assert "is read-only" in found["database"][1]


def test_privileges_that_are_missing_are_named_with_the_grant(environment, plain_role):
    url, execute = plain_role
    environment.setenv("PERSONA_ETL_DATABASE__URL", url)
    code, found = checked()
    assert (code, wrongs(found)) == (6, ["privileges"])
    role = str(sa.make_url(url).username)
    grant = f"as its owner run `persona-etl migrate --grant-writer {role}`"
    assert found["privileges"][1].endswith(grant)
    assert found["schema"][0] == "-"
    execute("GRANT USAGE ON SCHEMA anam TO {role}")
    execute("GRANT SELECT ON ALL TABLES IN SCHEMA anam TO {role}")
    code, found = checked()
    assert (code, wrongs(found)) == (6, ["privileges"])
    told, advice = found["privileges"][1].split("; ")
    assert told.count("no INSERT on ") >= 1
    assert told.endswith(" more")
    assert advice == grant
    for statement in writer_grants("anam", role):
        execute(statement)
    code, found = checked()
    assert (code, wrongs(found)) == (0, [])
    assert found["privileges"][1] == "may read and write, may not migrate"


def test_a_server_that_will_not_do_is_wrong(environment, database_url):
    with transaction_pooler(database_url) as pooled:
        environment.setenv("PERSONA_ETL_DATABASE__URL", pooled)
        code, found = checked()
    assert (code, wrongs(found)) == (6, ["database"])
    assert "a pooler in transaction mode is in between" in found["database"][1]


def test_a_server_newer_than_those_tried_will_do():
    line = server_line(Server("19.0", major=19, read_only=False, database="d", role="r"))
    assert (line.verdict, line.exit_code) == ("ok", 0)
    assert "newer than 18" in line.told


@pytest.mark.parametrize(
    ("codes", "worst"), [([], 0), ([4, 5], 4), ([5, 6, 4], 6), ([6, 2, 4], 2), ([5], 5)]
)
def test_the_worst_counts(codes, worst):
    lines = [ok("api", "x"), unknown("key", "x"), *(wrong("api", "x", code) for code in codes)]
    assert exit_code(lines) == worst


def test_a_reporting_view_that_is_gone_is_missed(environment, database_url):
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP VIEW anam_reporting.freshness")
    code, found = checked()
    assert (code, wrongs(found)) == (6, ["schema"])
    assert "no freshness in anam_reporting; run `persona-etl migrate`" in found["schema"][1]
    with psycopg.connect(database_url, autocommit=True) as owner:
        for view in ("avatars", "changes", "drift", "runs"):
            owner.execute(f"DROP VIEW anam_reporting.{view}")
    _, found = checked()
    told = "no avatars; changes; drift and 2 more in anam_reporting; run `persona-etl migrate`"
    assert told in found["schema"][1]


def test_tables_of_somebody_else_are_not_taken_for_ours(environment, empty_database_url):
    with psycopg.connect(empty_database_url, autocommit=True) as owner:
        owner.execute("CREATE TABLE public.runs ()")
    environment.setenv("PERSONA_ETL_DATABASE__URL", empty_database_url)
    environment.setenv("PERSONA_ETL_DATABASE__SCHEMA", "public")
    code, found = checked()
    assert (code, wrongs(found)) == (6, ["schema"])
    assert "schema public has runs already" in found["schema"][1]


def test_a_working_folder_that_was_removed_is_none(environment, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    environment.chdir(gone)
    gone.rmdir()
    assert checked()[0] == 0


def test_a_table_that_is_gone_is_missed(environment, database_url):
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP TABLE anam.run_items CASCADE")
        owner.execute("ALTER TABLE anam.runs DROP COLUMN host CASCADE")
    code, found = checked()
    assert (code, wrongs(found)) == (6, ["schema"])
    told = "somebody has dropped that; restore it from a backup"
    assert found["schema"][1] == f"no run_items; runs.host in anam; {told}"
    # No revision makes it again, and it is not said that one would.
    with pytest.raises(DatabaseError, match=f"schema anam has no run_items; runs.host; {told}"):
        migrate(make_engine(database_url, "anam"), "anam")


def test_who_may_not_make_the_views_may_not_migrate(environment, plain_role):
    url, execute = plain_role
    execute("CREATE SCHEMA half AUTHORIZATION {role}")
    environment.setenv("PERSONA_ETL_DATABASE__URL", url)
    environment.setenv("PERSONA_ETL_DATABASE__SCHEMA", "half")
    assert "may not migrate" in checked()[1]["privileges"][1]


def test_a_lock_that_is_held_does_not_hold_up_a_check(environment, database_url, monkeypatch):
    monkeypatch.setattr("etl.jobs.check_database.LOOKS_FOR_SECONDS", 0.1)
    with psycopg.connect(database_url) as somebody:
        somebody.execute("LOCK TABLE anam.alembic_version IN ACCESS EXCLUSIVE MODE")
        code, found = checked()
    assert (code, wrongs(found)) == (6, ["schema"])
    assert "another session holds a lock" in found["schema"][1]


def test_no_control_character_reaches_the_terminal(environment, sandbox):
    sandbox.order(Fault(status=302, headers={"Location": "http://x\x9b31m/"}, target="list"))
    result = CliRunner().invoke(cli, ["--config", "\x1b]0;pwn\a", "check"])
    assert result.exit_code == 2
    assert not set(result.output) & {"\x1b", "\x9b", "\a"}
    result = CliRunner().invoke(cli, ["check"])
    assert not set(result.output) & {"\x1b", "\x9b", "\a"}


# --- local revisions


def test_the_local_history_has_a_line_where_the_settings_name_its_folder(
    environment, tmp_path, database_url
):
    write(tmp_path / "ours", 1, [MOOD])
    write(tmp_path / "ours", 2, [RANK])
    environment.setenv("PERSONA_ETL_MIGRATIONS__LOCAL_DIR", "ours")

    def told() -> tuple[int, tuple[str, str]]:
        code, lines = checked("local")
        return code, lines["local"]

    to_run = "local revisions to run, anam is at base: `persona-etl migrate`"
    assert told() == (6, ("wrong", f"2 {to_run}"))
    migrate(make_engine(database_url, "anam"), "anam", local_dir=tmp_path / "ours")
    assert told() == (0, ("ok", f"at local_0002, the newest in {tmp_path}/ours"))
    (tmp_path / "ours" / "20261123_local_0002_columns.py").unlink()
    code, (verdict, message) = told()
    assert (code, verdict) == (6, "wrong")
    assert "is at local revision local_0002, which is not in" in message
    environment.setenv("PERSONA_ETL_MIGRATIONS__LOCAL_DIR", "nowhere")
    code, (verdict, message) = told()
    assert (code, verdict) == (6, "wrong")
    assert f"is at local revision local_0002, which is not in {tmp_path}/nowhere" in message
    environment.setenv("PERSONA_ETL_MIGRATIONS__LOCAL_DIR", "ours")
    environment.setenv("PERSONA_ETL_DATABASE__URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    assert told() == (6, ("-", f"{tmp_path}/ours ends at local_0001; no database to compare"))


def test_who_may_not_migrate_is_told_who_runs_local_revisions(environment, tmp_path, plain_role):
    url, grant = plain_role
    for statement in writer_grants("anam", str(sa.make_url(url).username)):
        grant(statement.replace("{", "{{"))
    write(tmp_path / "ours", 1, [MOOD])
    environment.setenv("PERSONA_ETL_MIGRATIONS__LOCAL_DIR", "ours")
    environment.setenv("PERSONA_ETL_DATABASE__URL", url)
    code, lines = checked("local")
    assert (code, lines["privileges"][0]) == (6, "ok")
    assert lines["local"][1].startswith("1 local revision to run, anam is at base: as its owner")
    grant("REVOKE ALL ON SCHEMA anam FROM {role}")
    assert checked("local")[1]["local"] == ("-", "not checked: schema anam can't be looked into")
