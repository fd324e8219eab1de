"""docs/sandbox.md and the sandbox say the same: all is named there, and what it shows happens."""

from __future__ import annotations

import re
import shlex
import string
import subprocess
import sys
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner

from etl.cli.main import cli
from etl.cli.sandbox import command
from etl.sandbox import LATER, Fault, RateLimit, Reshape, Sandbox, World, running_sandbox
from etl.sandbox.admin import CALLS
from etl.sandbox.behaviour import Behaviour
from etl.sandbox.reshape import JSON_TYPES
from etl.sandbox.script import GROUPS
from etl.sandbox.shapes import SHAPES
from etl.sandbox.spelling import WORDS, read_fault, read_rate_limit, read_shape
from etl.sandbox.traffic import HEADERS, RETRY_AFTER
from etl.sandbox.wrong import WRONG

MANUAL = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")
BASE = "http://127.0.0.1:8787"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", MANUAL, flags=re.MULTILINE | re.DOTALL)


def first_cells(column: str) -> list[str]:
    """The first cells of all tables whose first column has this title, code marks left out."""
    cells: list[str] = []
    for table in re.findall(rf"^\| {column} \|.*\n\| ---.*\n((?:\|.*\n)+)", MANUAL, re.MULTILINE):
        for row in table.splitlines():
            cells += re.findall(r"`([^`]+)`", row.split(" | ")[0])
    return cells


# --- everything is named -------------------------------------------------------------------


def test_the_options_are_those_of_the_command() -> None:
    options = [param.opts[-1] for param in command.params if isinstance(param, click.Option)]
    assert first_cells("option") == options


def test_the_parts_are_those_of_a_fault_and_of_a_rate_limit() -> None:
    assert sorted(first_cells("part")) == sorted(
        [*Fault.__struct_fields__, "shape", "burst", "headers", "retry_after", "status"]
    )
    assert all(f"`{name}`" in MANUAL for name in RateLimit.__struct_fields__)
    assert all(f"`{style}`" in MANUAL for style in (*HEADERS, *RETRY_AFTER, *GROUPS))


def test_the_wrong_bodies_are_all_there() -> None:
    assert sorted(first_cells("`wrong`")) == sorted(["wrong", *WRONG][1:])


def test_the_words_are_all_there() -> None:
    named = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`[^`\n]+`", MANUAL))))
    assert set(WORDS) <= named


def test_the_calls_are_those_of_the_admin_interface() -> None:
    named = first_cells("call")
    assert named == [f"{call.method} /_sandbox/{call.path}" for call in CALLS]
    assert all(f"`{name}`" in MANUAL for name in Behaviour.__struct_fields__)


def test_the_parts_of_an_order_for_another_shape_are_in_the_order_in_which_they_are_done() -> None:
    assert tuple(first_cells("does")) == Reshape.__struct_fields__
    assert all(f"`{name}`" in MANUAL for name in (*JSON_TYPES, *SHAPES))


def test_the_later_shape_is_told_field_by_field() -> None:
    assert sorted(first_cells("new")) == sorted([*LATER.add, *LATER.choose])
    old = {*LATER.rename, *LATER.remove, *LATER.retype, *LATER.recode}
    assert sorted(first_cells("old")) == sorted(old)
    names = {
        *LATER.rename.values(),
        *(text for of in LATER.recode.values() for text in of.values()),
    }
    assert all(re.search(rf"`(\w+\.)?{name}` \|", MANUAL) for name in names)


@pytest.mark.parametrize("kind", [World, Sandbox])
def test_what_python_has_is_there(kind: type) -> None:
    (told,) = re.findall(rf"A `{kind.__name__}` has ([^.]*)\.", MANUAL)
    members = {*dir(kind), *kind.__annotations__}
    assert set(re.findall(r"`(\w+)`", told)) <= members


def test_help_names_every_part_and_every_word() -> None:
    shown = CliRunner().invoke(cli, ["sandbox", "--help"]).stdout
    assert max(map(len, shown.splitlines())) <= 80
    named = set(re.findall(r"[a-z_0-9]+", shown.split("A fault is")[1]))
    assert {*Fault.__struct_fields__, *WORDS, *GROUPS} - {"target"} <= named
    told = " ".join(shown.split())
    assert {*Reshape.__struct_fields__, *SHAPES} <= set(re.findall(r"\w+", told))


# --- what it shows happens -----------------------------------------------------------------


def test_every_example_of_a_fault_can_be_read() -> None:
    column = re.findall(r"^\| `[a-z_]+` \| (`.*?) \| ", MANUAL, flags=re.MULTILINE)
    in_tables = [example for cell in column for example in re.findall(r"`([^`]+)`", cell)]
    in_text = re.findall(r"`([0-9a-z]+:[^` ]+)`", MANUAL)
    examples = {*in_tables, *in_text} - {"all"}
    assert len(examples) >= 35
    for example in examples:
        assert read_fault(example, lambda _: False) != Fault(), example


def test_every_example_of_a_part_of_a_shape_can_be_read() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \| .*\| `([{\[].*)` \|$", MANUAL, flags=re.MULTILINE)
    parts = [(part, example) for part, example in rows if part in Reshape.__struct_fields__]
    assert [part for part, _ in parts] == list(Reshape.__struct_fields__)
    for part, example in parts:
        assert read_shape(f'{{"{part}": {example}}}') != Reshape()


def test_every_command_line_can_be_parsed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("{}")
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) >= 5
    for line in lines:
        program, name, *arguments = shlex.split(line)
        assert (program, name) == ("persona-etl", "sandbox")
        with command.make_context("sandbox", arguments) as context:
            for fault in context.params["faults"]:
                read_fault(fault, lambda _: False)
            if context.params["rate_limit"]:
                read_rate_limit(context.params["rate_limit"])
            if context.params["shape"]:
                read_shape(context.params["shape"])


def curl(words: list[str], url: str) -> str:
    """What curl would print. Knows the options that the manual uses, and fails on others."""
    method, body, headers, target = None, None, {}, ""
    arguments = iter(words)
    for word in arguments:
        match word:
            case "-X":
                method = next(arguments)
            case "-d" | "--data-binary":
                body = next(arguments)
            case "-H":
                name, _, value = next(arguments).partition(": ")
                headers[name] = value
            case _:
                assert word.startswith(BASE), word
                target = word.replace(BASE, url)
    method = method or ("POST" if body else "GET")
    return httpx.request(
        method, target, content=body, headers=headers, trust_env=False, timeout=5
    ).text


def call_of(line: str) -> str | None:
    """Which of the calls a curl line makes; the most literal path counts."""
    if not (path := re.search(rf"{BASE}/_sandbox/([^\s?\"]*)", line)):
        return None
    ordered = re.search(r"-X (\w+)", line)
    method = ordered[1] if ordered else "POST" if " -d " in line else "GET"
    for call in sorted(CALLS, key=lambda call: call.path.count("<")):
        pattern = re.sub(r"<\w+>", "[^/]+", call.path)
        if call.method == method and re.fullmatch(pattern, path[1]):
            return f"{method} {call.path}"
    raise AssertionError(line)


def test_every_call_answers_as_shown() -> None:
    shown = re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", "".join(blocks("console")), re.MULTILINE)
    names: dict[str, str] = {}
    called = set()
    with running_sandbox(count=2, moving=False) as sandbox:
        for typed, printed in shown:
            line = string.Template(typed).safe_substitute(names)
            program, *words = shlex.split(line)
            if program != "curl":
                name, _, value = program.partition("=")
                names[name] = value
                continue
            got = curl(words, sandbox.url)
            pattern = re.escape(printed.strip()).replace("…", "(?s:.*)")
            assert re.fullmatch(pattern, got.strip()), f"{line}\n{got}"
            called.add(call_of(line))
    assert called - {None} == {f"{call.method} {call.path}" for call in CALLS}


def test_the_example_of_a_test_suite_passes(tmp_path) -> None:
    (example,) = blocks("python")
    (tmp_path / "test_example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert f"{example.count('def test_')} passed" in done.stdout


@pytest.mark.parametrize("anchor", re.findall(r"\]\(#([a-z-]+)\)", MANUAL))
def test_every_link_leads_somewhere(anchor: str) -> None:
    titles = re.findall(r"^#+ (.*)$", MANUAL, flags=re.MULTILINE)
    assert anchor in {title.lower().replace(" ", "-") for title in titles}
