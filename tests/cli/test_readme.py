"""The README and the program say the same."""

import re
from pathlib import Path

import click
import pytest

from etl import errors
from etl.cli.main import COMMANDS, cli
from etl.settings import known_keys
from etl.tables import OUTCOMES, metadata, origins

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    level, _ = title.split(" ", 1)
    after = README.split(f"\n{title}\n", 1)[1]
    return re.split(rf"\n#{{1,{len(level)}}} ", after, maxsplit=1)[0]


def first_cells(text: str) -> list[str]:
    """The first cell of each row of the tables in a text, headers left out."""
    rows = re.findall(r"^\| (.*?) \|", text, flags=re.MULTILINE)
    return [row for row in rows if row != "---"]


def test_the_readme_names_each_command() -> None:
    context = click.Context(cli)
    names = []
    for name in COMMANDS:
        command = cli.get_command(context, name)
        inner = command.list_commands(context) if isinstance(command, click.Group) else []
        # A group does something itself, or it is nothing without one of its commands.
        does = not isinstance(command, click.Group) or command.invoke_without_command
        names += [name] * does + [f"{name} {one}" for one in inner]
    shown = [cell.strip("`") for cell in first_cells(section("## Commands"))]
    assert shown[1 : len(names) + 1] == names


def test_the_sections_on_commands_stand_in_the_order_of_the_commands() -> None:
    headings = re.findall(r"^### (.+)$", README, flags=re.MULTILINE)
    told = [heading for heading in headings if heading.split()[0] in COMMANDS]
    assert told == sorted(told, key=lambda heading: list(COMMANDS).index(heading.split()[0]))


def test_the_readme_names_each_setting_with_its_default() -> None:
    table = section("## Settings")
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.*?)\|", table, flags=re.MULTILINE))
    keys = {f"{section}.{name}": key for (section, name), key in known_keys().items()}
    assert rows.keys() == keys.keys()
    for name, key in keys.items():
        shown = rows[name].strip(" `")
        default = "" if key.default in (None, (), []) else str(key.default)
        if isinstance(key.default, bool):
            default = default.lower()
        assert shown == default.removesuffix(".0"), name


def test_the_readme_names_each_exit_code() -> None:
    def every(error: type[errors.EtlError]) -> set[int]:
        return {error.exit_code}.union(*(every(e) for e in error.__subclasses__()))

    named = {
        int(code)
        for cell in first_cells(section("## Exit codes"))
        for code in cell.split(", ")
        if code.isdigit()
    }
    assert named == every(errors.EtlError) | {0, 130, 141, 143}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_readme_names_each_outcome(outcome: str) -> None:
    assert f"`{outcome}`" in first_cells(section("### sync"))


def test_the_readme_names_each_table() -> None:
    named = re.findall(r"`([a-z_]+)`", " ".join(first_cells(section("## Tables"))))
    # `drift propose` adds lists; somebody writes their row before a release.
    lists = {name for name, origin in origins().items() if origin.shape == "list"}
    assert sorted({*named} | lists) == sorted(metadata.tables)
    assert len(named) == len({*named})
