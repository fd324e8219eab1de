"""What `prompts search` and `similar` show to people: prompts, whose they are, and what of them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from wcwidth import clip, width

from etl.cli.prose import Marks, as_block
from etl.jobs.prompts import personas_of
from etl.report.likeness import LONGEST
from etl.report.text import ELLIPSIS, as_line, counted, cut
from etl.report.word_diff import word_diff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.jobs.prompts import Found, FoundPrompt, Holder, PromptGroup, Similar
    from etl.report.passages import Excerpt

WIDTH = 80
SHORT_ID = 8
"""Of a SHA-256 so many digits."""
LONGEST_SHOWN = 200
"""A name or a value can have megabytes, of which no more ever fits."""
_INDENT = "    "
_ROOM = WIDTH - len(_INDENT)
# Of a prompt's personas so many are listed, and so many lines of how it differs.
_HOLDERS = 5
_LINES = 12

_MATCH: Final = ("\x1b[7m", "\x1b[0m")
_PLAIN_MATCH: Final = ("»", "«")


def found_lines(found: Found, limit: int, *, coloured: bool) -> Iterator[str]:
    """What a search found, of at most 80 columns a line."""
    if not found.prompts:
        yield f"none of {counted(found.searched, 'distinct prompt')} contains it"
        return
    everybody = [holder for prompt in found.prompts for holder in prompt.holders]
    have = "contains" if len(found.prompts) == 1 else "contain"
    yield (
        f"{len(found.prompts):,} of {counted(found.searched, 'distinct prompt')} {have} it,"
        f" of {counted(personas_of(everybody), 'persona')}"
    )
    for prompt in found.prompts[:limit]:
        yield ""
        yield from _found(prompt, Marks(coloured))
    if len(found.prompts) > limit:
        yield ""
        yield f"… {len(found.prompts) - limit:,} more; --limit shows them …"


def similar_lines(found: Similar, at_least: int, *, coloured: bool) -> Iterator[str]:
    """The groups, of at most 80 columns a line."""
    yield f"{counted(found.distinct, 'distinct prompt')} of {counted(found.personas, 'persona')}"
    if found.too_long:
        yield f"{found.too_long:,} not compared: longer than {LONGEST:,} characters"
    if not found.groups:
        yield f"no two of them are at least {at_least} % alike"
        return
    yield (
        f"{counted(found.grouped_prompts, 'prompt')} of"
        f" {counted(found.grouped_personas, 'persona')} are in"
        f" {counted(found.groups, 'group')} at least {at_least} % alike"
    )
    for group in found.first:
        yield ""
        yield from _group(group, Marks(coloured))
    if found.groups > len(found.first):
        yield ""
        yield f"… {counted(found.groups - len(found.first), 'more group')}; --limit shows them …"


def holder_lines(holders: list[Holder]) -> Iterator[str]:
    """A line each, indented; not of all where there are many."""
    for holder in holders[:_HOLDERS]:
        name = as_line((holder.name or "without a name")[:LONGEST_SHOWN])
        when = ""
        if holder.valid_from:
            until = _time(holder.valid_to) if holder.valid_to else "now"
            when = f"{_time(holder.valid_from)} to {until}  "
        yield cut(f"{_INDENT}{holder.persona_id}  {when}{name}", WIDTH)
    if len(holders) > _HOLDERS:
        yield f"{_INDENT}… {len(holders) - _HOLDERS:,} more; --json has them …"


def differing_lines(old: str, new: str, marks: Marks) -> Iterator[str]:
    """How one text became another, indented and cut where it becomes long."""
    lines = as_block(word_diff(old, new), marks, _ROOM)
    for line in islice(lines, _LINES):
        yield f"{_INDENT}{line}".rstrip()
    if next(lines, None) is not None:
        yield f"{_INDENT}… and more; --json has all of it …"


def _found(prompt: FoundPrompt, marks: Marks) -> Iterator[str]:
    times = "once" if prompt.passages == 1 else f"{prompt.passages:,} times"
    who = counted(personas_of(prompt.holders), "persona")
    yield marks.heading(f"prompt {prompt.prompt_id[:SHORT_ID]}, {who}, {times}")
    yield from holder_lines(prompt.holders)
    yield from (_excerpt(excerpt, marks) for excerpt in prompt.first)
    if prompt.passages > len(prompt.first):
        yield f"{_INDENT}… {prompt.passages - len(prompt.first):,} more times …"


def _excerpt(excerpt: Excerpt, marks: Marks) -> str:
    """The passage in its line, as much of it as fits, with what stands around it."""
    start, end = _MATCH if marks.coloured else _PLAIN_MATCH
    place = f"{_INDENT}line {excerpt.line}: "
    room = WIDTH - len(place) - (0 if marks.coloured else len(start + end))
    passage = cut(as_line(excerpt.passage[:LONGEST_SHOWN]) or "␣", room * 2 // 3)
    # as_line takes the blanks away that stand next to the passage.
    before, after = (as_line(f"|{text}|")[1:-1] for text in (excerpt.before, excerpt.after))
    before = _end_of(before, (room - width(passage)) // 2)
    after = cut(after, room - width(passage) - width(before))
    return f"{place}{before}{start}{passage}{end}{after}".rstrip()


def _end_of(text: str, room: int) -> str:
    if width(text) <= room:
        return text
    return ELLIPSIS + clip(text, width(text) - room + 1, width(text)).lstrip()


def _group(group: PromptGroup, marks: Marks) -> Iterator[str]:
    prompts, personas = counted(group.prompts, "prompt"), counted(group.personas, "persona")
    yield marks.heading(f"{prompts}, {personas}")
    reference = group.reference
    who = counted(len(reference.holders), "persona")
    yield f"prompt {reference.prompt_id[:SHORT_ID]}, {who}"
    yield from holder_lines(reference.holders)
    yield f"{_INDENT}{as_line(reference.text[:LONGEST_SHOWN], _ROOM)}".rstrip()
    for one in group.first:
        who = counted(len(one.prompt.holders), "persona")
        # Rounded down: 100 % is only what has the same words.
        alike = f"{int(one.similarity * 100)} % like it"
        yield f"prompt {one.prompt.prompt_id[:SHORT_ID]}, {who}, {alike}"
        yield from holder_lines(one.prompt.holders)
        yield from differing_lines(reference.text, one.prompt.text, marks)
    if group.prompts - 1 > len(group.first):
        rest = counted(group.prompts - 1 - len(group.first), "more prompt")
        yield f"… {rest}; --variants shows them …"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
