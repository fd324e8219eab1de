"""What `prompts configurations` shows to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.cli.prompts_screen import LONGEST_SHOWN, SHORT_ID, WIDTH, differing_lines, holder_lines
from etl.cli.prose import Marks
from etl.payload.decode import dumps
from etl.report.text import counted, cut, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.jobs.configurations import Apart, Configuration, Configurations

_LONGEST_VALUE = 40


def as_lines(found: Configurations, *, coloured: bool) -> Iterator[str]:
    """How many there are, which are shared, and which differ in one setting."""
    marks = Marks(coloured)
    personas = counted(found.personas, "live persona")
    shared = f"{found.shared:,}" if found.shared else "none"
    yield f"{personas} in {counted(found.distinct, 'distinct configuration')}, {shared} shared"
    for one in found.most_shared:
        yield ""
        yield marks.heading(_title(one))
        yield from holder_lines(one.holders)
    if found.shared > len(found.most_shared):
        yield ""
        rest = counted(found.shared - len(found.most_shared), "more shared configuration")
        yield f"… {rest}; --limit shows them …"
    yield ""
    if not found.one_apart:
        yield "no two of them differ in one setting only"
        return
    yield f"Alike in all but one setting: {counted(found.one_apart, 'set')} of them"
    for group in found.first_one_apart:
        yield ""
        yield from _apart(group, marks)
    if found.one_apart > len(found.first_one_apart):
        yield ""
        rest = counted(found.one_apart - len(found.first_one_apart), "more set")
        yield f"… {rest}; --limit shows them …"


def _title(one: Configuration) -> str:
    who = counted(len(one.holders), "persona")
    return f"configuration {one.configuration_id[:SHORT_ID]}, {who}"


def _apart(group: Apart, marks: Marks) -> Iterator[str]:
    ways = counted(group.configurations, "configuration")
    heading = f"{escaped(group.setting)}: {ways}, {counted(group.personas, 'persona')}"
    yield marks.heading(cut(heading, WIDTH))
    usual = group.first[0].settings[group.setting]
    for one in group.first:
        value = one.settings[group.setting]
        who = counted(len(one.holders), "persona")
        shown = escaped(dumps(value).decode()[:LONGEST_SHOWN])
        yield f"{cut(shown, _LONGEST_VALUE)}  {who}"
        yield from holder_lines(one.holders)
        if isinstance(value, str) and isinstance(usual, str) and value != usual and " " in value:
            yield from differing_lines(usual, value, marks)
    if group.configurations > len(group.first):
        rest = counted(group.configurations - len(group.first), "more configuration")
        yield f"… {rest}; --limit shows them …"
