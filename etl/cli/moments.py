"""Moments on the command line: a time as in RFC 3339 or a day, which is its midnight; in UTC.

That is how `--json` has them, too.

Where a persona's versions can be meant, they are moments too; where the past is, so is a length of
time, which was so long ago.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, overload

import click

from etl.payload.times import parse_time

if TYPE_CHECKING:
    from etl.jobs.lifeline import When

_LOOKS = "2026-11-03 or 2026-11-03T14:00:00Z"
_DURATION = re.compile(
    r"(?:(?P<days>[0-9]{1,4})d)?(?:(?P<hours>[0-9]{1,6})h)?"
    r"(?:(?P<minutes>[0-9]{1,8})m)?(?:(?P<seconds>[0-9]{1,9})s)?"
)
_VERSION: Final = re.compile(r"v?([0-9]{1,9})", re.ASCII)


class Moment(click.ParamType["datetime"]):
    """A moment, in UTC unless it has an offset."""

    name = "moment"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read it, or say how it is written."""
        if isinstance(value, datetime):
            return value
        found = _parsed(str(value))
        if found is None:
            self.fail(f"{value!r} is no moment; write it like {_LOOKS}.", param, ctx)
        return found


class PastMoment(Moment):
    """A moment that is not in the future, by this machine's clock."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read it, or say what is wrong with it."""
        found = super().convert(value, param, ctx)
        if found > datetime.now(UTC):
            self.fail(f"{value!r} lies in the future.", param, ctx)
        return found


class Duration(click.ParamType["timedelta"]):
    """A length of time, as in `90s`, `30m`, `2h`, `1d12h`."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read it, or say how it is written."""
        if isinstance(value, timedelta):
            return value
        length = _length(str(value))
        if length is None:
            self.fail(
                f"{value!r} is no length of time; write it like 90s, 30m, 2h or 1d12h.", param, ctx
            )
        return length


class MomentOrAgo(click.ParamType["datetime | timedelta"]):
    """A moment that is not in the future, by this machine's clock; or how long ago it was."""

    name = "when"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | timedelta:
        """Read it, or say how it is written."""
        if isinstance(value, datetime | timedelta):
            return value
        if length := _length(str(value)):
            return length
        if _parsed(str(value)) is None:
            self.fail(
                f"{value!r} is no moment; write it like {_LOOKS}, or how long ago, like 24h or 7d.",
                param,
                ctx,
            )
        return PastMoment().convert(value, param, ctx)


class MomentOrVersion(click.ParamType["When"]):
    """A moment, a version's number, or now."""

    name = "when"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> When:
        """Read it, or say how it is written."""
        text = str(value)
        if text == "now":
            return "now"
        if version := _VERSION.fullmatch(text):
            return int(version[1])
        found = _parsed(text)
        if found is None:
            self.fail(
                f"{text!r} is no moment; write it like {_LOOKS}, a version's number like 3 or v3,"
                " or now.",
                param,
                ctx,
            )
        return found


@overload
def iso(moment: datetime) -> str: ...
@overload
def iso(moment: datetime | None) -> str | None: ...
def iso(moment: datetime | None) -> str | None:
    """As in RFC 3339, in UTC; null where there is none."""
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _parsed(text: str) -> datetime | None:
    return parse_time(text) or parse_time(f"{text}T00:00:00Z")


def _length(text: str) -> timedelta | None:
    """None: it is none, or of no length."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    return timedelta(**{unit: int(n) for unit, n in found.groupdict("0").items()}) or None
