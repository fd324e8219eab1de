"""Where an error meets a person, or a log pipeline: what is told on stderr, and the exit code."""

from __future__ import annotations

import io
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from etl.cli.logs import json_line, on_one_line, traceback_of
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
    """With a traceback."""
    report = traceback_of(raised)
    _tell(
        invocation,
        message,
        1,
        shown=f"{report}\npersona-etl: error: {message}",
        exception=report,
    )


def _tell(
    invocation: Invocation, event: str, exit_code: int, *, shown: str = "", **more: str
) -> None:
    """Print `shown` for people; for machines an object like those of the log, on one line."""
    if invocation.json_logs:
        fields = {
            "level": "error",
            "logger": "etl",
            "event": event,
            **invocation.on_each_line,
            "exit_code": exit_code,
            **more,
        }
        click.echo(json_line(datetime.now(UTC), fields, invocation.hiding), err=True)
    else:
        lines = invocation.hiding.without(shown).split("\n")
        click.echo("\n".join(map(on_one_line, lines)), err=True)
