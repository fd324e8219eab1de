"""The log on stderr: lines for people or JSON for machines, in UTC, from stdlib logging."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from etl.cli.streams import takes_colour

if TYPE_CHECKING:
    from collections.abc import Iterator

    import structlog
    from structlog.typing import EventDict, WrappedLogger

    from etl.cli.invocation import Invocation

_RESET = "\033[0m"
_COLOURS = {
    "debug": "\033[2m",
    "warning": "\033[33m",
    "error": "\033[31m",
    "critical": "\033[31m",
}


@contextmanager
def logs_to_stderr(invocation: Invocation) -> Iterator[None]:
    """Log to stderr until the command is over.

    Only our own loggers speak below WARNING: httpx and httpcore print headers there, SQLAlchemy
    the parameters of statements, which are prompts.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LazyFormatter(invocation, colour=takes_colour(sys.stderr)))
    root = logging.getLogger()
    # Of what broke a connection the driver warns before we tell it ourselves.
    levels = {
        logging.getLogger("etl"): _level(invocation),
        logging.getLogger("psycopg"): logging.WARNING if invocation.verbose else logging.ERROR,
    }
    before = {logger: logger.level for logger in levels}
    for logger, level in levels.items():
        logger.setLevel(level)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for logger, level in before.items():
            logger.setLevel(level)


def _level(invocation: Invocation) -> int:
    if invocation.quiet:
        return logging.WARNING
    return logging.DEBUG if invocation.verbose else logging.INFO


class _LazyFormatter(logging.Formatter):
    """Imports structlog for the first line that is logged: `sync --help` logs none."""

    def __init__(self, invocation: Invocation, *, colour: bool) -> None:
        super().__init__()
        self._json_lines = invocation.json_logs
        self._hiding = invocation.hiding
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        return self._hiding.without(self._structlog.format(record))

    @cached_property
    def _structlog(self) -> structlog.stdlib.ProcessorFormatter:
        from structlog.processors import JSONRenderer, format_exc_info  # noqa: PLC0415  only for a line
        from structlog.stdlib import ExtraAdder, ProcessorFormatter  # noqa: PLC0415  only for a line

        return ProcessorFormatter(
            foreign_pre_chain=[ExtraAdder()],
            # format_exc_info prints a plain traceback; structlog's console renderer would print
            # every frame's variables, the key among them.
            processors=[
                _stamp,
                format_exc_info,
                JSONRenderer() if self._json_lines else self._line,
            ],
        )

    def _line(self, _logger: WrappedLogger, name: str, event: EventDict) -> str:
        head = f"{event.pop('timestamp')} {event.pop('level'):<7} {on_one_line(event.pop('event'))}"
        traceback = event.pop("exception", None)
        del event["logger"]
        pairs = " ".join(f"{key}={_value(value)}" for key, value in event.items())
        line = f"{head}  {pairs}" if pairs else head
        if self._colour and (colour := _COLOURS.get(name)):
            line = f"{colour}{line}{_RESET}"
        return "\n".join([line, *map(on_one_line, traceback.split("\n"))]) if traceback else line


def _stamp(_logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Put time, level, logger and message in front, in that order, and structlog's own away."""
    record: logging.LogRecord = event.pop("_record")
    del event["_from_structlog"]
    for left_by_another_handler in ("message", "asctime"):
        event.pop(left_by_another_handler, None)
    return {
        "timestamp": timestamp(datetime.fromtimestamp(record.created, UTC)),
        "level": name,
        "logger": record.name,
        "event": event.pop("event"),
        **event,
    }


def timestamp(moment: datetime) -> str:
    """As every line has it; `moment` is in UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def on_one_line(text: str) -> str:
    """Escape what would start a line of its own or steer the terminal."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _value(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not set(text) & set(' "='):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
