"""Text, in chunks → the JSON values in it, with the line on which each begins, not yet parsed.

A value a line, or values over several lines, one after the other or as the elements of arrays. Each
is found by its brackets and strings alone; whether it is JSON is for whoever parses it.

Which of the two it is, unless the name says so: a line that begins with `[` tells of an array. Else
the first line tells that begins with `{` and is not just `{}`:

- It is closed, and nothing stands behind: a value a line. Another `{` behind: several of them.
- Something else stands behind, or it ends within a string: a value a line, and this one is broken.
- It is not closed: if the next line begins, unindented, with `{`, a value a line, and this one is
  broken; else values over several lines.

A broken line costs only itself. Where values have several lines, one with a bracket too few costs
all behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from etl.files.content import CHUNK_BYTES, ContentError, failing

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

LONGEST_BYTES = 64 * 1024 * 1024
"""As long as an answer of the API may be."""

# Of so much, and still within the first line, nobody wrote a value over several.
_TELLING_BYTES = 4 * 1024 * 1024

# Each goes over its text once: nothing that was matched is given back. A string ends with its line
# at the latest, as a raw line feed is no JSON: a lost quote does not turn the rest inside out.
_REST_OF_STRING = re.compile(rb'[^"\\\n]*+(?:\\.[^"\\\n]*+)*+', re.DOTALL)
_TO_BRACKETS = re.compile(
    rb'[^"{}\[\]]*+(?:"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+["\n][^"{}\[\]]*+)*+([\[{]++|[\]}]++)?',
    re.DOTALL,
)
_CLOSING = re.compile(rb"[\]}]++")
_GAP = re.compile(rb"[ \t\r\n,]++")
_WORD = re.compile(rb'[^ \t\r\n,"{}\[\]]++')
_EMPTY = re.compile(rb"\{[ \t\r]*\}")
_BLANKS = b" \t\r"
_MISPLACED_COMMA = "a comma is missing before this, or there is one too many"


class Value(NamedTuple):
    """One value, or why there is none."""

    number: int
    """The line on which it begins, from 1."""
    raw: bytes
    problem: str | None = None


@dataclass(slots=True)
class _Place:
    """Where the reading is: on this line begins what is not given yet."""

    line: int = 1


def values_in(
    chunks: Iterator[bytes], *, by_line: bool = False, longest: int = LONGEST_BYTES
) -> Iterator[Value]:
    """Split a text. `by_line`: that it has a value a line is known.

    Where the text can't be read on, the last thing given says so.
    """
    place = _Place()
    try:
        if not by_line:
            by_line, chunks = _told_apart(chunks, min(longest, _TELLING_BYTES))
        if by_line:
            yield from _lines(chunks, place, longest)
        else:
            yield from _Sequence(place, longest).values_in(chunks)
    except ContentError as exc:
        yield Value(place.line, b"", str(exc))


def members_of(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of an object as they stand in its text, which has to be JSON."""
    at = text.index(b"{") + 1
    while text[at := _end(_GAP, text, at)] in b'"':
        key_ends = _end(_REST_OF_STRING, text, at + 1) + 1
        begins = _end(_GAP, text, text.index(b":", key_ends) + 1)
        if text[begins] in b"[{":
            ends, _ = _through_brackets(text, begins + 1, 1)
        elif text[begins] in b'"':
            ends = _end(_REST_OF_STRING, text, begins + 1) + 1
        else:
            ends = _end(_WORD, text, begins)
        yield text[at:key_ends], text[begins:ends]
        at = ends


def _lines(chunks: Iterator[bytes], place: _Place, longest: int) -> Iterator[Value]:
    begun = bytearray()
    length = 0
    for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            length += len(end)
            if begun:
                begun += end
                end = bytes(begun)  # noqa: PLW2901  the line's end becomes the line
                begun = bytearray()
            if length > longest:
                yield _too_long(place.line, longest)
            elif line := end.strip(_BLANKS):
                yield Value(place.line, line)
            length = 0
            place.line += 1
        length += len(rest)
        if length <= longest:
            begun += rest
        else:
            begun = bytearray()
    if length > longest:
        yield _too_long(place.line, longest)
    elif line := bytes(begun).strip(_BLANKS):
        yield Value(place.line, line)


class _Sequence:
    """Values one after the other, or in arrays, in a text that may be cut anywhere.

    What came with earlier chunks is not looked at once more.
    """

    def __init__(self, place: _Place, longest: int) -> None:
        self._place = place
        self._longest = longest
        self._in_array = False
        self._is_first = True
        """In its array."""
        self._commas = 0
        # Of the value that is open: what came of it with earlier chunks, and where in it we are.
        self._is_open = False
        self._begun = bytearray()
        self._length = 0
        self._line_feeds = 0
        self._depth = 0
        self._in_string = False
        self._in_word = False

    def values_in(self, chunks: Iterator[bytes]) -> Iterator[Value]:
        cut = b""
        for chunk in chunks:
            text = cut + chunk
            at = 0
            while at < len(text):
                start = at
                if not self._is_open:
                    at = yield from self._until_a_value(text, at)
                    if not self._is_open:
                        continue
                    start = at - 1
                at, is_whole = self._through_a_value(text, at)
                if is_whole:
                    yield self._closed(text[start:at])
                else:
                    self._keep(text[start:at])
                    break
            # A backslash, if anything: what it escapes is yet to come.
            cut = text[at:]
        if self._in_word and not self._in_string:
            yield self._closed(b"")
        if self._is_open:
            yield Value(self._place.line, b"", "the value that begins here does not end")
        elif self._in_array:
            yield Value(self._place.line, b"", "the array does not end")
        elif self._commas:
            yield Value(self._place.line, b"", _MISPLACED_COMMA)

    def _until_a_value(self, text: bytes, at: int) -> Generator[Value, None, int]:
        """Returns where the text of the next value goes on behind its first character."""
        end = _end(_GAP, text, at)
        self._place.line += text.count(b"\n", at, end)
        self._commas += text.count(b",", at, end)
        if end == len(text):
            return end
        mark = text[end : end + 1]
        closes = mark == b"]" and self._in_array
        wanted = int(self._in_array and not self._is_first and not closes)
        if self._commas != wanted:
            yield Value(self._place.line, b"", _MISPLACED_COMMA)
        self._commas = 0
        if closes or (mark == b"[" and not self._in_array):
            self._in_array = not closes
            self._is_first = True
        elif mark in b"]}":
            end = _end(_CLOSING, text, end) - 1
            yield Value(self._place.line, b"", "a bracket is closed that was not opened")
        else:
            self._is_open = True
            self._is_first = False
            self._depth = int(mark in b"[{")
            self._in_string = mark == b'"'
            self._in_word = not (self._depth or self._in_string)
        return end + 1

    def _through_a_value(self, text: bytes, at: int) -> tuple[int, bool]:
        """How far the open value goes in this text, and whether it ends there."""
        if self._in_word:
            at = _end(_WORD, text, at)
            return at, at < len(text)
        while True:
            if self._in_string:
                at = _end(_REST_OF_STRING, text, at)
                # At the end, or before a backslash with nothing behind it.
                if text[at : at + 1] in b"\\":
                    return at, False
                at += 1
                self._in_string = False
            if self._depth:
                at, self._depth = _through_brackets(text, at, self._depth)
            if not self._depth:
                return at, True
            if at == len(text):
                return at, False
            self._in_string = True
            at += 1

    def _keep(self, piece: bytes) -> None:
        self._length += len(piece)
        self._line_feeds += piece.count(b"\n")
        if self._length <= self._longest:
            self._begun += piece
        else:
            self._begun = bytearray()

    def _closed(self, piece: bytes) -> Value:
        line = self._place.line
        if self._length + len(piece) > self._longest:
            value = _too_long(line, self._longest)
        else:
            value = Value(line, bytes(self._begun) + piece if self._begun else piece)
        self._place.line += self._line_feeds + piece.count(b"\n")
        self._is_open = self._in_word = False
        self._begun = bytearray()
        self._length = self._line_feeds = 0
        return value


def _through_brackets(text: bytes, at: int, depth: int) -> tuple[int, int]:
    """From within `depth` brackets to where they are closed: where that is, and 0.

    Else to the end of the text, or to the quote of a string that has no end in it; and the depth.
    """
    step = _TO_BRACKETS.match
    while found := step(text, at):
        begins, ends = found.span(1)
        if begins < 0:
            return found.end(), depth
        if text[begins] in b"[{":
            depth += ends - begins
        elif ends - begins >= depth:
            return begins + depth, 0
        else:
            depth -= ends - begins
        at = ends
    return at, depth


def _told_apart(chunks: Iterator[bytes], telling: int) -> tuple[bool, Iterator[bytes]]:
    """Whether the text has a value a line; and the whole text again."""
    head = bytearray()
    by_line: bool | None = None
    ending: Iterator[bytes] = iter(())
    enough = 1
    try:
        for chunk in chunks:
            head += chunk
            if len(head) >= enough:
                by_line = _is_by_line(head, is_all=False)
                # Not at each chunk: the work would grow with the square of what is looked at.
                enough = 2 * len(head)
            if by_line is None and len(head) > telling:
                by_line = True
            if by_line is not None:
                break
    except ContentError as exc:
        ending = failing(exc)
    if by_line is None:
        by_line = _is_by_line(head, is_all=True)
    pieces = (bytes(head[at : at + CHUNK_BYTES]) for at in range(0, len(head), CHUNK_BYTES))
    return by_line is not False, chain(pieces, ending, chunks)


def _is_by_line(head: bytearray, *, is_all: bool) -> bool | None:
    """As the module says; None: more has to be seen."""
    is_open = False
    for line in BytesIO(head):
        text = line.strip(_BLANKS + b"\n")
        if not text:
            continue
        if is_open:
            return line.startswith(b"{")
        if text.startswith(b"["):
            return False
        is_whole = is_all or line.endswith(b"\n")
        if is_whole and (not text.startswith(b"{") or _EMPTY.fullmatch(text)):
            continue
        end, depth = _through_brackets(text, 1, 1)
        if not depth and text[end:].lstrip().startswith(b"{"):
            return False
        if not is_whole:
            return None
        if not depth or end < len(text):
            return True
        is_open = True
    return not is_open if is_all else None


def _too_long(line: int, longest: int) -> Value:
    return Value(line, b"", f"longer than {longest // 2**20} MiB")


def _end(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    """Where what the pattern takes at this place ends; where it begins if it takes nothing."""
    found = pattern.match(text, at)
    return found.end() if found else at
