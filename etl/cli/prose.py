"""A word diff as lines of a terminal: what stayed is folded, what changed marked, all wrapped.

On a terminal in colour, and struck through or underlined for whoever can't tell red from green;
elsewhere as wdiff writes it: `[-went-]{+came+}`. Never more lines than somebody would read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from wcwidth import iter_graphemes, width

from etl.report.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etl.report.word_diff import Piece

Kind = Literal["same", "old", "new"]

_COLOURS: Final = {
    "same": ("", ""),
    "old": ("\x1b[31;9m", "\x1b[0m"),
    "new": ("\x1b[32;4m", "\x1b[0m"),
}
_SIGNS: Final = {"same": ("", ""), "old": ("[-", "-]"), "new": ("{+", "+}")}
_LINES: Final = {"old": ("\x1b[31m", "\x1b[0m"), "new": ("\x1b[32m", "\x1b[0m")}
_BOLD = "\x1b[1m", "\x1b[0m"
_RED = "\x1b[1;31m", "\x1b[0m"

# What stayed is shown for so many characters next to a change, from the line before to the next.
_CONTEXT = 120
# Where fewer would be hidden, nothing is.
_WORTH_HIDING = 60
# As much of what came or went in one place is shown.
_LONGEST_CHANGE = 3000
_MOST_LINES = 400

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_ATOM = re.compile(r"\n|[^\S\n]+|\S+")
_SPACES = str.maketrans({" ": "·", "\t": "⇥"})


@dataclass(frozen=True, slots=True)
class Marks:
    """How it is marked what went and what came."""

    coloured: bool

    def around(self, kind: Kind, text: str) -> str:
        """A line, or part of it, of a kind."""
        start, end = _COLOURS[kind] if self.coloured else ("", "")
        return f"{start}{text}{end}"

    def line(self, kind: Literal["old", "new"], text: str) -> str:
        """A line that went or came as a whole."""
        start, end = _LINES[kind] if self.coloured else ("", "")
        return f"{start}{'-' if kind == 'old' else '+'} {text}{end}"

    def heading(self, text: str) -> str:
        """A line that others belong to."""
        start, end = _BOLD if self.coloured else ("", "")
        return f"{start}{text}{end}"

    def urgent(self, text: str) -> str:
        """What somebody should see first."""
        start, end = _RED if self.coloured else ("", "")
        return f"{start}{text}{end}"


def as_block(pieces: Sequence[Piece], marks: Marks, room: int) -> Iterator[str]:
    """The lines, of at most `room` columns."""
    lines = _wrapped(_folded(pieces), marks, room)
    for number, line in enumerate(lines):
        if number == _MOST_LINES:
            yield "… and more; --json has all of it …"
            return
        yield line


@dataclass(frozen=True, slots=True)
class _Part:
    """A passage to be shown, or what is said in the place of one."""

    kind: Kind
    text: str
    is_remark: bool = False


def _folded(pieces: Sequence[Piece]) -> Iterator[_Part]:
    """What is to be shown of each piece."""
    for number, (kind, text) in enumerate(pieces):
        if kind != "same":
            yield from _cut_short(kind, text)
            continue
        head = _head(text) if number else ""
        tail = _head(text[::-1])[::-1].removeprefix("\n") if number < len(pieces) - 1 else ""
        hidden = text[len(head) : len(text) - len(tail)]
        if len(hidden) <= _WORTH_HIDING:
            yield _Part("same", text)
            continue
        yield _Part("same", head)
        yield _Part("same", f"… {_size(hidden)} unchanged …", is_remark=True)
        yield _Part("same", tail)


def _cut_short(kind: Kind, text: str) -> Iterator[_Part]:
    rest = text[_LONGEST_CHANGE:]
    if len(rest) <= _WORTH_HIDING:
        yield _Part(kind, text)
        return
    yield _Part(kind, text[:_LONGEST_CHANGE])
    what = "removed" if kind == "old" else "added"
    yield _Part(kind, f"… {_size(rest)} more {what} …", is_remark=True)


def _head(text: str) -> str:
    """As much as tells where something begins or, of a text backwards, ends: whole words."""
    nearby = text[:_CONTEXT]
    first = nearby.find("\n")
    second = nearby.find("\n", first + 1) if first >= 0 else -1
    if second >= 0:
        return nearby[: second + 1]
    if len(text) <= _CONTEXT:
        return text
    end = max(first, nearby.rfind(" "))
    return nearby[: end + 1] if end >= 0 else nearby


def _size(text: str) -> str:
    lines = text.count("\n")
    if lines > 1:
        return f"{lines:,} lines"
    words = len(text.split())
    return f"{words:,} words" if words > 1 else f"{len(text):,} characters"


class _Line:
    """A line that is being filled."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.parts: list[tuple[Kind, str]] = []
        self.width = 0

    def add(self, kind: Kind, text: str) -> None:
        if self.parts and self.parts[-1][0] == kind:
            text = self.parts.pop()[1] + text
        self.parts.append((kind, text))
        self.width = sum(width(part) for _, part in self.parts)

    def taken(self) -> str:
        """The line as it is shown; then it is empty."""
        parts, self.parts, self.width = self.parts, [], 0
        return "".join(self.marks.around(kind, text) for kind, text in parts).rstrip()


def _wrapped(parts: Iterator[_Part], marks: Marks, room: int) -> Iterator[str]:
    line = _Line(marks)
    for part in parts:
        if part.is_remark:
            if line.parts:
                yield line.taken()
            yield part.text
            continue
        for atom in _atoms(part, marks):
            if atom == "\n":
                yield line.taken()
            elif line.width + width(atom) <= room:
                line.add(part.kind, atom)
            else:
                if line.parts:
                    yield line.taken()
                if part.kind == "same" and not atom.strip():
                    continue
                *full, last = _broken(atom, room)
                yield from (marks.around(part.kind, each) for each in full)
                line.add(part.kind, last)
    if line.parts:
        yield line.taken()


def _atoms(part: _Part, marks: Marks) -> Iterator[str]:
    """Words, the space between them and ends of lines, as shown: what changed has its marks."""
    if part.kind == "same":
        for atom in _ATOM.findall(part.text):
            yield atom if atom == "\n" else escaped(atom.replace("\t", "    "))
        return
    start, end = ("", "") if marks.coloured else _SIGNS[part.kind]
    for line in _LINE.findall(part.text):
        bare = line.removesuffix("\n")
        shown = bare.replace("\t", "⇥") if bare.strip() else bare.translate(_SPACES)
        first, *rest = [*map(escaped, _ATOM.findall(shown)), *(["↵"] if bare != line else [])]
        if rest:
            yield start + first
            yield from rest[:-1]
            yield rest[-1] + end
        else:
            yield start + first + end
        if bare != line:
            yield "\n"


def _broken(atom: str, room: int) -> list[str]:
    """A word in pieces that fit on lines."""
    found = [""]
    for sign in iter_graphemes(atom):
        if width(found[-1]) + width(sign) > room:
            found.append("")
        found[-1] += sign
    return found
