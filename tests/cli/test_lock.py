"""requirements.lock: exactly what pyproject.toml asks for, by hash, from any index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]
LOCK = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))


def locked() -> dict[str, str]:
    """Each entry without its comments, as one line, by its package's name."""
    told = re.sub(r"^\s*#.*\n", "", LOCK, flags=re.MULTILINE).replace("\\\n", " ")
    return {
        canonicalize_name(re.split(r"[=\s;]", line, maxsplit=1)[0]): line
        for line in told.splitlines()
        if line.strip()
    }


def asked_for() -> list[Requirement]:
    """What pyproject.toml names: the core's, the extras', the builder's and the developer's."""
    groups = [
        PROJECT["build-system"]["requires"],
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    ]
    return [Requirement(text) for group in groups for text in group]


@pytest.mark.parametrize("line", locked().values(), ids=list(locked()))
def test_each_entry_is_one_version_with_hashes_and_nothing_else(line: str) -> None:
    entry = r"[\w.-]+==[\w.!+-]+(?: ; (?P<marker>[^#@]+?))?(?:\s+--hash=sha256:[0-9a-f]{64})+\s*"
    found = re.fullmatch(entry, line)
    assert found
    if marker := found["marker"]:
        Marker(marker)


def test_it_names_no_index_no_host_and_no_path() -> None:
    assert not re.search(r"://|--(?:extra-)?index|--find-links|--trusted|@ ?|file:|/(?!$)\w", LOCK)


@pytest.mark.parametrize("requirement", asked_for(), ids=str)
def test_what_is_asked_for_is_locked_at_a_version_that_fits(requirement: Requirement) -> None:
    line = locked()[canonicalize_name(requirement.name)]
    version = re.split(r"==|\s", line)[1]
    assert requirement.specifier.contains(version)


def test_nothing_is_locked_that_nothing_asks_for() -> None:
    asked = {canonicalize_name(requirement.name) for requirement in asked_for()}
    direct = set()
    for name, via in re.findall(r"^([\w.-]+)==(?:.*\n)((?:    .*\n)*)", LOCK, flags=re.MULTILINE):
        told = re.findall(r"# +(?:via )?([\w.-]+)", via.replace("# via\n", ""))
        assert told, f"{name} is there for nothing"
        for parent in told:
            assert canonicalize_name(parent) in {*locked(), "persona-etl"}
        if "persona-etl" in told:
            direct.add(canonicalize_name(name))
    assert direct == asked
