"""`persona-etl status` as a person or a monitor meets it: what it prints, and how it ends."""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.types.json import Json
from wcwidth import width

from etl.jobs.grants import reader_grants
from etl.sandbox import running_sandbox
from etl.store.lock import WriterLock, lock_key
from etl.store.revisions import head_revision
from tests.cli.test_sync_command import run
from tests.local_revisions import MOOD, write

NEVER = "00000000-0000-4000-8000-0000000000ff"
KEYS = ["ok", "exit_code", "reasons", "now", "max_age_seconds", "is_replica", "lock", "running"]
KEYS += ["died", "last_run", "last_sync", "last_success", "skipped_since", "live", "stale"]
KEYS += ["failing", "never_seen", "removed", "untracked", "unfolded", "open_value_issues"]
KEYS += ["open_drift_paths", "schema"]
RUN = ["run_id", "command", "status", "started_at", "finished_at", "age_seconds", "counts"]
RUN += ["error", "host"]


@pytest.fixture
def url(database_url, tmp_path, monkeypatch):
    """The URL of a database with four personas, not configured. The API is gone, and its key."""
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", database_url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with running_sandbox(count=4, moving=False) as sandbox, monkeypatch.context() as meanwhile:
        meanwhile.setenv("ANAM_API_KEY", sandbox.key)
        meanwhile.setenv("ANAM_API_URL", sandbox.url)
        assert run("sync", *sandbox.persona_ids).exit_code == 0
    return database_url


@pytest.fixture
def later(url):
    """The same, a month later."""
    execute(
        url,
        "UPDATE runs SET started_at = started_at - interval '30 days',"
        " finished_at = finished_at - interval '30 days'",
    )
    return url


def execute(url: str, statement: str, parameters=()) -> list[tuple[object, ...]]:
    with psycopg.connect(url, options="-c search_path=anam") as connection:
        cursor = connection.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def enter(url: str, **columns: object) -> UUID:
    """A run in the ledger, `ago` being how long it is over."""
    ago = columns.pop("ago", "0 s")
    given = {
        "run_id": str(uuid4()),
        "command": "sync",
        "status": "succeeded",
        "host": "host-3",
        "pid": 1,
        "version": "0",
        **columns,
    }
    execute(
        url,
        "INSERT INTO runs SELECT made.* FROM json_populate_record(NULL::runs, %s) AS made",
        [Json(dict.fromkeys(counts(url), 0) | given | {"started_at": "now"})],
    )
    execute(
        url,
        "UPDATE runs SET started_at = clock_timestamp() - %s::interval - interval '12 s',"
        " finished_at = CASE WHEN status <> 'running' THEN clock_timestamp() - %s::interval END"
        " WHERE run_id = %s",
        [ago, ago, given["run_id"]],
    )
    return UUID(str(given["run_id"]))


def counts(url: str) -> list[str]:
    found = execute(
        url,
        "SELECT attname FROM pg_attribute WHERE attrelid = 'runs'::regclass AND attnum > 0"
        " AND atttypid = 'integer'::regtype",
    )
    return [str(name) for (name,) in found]


def shown(*arguments: str) -> dict[str, list[str]]:
    """What it prints, by label."""
    lines: dict[str, list[str]] = {}
    label = ""
    for line in run("status", *arguments).stdout.splitlines():
        label = line[:14].strip() or label
        lines.setdefault(label, []).append(line[14:])
    return lines


def test_when_all_is_well_it_says_so_in_a_few_lines(url):
    result = run("status", "--max-age", "2h")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("last run      sync succeeded ")
    assert lines[1].startswith("              run ")
    assert lines[2:4] == ["              4 personas: 4 created", "now           nothing runs"]
    assert lines[4].startswith("personas      4 live, last seen ")
    assert lines[5:] == [f"schema        anam at revision {head_revision()}"]


def test_data_that_is_too_old_is_8_and_says_how_old_and_what_to_do(url):
    execute(url, "UPDATE runs SET finished_at = finished_at - interval '1 day'")
    execute(url, "UPDATE persona_sync_state SET last_success_at = now() - interval '1 day'")
    result = run("-q", "status", "--max-age", "1d")
    assert result.exit_code == 8
    assert "\ntoo old       4: " in result.stdout
    (error,) = result.stderr.splitlines()
    assert error.startswith(
        "persona-etl: error: not as fresh as 24 h: the last complete sync ended 24 h ago;"
        " 4 live personas are older: "
    )
    assert error.endswith("`persona-etl sync` brings it up to date or says what is in the way")
    assert run("status").exit_code == run("status", "--max-age", "1d1h").exit_code == 0


def test_quiet_says_nothing_when_all_is_well_but_json_its_object(url):
    result = run("-q", "status", "--max-age", "90s")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    told = json.loads(run("-q", "status", "--max-age", "90s", "--json").stdout)
    assert (told["ok"], told["max_age_seconds"]) == (True, 90)


def test_json_is_one_object_with_the_documented_keys(url):
    run_id = enter(url, status="running", requested=9, unchanged=3, not_attempted=6)
    with WriterLock(url, "anam", command="sync", run_id=run_id):
        told = json.loads(run("status", "--json").stdout)
    assert list(told) == KEYS
    assert list(told["last_run"]) == RUN
    assert told["last_run"] == told["last_sync"] | {"age_seconds": told["last_run"]["age_seconds"]}
    assert (told["lock"]["run_id"], told["lock"]["command"]) == (str(run_id), "sync")
    assert (told["running"]["run_id"], told["running"]["finished_at"]) == (str(run_id), None)
    assert told["running"]["age_seconds"] >= 12
    assert (told["ok"], told["exit_code"], told["reasons"], told["stale"]) == (True, 0, [], None)
    assert (told["live"]["count"], told["untracked"]) == (4, None)
    assert told["schema"] == {
        "name": "anam",
        "revision": head_revision(),
        "at_head": True,
        "views_release": version("persona-etl"),
        "local_pending": False,
    }
    told = json.loads(run("status", "--json", "--max-age", "1s").stdout)
    assert told["died"][0]["run_id"] == str(run_id)


def test_json_gives_the_reasons_of_its_exit_code(url):
    execute(url, "UPDATE runs SET finished_at = finished_at - interval '1 day'")
    execute(url, "UPDATE persona_sync_state SET last_success_at = now() - interval '1 day'")
    result = run("status", "--json", "--max-age", "2h")
    told = json.loads(result.stdout)
    assert (told["ok"], told["exit_code"], result.exit_code) == (False, 8, 8)
    assert [reason["code"] for reason in told["reasons"]] == ["no_recent_sync", "stale_personas"]
    assert told["stale"]["count"] == len(told["stale"]["first"]) == 4
    assert 86400 <= told["live"]["oldest_age_seconds"] < 90000


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d12h", 129600), ("1d1h1m1s", 90061)],
)
def test_a_length_of_time_is_written_like_this(url, written, seconds):
    told = json.loads(run("status", "--json", "--max-age", written).stdout)
    assert told["max_age_seconds"] == seconds


@pytest.mark.parametrize(
    "written",
    ["", "2", "h", "0s", "-1h", "1.5h", "2 h", "1h2d", "2H", "2hours", "٢h", "9" * 40 + "d"],
)
def test_another_is_2_and_says_how_it_is_written(written):
    result = run("status", "--max-age", written)
    assert result.exit_code == 2
    assert "write it like 90s, 30m, 2h or 1d12h" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("partial", "the next run asks for those again"),
        ("deferred", "what was loaded stays; the next run begins with the rest"),
        ("interrupted", "what was loaded stays; the next run begins with the rest"),
        ("crashed", "what was loaded stays; the next run begins with the rest"),
    ],
)
def test_how_the_last_run_ended_and_what_that_means_for_the_next(later, status, told):
    run_id = enter(
        later, status=status, requested=9, unchanged=3, not_attempted=6, error="why it ended"
    )
    lines = shown()
    assert lines["last run"][0].startswith(f"sync {status} 0 s ago, ")
    assert lines["last run"][1:3] == [
        f"run {run_id}, took 12 s",
        "9 personas: 3 unchanged, 6 not attempted",
    ]
    assert lines["last run"][3:] == (
        [] if status in {"interrupted", "crashed"} else ["why it ended"]
    ) + [told]
    assert len(lines["last success"]) == 1


def test_after_another_command_the_last_sync_is_told_too(later):
    enter(later, status="failed", error="the API is gone", ago="1 h")
    enter(later, command="backfill replay", status="interrupted", ago="3 min")
    lines = shown()
    assert lines["last run"][0].startswith("backfill replay interrupted 3 min ago, ")
    assert lines["last run"][-1] == "what was done stays; run it again"
    assert lines["last sync"][0].startswith("failed 1 h ago, ")
    assert lines["last sync"][1] == "the API is gone"


def test_who_holds_the_lock_and_who_has_died(later):
    run_id = enter(later, status="running", requested=9, unchanged=3, not_attempted=6, ago="5 min")
    with WriterLock(later, "anam", command="sync", run_id=run_id):
        enter(later, status="skipped")
        assert shown()["now"] == [
            "sync is running for 5 min and holds the lock, 3 of 9 settled",
            f"run {run_id} on host-3",
            "runs skipped meanwhile, as the lock was taken: 1, latest 12 s ago",
        ]
        result = run("status", "--max-age", "1s")
        assert result.stderr.endswith("; sync is running, see whether that helps\n")
    died = "sync of 5 min ago died, 3 of 9 settled; the next run closes it"
    assert shown()["now"][:2] == ["nothing runs", died]
    other = uuid4()
    with WriterLock(later, "anam", command="backfill replay", run_id=other):
        held, run_line, *rest = shown()["now"]
    assert held.startswith("backfill replay holds the lock since 20")
    assert run_line.startswith(f"run {other}")
    assert rest[0] == died
    with psycopg.connect(later) as somebody:
        execute(later, "DELETE FROM runs WHERE status = 'running'")
        somebody.execute("SELECT pg_advisory_lock(%s)", [lock_key("anam", "write")])
        held, *_ = shown()["now"]
        assert held.startswith(f"session {somebody.info.backend_pid} holds the lock since 20")


def test_whom_only_files_tell_of_is_told(url):
    execute(
        url,
        "DELETE FROM persona_sync_state WHERE persona_id = (SELECT min(persona_id::text)"
        " FROM personas)::uuid",
    )
    (line,) = shown()["personas"]
    assert line.startswith("4 live, 1 from files alone, others seen ")
    told = json.loads(run("status", "--json").stdout)
    assert (told["live"]["count"], told["live"]["unconfirmed"]) == (4, 1)
    execute(url, "DELETE FROM persona_sync_state")
    assert shown()["personas"] == ["4 live, known from files alone, not shown by the API yet"]


def test_a_load_that_was_cut_short_is_told_while_nothing_runs(url):
    wait = "INSERT INTO unfolded (kind, entity_id) SELECT 'persona', persona_id FROM personas"
    execute(url, wait)
    assert shown()["now"] == [
        "nothing runs",
        "a load from files was cut short; the next run folds 4 documents",
    ]
    assert json.loads(run("status", "--json").stdout)["unfolded"] == 4
    with WriterLock(url, "anam", command="backfill files", run_id=uuid4()):
        assert "cut short" not in run("status").stdout


def test_at_its_worst_it_is_one_screen_and_nothing_in_it_steers_the_terminal(later, monkeypatch):
    hostile = "\x1b[2J\x1b]0;pwned\x07\n\r\u202e" + "長い" * 5000
    ids = [str(id_) for (id_,) in execute(later, "SELECT persona_id FROM personas ORDER BY 1")]
    monkeypatch.setenv("PERSONA_ETL_PERSONAS__IDS", ",".join([*ids[:3], NEVER]))
    every = dict.fromkeys(counts(later), 123456)
    failed = enter(later, status="deferred", error=hostile, ago="8 days", **every)
    enter(later, command="backfill replay", status="failed", error=hostile, ago="7 days", **every)
    enter(later, status="running", host=hostile, ago="3 days", **every)
    enter(later, status="running", host=hostile, ago="2 days", **every)
    enter(later, status="skipped", ago="1 day")
    execute(later, "UPDATE personas SET name = %s", [hostile])
    execute(later, "UPDATE personas SET removed_at = now() WHERE persona_id = %s", [ids[2]])
    execute(
        later,
        "UPDATE persona_sync_state SET last_success_at = now() - interval '20 days',"
        " consecutive_failures = 1000, last_outcome = 'forbidden', last_run_id = %s",
        [failed],
    )
    execute(
        later,
        "INSERT INTO run_items SELECT run_id, persona_id, 'forbidden', 403, 1, 1, %s"
        " FROM runs, personas WHERE run_id = %s",
        [hostile, failed],
    )
    execute(
        later,
        "INSERT INTO value_issues (kind, entity_id, path, problem, first_seen_at, last_seen_at)"
        " SELECT 'persona', gen_random_uuid(), 'x', 'x', now(), now() FROM generate_series(1, 3)",
    )
    execute(
        later,
        "INSERT INTO drift_paths VALUES ('persona', 'x', 'unknown', '{}', now(), now(), 1, 'open')",
    )
    execute(later, "DELETE FROM persona_sync_state WHERE persona_id = %s", [ids[1]])
    execute(later, "INSERT INTO unfolded (kind, entity_id) VALUES ('persona', %s)", [ids[0]])
    make_views_older(later)
    with psycopg.connect(later) as somebody:
        somebody.execute("SELECT pg_advisory_lock(%s)", [lock_key("anam", "write")])
        result = run("status", "--max-age", "2h")
    assert result.exit_code == 8
    lines = result.stdout.splitlines()
    assert len(lines) <= 24
    assert [line for line in lines if width(line) > 80 or not line.isprintable()] == []
    assert [line[:14].strip() for line in lines if line[0] != " "] == [
        "last run",
        "last sync",
        "last success",
        "now",
        "personas",
        "too old",
        "failing",
        "never seen",
        "removed",
        "untracked",
        "to look at",
        "schema",
    ]
    assert "to look at    3 value issues, 1 API change: see `persona-etl drift`" in lines
    (error,) = result.stderr.splitlines()
    assert error.isprintable()
    assert len(error) < 400


def test_a_reader_is_told_what_it_may_not_see(url, plain_role, monkeypatch):
    role_url, grant = plain_role
    for statement in reader_grants("anam", "THE_ROLE"):
        grant(statement.replace('"THE_ROLE"', "{role}"))
    whole = shown()
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", role_url)
    lines = shown()
    assert lines.pop("to look at") == ["value issues and API changes: not visible to this role"]
    assert lines.pop("schema") == ["anam, its revision is not visible to this role"]
    assert lines.keys() == whole.keys() - {"schema"}
    told = json.loads(run("status", "--json").stdout)
    assert (told["open_value_issues"], told["schema"]["at_head"]) == (None, None)


def make_views_older(url: str) -> None:
    """As if the program had been upgraded, and `migrate` not run since."""
    ((comment,),) = execute(
        url, "SELECT obj_description('anam_reporting.dictionary'::regclass, 'pg_class')"
    )
    older = str(comment).replace(f"persona-etl {version('persona-etl')}.", "persona-etl 0.0.9.")
    assert older != comment
    set_to = psycopg.sql.Literal(older).as_string()
    execute(url, f"COMMENT ON VIEW anam_reporting.dictionary IS {set_to}")


def test_views_of_another_release_are_told_to_whoever_may_read_them(url, plain_role, monkeypatch):
    role_url, grant = plain_role
    for statement in reader_grants("anam", "THE_ROLE"):
        grant(statement.replace('"THE_ROLE"', "{role}"))
    make_views_older(url)
    told = "; views of 0.0.9: `persona-etl migrate`"
    at_head = f"anam at revision {head_revision()}"
    assert shown("--max-age", "1h")["schema"] == [f"{at_head}{told}"]
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", role_url)
    assert shown()["schema"] == [f"anam{told}"]
    assert json.loads(run("status", "--json").stdout)["schema"]["views_release"] == "0.0.9"
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", url)
    assert run("migrate").exit_code == 0
    assert shown()["schema"] == [at_head]
    execute(url, "DROP SCHEMA anam_reporting CASCADE")
    assert shown()["schema"] == [at_head]
    assert json.loads(run("status", "--json").stdout)["schema"]["views_release"] is None


def test_local_revisions_that_wait_are_told(url, tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_MIGRATIONS__LOCAL_DIR", str(tmp_path / "local"))
    at_head = f"anam at revision {head_revision()}"
    assert shown()["schema"] == [at_head]
    write(tmp_path / "local", 1, [MOOD])
    told = "; local revisions wait: `persona-etl migrate`"
    assert shown("--max-age", "1h")["schema"] == [f"{at_head}{told}"]
    assert json.loads(run("status", "--json").stdout)["schema"]["local_pending"] is True
    assert run("migrate").exit_code == 0
    assert shown()["schema"] == [at_head]


def test_the_zone_of_server_and_machine_changes_nothing(url, monkeypatch):
    before = json.loads(run("status", "--json").stdout)["last_run"]["started_at"]
    name = psycopg.sql.Identifier(str(sa.make_url(url).database)).as_string()
    execute(url, f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'")
    with monkeypatch.context() as there:
        there.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        lines = shown("--max-age", "1h")
        told = json.loads(run("status", "--json").stdout)["last_run"]
    time.tzset()
    assert told["started_at"] == before
    assert told["finished_at"][:19] in lines["last run"][0]
    assert lines["last run"][0].startswith(("sync succeeded 0 s", "sync succeeded 1 s"))


def test_a_schema_of_another_release_is_6_and_shown(url):
    execute(url, "UPDATE alembic_version SET version_num = 'newer'")
    result = run("-q", "status", "--max-age", "1s")
    assert result.exit_code == 6
    assert result.stdout.splitlines()[-1] == (
        "schema        anam at revision newer, not what this program needs"
    )
    assert result.stderr.startswith("persona-etl: error: schema anam is at revision newer, which")
    assert json.loads(run("status", "--json").stdout)["reasons"][0]["code"] == "schema"


def test_a_database_that_can_t_be_asked_is_6_and_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for url, told in {
        "postgresql://nobody@127.0.0.1:1/none": "start the server",
        f"embedded:{tmp_path}/new": "run `persona-etl migrate`",
    }.items():
        monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", url)
        result = run("status", "--json")
        assert (result.exit_code, result.stdout) == (6, "")
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
