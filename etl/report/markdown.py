"""How Markdown is written, GitHub's: a text stays what it is, and a table's cell one line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from etl.report.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. Its cells are Markdown; a `|` would end one, also within a name."""
    told = [
        [re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in cells]
        for cells in (heads, ["---"] * len(heads), *rows)
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in told)


def link(heading: str, name: str) -> str:
    """A name that leads to a heading of the same page."""
    return f"[{code(name)}](#{anchor(heading)})"


def anchor(heading: str) -> str:
    """What GitHub makes of a heading: it drops what is no letter, digit, `_` or `-`."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def listed(names: Iterable[str]) -> str:
    """Names, one after the other."""
    return ", ".join(map(code, names))


def words(text: str) -> str:
    """A text as it is: nothing of it is markup, and it stays on its line."""
    text = escaped(" ".join(text.split()))
    text = re.sub(r"[\\`*<>\[\]|~&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", text)
    # At the beginning of a paragraph these make a heading, a list or a line.
    return re.sub(r"^(\d*)(?=[#+=.)-]+(?:\s|$))", r"\1\\", text)


def code(text: str) -> str:
    """A name as it is, in a font of its own."""
    text = escaped(" ".join(text.split()))
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"{fence}{text}{fence}"
