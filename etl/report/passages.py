"""Finds passages in a text: a phrase as people mean it, or a regular expression; pure.

A phrase is the same in either case, composed or decomposed, and however it is broken into lines.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeAlias

    # Finds all passages in a text, in order; none overlaps another. They come as asked for:
    # there may be millions.
    Finder: TypeAlias = "Callable[[str], Iterator[Span]]"

# More around a passage fits on no line.
_CONTEXT = 80

_WORD = re.compile(r"\S+")


class Span(NamedTuple):
    """Where a passage begins and ends."""

    start: int
    end: int


class Excerpt(NamedTuple):
    """A passage, the line that it begins in, from 1, and some of what stands around it."""

    line: int
    before: str
    passage: str
    after: str


def phrase(wanted: str) -> Finder:
    """What finds a phrase; it must not be blank.

    Case is Unicode's: Straße is STRASSE. An accent is part of its letter: Zoe is not in Zoë.
    """
    needle = " ".join(map(_folded, wanted.split()))

    def find(text: str) -> Iterator[Span]:
        # Most texts do not have it, which is soon seen.
        if needle in _folded(" ".join(text.split())):
            yield from _spans(text, needle)

    return find


def expression(pattern: re.Pattern[str]) -> Finder:
    """What finds where a regular expression matches anything."""

    def find(text: str) -> Iterator[Span]:
        return (Span(*found.span()) for found in pattern.finditer(text) if found[0])

    return find


def excerpts(text: str, spans: Iterable[Span]) -> list[Excerpt]:
    """What stands at these places."""
    return [
        Excerpt(
            text.count("\n", 0, start) + 1,
            text[max(start - _CONTEXT, 0) : start],
            text[start:end],
            text[end : end + _CONTEXT],
        )
        for start, end in spans
    ]


def _folded(text: str) -> str:
    """A text as it is compared: a canonical caseless match, as the Unicode Standard has it (D145).

    That of words put together is those of the words put together.
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())


def _spans(text: str, needle: str) -> Iterator[Span]:
    words = list(_WORD.finditer(text))
    folded = [_folded(word[0]) for word in words]
    # Where in the folded text each word begins; a blank is before it.
    starts = list(accumulate((len(word) + 1 for word in folded), initial=0))
    whole = " ".join(folded)
    letters: dict[int, tuple[array[int], array[int]]] = {}

    def place(at: int, number: int) -> int | None:
        """Where in the text that stands; None: within a letter."""
        word, within = words[number], at - starts[number]
        if word[0].isascii():
            return word.start() + within
        if number not in letters:
            letters[number] = _letters(word[0])
        places, originals = letters[number]
        letter = bisect_left(places, within)
        return word.start() + originals[letter] if places[letter] == within else None

    at = whole.find(needle)
    while at >= 0:
        end = at + len(needle)
        span = (
            place(at, bisect_right(starts, at) - 1),
            place(end, bisect_right(starts, end - 1) - 1),
        )
        if span[0] is None or span[1] is None:
            at = whole.find(needle, at + 1)
            continue
        yield Span(span[0], span[1])
        at = whole.find(needle, end)


def _letters(word: str) -> tuple[array[int], array[int]]:
    """Where each letter with its accents begins, folded and as it is; last, where both end."""
    places, originals = array("L", [0]), array("L", [0])
    for start, end in pairwise(
        [
            *(at for at, sign in enumerate(word) if not at or not unicodedata.combining(sign)),
            len(word),
        ]
    ):
        places.append(places[-1] + len(_folded(word[start:end])))
        originals.append(end)
    return places, originals
