"""The log on stderr: lines for people or JSON for machines, in UTC, from stdlib logging.

Whatever is logged, by whomever and from any thread, is one line, or a traceback below one; for
machines one object a line. What Python itself would print there, like warnings, is logged too.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etl.cli.streams import takes_colour

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from etl.cli.hiding import Hiding
    from etl.cli.invocation import Invocation

_RESET = "\033[0m"
_COLOURS = {
    "debug": "\033[2m",
    "warning": "\033[33m",
    "error": "\033[31m",
    "critical": "\033[31m",
}
# What every record has, and what a handler leaves on one; all else was given as `extra`.
_OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime"}


@contextmanager
def logs_to_stderr(invocation: Invocation) -> Iterator[None]:
    """Log to stderr until the command is over.

    Only our own loggers speak below WARNING: httpx and httpcore print headers there, SQLAlchemy
    the parameters of statements, which are prompts.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(invocation, colour=takes_colour(sys.stderr)))
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
        with _python_logs():
            yield
    finally:
        root.removeHandler(handler)
        for logger, level in before.items():
            logger.setLevel(level)


def _level(invocation: Invocation) -> int:
    if invocation.quiet:
        return logging.WARNING
    return logging.DEBUG if invocation.verbose else logging.INFO


@contextmanager
def _python_logs() -> Iterator[None]:
    """Log what Python would print: warnings, and errors that reach nobody."""
    before = warnings.showwarning, threading.excepthook, sys.unraisablehook
    warnings.showwarning = _log_warning
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = _log_unraisable
    try:
        yield
    finally:
        warnings.showwarning, threading.excepthook, sys.unraisablehook = before


def _log_warning(  # noqa: PLR0917  Python's signature
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,  # noqa: ARG001  as above
    line: str | None = None,  # noqa: ARG001  as above
) -> None:
    at = {"at": f"{filename}:{lineno}"}
    logging.getLogger("py.warnings").warning("%s: %s", category.__name__, message, extra=at)


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
        name = ended.thread.name if ended.thread else "?"
        told = "thread %s ended by an error"
        logging.getLogger("py.threads").error(told, name, exc_info=ended.exc_value)


def _log_unraisable(raised: sys.UnraisableHookArgs) -> None:
    # The object itself may hold anything: only its type is told.
    where = type(raised.object).__name__
    told = "an error that nobody can be told of, in a %s"
    logging.getLogger("py.errors").error(told, where, exc_info=raised.exc_value)


class _Formatter(logging.Formatter):
    """A record as its line. Fails on none: that would print a traceback in the log's place."""

    def __init__(self, invocation: Invocation, *, colour: bool) -> None:
        super().__init__()
        self._invocation = invocation
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, object] = {
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _message(record),
            **self._invocation.on_each_line,
        }
        for name, value in vars(record).items():
            if name not in _OF_EVERY_RECORD:
                fields.setdefault(name, value)
        if record.exc_info and record.exc_info[1]:
            fields["exception"] = traceback_of(record.exc_info[1])
        if self._invocation.json_logs:
            return json_line(moment, fields, self._invocation.hiding)
        return self._invocation.hiding.without(self._line(moment, fields))

    def _line(self, moment: datetime, fields: dict[str, object]) -> str:
        """For people: without the logger, and which run it was comes last."""
        level, event = str(fields.pop("level")), str(fields.pop("event"))
        exception = str(fields.pop("exception", ""))
        del fields["logger"]
        fields |= {name: fields.pop(name) for name in self._invocation.on_each_line}
        pairs = " ".join(f"{on_one_line(name)}={_shown(value)}" for name, value in _flat(fields))
        head = f"{timestamp(moment)} {level:<7} {on_one_line(event)}"
        line = f"{head}  {pairs}" if pairs else head
        if self._colour and (colour := _COLOURS.get(level)):
            line = f"{colour}{line}{_RESET}"
        return "\n".join([line, *map(on_one_line, exception.splitlines())])


def json_line(moment: datetime, fields: Mapping[str, object], hiding: Hiding) -> str:
    """A line for machines: one JSON object, whatever the fields are. `moment` is in UTC."""
    # Milliseconds put the lines of several threads, and of several logs, in order.
    stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
    encodable = {name: _encodable(value, hiding) for name, value in fields.items()}
    return json.dumps({"timestamp": stamp, **encodable})


def traceback_of(raised: BaseException) -> str:
    """A traceback, which shows no variables, as they may be prompts or the key."""
    _leave_rows_out(raised, set())
    return "".join(traceback.format_exception(raised)).rstrip("\n")


def _leave_rows_out(raised: BaseException | None, seen: set[int]) -> None:
    """Cut what Postgres says down to its first line: the DETAIL quotes rows, prompts and all."""
    if raised is None or id(raised) in seen:
        return
    seen.add(id(raised))
    # The driver's own error, and SQLAlchemy's around it, by what only they have.
    for error in (raised, getattr(raised, "orig", None)):
        if primary := getattr(getattr(error, "diag", None), "message_primary", None):
            raised.args = (primary, *raised.args[1:])
    members = raised.exceptions if isinstance(raised, BaseExceptionGroup) else ()
    for link in (raised.__cause__, raised.__context__, *members):
        _leave_rows_out(link, seen)


def timestamp(moment: datetime) -> str:
    """As people read it; `moment` is in UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def on_one_line(text: str) -> str:
    """Escape what would start a line of its own or steer the terminal."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  a library's mistake in its own log line
        return _text(record.msg)


def _encodable(value: Any, hiding: Hiding) -> Any:  # noqa: ANN401  whatever somebody logged
    """The value, where JSON has it and it holds no secret, else what can be said of it."""
    try:
        encoded = json.dumps(value, allow_nan=False)
    except Exception:  # noqa: BLE001  the value's own methods may be called
        value = encoded = _text(value)
    is_open = not isinstance(value, str) and hiding.without(encoded) == encoded
    return value if is_open else hiding.without(_text(value))


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  a method of somebody's own
        return f"a {type(value).__name__}"


def _flat(pairs: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """People read counts one by one, and only those that there are."""
    for name, value in pairs.items():
        if isinstance(value, dict):
            yield from ((str(inner), number) for inner, number in value.items() if number)
        else:
            yield name, value


def _shown(value: object) -> str:
    text = _text(value)
    if text and text.isprintable() and not set(text) & set(' "='):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
