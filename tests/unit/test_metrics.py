"""The metrics file as text: what is in it, what of it stays, and that Prometheus can read it."""

from __future__ import annotations

import os
import re
import resource
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from etl.errors import OutputError, UsageError
from etl.jobs.metrics import write_metrics
from etl.report.exposition import Family, parse, render
from etl.report.metrics import FAMILIES, STAGES, STATUSES, LastRun, Standing, textfile
from etl.settings import load_settings
from etl.tables import OUTCOMES

CHECKOUT = Path(__file__).parents[2]
RULES = CHECKOUT / "deploy" / "prometheus" / "persona-etl.rules.yml"
VERSION = version("persona-etl")
COMMANDS = ("sync", "backfill api", "backfill files", "backfill replay", "prune", "forget")

STANDING = Standing(
    read_at=1_700_003_600.5,
    last_success_at=1_700_003_600.25,
    last_complete_at=1_700_003_600.25,
    skipped=2,
    live=40,
    failing=1,
    never_seen=3,
    untracked=4,
    stalest_at=1_700_000_000.0,
    drift_paths=5,
    value_issues=6,
    revision="0004",
)
SYNC = LastRun(
    "sync",
    "partial",
    3,
    1_700_003_500.0,
    1_700_003_600.25,
    {"requested": 41, "unchanged": 39, "created": 1, "failed": 1},
    44,
    {"fetch": 98.5, "read": 1.25, "load": 20.0},
)
DOWN = LastRun("sync", "failed", 6, 1_700_007_000.0, 1_700_007_010.0)

GAUGE = Family("a_gauge", "Told.", ("schema", "more"))
texts = st.text(st.characters(exclude_categories=["Cs"]))
samples = st.dictionaries(
    st.tuples(st.just(GAUGE.name), st.tuples(texts, texts)),
    st.floats(allow_nan=False, allow_infinity=False),
)


def written(run=SYNC, standing=STANDING, before="", schema="anam") -> str:
    return textfile(schema, VERSION, run, standing, before)


def values(text: str) -> dict[str, float]:
    """By name and what the labels say, but for the schema, as Prometheus' own parser reads it."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            labels = {**sample.labels}
            assert labels.pop("schema") == "anam"
            key = " ".join([sample.name.removeprefix("persona_etl_"), *labels.values()])
            assert key not in found
            found[key] = sample.value
    return found


# ── The format ───────────────────────────────────────────────────────────────────────────────────


@given(samples)
def test_whatever_is_written_is_read_back_by_us_and_by_prometheus(given):
    text = render([GAUGE], given)
    assert parse([GAUGE], text) == given
    read = {
        (sample.name, (sample.labels["schema"], sample.labels["more"])): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert read == given
    assert not text or text.endswith("\n")


@given(st.text())
def test_any_text_is_read_without_an_error(text):
    assert all(name == GAUGE.name for name, _ in parse([GAUGE], text))


@pytest.mark.parametrize(
    "line",
    [
        'another{schema="a",more="b"} 1',
        'a_gauge{more="b",schema="a"} 1',
        'a_gauge{schema="a"} 1',
        "a_gauge 1",
        'a_gauge{schema="a",more="b"} one',
        'a_gauge{schema="a",more="b"} NaN',
        'a_gauge{schema="a",more="b"} +Inf',
        'a_gauge{schema="a",more="b"} 1 1700000000000',
        'a_gauge{schema="a",more="b} 1',
        '# a_gauge{schema="a",more="b"} 1',
    ],
)
def test_a_line_that_we_would_not_write_is_passed_over(line):
    ours = 'a_gauge{schema="a",more="c"} 2'
    assert parse([GAUGE], f"{line}\n{ours}\n") == {("a_gauge", ("a", "c")): 2.0}


def test_help_is_on_one_line():
    text = render([Family("a", "one\ntwo \\", ("b",))], {("a", ("c",)): 1.5})
    assert text == '# HELP a one\\ntwo \\\\\n# TYPE a gauge\na{b="c"} 1.5\n'


# ── What is in it ────────────────────────────────────────────────────────────────────────────────


def test_it_says_how_the_run_was_and_how_things_stand():
    found = values(written())
    assert {key: value for key, value in found.items() if not key.startswith("last_run")} == {
        f"build_info {VERSION}": 1,
        "database_up": 1,
        "database_read_timestamp_seconds": 1_700_003_600.5,
        "last_success_timestamp_seconds": 1_700_003_600.25,
        "last_complete_timestamp_seconds": 1_700_003_600.25,
        "skipped_runs": 2,
        "live_personas": 40,
        "failing_personas": 1,
        "never_seen_personas": 3,
        "untracked_personas": 4,
        "stalest_persona_timestamp_seconds": 1_700_000_000,
        "stalest_persona_age_when_read_seconds": 3600.5,
        "open_drift_paths": 5,
        "open_value_issues": 6,
        "schema_info 0004": 1,
    }
    assert found["last_run_exit_code sync"] == 3
    assert found["last_run_start_timestamp_seconds sync"] == 1_700_003_500
    assert found["last_run_end_timestamp_seconds sync"] == 1_700_003_600.25
    assert found["last_run_http_requests sync"] == 44
    assert [found[f"last_run_status sync {status}"] for status in STATUSES] == [0, 1, 0, 0, 0]
    outcomes = {outcome: found[f"last_run_outcomes sync {outcome}"] for outcome in OUTCOMES}
    assert outcomes == dict.fromkeys(OUTCOMES, 0) | {"unchanged": 39, "created": 1, "failed": 1}
    stages = {stage: found[f"last_run_stage_busy_seconds sync {stage}"] for stage in STAGES}
    assert stages == dict.fromkeys(STAGES, 0) | {"fetch": 98.5, "read": 1.25, "load": 20}


def test_every_sample_has_the_schema_whatever_it_is_called():
    odd = 'a\\b"c {}=, ä'
    families = list(text_string_to_metric_families(written(schema=odd)))
    assert {sample.labels["schema"] for f in families for sample in f.samples} == {odd}
    # And what was kept by that name is found again.
    again = written(DOWN, None, written(schema=odd), schema=odd)
    assert 'persona_etl_live_personas{schema="a\\\\b\\"c {}=, ä"} 40\n' in again


def test_two_installations_can_share_a_monitor():
    both = written() + written(schema="staging")
    series = [line.rpartition(" ")[0] for line in both.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    told = [line for line in both.splitlines() if line.startswith("#")]
    assert len(set(told)) == 2 * len(FAMILIES), "HELP and TYPE are the same in both files"


@pytest.mark.parametrize("command", COMMANDS)
def test_only_a_run_that_counts_has_counts(command):
    found = values(written(replace(SYNC, command=command)))
    asks = command in {"sync", "backfill api"}
    counts = asks or command == "backfill files"
    assert (f"last_run_outcomes {command} failed" in found) == counts
    assert (f"last_run_http_requests {command}" in found) == asks
    assert (f"last_run_stage_busy_seconds {command} load" in found) == asks
    assert f"last_run_exit_code {command}" in found


def test_what_a_role_may_not_see_and_what_is_not_there_is_left_out():
    unknown = replace(
        STANDING, stalest_at=None, drift_paths=None, value_issues=None, revision=None, live=0
    )
    found = values(written(standing=unknown))
    for name in ("stalest", "open_", "schema_info"):
        assert not [key for key in found if key.startswith(name)]
    assert found["live_personas"] == 0


# ── What stays ───────────────────────────────────────────────────────────────────────────────────


def test_without_a_database_the_last_success_stays_and_the_exit_code_is_new():
    found = values(written(DOWN, None, written()))
    before = values(written())
    changed = {key for key in found if found[key] != before[key]}
    assert found.keys() == before.keys()
    assert (found["database_up"], found["last_run_exit_code sync"]) == (0, 6)
    assert not {key for key in changed if not key.startswith("last_run_")} - {"database_up"}
    # A run that could ask for nobody has done nothing to anybody.
    assert not any(found[f"last_run_outcomes sync {outcome}"] for outcome in OUTCOMES)


def test_where_nothing_was_ever_known_the_last_success_is_never():
    for before in ("", "what is this?\n", "\0\n"):
        found = values(written(DOWN, None, before))
        assert found["last_success_timestamp_seconds"] == 0
        assert found["last_complete_timestamp_seconds"] == 0
        assert "live_personas" not in found


def test_of_a_database_without_a_success_it_says_never():
    found = values(written(standing=replace(STANDING, last_success_at=None)))
    assert found["last_success_timestamp_seconds"] == 0
    assert found["last_complete_timestamp_seconds"] == 1_700_003_600.25


def test_a_skipped_run_leaves_the_numbers_of_the_one_before():
    skipped = LastRun("sync", "skipped", 75, 1_700_003_700.0, 1_700_003_700.0)
    found = values(written(skipped, replace(STANDING, skipped=3), written()))
    assert found == values(written()) | {"skipped_runs": 3}


def test_each_command_has_numbers_of_its_own():
    prune = LastRun("prune", "succeeded", 0, 1_700_005_000.0, 1_700_005_001.0)
    text = written(prune, before=written())
    assert values(text) == values(written()) | {
        key: value for key, value in values(written(prune)).items() if " prune" in key
    }
    assert values(written(DOWN, None, text))["last_run_exit_code prune"] == 0


def test_what_is_no_longer_so_goes():
    """The old revision's series would else stay beside the new one's for ever."""
    found = values(written(standing=replace(STANDING, revision="0005"), before=written()))
    assert [key for key in found if key.startswith("schema_info")] == ["schema_info 0005"]
    empty = replace(STANDING, stalest_at=None)
    assert "stalest_persona_timestamp_seconds" not in values(
        written(standing=empty, before=written())
    )


def test_nothing_foreign_stays():
    foreign = 'persona_etl_live_personas{schema="another"} 9\nup{schema="anam"} 1\nrubbish'
    assert written(DOWN, None, foreign) == written(DOWN, None)
    stranger = 'persona_etl_last_run_exit_code{schema="anam"} 1\n'
    assert written(before=stranger) == written()


# ── The file ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def file(tmp_path):
    """A place in a folder of its own."""
    (tmp_path / "textfile").mkdir()
    return tmp_path / "textfile" / "persona_etl.prom"


def write(file, run=DOWN) -> None:
    """Without a database, which tests/cli has."""
    settings = load_settings({"PERSONA_ETL_METRICS__TEXTFILE": str(file)}, cwd=file.parent)
    write_metrics(settings, run, None)


def test_it_is_there_in_one_go_and_everybody_may_read_it(file):
    before = os.umask(0o077)
    try:
        write(file)
        inode = file.stat().st_ino
        write(file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert file.stat().st_ino != inode
    assert [*file.parent.iterdir()] == [file]


def test_a_link_stays_one(file):
    file.symlink_to("../elsewhere.prom")
    write(file)
    assert file.is_symlink()
    assert values((file.parent.parent / "elsewhere.prom").read_text(encoding="utf-8"))


@pytest.mark.parametrize("rubbish", [b"\xff\xfe\0", b"# HELP \n" * 99, b"x" * 2**21, b""])
def test_what_another_has_left_in_its_place_is_no_hindrance(rubbish, file):
    file.write_bytes(rubbish)
    write(file)
    assert file.read_text(encoding="utf-8") == written(DOWN, None)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.parent.rmdir(),
        lambda file: file.mkdir(),
        os.mkfifo,
        lambda file: file.symlink_to(file),
        lambda file: file.symlink_to("../persona-etl.toml"),
        lambda file: (file.parent.rmdir(), file.parent.write_text("a file")),
    ],
    ids=[
        "no folder",
        "a folder in its place",
        "a pipe in its place",
        "a loop of links",
        "a link away",
        "a file",
    ],
)
def test_where_no_file_can_be_put_the_settings_are_to_be_corrected(spoil, file):
    spoil(file)
    with pytest.raises(UsageError, match=r"correct metrics\.textfile$"):
        write(file)


def test_on_a_full_disk_it_stays_as_it_was(file):
    write(file, SYNC)
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit refuses as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (99, hard))
    try:
        with pytest.raises(OutputError, match="File too large; it is left as it was"):
            write(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before
    assert [*file.parent.iterdir()] == [file]


def test_runs_that_end_at_one_time_lose_nothing_of_each_other(file):
    for _ in range(5):
        runs = [replace(DOWN, command=command) for command in COMMANDS]
        with ThreadPoolExecutor(len(runs)) as pool:
            list(pool.map(lambda run: write(file, run), runs))
        found = values(file.read_text(encoding="utf-8"))
        assert {key for key in found if key.startswith("last_run_exit")} == {
            f"last_run_exit_code {command}" for command in COMMANDS
        }
        file.unlink()


def test_a_path_in_the_settings_file_is_relative_to_it(tmp_path):
    (tmp_path / "ours.toml").write_text('[metrics]\ntextfile = "persona_etl.prom"\n')
    settings = load_settings({}, tmp_path / "ours.toml")
    assert settings.metrics.textfile == tmp_path / "persona_etl.prom"


@pytest.mark.parametrize("name", ["persona_etl.txt", "prom", "persona_etl.prom.txt", "x.PROM"])
def test_only_what_node_exporter_reads_is_a_name_for_it(name, tmp_path):
    with pytest.raises(UsageError, match=r"TEXTFILE: node_exporter reads only files .* \.prom; "):
        load_settings({"PERSONA_ETL_METRICS__TEXTFILE": name}, cwd=tmp_path)


# ── Two lists together ───────────────────────────────────────────────────────────────────────────


def test_names_are_as_prometheus_wants_them():
    names = [family.name for family in FAMILIES]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"persona_etl_[a-z_]+", name) for name in names)
    assert all(family.told.endswith(".") for family in FAMILIES)


def test_alerts_speak_of_metrics_that_there_are():
    names = {family.name for family in FAMILIES}
    for rule in alerts():
        named = set(re.findall(r"persona_etl_\w+", rule["expr"]))
        assert named <= names | {"persona_etl_"}, rule["alert"]


def test_each_alert_says_what_to_do():
    for rule in alerts():
        assert rule["annotations"]["summary"]
        assert re.search(r"`persona-etl \w+", rule["annotations"]["description"]), rule["alert"]


def test_the_manual_lists_each_metric_and_each_alert():
    manual = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    part = manual.partition("\n### Metrics\n")[2].partition("\n### Logs\n")[0]
    listed = re.findall(r"^\| `(persona_etl_\w+)` \|", part, flags=re.MULTILINE)
    assert listed == [family.name for family in FAMILIES]
    told = re.findall(r"^\| `(PersonaEtl\w+)` \|", part, flags=re.MULTILINE)
    assert told == [rule["alert"] for rule in alerts()]


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found
