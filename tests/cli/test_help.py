"""`--help`: whole, within 80 columns, and before anything heavy is imported."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

import pytest

from etl import errors
from etl.cli.main import COMMANDS

# Each takes longer to import than everything that help needs.
HEAVY = {"sqlalchemy", "alembic", "httpx", "psycopg", "pydantic", "msgspec", "tqdm"}
ALL = [(), *((name,) for name in COMMANDS), ("backfill", "replay")]
ALL += [("backfill", "api"), ("backfill", "files")]
ALL += [("drift", "accept"), ("drift", "ignore"), ("drift", "propose")]
ALL += [("prompts", "configurations"), ("prompts", "search"), ("prompts", "similar")]


@cache
def helped(*command: str) -> tuple[str, set[str]]:
    """What `COMMAND --help` prints, and the modules that were loaded for it."""
    code = (
        "import sys; from etl.cli.main import main\n"
        f"sys.argv[1:] = {[*command, '--help']}\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    # None of the settings is right, and help must not care.
    broken = {"PERSONA_ETL_CONFIG": "/nowhere/x.toml", "PERSONA_ETL_NOPE": "1", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=broken
    )
    return done.stdout, set(done.stderr.split())


@pytest.mark.parametrize("command", ALL)
def test_it_fits_a_terminal_of_80_columns(command: tuple[str, ...]) -> None:
    told, _ = helped(*command)
    assert [line for line in told.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", ALL)
def test_it_says_usage_a_sentence_options_and_examples(command: tuple[str, ...]) -> None:
    told, _ = helped(*command)
    usage, _, summary = told.splitlines()[:3]
    assert usage.startswith(f"Usage: {' '.join(['persona-etl', *command])} [OPTIONS]")
    assert summary.startswith("  ")
    assert summary.endswith(".")
    assert "\nOptions:\n" in told
    examples = told.partition("\n  Examples:\n")[2]
    assert re.search(rf"persona-etl( .+)? {' '.join(command)}\b", examples)


@pytest.mark.parametrize("command", ALL)
def test_each_option_is_explained(command: tuple[str, ...]) -> None:
    told, _ = helped(*command)
    options = told.split("\nOptions:\n")[1].split("\n\n")[0]
    rows = re.sub(r"\n {10,}", "  ", options).splitlines()
    assert [row for row in rows if not re.search(r"\S  +[A-Z0-9-].+[.\])]$", row)] == []


@pytest.mark.parametrize("command", ALL)
def test_nothing_heavy_is_imported_for_it(command: tuple[str, ...]) -> None:
    _, loaded = helped(*command)
    assert "etl.cli.main" in loaded
    assert not loaded & (HEAVY | {"asyncio", "etl.settings"} if not command else HEAVY)


def test_the_commands_are_listed_without_importing_one() -> None:
    told, loaded = helped()
    listed = told.split("Commands:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    for (_, summary), line in zip(COMMANDS.values(), listed, strict=True):
        assert line.endswith(summary)
    assert not loaded & {module for module, _ in COMMANDS.values()}


def test_it_names_each_exit_code_and_where_settings_come_from() -> None:
    def every(error: type[errors.EtlError]) -> set[int]:
        return {error.exit_code}.union(*(every(e) for e in error.__subclasses__()))

    told, _ = helped()
    codes = told.split("Exit codes:")[1].split("\n\n")[0]
    signals = {130, 141, 143}
    assert {int(code) for code in re.findall(r"\d+", codes)} == (
        every(errors.EtlError) | {0, *signals}
    )
    for place in ("--config", "$PERSONA_ETL_CONFIG", "./persona-etl.toml", "~/.config"):
        assert place in told.split("Settings:")[1]
