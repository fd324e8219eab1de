"""Where an error meets a person, or a log pipeline: what is told on stderr, and the exit code."""

from __future__ import annotations

import io
import json
import signal
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from etl.cli.logs import on_one_line, timestamp
from etl.cli.streams import drop_results
from etl.errors import EtlError, OutputError, Terminated

if TYPE_CHECKING:
    from etl.cli.invocation import Invocation


def tell_error(invocation: Invocation, error: EtlError) -> None:
    """Print why a command did not end well, on one line of stderr in the log's own format."""
    _tell(invocation, str(error), error.exit_code, shown=f"persona-etl: error: {error}")


def meaning(raised: BaseException) -> tuple[int, str]:
    """The exit code of a command that this ended, and why in words."""
    match raised:
        case EtlError():
            return raised.exit_code, str(raised)
        case click.ClickException():
            return raised.exit_code, raised.format_message()
        case KeyboardInterrupt() | click.Abort():
            number = signal.SIGTERM if isinstance(raised, Terminated) else signal.SIGINT
            return 128 + number, "interrupted"
        case _:
            bug = type(raised).__name__
            return 1, f"{bug}, a bug of persona-etl; please report it with its traceback"


def ended_by(invocation: Invocation, raised: BaseException) -> int:
    """Tell what ended a command. Returns its exit code."""
    code, told = meaning(raised)
    match raised:
        case OutputError():
            drop_results()
            # A reader that has seen enough, like `head`, wants no remark.
            if not raised.reader_is_gone:
                tell_error(invocation, raised)
        case EtlError():
            tell_error(invocation, raised)
        case click.ClickException():
            _tell(invocation, told, code, shown=_with_usage(raised, told))
        case KeyboardInterrupt() | click.Abort():
            _tell(invocation, told, code, shown=f"persona-etl: {told}")
        case _:
            _tell_bug(invocation, raised, told)
    return code


def _with_usage(raised: click.ClickException, told: str) -> str:
    """As click shows it, but for the characters of what was typed that would steer the terminal."""
    shown = io.StringIO()
    raised.show(file=shown)
    if isinstance(raised, click.exceptions.NoArgsIsHelpError):
        return shown.getvalue().rstrip("\n")
    return shown.getvalue().rstrip("\n").removesuffix(told) + on_one_line(told)


def _tell_bug(invocation: Invocation, raised: BaseException, message: str) -> None:
    """With a traceback, which shows no variables, as they may be prompts or the key."""
    _leave_rows_out(raised, set())
    report = "".join(traceback.format_exception(raised)).rstrip("\n")
    _tell(
        invocation,
        message,
        1,
        shown=f"{report}\npersona-etl: error: {message}",
        exception=report,
    )


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


def _tell(
    invocation: Invocation, event: str, exit_code: int, *, shown: str = "", **more: str
) -> None:
    """Print `shown` for people; for machines an object like those of the log, on one line."""
    without_secrets = invocation.hiding.without
    if invocation.json_logs:
        line = {
            "timestamp": timestamp(datetime.now(UTC)),
            "level": "error",
            "logger": "etl",
            "event": without_secrets(event),
            "exit_code": exit_code,
            **{name: without_secrets(text) for name, text in more.items()},
        }
        click.echo(json.dumps(line), err=True)
    else:
        lines = without_secrets(shown).split("\n")
        click.echo("\n".join(map(on_one_line, lines)), err=True)
