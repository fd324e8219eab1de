"""What a proposed revision says of itself: what was seen, since when, what the type follows from.

Only plain words, numbers and what `shown` leaves of a name: nothing that could end a docstring.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from etl.proposal.spelling import WIDTH, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etl.proposal.model import Proposal


def header(proposals: Sequence[Proposal], closing: str) -> str:
    """The module's docstring: a line for all, a paragraph for each field, the closing, why."""
    told = [_summary(proposals), "", *(line for each in proposals for line in _seen(each)), ""]
    told += [*_wrapped(closing), "", "Why: the API sends what no column could hold."]
    return '"""' + "\n".join(told) + '\n"""\n'


def slug(proposals: Sequence[Proposal]) -> str:
    """What the file's name says of it."""
    line = proposals[0].line
    first = line.table if line.is_list else f"{line.table}_{line.column}"
    return first if len(proposals) == 1 else f"{first}_and_{len(proposals) - 1}_more"


def field(proposal: Proposal) -> str:
    """The field, for people."""
    return f"`{shown(proposal.line.path)}` of {proposal.line.kind.replace('_', ' ')} documents"


def _summary(proposals: Sequence[Proposal]) -> str:
    if len(proposals) > 1:
        return f"A place for each of {len(proposals)} fields of the API."
    (proposal,) = proposals
    return f"A {'table' if proposal.line.is_list else 'column'} for {field(proposal)}."


def _seen(proposal: Proposal) -> list[str]:
    drift, line = proposal.drift, proposal.line
    place = f"table {line.table}" if line.is_list else f"{line.table}.{line.column}"
    types = ", ".join(map(shown, drift.json_types))
    shapes = ", ".join(shown(shape).replace("_", " ") for shape in drift.shapes)
    told = [
        f"{field(proposal)} -> {place}, {line.type}:",
        f"seen in {_counted(drift.occurrences, 'new document')}",
        f"from {drift.first_seen_at:%Y-%m-%d} to {drift.last_seen_at:%Y-%m-%d},",
        f"as {types}{f' ({shapes})' if shapes else ''}.",
        f"The type follows from {_counted(proposal.values, 'stored value')}.",
    ]
    if (renamed := proposal.renamed) is not None:
        told.append(
            f"It came as `{shown(renamed.path)}` ({renamed.table}.{renamed.column}) went:"
            f" with the same value in {renamed.equal} of {_counted(renamed.seen, 'document')}."
        )
    return _wrapped(" ".join(told), bullet="- ")


def _wrapped(text: str, bullet: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
