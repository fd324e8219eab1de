"""The list of messages in docs/operations.md, and how a line that was seen is found in it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.message_templates import HOLE, words

FILE = Path(__file__).parents[1] / "docs" / "operations.md"
_HEADING = "## Every message"
_REMEDY = re.compile(r"\*\*([^*]+)\*\* \S")


class Entry(NamedTuple):
    """Messages that are looked up together: what they end with, and what to do."""

    group: str
    messages: list[str]
    ends_with: str
    """Exit codes or kinds of lines, with commas between them; empty: none is told."""


@cache
def entries() -> list[Entry]:
    """The indented blocks of the list, each with the paragraph that follows."""
    _, _, listed = FILE.read_text(encoding="utf-8").partition(f"\n{_HEADING}\n")
    found = []
    group = ""
    # Another section may follow one day.
    for block in re.split(r"\n## ", listed)[0].split("\n\n"):
        if block.startswith("### "):
            group = block.removeprefix("### ")
        elif block.startswith("    "):
            messages = [line.removeprefix("    ") for line in block.split("\n")]
            found.append(Entry(group, messages, ""))
        elif found and not found[-1].ends_with and (remedy := _REMEDY.match(block)):
            found[-1] = found[-1]._replace(ends_with=remedy[1])
    return found


def holds(text: str, template: str) -> bool:
    """Whether a text has the words of a template, in their order, whatever is in the holes."""
    at = 0
    for piece in template.strip(f"{HOLE} ").split(HOLE):
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def left_over(message: str, templates: list[str]) -> str:
    """What of a message of the page is in no template, as it was before or is not yet."""
    left = message
    for template in templates:
        if holds(message, template):
            for match in _pieces(template).finditer(message):
                for start, end in match.regs[1:]:
                    left = left[:start] + " " * (end - start) + left[end:]
    return left


@cache
def _pieces(template: str) -> re.Pattern[str]:
    """Each literal piece as a group, of whole words: `or` is no piece of `correct`."""
    return re.compile(".*?".join(map(_whole_words, template.split(HOLE))))


def _whole_words(piece: str) -> str:
    before = r"(?<!\w)" if piece[:1].isalnum() else ""
    behind = r"(?!\w)" if piece[-1:].isalnum() else ""
    return f"{before}({re.escape(piece)}){behind}"


def looked_up(line: str) -> list[Entry]:
    """The entries that a person finds who searches for a line, or for a part of it."""
    return [
        entry
        for entry in entries()
        if any(words(message) > 1 and holds(line, message) for message in entry.messages)
    ]
