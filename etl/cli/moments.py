"""Moments on the command line: a time as in RFC 3339 or a day, which is its midnight; in UTC.

Where a persona's versions can be meant, they are moments too.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from etl.payload.times import parse_time

if TYPE_CHECKING:
    from etl.jobs.lifeline import When

_LOOKS = "2026-11-03 or 2026-11-03T14:00:00Z"
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


def _parsed(text: str) -> datetime | None:
    return parse_time(text) or parse_time(f"{text}T00:00:00Z")
