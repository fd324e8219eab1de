"""How values stand in a page: numbers, times, lines and sentences, none of which can steer it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from jinja2 import pass_context
from markupsafe import Markup, escape

from etl.report.text import ELLIPSIS, as_line, length_of_time

if TYPE_CHECKING:
    from jinja2.runtime import Context

_THIN: Final = "\u202f"
# In columns, and in characters: accents heaped on one sign take no column.
_WIDEST = 200
_LONGEST = 800


def number(count: float) -> str:
    """With its thousands set apart."""
    return f"{count:,}".replace(",", _THIN)


def counted(count: int, one: str, more: str = "") -> str:
    """`1 run`, `2 runs`."""
    return f"{number(count)} {one if count == 1 else more or one + 's'}"


def of(count: int, one: str, more: str = "") -> Markup:
    """The same as HTML. What is counted may be called anything."""
    return Markup("{}").format(counted(count, *(as_line(word, _WIDEST) for word in (one, more))))


@pass_context
def shown(context: Context, value: object) -> object:
    """What stands for a value wherever the template names one: one line that steers nothing."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, datetime):
        return _moment(value, context["this_year"])
    if isinstance(value, int):
        return Markup(number(value))  # noqa: S704  # digits
    if value is None:
        return ""
    text = str(value)
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + ELLIPSIS
    return as_line(text, _WIDEST)


def _moment(moment: datetime, this_year: int) -> Markup:
    at = moment.astimezone(UTC)
    year = "" if at.year == this_year else f" {at.year}"
    return _time(at, f"{at.day} {at:%b}{year}, {at:%H:%M}")


def clock(moment: datetime) -> Markup:
    """Its time of the day, in UTC."""
    at = moment.astimezone(UTC)
    return _time(at, f"{at:%H:%M}")


def _time(at: datetime, told: str) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(f"{at:%Y-%m-%dT%H:%M:%SZ}", told)


def period(since: datetime, now: datetime) -> str:
    """Both days; what they have in common is said once."""
    first, last = (moment.astimezone(UTC).date() for moment in (since, now))
    told = f"{last.day} {last:%B %Y}"
    if first == last:
        return told
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}\u2013{told}"
    year = "" if first.year == last.year else f" {first.year}"
    return f"{first.day} {first:%B}{year} \u2013 {told}"


def length(seconds: float) -> str:
    """In the units that matter."""
    return length_of_time(timedelta(seconds=seconds))


def ticked(text: str) -> Markup:
    """A sentence; what stands in backticks is code. A command is code as a whole."""
    line = as_line(text[: 2 * _LONGEST], 3 * _WIDEST)
    if line.startswith("persona-etl ") and "`" not in line:
        line = f"`{line}`"
    parts = re.split("`([^`]+)`", line)
    return Markup().join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )
