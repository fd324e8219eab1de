"""What became of a text, word by word: the words that stayed, those that went, those that came.

First sentences and lines are held against each other, then the words of those that differ. So it
takes seconds at the most for texts of any length; beyond a bound whole passages count as replaced.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from etl.report.alignment import Effort, Run, common_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

# About half a second of it.
_STEPS = 1_000_000
# Where a text has more, it is no prose: its lines are compared, or it is taken as one.
_MOST_CLAUSES = 300_000
# A passage of so many characters is hardly read word by word.
_LONGEST_PASSAGE = 200_000

# A sentence up to the white space behind it, or a line. No text is without its match.
_ENDS = ".!?\u3002\uff01\uff1f"
_CLAUSE = re.compile(rf"[^\n{_ENDS}]*+(?:\n|[{_ENDS}]++[^\S\n]*+\n?)|[^\n{_ENDS}]+")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")

# Scripts that put no space between words: each sign is one. Two regional indicators are a flag.
_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(
    rf"[{_SIGNS}]|(?:[^\W{_SIGNS}]|(?<=\w)['\u2019](?=\w))+|[^\S\n]+"
    "|[\U0001f1e6-\U0001f1ff]{2}|.",
    re.DOTALL,
)
# Whoever heaps up accents has them taken apart.
_LONGEST_SIGN = 32
_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = range(0x1F3FB, 0x1F400)


class Piece(NamedTuple):
    """A passage that both texts have, only the old one, or only the new one."""

    kind: Literal["same", "old", "new"]
    text: str


def word_diff(old: str, new: str) -> list[Piece]:
    """The pieces in order; what came follows what went. Never two of a kind in succession.

    Those that are the same and the old ones are the old text, exactly; likewise the new one.
    """
    effort = Effort(_STEPS)
    olds, news = _clauses(old), _clauses(new)
    # White space aside: a sentence that ends a line now is the same sentence.
    bare_olds, bare_news = ([clause.strip() for clause in text] for text in (olds, news))
    runs = common_runs(bare_olds, bare_news, effort)
    passages: list[Piece] = []
    i = j = 0
    for run in [*runs, Run(len(olds), len(news), 0)]:
        passages += _words("".join(olds[i : run.old]), "".join(news[j : run.new]), effort)
        i, j = run.old + run.length, run.new + run.length
        stayed, found = olds[run.old : i], news[run.new : j]
        if stayed == found:
            passages.append(Piece("same", "".join(stayed)))
        else:
            for one, other in zip(stayed, found, strict=True):
                passages += _words(one, other, effort)
    return list(_joined(passages))


def words_gone_and_come(old: str, new: str) -> tuple[int, int]:
    """How many words stand there less often than before, and how many more often.

    Wherever they stand: a passage that moved has neither gone nor come. Takes as long as reading.
    """
    olds, news = (Counter(filter(_is_word, _WORD.findall(text))) for text in (old, new))
    return (olds - news).total(), (news - olds).total()


def _is_word(sign: str) -> bool:
    return any(map(str.isalnum, sign))


def _clauses(text: str) -> list[str]:
    if sum(map(text.count, _ENDS + "\n")) <= _MOST_CLAUSES:
        return _CLAUSE.findall(text)
    return _LINE.findall(text) if text.count("\n") <= _MOST_CLAUSES else [text]


def _words(old: str, new: str, effort: Effort) -> list[Piece]:
    """The pieces of a passage that differs."""
    if old == new:
        return [Piece("same", old)]
    if not old or not new:
        return [Piece("old", old), Piece("new", new)]
    if len(old) + len(new) <= _LONGEST_PASSAGE:
        return _compared(old, new, effort)
    begins, ends = _shared_ends(old, new)
    went, came = (text[len(begins) : len(text) - len(ends)] for text in (old, new))
    small = len(went) + len(came) <= _LONGEST_PASSAGE
    inner = _compared(went, came, effort) if small else [Piece("old", went), Piece("new", came)]
    return [Piece("same", begins), *inner, Piece("same", ends)]


def _compared(old: str, new: str, effort: Effort) -> list[Piece]:
    if not effort.allows((len(old) + len(new)) // 2):
        return [Piece("old", old), Piece("new", new)]
    olds, news = _split(old), _split(new)
    gaps = list(_gaps(olds, news, common_runs(olds, news, effort)))
    return list(chain.from_iterable(_readable(gaps)))


def _readable(gaps: list[tuple[str, str, str]]) -> Iterator[list[Piece]]:
    """The pieces, without the scraps that only happen to stand in both texts."""
    went, came = "", ""
    for (old, new, stayed), (next_old, next_new, _) in pairwise([*gaps, ("", "", "")]):
        went, came = went + old, came + new
        around = min(len(went) + len(came), len(next_old) + len(next_new))
        if went + came and next_old + next_new and _is_scrap(stayed, around):
            went, came = went + stayed, came + stayed
            continue
        yield [Piece("old", went), Piece("new", came), Piece("same", stayed)]
        went, came = "", ""


def _is_scrap(stayed: str, around: int) -> bool:
    """Whether what stayed between two changes of at least so many characters tells nothing."""
    if "\n" in stayed:
        return False
    return not any(map(str.isalnum, stayed)) or 4 * len(stayed) < around


def _split(text: str) -> list[str]:
    """The words, the spaces between them, and single signs, each with what is put over it."""
    words: list[str] = []
    for word in _WORD.findall(text):
        if words and _belongs_to(words[-1], word):
            words[-1] += word
        else:
            words.append(word)
    return words


def _belongs_to(last: str, word: str) -> bool:
    """Whether a sign is shown in one with the last: an accent, a skin tone, a composed emoji."""
    if len(last) >= _LONGEST_SIGN:
        return False
    if _ZERO_WIDTH_JOINER in (last[-1], word[0]):
        return True
    is_mark = not word.isascii() and unicodedata.category(word[0])[0] == "M"
    return is_mark or ord(word[0]) in _SKIN_TONES


def _gaps(olds: list[str], news: list[str], runs: list[Run]) -> Iterator[tuple[str, str, str]]:
    """What went, what came and what stayed behind it, from start to end."""
    i = j = 0
    for run in [*runs, Run(len(olds), len(news), 0)]:
        after = run.old + run.length
        yield "".join(olds[i : run.old]), "".join(news[j : run.new]), "".join(olds[run.old : after])
        i, j = after, run.new + run.length


def _shared_ends(old: str, new: str) -> tuple[str, str]:
    """What two texts begin and end with, up to white space."""
    end = _alike(old, new)
    begins = old[: max(old.rfind(" ", 0, end), old.rfind("\n", 0, end)) + 1]
    olds, news = (text[: len(begins) - 1 : -1] if begins else text[::-1] for text in (old, new))
    end = _alike(olds, news)
    ends = olds[: max(olds.rfind(" ", 0, end), olds.rfind("\n", 0, end)) + 1]
    return begins, ends[::-1]


def _alike(one: str, other: str) -> int:
    """How many characters both begin with; of millions as well."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


def _joined(passages: list[Piece]) -> Iterator[Piece]:
    """Without the empty ones; between two that are the same, one that went and one that came."""
    waiting: dict[str, list[str]] = {"same": [], "old": [], "new": []}

    def flushed(*kinds: Literal["same", "old", "new"]) -> Iterator[Piece]:
        for kind in kinds:
            if waiting[kind]:
                yield Piece(kind, "".join(waiting[kind]))
                waiting[kind] = []

    for kind, text in passages:
        if text:
            yield from flushed(*(("old", "new") if kind == "same" else ("same",)))
            waiting[kind].append(text)
    yield from flushed("same", "old", "new")
