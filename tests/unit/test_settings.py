"""Settings: a file and an environment become one object, or every mistake at once."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from etl.errors import UsageError
from etl.settings import Settings, known_keys, load_settings, parse_ids, settings_file
from tests.unit.strategies import properties

ONE = UUID("6f1f0e8e-0000-4000-8000-000000000001")
TWO = UUID("6f1f0e8e-0000-4000-8000-000000000002")
ALIKE = "ids look like 00000000-0000-0000-0000-000000000000"
READABLE = "name a file that this user may read"


@pytest.fixture
def load(tmp_path: Path):
    """Load from a text as ./persona-etl.toml in an empty folder."""

    def load(toml: str = "", **environ: str) -> Settings:
        (tmp_path / "persona-etl.toml").write_text(toml, encoding="utf-8")
        return load_settings(environ, cwd=tmp_path)

    return load


@pytest.fixture
def mistakes(load, tmp_path: Path):
    """The lines of the error, the folder's name taken out, and the headline too."""

    def mistakes(toml: str = "", **environ: str) -> list[str]:
        with pytest.raises(UsageError) as caught:
            load(toml, **environ)
        lines = str(caught.value).replace(f"{tmp_path}/", "").split("\n  ")
        if len(lines) > 1:
            assert lines.pop(0) == f"{len(lines)} mistakes in the settings:"
        return lines

    return mistakes


# --- what is found, and what beats what


def test_nothing_configured_gives_the_documented_defaults(load) -> None:
    settings = load()
    assert settings == Settings()
    assert settings.api.base_url == "https://api.anam.ai"
    assert (settings.api.concurrency, settings.api.timeout_seconds) == (16, 30)
    assert (settings.api.max_wait_seconds, settings.api.requests_per_second) == (120, None)
    assert (settings.personas.ids, settings.personas.discover) == ((), False)
    assert (settings.database.url, settings.database.schema_) == (None, "anam")
    assert (settings.safety.max_removed_percent, settings.safety.drift) == (20, "record")


def test_an_option_beats_the_variable_which_beats_the_folder_which_beats_the_home(
    tmp_path: Path,
) -> None:
    home, folder = tmp_path / "home", tmp_path / "here"
    xdg = tmp_path / "xdg"
    places = [
        home / ".config/persona-etl/persona-etl.toml",
        xdg / "persona-etl/persona-etl.toml",
        folder / "persona-etl.toml",
        folder / "named-by-variable.toml",
        folder / "named-by-option.toml",
    ]
    folder.mkdir()

    def concurrency(environ: dict[str, str], config: Path | None = None) -> int:
        return load_settings({"HOME": str(home)} | environ, config, cwd=folder).api.concurrency

    for number, place in enumerate(places, start=1):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"[api]\nconcurrency = {number}\n", encoding="utf-8")
    variable = {"PERSONA_ETL_CONFIG": "named-by-variable.toml", "XDG_CONFIG_HOME": str(xdg)}
    assert concurrency(variable, Path("named-by-option.toml")) == 5
    assert concurrency(variable) == 4
    assert concurrency({"XDG_CONFIG_HOME": str(xdg)}) == 3
    places[2].unlink()
    assert concurrency({"XDG_CONFIG_HOME": str(xdg)}) == 2
    assert concurrency({}) == 1
    assert concurrency({"XDG_CONFIG_HOME": "relative/is/ignored"}) == 1
    places[0].unlink()
    assert concurrency({}) == 16


def test_the_file_that_is_read_can_be_told(tmp_path: Path) -> None:
    assert settings_file({}, cwd=tmp_path) is None
    named = {"PERSONA_ETL_CONFIG": "x.toml"}
    assert settings_file(named, cwd=tmp_path) == tmp_path / "x.toml"
    (tmp_path / "persona-etl.toml").touch()
    unset = {"PERSONA_ETL_CONFIG": " "}
    assert settings_file(unset, cwd=tmp_path) == tmp_path / "persona-etl.toml"


@pytest.mark.parametrize("by_option", [True, False])
def test_a_file_that_was_named_and_is_not_there_is_a_mistake(
    tmp_path: Path, *, by_option: bool
) -> None:
    environ = {} if by_option else {"PERSONA_ETL_CONFIG": "typo.toml"}
    with pytest.raises(UsageError, match=r"typo\.toml: there is no such file"):
        load_settings(environ, Path("typo.toml") if by_option else None, cwd=tmp_path)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("api.base_url", "https://proxy.example/anam/", "https://proxy.example/anam"),
        ("api.concurrency", "7", 7),
        ("api.timeout_seconds", "2.5", 2.5),
        ("api.max_wait_seconds", "0", 0),
        ("api.requests_per_second", "0.5", 0.5),
        ("personas.ids", f"{ONE}, {TWO},", (ONE, TWO)),
        ("personas.discover", "true", True),
        ("personas.discover", "Yes", True),
        ("personas.discover", "1", True),
        ("personas.discover", "off", False),
        ("personas.discover", "0", False),
        ("database.schema_", "Ünïcode schema", "Ünïcode schema"),
        ("safety.max_removed_percent", "100", 100),
        ("safety.run_deadline_seconds", "60", 60),
        ("safety.drift", "fail", "fail"),
    ],
)
def test_every_key_is_also_a_variable_and_the_variable_wins(load, key, text, value) -> None:
    section, name = key.split(".")
    variable = f"PERSONA_ETL_{section}__{name.rstrip('_')}".upper()
    file = '[api]\nconcurrency = 3\n[database]\nschema = "other"\n[safety]\ndrift = "warn"\n'
    settings = load(file, **{variable: text})
    assert getattr(getattr(settings, section), name) == value


def test_a_variable_that_says_neither_yes_nor_no_is_a_mistake(mistakes) -> None:
    (line,) = mistakes(PERSONA_ETL_PERSONAS__DISCOVER="maybe")
    assert line == 'PERSONA_ETL_PERSONAS__DISCOVER: write true or false, not "maybe"'


def test_the_variables_of_the_vendor_beat_ours(load) -> None:
    settings = load(
        ANAM_API_URL="https://vendor.example",
        PERSONA_ETL_API__BASE_URL="https://ours.example",
        ANAM_API_KEY=" key-of-the-vendor\n",
    )
    assert settings.api.base_url == "https://vendor.example"
    assert settings.require_key().get_secret_value() == "key-of-the-vendor"


def test_a_variable_set_to_nothing_counts_as_unset(load) -> None:
    names = [key.variable for key in known_keys().values()]
    empty = dict.fromkeys([*names, "ANAM_API_KEY", "ANAM_API_URL", "PERSONA_ETL_CONFIG"], " ")
    assert load("[api]\nconcurrency = 3\n", **empty).api.concurrency == 3


def test_variables_of_test_suites_are_not_ours(load) -> None:
    assert load(PERSONA_ETL_TEST_DATABASE="whatever", ANAM_OTHER="x") == Settings()


def test_paths_in_the_file_are_relative_to_it_and_others_to_the_current_folder(
    tmp_path: Path,
) -> None:
    folder, cwd = tmp_path / "etc", tmp_path / "cwd"
    folder.mkdir()
    cwd.mkdir()
    config = folder / "persona-etl.toml"
    config.write_text(
        '[personas]\nids_file = "ids.txt"\n[database]\nurl = "embedded:data"\n'
        '[migrations]\nlocal_dir = "ours"\n',
        encoding="utf-8",
    )
    (folder / "ids.txt").write_text(str(ONE), encoding="utf-8")
    (cwd / "ids.txt").write_text(str(TWO), encoding="utf-8")
    settings = load_settings({}, config, cwd=cwd)
    assert settings.personas.ids == (ONE,)
    assert settings.require_database().get_secret_value() == f"embedded:{folder}/data"
    # It need not be there: only `migrate` looks into it.
    assert settings.migrations.local_dir == folder / "ours"
    by_variable = load_settings({"PERSONA_ETL_PERSONAS__IDS_FILE": "ids.txt"}, config, cwd=cwd)
    assert by_variable.personas.ids == (TWO,)
    by_home = load_settings(
        {"HOME": str(cwd), "PERSONA_ETL_PERSONAS__IDS_FILE": "~/ids.txt"}, config, cwd=folder
    )
    assert by_home.personas.ids == (TWO,)


# --- what a value must be


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[api]\nconcurrency = 0", "concurrency: write a whole number from 1 to 64, not 0"),
        ("[api]\nconcurrency = 65", "concurrency: write a whole number from 1 to 64, not 65"),
        ("[api]\nconcurrency = true", "concurrency: write a whole number from 1 to 64, not true"),
        ("[api]\nconcurrency = 1.5", "concurrency: write a whole number from 1 to 64, not 1.5"),
        ('[api]\nconcurrency = "all"', 'write a whole number from 1 to 64, not "all"'),
        (
            f"[api]\nconcurrency = 0x{'f' * 9000}",
            "write a whole number from 1 to 64, not so large a number",
        ),
        ("[api]\ntimeout_seconds = 0", "timeout_seconds: write seconds, more than 0, not 0"),
        ("[api]\ntimeout_seconds = inf", "timeout_seconds: write seconds, more than 0, not inf"),
        ("[api]\ntimeout_seconds = false", "write seconds, more than 0, not false"),
        ("[api]\nmax_wait_seconds = -1", "max_wait_seconds: write seconds, 0 or more, not -1"),
        ("[api]\nmax_wait_seconds = inf", "max_wait_seconds: write seconds, 0 or more, not inf"),
        ("[api]\nmax_wait_seconds = nan", "max_wait_seconds: write seconds, 0 or more, not nan"),
        ("[api]\nrequests_per_second = 0", "write a number above 0, not 0"),
        ('[personas]\nids = "x"', 'ids: write a list of ids, like ["0000'),
        ("[safety]\nmax_removed_percent = 101", "write a number from 0 to 100, not 101"),
        ("[safety]\nmax_removed_percent = nan", "write a number from 0 to 100, not nan"),
        ("[safety]\nrun_deadline_seconds = 0", "write seconds, more than 0, not 0"),
        ('[safety]\ndrift = "loud"', 'write "record", "warn" or "fail", not "loud"'),
        ("[safety]\ndrift = 2026-11-22", 'write "record", "warn" or "fail", not a date or time'),
        ("[personas]\ndiscover = 1", "discover: write true or false, not 1"),
        ('[personas]\ndiscover = "true"', 'discover: write true or false, not "true"'),
        ('[migrations]\nlocal_dir = ""', 'local_dir: write the path of a folder, not ""'),
        ('[personas]\nids_file = ""', 'ids_file: write the path of a file, not ""'),
        ("[personas]\nids_file = []", "ids_file: write the path of a file, not a list"),
        ('[personas]\nids_file = "a\\u0000"', "ids_file: write the path of a file, not"),
        ("[api]\nbase_url = {}", "base_url: write a URL like https://api.anam.ai, not a table"),
    ],
)
def test_a_value_that_does_not_fit_names_its_key_and_what_fits(mistakes, toml, says) -> None:
    (line,) = mistakes(toml)
    assert line.startswith("persona-etl.toml: ")
    assert says in line


@pytest.mark.parametrize("value", ["1", "64"])
def test_the_bounds_of_concurrency_are_inside(load, value) -> None:
    assert load(f"[api]\nconcurrency = {value}").api.concurrency == int(value)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.anam.ai",
        "https://proxy.example:8443/anam",
        "http://localhost:8080",
        "http://127.0.0.1:1",
        "http://127.8.9.1",
        "http://[::1]:8080",
    ],
)
def test_an_api_url_is_tls_or_loopback(load, url) -> None:
    assert load(ANAM_API_URL=url).api.base_url == url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://api.anam.ai", "http:// would send the API key unencrypted"),
        ("http://localhost.evil.example", "unencrypted"),
        ("http://127.0.0.1.evil.example", "unencrypted"),
        ("http://[::2]", "unencrypted"),
        ("http://192.168.0.1", "unencrypted"),
        ("http://localhost\\.evil.example", "backslash"),
        ("http://local\thost", "unprintable"),
        ("http://local host", "space"),
        ("http://localhost@evil.example", "user name or password"),
        ("https://user:hunter22@api.anam.ai", "user name or password"),
        ("https://api.anam.ai?key=hunter22", "after ? or #"),
        ("https://api.anam.ai#hunter22", "after ? or #"),
        ("https://api.anam.ai:hunter22", "host or port"),
        ("https://[::1", "host or port"),
        ("https://", "not an https:// URL"),
        ("ftp://hunter22", "not an https:// URL"),
        ("hunter22", "not an https:// URL"),
    ],
)
def test_any_other_api_url_is_refused_and_not_quoted(mistakes, url, says) -> None:
    (line,) = mistakes(ANAM_API_URL=url)
    assert line.startswith("ANAM_API_URL: ")
    assert says in line
    assert "hunter22" not in line


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://etl:pa%2Fss@db.example:5432/personas?sslmode=require",
        "postgres:///personas?host=/run/postgresql",
        "embedded",
        "embedded:/var/lib/persona-etl",
    ],
)
def test_a_database_is_a_postgres_url_or_embedded(load, url) -> None:
    settings = load(PERSONA_ETL_DATABASE__URL=url)
    assert settings.require_database().get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://u:hunter22@h/d", "not a Postgres URL"),
        ("hunter22", "not a Postgres URL"),
        ("embedded:", "not a Postgres URL"),
        ("embeddedhunter22", "not a Postgres URL"),
        ("embedded:/a\x1b", "not a Postgres URL"),
        ("postgresql+psycopg://u:hunter22@h/d", "driver is not chosen here"),
    ],
)
def test_any_other_database_is_refused_and_not_quoted(mistakes, url, says) -> None:
    (line,) = mistakes(PERSONA_ETL_DATABASE__URL=url)
    assert line.startswith("PERSONA_ETL_DATABASE__URL: ")
    assert says in line
    assert "hunter22" not in line


@pytest.mark.parametrize("value", ["{ password = 'hunter22' }", "['hunter22']", "22"])
def test_a_secret_of_the_wrong_type_is_not_quoted_either(mistakes, value) -> None:
    (line,) = mistakes(f"[database]\nurl = {value}")
    assert "database.url: write postgresql://" in line
    assert "22" not in line


@pytest.mark.parametrize("name", ["anam", "Anam 2", 'quo"ted', "é" * 20, "PG_upper", "x" * 40])
def test_a_schema_is_any_name_that_postgres_takes(load, name) -> None:
    assert load(PERSONA_ETL_DATABASE__SCHEMA=name).database.schema_ == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "empty"),
        ("a\\u0000b", "not printable"),
        ("a\\nb", "not printable"),
        ("x" * 41, "longer than 40 bytes"),
        ("é" * 21, "longer than 40 bytes"),
        ("pg_anam", "belongs to Postgres"),
        ("information_schema", "belongs to Postgres"),
    ],
)
def test_a_schema_that_postgres_would_refuse_or_cut_is_refused(mistakes, name, says) -> None:
    (line,) = mistakes(f'[database]\nschema = "{name}"')
    assert line.startswith("persona-etl.toml: database.schema: ")
    assert says in line


# --- names that nobody knows


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[safty]", "safty: unknown section; did you mean safety?"),
        ("[zzz]", "zzz: unknown section; known are api, personas, database,"),
        ('["a b"]', '"a b": unknown section; known are'),
        ("[api]\nconcurency = 1", "api.concurency: unknown key; did you mean concurrency?"),
        ("[personas]\nzzz = 1", "personas.zzz: unknown key; known are ids, ids_file"),
        ("[api]\nschema = 1", "api.schema: a key of another section; write it below [database]"),
        ("concurrency = 1", "concurrency: a key outside its section; write it below [api]"),
        ("[database]\nschema_ = 'x'", "database.schema_: unknown key; did you mean schema?"),
        ("api = 1", "api: write it as a table, [api]"),
        ("[[api]]", "api: write it as a table, [api]"),
    ],
)
def test_an_unknown_name_is_a_mistake_and_the_nearest_is_named(mistakes, toml, says) -> None:
    (line,) = mistakes(toml)
    assert line.startswith(f"persona-etl.toml: {says}")


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("PERSONA_ETL_API__CONCURENCY", "did you mean PERSONA_ETL_API__CONCURRENCY?"),
        ("PERSONA_ETL_API_CONCURRENCY", "did you mean PERSONA_ETL_API__CONCURRENCY?"),
        ("PERSONA_ETL_CONFG", "did you mean PERSONA_ETL_CONFIG?"),
        ("PERSONA_ETL_ZZZZZZZZZZZZZZZ", "named PERSONA_ETL_<SECTION>__<KEY>"),
    ],
)
def test_an_unknown_variable_of_ours_is_a_mistake(mistakes, variable, says) -> None:
    (line,) = mistakes(**{variable: "1"})
    assert line.startswith(f"{variable}: unknown variable; ")
    assert says in line


@pytest.mark.parametrize("name", ["key", "api_key"])
def test_the_key_itself_is_refused_in_the_file_and_where_it_belongs_is_told(mistakes, name) -> None:
    lines = mistakes(
        f'[api]\n{name} = "hunter22"', **{f"PERSONA_ETL_API__{name.upper()}": "hunter22"}
    )
    assert len(lines) == 2
    for line in lines:
        assert "set ANAM_API_KEY" in line
        assert "api.api_key_file" in line
        assert "hunter22" not in line


# --- files that are no TOML


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[api\n", r"not valid TOML: .*\(at line 1, column 5\)"),
        ("[api]\nconcurrency = \n", r"not valid TOML: .*\(at line 2, column 15\)"),
        ("x = " + "[" * 9000, "nested too deeply"),
        (f"x = {'9' * 9000}", "nested too deeply, or a number too long"),
    ],
)
def test_a_file_that_is_no_toml_is_one_mistake_with_its_place(mistakes, toml, says) -> None:
    (line,) = mistakes(toml)
    assert re.match(f"persona-etl.toml: {says}", line)


def test_a_file_that_is_no_text_or_no_file_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "latin1.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(UsageError, match=r"latin1\.toml: not UTF-8 \(byte 5\)"):
        load_settings({}, Path("latin1.toml"), cwd=tmp_path)
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\)"):
        load_settings({}, tmp_path)


@pytest.mark.parametrize("variable", ["CONFIG", "API__API_KEY_FILE", "PERSONAS__IDS_FILE"])
def test_what_has_no_content_or_no_end_is_a_mistake_and_never_waited_for(tmp_path, variable):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(2**30)
    (tmp_path / "sparse").chmod(0o600)
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name, says in (
        ("pipe", "a pipe that nobody writes to; name a file"),
        ("folder", f"cannot be read (Is a directory); {READABLE}"),
        ("sparse", "larger than 64 MiB; name another file"),
        ("endless", "larger than 64 MiB; name another file"),
        ("sparse/inside", f"cannot be read (Not a directory); {READABLE}"),
        ("n" * 300, f"cannot be read (File name too long); {READABLE}"),
    ):
        with pytest.raises(UsageError) as caught:
            load_settings({f"PERSONA_ETL_{variable}": name}, cwd=tmp_path)
        assert str(caught.value).endswith(f"{tmp_path / name}: {says}")


def test_a_pipe_that_somebody_writes_to_is_a_file(tmp_path: Path) -> None:
    # As `--config <(…)` in a shell, and secrets that another program prints.
    reading, writing = os.pipe()
    for content in (b"[api]\n", b"concurrency = 3\n"):
        os.write(writing, content)
    os.close(writing)
    settings = load_settings({}, Path(f"/dev/fd/{reading}"), cwd=tmp_path)
    os.close(reading)
    assert settings.api.concurrency == 3


def test_very_many_mistakes_do_not_flood_the_terminal(mistakes) -> None:
    toml = "[api]\n" + "".join(f"key{number} = 1\n" for number in range(500))
    environ = {f"PERSONA_ETL_X{number}": "1" for number in range(500)}
    lines = mistakes(toml, **environ)
    assert len(lines) == 42
    assert lines[20] == "persona-etl.toml: … and 480 more like these"
    assert lines[41] == "the environment: … and 480 more like these"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "persona-etl.toml").write_text("[api]\nconcurrency = 3\n", encoding="utf-8-sig")
    assert load_settings({}, cwd=tmp_path).api.concurrency == 3


def test_everything_that_is_wrong_is_told_at_once(mistakes, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(f"# ours\n{ONE}\nnobody\n", encoding="utf-8")
    lines = mistakes(
        '[api]\nconcurrency = 99\nspeed = 1\n[personas]\nids = ["abc"]\nids_file = "ids.txt"\n'
        "[extra]\n",
        PERSONA_ETL_SAFETY__DRIFT="loud",
        PERSONA_ETL_NOPE="1",
    )
    assert [line.split(": ")[:2] for line in lines] == [
        ["persona-etl.toml", "api.speed"],
        ["persona-etl.toml", "extra"],
        ["PERSONA_ETL_NOPE", lines[2].split(": ")[1]],
        ["ids.txt:3", f'"nobody" is not a UUID; {ALIKE}'],
        ["persona-etl.toml", "api.concurrency"],
        ["persona-etl.toml", "personas.ids[0]"],
        ["PERSONA_ETL_SAFETY__DRIFT", 'write "record", "warn" or "fail", not "loud"'],
    ]


# --- ids


def test_a_bad_id_is_told_with_its_position(mistakes) -> None:
    assert mistakes(f'[personas]\nids = ["{ONE}", "{TWO}", "{ONE}", "abc", 4]') == [
        f'persona-etl.toml: personas.ids[3]: "abc" is not a UUID; {ALIKE}',
        f"persona-etl.toml: personas.ids[4]: 4 is not a UUID; {ALIKE}",
    ]
    assert mistakes(PERSONA_ETL_PERSONAS__IDS=f"{ONE},abc") == [
        f'PERSONA_ETL_PERSONAS__IDS[1]: "abc" is not a UUID; {ALIKE}'
    ]


def test_ids_and_those_of_the_file_are_one_list_without_repetitions(load, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(f"\n{ONE}  # the receptionist\n{TWO}\r\n", encoding="utf-8")
    file = f'[personas]\nids = ["{TWO}", "{str(TWO).upper()}"]\nids_file = "ids.txt"\n'
    assert load(file).require_ids() == (TWO, ONE)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "there is no such file"), (b"\xff", "not UTF-8")],
)
def test_an_ids_file_that_cannot_be_read_is_a_mistake(mistakes, tmp_path, content, says) -> None:
    if content is not None:
        (tmp_path / "ids.txt").write_bytes(content)
    (line,) = mistakes('[personas]\nids_file = "ids.txt"')
    assert line.startswith(f"persona-etl.toml: personas.ids_file: ids.txt: {says}")


def test_parse_ids_skips_comments_and_keeps_the_order_of_first_appearance() -> None:
    text = f"\ufeff# a list\n\n {TWO} \n{ONE} # twice\n{str(ONE).upper()}\n"
    assert parse_ids(text, "-") == [TWO, ONE]


@pytest.mark.parametrize(
    "written",
    [
        "abc",
        "{00000000-0000-0000-0000-000000000000}",
        "urn:uuid:00000000-0000-0000-0000-000000000000",
        "00000000000000000000000000000000",
        "00000000-0000-0000-0000-00000000000٠",  # noqa: RUF001
        f"{ONE} {TWO}",
    ],
)
def test_parse_ids_takes_the_api_s_own_form_only(written) -> None:
    with pytest.raises(UsageError) as caught:
        parse_ids(f"{ONE}\n{written}\x0c\n", "ids.txt")
    assert str(caught.value).startswith("ids.txt:2: ")
    assert str(caught.value).endswith(ALIKE)


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    with pytest.raises(UsageError) as caught:
        parse_ids("# a page\x0cand a\u2028separator\r\nabc\r\n", "ids.txt")
    assert str(caught.value) == f'ids.txt:2: "abc" is not a UUID; {ALIKE}'


def test_a_wrong_file_does_not_flood_the_terminal() -> None:
    with pytest.raises(UsageError) as caught:
        parse_ids("x" * 500 + "\n" + "y\n" * 1000, "ids.txt")
    lines = str(caught.value).split("\n")
    assert len(lines) == 21
    assert len(lines[0]) < 160
    assert lines[-1] == "ids.txt: … and 981 more like these"


# --- the key


def key_file(tmp_path: Path, content: str, mode: int = 0o600) -> Path:
    file = tmp_path / "key"
    file.write_text(content, encoding="utf-8")
    file.chmod(mode)
    return file


def test_the_key_file_gives_the_key_without_its_line_end(load, tmp_path: Path) -> None:
    key_file(tmp_path, "hunter22\n", 0o400)
    settings = load('[api]\napi_key_file = "key"')
    assert settings.require_key().get_secret_value() == "hunter22"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_file_that_others_can_open_is_a_mistake(mistakes, tmp_path: Path, mode) -> None:
    file = key_file(tmp_path, "hunter22", mode)
    if os.geteuid() == 0:
        os.chown(file, 1, 1)  # Of root's the group may be let in.
    (line,) = mistakes('[api]\napi_key_file = "key"')
    assert line.startswith("persona-etl.toml: api.api_key_file: ")
    assert line.endswith("others than its owner can open it; run: chmod 600 key")
    assert "hunter22" not in line


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file of root's")
@pytest.mark.parametrize("mode", [0o400, 0o440, 0o640])
def test_a_key_file_of_roots_may_be_read_by_its_group(load, tmp_path: Path, mode) -> None:
    key_file(tmp_path, "hunter22", mode)
    settings = load('[api]\napi_key_file = "key"')
    assert settings.require_key().get_secret_value() == "hunter22"


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file of root's")
@pytest.mark.parametrize("mode", [0o660, 0o650, 0o444, 0o641])
def test_a_key_file_of_roots_may_not_be_written_by_its_group_nor_read_by_all(
    mistakes, tmp_path: Path, mode
) -> None:
    key_file(tmp_path, "hunter22", mode)
    (line,) = mistakes('[api]\napi_key_file = "key"')
    assert line.endswith("others than its owner can open it; run: chmod 640 key")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("\n", "no key in it"),
        ("hunter22\nhunter23", "not an API key"),
        ("hunter22 hunter23", "not an API key"),
        ("hünter22", "not an API key"),
        ("hunter22\x7f", "not an API key"),
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_quoted(
    mistakes, tmp_path: Path, content, says
) -> None:
    key_file(tmp_path, content)
    (line,) = mistakes('[api]\napi_key_file = "key"')
    assert line.startswith(f"persona-etl.toml: api.api_key_file: key: {says}")
    assert "nter2" not in line


def test_a_key_file_that_is_not_there_is_a_mistake_unless_the_variable_is_set(
    load, mistakes
) -> None:
    file = '[api]\napi_key_file = "key"'
    (line,) = mistakes(file)
    assert line.startswith("persona-etl.toml: api.api_key_file: key: there is no such file")
    assert load(file, ANAM_API_KEY="hunter22").require_key().get_secret_value() == "hunter22"


# --- what a command asks for


@pytest.mark.parametrize(
    ("require", "hint"),
    [
        (Settings.require_key, "ANAM_API_KEY"),
        (Settings.require_database, "PERSONA_ETL_DATABASE__URL"),
        (Settings.require_ids, "--all .* personas.ids, .* personas.discover"),
    ],
)
def test_what_is_needed_and_not_set_is_a_usage_error_with_a_hint(require, hint) -> None:
    with pytest.raises(UsageError, match=hint) as caught:
        require(Settings())
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_whoever_discovers_needs_no_ids_and_may_have_some(load) -> None:
    assert load("[personas]\ndiscover = true").require_ids() == ()
    assert load(f'[personas]\ndiscover = true\nids = ["{ONE}"]').require_ids() == (ONE,)


def test_settings_cannot_be_changed(load) -> None:
    settings = load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.api = None
    with pytest.raises(ValidationError, match="frozen"):
        settings.database.schema_ = "other"


# --- rules without exceptions

KEYS = list(known_keys().values())
NAMES = st.sampled_from([name for key in KEYS for name in (key.section, key.name)]) | st.text()
SCALARS = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["embedded:", "http://", "postgresql://", "~/", str(ONE), "\0"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)


def as_toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
        case dict():
            return "{" + ", ".join(f"{as_toml(k)} = {as_toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(as_toml, value)) + "]"
        case float() if math.isfinite(value):
            return f"{value:.20e}"
    return str(value)


SETTABLE = st.fixed_dictionaries(
    {},
    optional={
        key.section: st.fixed_dictionaries(
            {}, optional={each.name: VALUES for each in KEYS if each.section == key.section}
        )
        for key in KEYS
    },
)
ENVIRONS = st.dictionaries(
    st.sampled_from([key.variable for key in KEYS])
    | st.sampled_from(["ANAM_API_KEY", "ANAM_API_URL", "HOME", "XDG_CONFIG_HOME"])
    | st.text().map("PERSONA_ETL_".__add__),
    # os.environ has undecodable bytes as lone surrogates.
    SCALARS.map(str) | st.text(st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)),
    max_size=5,
)


@properties(100)
@given(SETTABLE | st.dictionaries(NAMES, VALUES, max_size=3), ENVIRONS)
@example({"api": {"concurrency": 10**400, "timeout_seconds": 10**400}}, {})
@example({}, {"PERSONA_ETL_PERSONAS__IDS_FILE": "\udc80"})
def test_whatever_is_written_gives_settings_or_a_usage_error(tmp_path: Path, tables, environ):
    file = tmp_path / "persona-etl.toml"
    file.write_text("".join(f"{as_toml(k)} = {as_toml(v)}\n" for k, v in tables.items()))
    try:
        settings = load_settings(environ, cwd=tmp_path)
    except UsageError as exc:
        assert str(exc)  # noqa: PT017
    else:
        assert isinstance(settings, Settings)


@properties(100)
@given(st.binary() | st.text().map(str.encode))
def test_whatever_bytes_are_in_the_file_only_a_usage_error_comes_out(tmp_path: Path, content):
    file = tmp_path / "persona-etl.toml"
    file.write_bytes(content)
    try:
        load_settings({}, cwd=tmp_path)
    except UsageError as exc:
        assert str(exc).startswith((str(file), "2 mistakes", "3 mistakes"))  # noqa: PT017


@properties(100)
@given(
    st.text(min_size=6).map(lambda text: f"hunter22{text}"),
    st.sampled_from(["postgresql://u:{}@h/d", "postgres://u:{}@h:x/d", "pg://{}", "embedded{}"]),
)
def test_no_secret_is_in_a_message_a_repr_or_a_dump(tmp_path: Path, secret, form):
    (tmp_path / "key").write_text(secret)
    (tmp_path / "key").chmod(0o600)
    environ = {
        "PERSONA_ETL_DATABASE__URL": form.format(secret),
        "PERSONA_ETL_NOTIFY__PING_URL": f"https://h/{secret}",
    }
    for key in ({"ANAM_API_KEY": secret}, {"PERSONA_ETL_API__API_KEY_FILE": "key"}):
        try:
            settings = load_settings(environ | key, cwd=tmp_path)
        except UsageError as exc:
            shown = str(exc)
            assert exc.__cause__ is None  # noqa: PT017
        else:
            shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
        assert "hunter22" not in shown


def test_only_the_mapping_is_read_and_never_the_process_s_environment(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from etl.settings import *; "
        f"print(load_settings({{}}, cwd=Path({str(tmp_path)!r})) == Settings())"
    )
    environ = {"PERSONA_ETL_API__CONCURRENCY": "3", "ANAM_API_KEY": "k", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("0000000O-0000-4000-8000-00000000000l", '"0000000O-0000-4000-8000-00000000000l"'),
        ("{00000000-0000-4000-8000-000000000001}", '"{00000000-0000-4000-8000-000000000001}"'),
        ("sales-assistant", '"sales-assistant"'),
        ("a persona of ours, 2nd try", '"a persona of ours, 2nd try"'),
        ("T1dKaHR0cHM6Ly9rZXk9", '"T1dK"… (20 characters)'),
        ("ANAM_API_KEY=T1dKaHR0", '"ANAM"… (21 characters)'),
    ],
)
def test_a_mistyped_id_is_told_and_of_a_key_in_its_place_the_beginning(written, told):
    with pytest.raises(UsageError) as caught:
        parse_ids(written, "ids.txt")
    assert str(caught.value).startswith(f"ids.txt:1: {told} is not a UUID; ")


def test_the_key_itself_in_the_place_of_its_files_name_is_not_told(tmp_path):
    for key in ("T1dKaHR0cHM6Ly9rZXk9", "T1dKaHR0/cHM6Ly9r+ZXk9=="):
        with pytest.raises(UsageError) as caught:
            load_settings({"PERSONA_ETL_API__API_KEY_FILE": key}, cwd=tmp_path)
        assert str(caught.value) == (
            "PERSONA_ETL_API__API_KEY_FILE: there is no such file; name one that exists;"
            " if this is the key itself, put it into a file"
        )
    named = {"PERSONA_ETL_API__API_KEY_FILE": str(tmp_path / "missing-2026-key-file.txt")}
    with pytest.raises(UsageError, match=r"missing-2026-key-file\.txt: there is no such file"):
        load_settings(named, cwd=tmp_path / "elsewhere")
