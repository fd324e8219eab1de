"""An edited prompt as HTML: the words that went and came, amid as much as tells where that is."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from etl.report.digest import LONGEST_PROMPT
from etl.report.shown import counted
from etl.report.text import escaped
from etl.report.word_diff import word_diff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.report.digest import PromptChange
    from etl.report.word_diff import Piece

# In characters: what is shown around a change, and of a long passage at its ends.
_AROUND = 150
_BEGINS, _ENDS = 2000, 600
# What is not called a gap, since it takes as much room to say so.
_NO_GAP = 100
# In characters of HTML: what is folded, and where it ends.
_LONG = 2500
_LONGEST = 12_000

# Screen readers seldom tell of <ins> and <del>.
_MARKED = {
    "old": Markup('<del><span class="vh">[gone: </span>{}<span class="vh">]</span></del>'),
    "new": Markup('<ins><span class="vh">[new: </span>{}<span class="vh">]</span></ins>'),
    "same": Markup("{}"),
}
_GAP = Markup('<span class="gap"> ⋯ {} ⋯ </span>')


@dataclass(frozen=True, slots=True)
class Edited:
    """What became of a prompt."""

    change: PromptChange
    words: Markup
    is_long: bool
    """To be folded."""
    is_cut: bool


def edited(change: PromptChange) -> Edited:
    """The difference, of a bounded length whatever the prompts are."""
    old, new = change.old or "", change.new or ""
    words, is_cut = Markup(), max(len(old), len(new)) >= LONGEST_PROMPT
    pieces = word_diff(old, new)
    for place, piece in enumerate(pieces):
        if len(words) > _LONGEST:
            is_cut = True
            break
        shown = list(_parts(piece, is_first=place == 0, is_last=place == len(pieces) - 1))
        is_cut |= piece.kind != "same" and len(shown) > 1
        words += Markup().join(shown)
    return Edited(change, words, is_long=len(words) > _LONG, is_cut=is_cut)


def _parts(piece: Piece, *, is_first: bool, is_last: bool) -> Iterator[Markup]:
    """A passage, or its beginning, what is left out, and its end."""
    text, marked = piece.text, _MARKED[piece.kind]
    begins, ends = _BEGINS, _ENDS
    if piece.kind == "same":
        begins, ends = 0 if is_first else _AROUND, 0 if is_last else _AROUND
    if len(text) <= begins + ends + _NO_GAP:
        yield marked.format(_visible(text, is_marked=piece.kind != "same"))
        return
    begins = _end_of_word(text, begins)
    last = len(text) - _end_of_word(text[::-1], ends)
    if begins:
        yield marked.format(_visible(text[:begins], is_marked=False))
    what = "the same" if piece.kind == "same" else "not shown"
    yield _GAP.format(f"{counted(last - begins, 'character')} {what}")
    if text[last:]:
        yield marked.format(_visible(text[last:], is_marked=False))


def _end_of_word(text: str, most: int) -> int:
    """How much of it ends with a word, if one ends thereabouts."""
    ends = [found.start() for found in re.finditer(r"\s", text[most // 2 : most])]
    return most // 2 + ends[-1] if ends else most


def _visible(text: str, *, is_marked: bool) -> str:
    """What would steer or hide is spelled out; so is the end of a line that alone came or went."""
    told = re.sub(r"[^\n\t]+", lambda found: _spelled(found[0]), text)
    return told.replace("\n", "↵\n") if is_marked and not text.strip() else told


def _spelled(text: str) -> str:
    """Spaces of any width are harmless in a prompt, and common."""
    return "".join(c if unicodedata.category(c) == "Zs" else escaped(c) for c in text)
