"""`persona-etl query` as people and programs meet it: what it prints where, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wcwidth import width

from etl.cli.query_screen import as_lines
from etl.store.query import Column
from tests.cli.terminal import Terminal
from tests.cli.test_export_command import shell
from tests.cli.test_sync_command import rows, run, started, wait_until

HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202e漢字\x9b31m\tb\r\nc"
SLEEPING = (
    "SELECT FROM pg_stat_activity"
    " WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%'"
)


@pytest.fixture
def url(database_url, tmp_path, monkeypatch):
    """A migrated database, which the command finds."""
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", database_url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return database_url


def answer(sql: str, *options: str) -> str:
    """What it prints when all is well."""
    result = run("query", sql, *options)
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    # As it is: CliRunner's text has lost its \r.
    return str(result.stdout_bytes, "utf-8")


def quoted(text: str) -> str:
    """A text as SQL spells it."""
    return psycopg.sql.Literal(text).as_string(None)


# ── The table ────────────────────────────────────────────────────────────────────────────────────


def test_a_table_is_aligned_and_tells_null_from_nothing(url):
    told = answer(
        "SELECT * FROM (VALUES (1, '漢字', NULL, true), (20, '', ' ', false)) v(n, t, u, b)"
    )
    assert told.splitlines() == [
        " n  t     u    b",
        "──  ────  ───  ─────",
        " 1  漢字       true",
        '20  ""    " "  false',
        "(2 rows)",
    ]


def test_what_is_too_wide_is_cut_until_it_fits(url):
    told = answer("SELECT 1 AS n, repeat('long ', 90000) AS t, repeat('x', 50) AS u, 'short' AS v")
    header, _, row, count = told.splitlines()
    assert max(map(width, told.splitlines())) == 80
    assert header.split() == ["n", "t", "u", "v"]
    assert row.count("…") == 2
    assert row.endswith("…  short")
    assert count == "(1 row)"
    wide = answer("SELECT repeat('x', 500) AS t", "--width", "0")
    assert "x" * 500 in wide.splitlines()
    assert "x" * 99 + "…" in answer("SELECT repeat('x', 500) AS t", "--width", "100").splitlines()


def test_where_no_table_fits_a_row_is_a_block(url):
    lines = answer(
        "SELECT repeat('x', 99) AS t, p.* FROM (SELECT 1) one LEFT JOIN personas p ON true"
    ).splitlines()
    assert max(map(width, lines)) == 80
    assert lines[0].startswith("── row 1 ──")
    assert lines[1].split() == ["t", lines[1].split()[1]]
    assert lines[1].endswith("x…")
    assert "persona_id" in lines
    assert lines[-1] == "(1 row)"


def test_an_answer_without_rows_says_so(url):
    assert answer("SELECT 1 AS n WHERE false").splitlines() == ["n", "─", "(0 rows)"]
    assert answer("SELECT * FROM personas").splitlines()[-1] == "(0 rows)"


def test_hostile_text_steers_no_terminal(url):
    for form in ("table", "json", "jsonl"):
        for sql in (f"SELECT {quoted(HOSTILE)} AS t, 1 AS n", f'SELECT 1 AS "{HOSTILE}"'):
            lines = answer(sql, "--format", form).splitlines()
            assert all(line.isprintable() for line in lines), lines
    assert "b↵c" in answer(f"SELECT {quoted(HOSTILE)} AS t")


def test_a_table_ends_somewhere_and_says_so(url):
    result = run("query", "SELECT generate_series(1, 1000000000) AS g")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "(1,000 rows)"
    assert "only the first 1,000 rows are shown; --format csv has all" in result.stderr
    assert run("query", "SELECT generate_series(1, 1000) AS g").stderr == ""


def test_of_rows_in_a_table_no_more_is_kept_than_is_shown():
    tracemalloc.start()
    lines = as_lines([Column("t", "text")], (("x" * 100_000,) for _ in range(300)), 80)
    assert sum(1 for _ in lines) == 303
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2_000_000


def test_it_is_as_wide_as_the_terminal(url, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    program = [sys.executable, "-m", "etl", "query", "SELECT repeat('x', 500) AS t"]
    with Terminal(program, columns=120) as terminal:
        assert terminal.read_to_the_end() == 0
    assert "x" * 119 + "…" in terminal.screen.shown


# ── For programs ─────────────────────────────────────────────────────────────────────────────────


def test_csv_is_quoted_where_needed_and_tells_null_from_an_empty_text(url):
    told = answer(
        "SELECT 1 AS n, NULL AS u, '' AS e, 'a,\"b\"' AS q, E'a\\nb' AS l, true AS b,"
        " ARRAY['x', NULL] AS a, '{\"k\": [1, 2]}'::jsonb AS j, '\\.' AS d, 1.50 AS m,"
        " '2026-11-03 14:00:00.5+02'::timestamptz AS at, '=1+1' AS f",
        "--format",
        "csv",
    )
    assert told == (
        "n,u,e,q,l,b,a,j,d,m,at,f\n"
        '1,,"","a,""b""","a\nb",true,"[""x"",null]","{""k"": [1, 2]}","\\.",1.50,'
        "2026-11-03T12:00:00.5Z,=1+1\n"
    )
    assert answer("SELECT 1 AS a WHERE false", "--format", "csv") == "a\n"


def test_csv_goes_back_into_postgres_as_it_came(url):
    values = "(1, NULL), (2, ''), (3, '\\.'), (4, E'\\r\\n\"'), (5, 'NULL'), (6, ',')"
    told = answer(f"VALUES {values}", "--format", "csv")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TEMP TABLE back (a int, b text)")
        with connection.cursor().copy("COPY back FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write(told)
        assert connection.execute(f"TABLE back EXCEPT VALUES {values}").fetchall() == []
        assert connection.execute("SELECT count(*) FROM back").fetchone() == (6,)


def test_json_holds_every_digit_and_is_always_json(url):
    told = answer(
        "SELECT 12345678901234567890.123456789012345678901 AS big, 0.1::float8 AS f,"
        " 'NaN'::numeric AS nan, '-Infinity'::float8 AS inf, 1e300::float8 AS e, NULL AS u,"
        " '' AS s, false AS b, ARRAY[[1, 2], [3, NULL]] AS a, ARRAY[true] AS bs,"
        ' \'{"a": 1.10, "b": "\\u001b"}\'::jsonb AS j, E\'{\\n "x": 1}\'::json AS raw,'
        " '\\x00ff'::bytea AS bytes, '2026-11-03 14:00+02'::timestamptz AS at,"
        " '2026-11-03'::date AS day, 'infinity'::timestamptz AS never, INTERVAL '90 min' AS i",
        "--format",
        "json",
    )
    (found,) = json.loads(told, parse_float=Decimal)
    assert found == {
        "big": Decimal("12345678901234567890.123456789012345678901"),
        "f": Decimal("0.1"),
        "nan": "NaN",
        "inf": "-Infinity",
        "e": Decimal("1e300"),
        "u": None,
        "s": "",
        "b": False,
        "a": [[1, 2], [3, None]],
        "bs": [True],
        "j": {"a": Decimal("1.10"), "b": "\x1b"},
        "raw": {"x": 1},
        "bytes": "\\x00ff",
        "at": "2026-11-03T12:00:00Z",
        "day": "2026-11-03",
        "never": "infinity",
        "i": "01:30:00",
    }
    assert '"a": 1.10' in told
    assert datetime.fromisoformat(found["at"]) == datetime(2026, 11, 3, 12, tzinfo=UTC)


def test_json_is_an_array_or_an_object_a_line(url):
    three = "SELECT generate_series(1, 3) AS n"
    assert answer(three, "--format", "json") == '[\n{"n":1},\n{"n":2},\n{"n":3}\n]\n'
    assert answer(three, "--format", "jsonl") == '{"n":1}\n{"n":2}\n{"n":3}\n'
    assert answer("SELECT 1 WHERE false", "--format", "json") == "[]\n"
    assert answer("SELECT 1 WHERE false", "--format", "jsonl") == ""


def test_columns_of_one_name_are_told_apart_in_json(url):
    told = answer("SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS a, 5 AS a_2", "--format", "jsonl")
    assert json.loads(told) == {"a": 1, "a_3": 2, "a_2": 3, "a_4": 4, "a_2_2": 5}
    assert answer("SELECT 1 AS a, 2 AS a", "--format", "csv") == "a,a\n1,2\n"


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_comes_through(url, texts):
    array = f"ARRAY[{', '.join(map(quoted, texts))}]::text[]"
    sql = f"SELECT {array} AS a, unnest({array}) AS t, to_jsonb({array}) AS j"
    found = json.loads(answer(sql, "--format", "json"))
    assert found == [{"a": texts, "t": text, "j": texts} for text in texts]
    lines = list(csv.reader(io.StringIO(answer(sql, "--format", "csv"), newline="")))
    assert [line[1] for line in lines[1:]] == texts
    assert [json.loads(line[0]) for line in lines[1:]] == [texts] * len(texts)
    assert max(map(width, answer(sql).splitlines())) <= 80


def test_results_are_printed_also_quietly(url):
    assert run("-q", "query", "SELECT 1 AS n").stdout == answer("SELECT 1 AS n")


# ── Where the SQL comes from ─────────────────────────────────────────────────────────────────────


def test_sql_is_an_argument_a_file_or_standard_input(url, tmp_path):
    (tmp_path / "q.sql").write_bytes(b"\xef\xbb\xbf-- what\nSELECT '\xc3\xa9' AS x\n;\n-- end")
    told = answer("SELECT 'é' AS x;")
    assert "é" in told
    assert run("query", "--file", "q.sql").stdout == told
    piped = (tmp_path / "q.sql").read_bytes()
    for arguments in (["-"], [], ["--file", "-"]):
        assert run("query", *arguments, input=piped).stdout == told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["SELECT 1", "--file", "q.sql"], "Write the SQL or name a --file, not both."),
        (["--file", "nowhere.sql"], "nowhere.sql: cannot be read (No such file or directory)"),
        (["--file", "q.sql"], "q.sql: line 2 is not UTF-8"),
        ([], "there is no SQL to run"),
        ([" ; "], "there is no SQL to run"),
        (["SELECT 1", "--timeout", "soon"], "is no length of time; write it like 90s"),
        (["SELECT 1", "--format", "xml"], "'xml' is not one of"),
        (["DROP TABLE personas"], "query only reads: it runs no DROP; write a SELECT"),
        (["SELECT 1; DROP TABLE personas"], "query runs one statement at a time"),
        (["SELECT 1/0"], "error: division by zero"),
        (["SELECT set_config('client_encoding', 'LATIN1', true), 'é'"], "leave client_encoding"),
    ],
)
def test_mistakes_are_told_and_nothing_is_printed(url, tmp_path, arguments, told):
    (tmp_path / "q.sql").write_bytes(b"SELECT '\n\xff'")
    result = run("query", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_a_mistake_shows_its_place(url):
    result = run("query", "SELECT name,\n  nme FROM personas")
    assert result.stderr.splitlines() == [
        (
            'persona-etl: error: line 2, column 3: column "nme" does not exist;'
            " did you mean personas.name?"
        ),
        "    nme FROM personas",
        "    ^",
    ]
    line = json.loads(run("--log-format", "json", "query", "SELECT nme FROM personas").stderr)
    assert line["event"].startswith('line 1, column 8: column "nme"')


def test_a_comment_before_pasted_sql_is_no_option(url):
    sql = "-- Which are live?\nSELECT 1 AS n"
    assert run("query", "--format", "csv", sql).stdout == "n\n1\n"
    assert run("query", sql, "--format", "csv").stdout == "n\n1\n"
    assert "No such option" in run("query", "--nope").stderr


def test_without_sql_on_a_terminal_it_says_how_to_write_it(url):
    with Terminal([sys.executable, "-m", "etl", "query"]) as terminal:
        assert terminal.read_to_the_end() == 2
    assert "persona-etl query 'SELECT name FROM personas'" in terminal.raw


# ── How it ends ──────────────────────────────────────────────────────────────────────────────────


def test_what_is_in_the_way_has_its_exit_code_and_the_next_step(
    url, empty_database_url, monkeypatch
):
    for database, code, told in (
        ("postgresql://nobody@127.0.0.1:1/x", 6, "start the server, or correct host and port"),
        (empty_database_url, 6, "persona-etl migrate"),
        ("", 2, "database.url"),
    ):
        monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", database)
        result = run("query", "SELECT 1")
        assert (result.exit_code, result.stdout) == (code, "")
        assert told in result.stderr


def test_too_long_is_told_with_what_to_do(url):
    result = run("query", "SELECT pg_sleep(60)", "--timeout", "1s")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "not done within 1 s, and cancelled; ask for less, or for more time" in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_it_on_the_server(url, number, code):
    with started("query", "SELECT pg_sleep(60)") as process:
        wait_until(lambda: rows(url, SLEEPING))
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("", "persona-etl: interrupted\n")
    assert process.returncode == code
    wait_until(lambda: not rows(url, SLEEPING))


def test_a_reader_that_has_seen_enough_wants_no_remark(url):
    endless = "SELECT generate_series(1, 1000000000) AS g"
    done = shell(f"etl query --format csv '{endless}' | head -n 2; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stdout, done.stderr) == (141, "g\n1\n", "")


# What fills memory is the client.
@pytest.mark.one_server
def test_rows_are_never_in_memory_all_at_once(url):
    # 150 MB of them, besides the 75 that the program takes for one.
    sql = "SELECT repeat('x', 30000) FROM generate_series(1, 5000)"
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'etl', 'query', *sys.argv[1:]],"
        " stdout=subprocess.DEVNULL)\n"
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sql, "--format", "csv"], capture_output=True, check=True
    )
    exit_code, kilobytes = map(int, done.stdout.split())
    assert exit_code == 0
    assert kilobytes < 140_000
