"""Completion in bash, zsh and fish, as their scripts ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from etl.cli.main import COMMANDS
from tests.cli.terminal import Terminal

PROGRAM = Path(sys.executable).with_name("persona-etl")
BASH = shutil.which("bash")


def asked(shell: str, words: str, incomplete: str) -> str:
    """What the program answers to the script of a shell."""
    typed = f"{words} {incomplete}"
    # fish hands over the word itself, the others its place.
    place = incomplete if shell == "fish" else str(len(words.split()))
    done = subprocess.run(
        [PROGRAM],
        env={
            **os.environ,
            "_PERSONA_ETL_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": typed,
            "COMP_CWORD": place,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def offered(words: str, incomplete: str = "") -> list[str]:
    return asked("bash", words, incomplete).split()


def test_commands_are_completed_in_their_order() -> None:
    assert offered("persona-etl") == [f"plain,{name}" for name in COMMANDS]
    assert offered("persona-etl", "sy") == ["plain,sync"]
    assert offered("persona-etl -q --config x.toml", "mi") == ["plain,migrate"]
    assert offered("persona-etl", "xyzzy") == []


def test_options_are_completed_and_those_given_left_out() -> None:
    assert "plain,--log-format" in offered("persona-etl", "--")
    assert offered("persona-etl sync", "--allow") == ["plain,--allow-mass-removal"]
    assert offered("persona-etl sync --strict", "--stri") == []


def test_choices_are_completed() -> None:
    assert offered("persona-etl --log-format") == ["plain,text", "plain,json"]
    assert offered("persona-etl --log-format", "j") == ["plain,json"]


@pytest.mark.parametrize(
    "words",
    ["persona-etl --config", "persona-etl sync --ids-from", "persona-etl -q sync --ids-from"],
)
def test_files_are_left_to_the_shell(words: str) -> None:
    assert offered(words, "per") == ["file,per"]


def test_after_a_command_that_is_none_nothing_is_offered() -> None:
    assert "plain,--strict" not in offered("persona-etl xyzzy", "--")


def test_zsh_and_fish_get_the_summaries_too() -> None:
    summary = COMMANDS["sync"][1]
    assert asked("zsh", "persona-etl", "syn") == f"plain\nsync\n{summary}\n"
    assert "sync" in asked("fish", "persona-etl", "syn")
    assert summary in asked("fish", "persona-etl", "syn")


def test_no_command_is_imported_to_complete_its_name() -> None:
    code = (
        "import sys; from etl.cli.main import main\n"
        "sys.argv = ['persona-etl']\n"
        "try: main()\n"
        "finally: print(*sys.modules)"
    )
    environment = {
        **os.environ,
        "_PERSONA_ETL_COMPLETE": "bash_complete",
        "COMP_WORDS": "persona-etl ",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "etl.cli.main" in loaded
    assert not loaded & {module for module, _ in COMMANDS.values()}
    assert not loaded & {"sqlalchemy", "httpx", "pydantic", "alembic"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_calls_the_program(shell: str) -> None:
    if shell == "bash" and BASH is None:
        pytest.skip("click asks bash for its version")
    done = subprocess.run(
        [PROGRAM],
        env={**os.environ, "_PERSONA_ETL_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_PERSONA_ETL_COMPLETE={shell}_complete" in done.stdout
    assert "persona-etl" in done.stdout


@pytest.mark.skipif(BASH is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("persona-etl syn\t", "persona-etl sync "),
        ("persona-etl --log-format j\t", "persona-etl --log-format json "),
        ("persona-etl sync --allow\t", "persona-etl sync --allow-mass-removal "),
        ("persona-etl --config my-se\t", "persona-etl --config my-settings.toml "),
        ("persona-etl sync --ids-from my-i\t", "persona-etl sync --ids-from my-ids.txt "),
    ],
)
def test_in_bash_the_tab_key_completes(tmp_path: Path, typed: str, becomes: str) -> None:
    (tmp_path / "my-settings.toml").touch()
    (tmp_path / "my-ids.txt").touch()
    (tmp_path / "rc").write_text(
        f'PATH="{PROGRAM.parent}:$PATH"\ncd "{tmp_path}"\nPS1="$ "\n'
        "bind 'set enable-bracketed-paste off'\n"
        'eval "$(_PERSONA_ETL_COMPLETE=bash_source persona-etl)"\n',
        encoding="utf-8",
    )
    bash = [str(BASH), "--noprofile", "--rcfile", str(tmp_path / "rc"), "-i"]
    with Terminal(bash, HISTFILE="", INPUTRC="/dev/null") as terminal:
        terminal.read_until("$ ")
        terminal.type(typed)
        terminal.read_until(becomes)
