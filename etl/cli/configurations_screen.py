"""What `prompts configurations` shows to people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from etl.cli.prompts_screen import differing_lines, holder_lines
from etl.cli.prose import Marks
from etl.report.text import counted, cut, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.jobs.configurations import Configuration, Configurations, Odd

_WIDTH = 80
_SHORT_ID = 8
_LONGEST_VALUE = 40
_LONGEST_SHOWN = 200


def as_lines(found: Configurations, *, coloured: bool) -> Iterator[str]:
    """How many there are, which are shared, and which differ in one setting."""
    marks = Marks(coloured)
    personas = counted(found.personas, "live persona")
    shared = f"{found.shared:,}" if found.shared else "none"
    yield f"{personas}, set up in {counted(found.distinct, 'way')}, {shared} of them shared"
    for one in found.most_shared:
        yield ""
        yield marks.heading(_title(one))
        yield from holder_lines(one.holders)
    if found.shared > len(found.most_shared):
        yield ""
        yield f"… {found.shared - len(found.most_shared):,} more that are shared …"
    yield ""
    if not found.odd:
        yield "no two of them differ in one setting only"
        return
    yield f"Alike in all but one setting: {counted(found.odd, 'set')} of them"
    for odd in found.first_odd:
        yield ""
        yield from _odd(odd, marks)
    if found.odd > len(found.first_odd):
        yield ""
        yield f"… {counted(found.odd - len(found.first_odd), 'more set')}; --limit shows them …"


def _title(one: Configuration) -> str:
    who = counted(len(one.holders), "persona")
    return f"configuration {one.configuration_id[:_SHORT_ID]}, {who}"


def _odd(odd: Odd, marks: Marks) -> Iterator[str]:
    ways = counted(odd.configurations, "configuration")
    heading = f"{escaped(odd.setting)}: {ways}, {counted(odd.personas, 'persona')}"
    yield marks.heading(cut(heading, _WIDTH))
    usual = odd.first[0].settings[odd.setting]
    for one in odd.first:
        value = one.settings[odd.setting]
        who = counted(len(one.holders), "persona")
        shown = escaped(json.dumps(value, ensure_ascii=False)[:_LONGEST_SHOWN])
        yield f"{cut(shown, _LONGEST_VALUE)}  {who}"
        yield from holder_lines(one.holders)
        if isinstance(value, str) and isinstance(usual, str) and value != usual and " " in value:
            yield from differing_lines(usual, value, marks)
    if odd.configurations > len(odd.first):
        yield f"… {counted(odd.configurations - len(odd.first), 'more configuration')} …"
