"""Groups texts that are nearly alike: each is held against those that others are told by.

Two texts are as alike as the share of their words that stand in both, in the same order. To hold
each against each would take a day where there are 100 000, so a text meets only those that share
rare pairs of words with it. That can miss one; what is told of two texts is exact.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from rapidfuzz.distance import Indel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# Of a longer text it takes too long to say how alike two are: its words squared.
LONGEST = 100_000

# White space is between words and nothing else. Where a script has none, each sign is a word.
_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[^\W{_SIGNS}]+|\S")

_CHARACTERS: Final = 0x110000
_START, _END = -1, -2

# Of a text's pairs of words those whose hashes are the smallest: of two texts that are alike mostly
# the same ones (bottom-k; Broder, "On the resemblance and containment of documents", 1997).
_SKETCH = 64
# The rarest pairs are looked up first, until so many other texts were met; of these the ones that
# share the most are compared. It is what bounds the time where all have the same long beginning.
_MEETINGS = 2000
_COMPARISONS = 24

_TOLD_EACH = 100


class Alike(NamedTuple):
    """A text, by its number, and how alike it is to the one that its group is told by."""

    number: int
    similarity: float


class Group(NamedTuple):
    """A text that others are nearly like, and those others, the most alike first."""

    reference: int
    others: list[Alike]


class _Characters(dict[str, int]):
    """A character for each word, as texts are compared several times faster than lists of words.

    Were there more words than characters, some would share one: two texts may then seem to have a
    word more in common. Which share is scattered, so that no succession of words is like another.
    """

    def __missing__(self, word: str) -> int:
        number = len(self)
        # Of whole numbers the hash is the same in every process.
        self[word] = number if number < _CHARACTERS else hash((number,)) % _CHARACTERS
        return self[word]


class _Read(NamedTuple):
    """What is kept of a text: its words, a character each, and its sketch."""

    words: str
    sketch: array[int]


def groups_of(
    texts: Iterable[tuple[str, int]],
    at_least: float,
    watch: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Group]:
    """The groups of at least two texts, out of the texts and how often each is used.

    Each text of a group is `at_least` so alike, from 0 to 1, to its reference; of two other ones
    that is not said, so a chain of small steps never ends up in one group. The most used text comes
    first, of equals the one that has most in common with all; each joins the reference that it is
    most alike, or is one itself. The same texts in the same order make the same groups.
    Now and then `watch` is told how many were compared, and how many will be.
    """
    read: list[_Read] = []
    used: list[int] = []
    characters = _Characters()
    for text, count in texts:
        read.append(_read(text, characters))
        used.append(count)
    frequency = Counter(chain.from_iterable(each.sketch for each in read))
    found: dict[int, list[Alike]] = {}
    references: dict[int, list[int]] = {}
    for done, number in enumerate(_in_order(read, used, frequency)):
        if done % _TOLD_EACH == 0:
            watch(done, len(read))
        rarest = sorted(
            (pair for pair in read[number].sketch if frequency[pair] > 1),
            key=lambda pair: (frequency[pair], pair),
        )
        nearest = _nearest(read, number, _met(rarest, references), at_least)
        if nearest is not None:
            found[nearest.number].append(Alike(number, nearest.similarity))
            continue
        found[number] = []
        for pair in rarest:
            references.setdefault(pair, []).append(number)
    return [
        Group(reference, sorted(others, key=lambda one: (-one.similarity, one.number)))
        for reference, others in found.items()
        if others
    ]


def similarity(one: str, other: str) -> float:
    """The share of the words of both that stand in both, in the same order; from 0 to 1."""
    characters = _Characters()
    return Indel.normalized_similarity(_read(one, characters).words, _read(other, characters).words)


def _read(text: str, characters: _Characters) -> _Read:
    words = [characters[word] for word in _WORD.findall(text)]
    pairs = sorted(set(map(hash, pairwise([_START, *words, _END]))))
    return _Read("".join(map(chr, words)), array("q", pairs[:_SKETCH]))


def _in_order(read: list[_Read], used: list[int], frequency: Counter[int]) -> list[int]:
    def in_common(number: int) -> float:
        sketch = read[number].sketch
        return sum(map(frequency.__getitem__, sketch)) / len(sketch)

    return sorted(range(len(read)), key=lambda number: (-used[number], -in_common(number), number))


def _met(rarest: Sequence[int], references: dict[int, list[int]]) -> Iterator[int]:
    """The references that share the most of the rare pairs."""
    meetings = chain.from_iterable(references.get(pair, ()) for pair in rarest)
    counted = Counter(islice(meetings, _MEETINGS))
    return (number for number, _ in counted.most_common(_COMPARISONS))


def _nearest(read: list[_Read], number: int, met: Iterable[int], at_least: float) -> Alike | None:
    """The one of them that it is most alike, if it is so at all; of equals the one met first."""
    nearest = None
    for other in met:
        found = Indel.normalized_similarity(
            read[number].words, read[other].words, score_cutoff=at_least
        )
        if found >= at_least and (nearest is None or found > nearest.similarity):
            nearest = Alike(other, found)
            at_least = found
    return nearest
