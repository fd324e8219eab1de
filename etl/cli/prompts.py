"""`prompts`: which contain a phrase, which are nearly alike, and who is set up alike."""

from __future__ import annotations

import re
import sys
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import click

from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.progress import watched
from etl.cli.streams import takes_colour

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from etl.report.passages import Finder

EXAMPLES = """\b
Examples:
  persona-etl prompts search 'opening hours'
  persona-etl prompts similar
  persona-etl prompts configurations
"""

SEARCH_EXAMPLES = """\b
Examples:
  persona-etl prompts search 'opening hours'
  persona-etl prompts search --history 'twenty per cent discount'
  persona-etl prompts search --regex '\\b[a-z.]+@[a-z.]+\\b'
  persona-etl -q prompts search GPT-3; echo $?
"""

SIMILAR_EXAMPLES = """\b
Examples:
  persona-etl prompts similar
  persona-etl prompts similar --at-least 97
  persona-etl prompts similar --limit 50 --variants 20 --json
"""

CONFIGURATIONS_EXAMPLES = """\b
Examples:
  persona-etl prompts configurations
  persona-etl prompts configurations --limit 50 --json
"""

F = TypeVar("F", bound="Callable[..., Any]")

# No prompt has what was looked for.
_NOT_FOUND = 8


def _limit(default: int, told: str) -> Callable[[F], F]:
    """The option of how much is shown."""
    return click.option(
        "--limit",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        metavar="N",
        help=told,
    )


_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group("prompts", epilog=EXAMPLES)
def command() -> None:
    """Search prompts, group those that are nearly alike, count distinct ones."""


@command.command("search", epilog=SEARCH_EXAMPLES, short_help="Show who is told something.")
@click.argument("phrase", metavar="PHRASE")
@click.option("--regex", is_flag=True, help="PHRASE is a regular expression, as Python has them.")
@click.option("--history", is_flag=True, help="Also what personas were told before, and when.")
@_limit(20, "How many prompts are shown.")
@_as_json
@pass_invocation
def search_command(
    invocation: Invocation,
    *,
    phrase: str,
    regex: bool,
    history: bool,
    limit: int,
    as_json: bool,
) -> int:
    """Show the system prompts that contain a phrase, and whose they are.

    Upper and lower case are the same, and so is all white space: a phrase is found across the end
    of a line. A regular expression takes white space as it stands. A prompt that several personas
    have is told once. Exits with 8 when there is none. Asks the database alone, and writes nothing:
    a role that may read the reporting views is enough.
    """
    from etl.cli.prompts_object import found_as_object  # noqa: PLC0415  spares --help
    from etl.cli.prompts_screen import found_lines  # noqa: PLC0415  spares --help
    from etl.jobs.prompts import search  # noqa: PLC0415  spares --help

    find = _finder(phrase, regex=regex)
    settings = invocation.settings()
    with target_of(settings) as url, watched(invocation, is_shown=history) as watch:
        found = search(settings, find, url=url, history=history, watch=watch)
    coloured = takes_colour(sys.stdout)
    _print(
        invocation,
        found_as_object(found, limit) if as_json else found_lines(found, limit, coloured=coloured),
        coloured=coloured,
    )
    return 0 if found.prompts else _NOT_FOUND


@command.command(
    "similar", epilog=SIMILAR_EXAMPLES, short_help="Group prompts that are nearly alike."
)
@click.option(
    "--at-least",
    type=click.IntRange(50, 100),
    default=90,
    show_default=True,
    metavar="PERCENT",
    help="How alike a prompt is to that of its group, from 50 to 100.",
)
@_limit(10, "How many groups are shown, those of most personas first.")
@click.option(
    "--variants",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="How many prompts of each are compared with it, the most alike first.",
)
@_as_json
@pass_invocation
def similar_command(
    invocation: Invocation, *, at_least: int, limit: int, variants: int, as_json: bool
) -> None:
    """Group prompts that are nearly alike, and show where they differ.

    Two are as alike as the share of their words that both have, in the same order. A group is a
    prompt and those that are at least so much like that one: the prompt that most personas have
    comes first, of equals the one that shares most with others, and each joins the one that it is
    most alike. Equal prompts count once. Prompts of more than 100,000 characters are not compared.
    Asks the database alone, and writes nothing: a role that may read the reporting views is enough.
    """
    from etl.cli.prompts_object import similar_as_object  # noqa: PLC0415  spares --help
    from etl.cli.prompts_screen import similar_lines  # noqa: PLC0415  spares --help
    from etl.jobs.prompts import similar  # noqa: PLC0415  spares --help

    settings = invocation.settings()
    with target_of(settings) as url, watched(invocation, "prompts") as watch:
        found = similar(
            settings,
            url=url,
            at_least=at_least / 100,
            groups=limit,
            variants=variants,
            watch=watch,
        )
    coloured = takes_colour(sys.stdout)
    _print(
        invocation,
        similar_as_object(found) if as_json else similar_lines(found, at_least, coloured=coloured),
        coloured=coloured,
    )


@command.command(
    "configurations",
    epilog=CONFIGURATIONS_EXAMPLES,
    short_help="Count the distinct configurations.",
)
@_limit(5, "How much is shown of each.")
@_as_json
@pass_invocation
def configurations_command(invocation: Invocation, *, limit: int, as_json: bool) -> None:
    """Count the distinct configurations of live personas.

    All settings count, the prompt too, but for what is each persona's own: its name, description
    and share links. Those that agree in all but one setting are shown by that setting: maybe they
    should agree in it too. Asks the database alone, and writes nothing: a role that may read the
    reporting views is enough.
    """
    from etl.cli.configurations_screen import as_lines  # noqa: PLC0415  spares --help
    from etl.cli.prompts_object import configurations_as_object  # noqa: PLC0415  spares --help
    from etl.jobs.configurations import configurations  # noqa: PLC0415  spares --help

    settings = invocation.settings()
    with target_of(settings) as url:
        found = configurations(settings, url=url, limit=limit)
    coloured = takes_colour(sys.stdout)
    _print(
        invocation,
        configurations_as_object(found) if as_json else as_lines(found, coloured=coloured),
        coloured=coloured,
    )


def _finder(phrase: str, *, regex: bool) -> Finder:
    from etl.report import passages  # noqa: PLC0415  spares --help

    if not phrase.strip():
        raise click.UsageError("PHRASE is blank; write what to look for.")
    if not regex:
        return passages.phrase(phrase)
    try:
        with warnings.catch_warnings():
            # What Python will read otherwise one day.
            warnings.simplefilter("ignore", FutureWarning)
            pattern = re.compile(phrase, re.IGNORECASE | re.MULTILINE)
    except (re.error, RecursionError, OverflowError) as exc:
        raise click.UsageError(
            f"PHRASE is no regular expression: {exc}; mend it, or leave out --regex."
        ) from exc
    return passages.expression(pattern)


def _print(
    invocation: Invocation, shown: dict[str, Any] | Iterable[str], *, coloured: bool
) -> None:
    """Prints an object as JSON, or lines unless that is not wanted."""
    from etl.payload.decode import dumps  # noqa: PLC0415  spares --help
    from etl.report.text import json_text  # noqa: PLC0415  spares --help

    if isinstance(shown, dict):
        click.echo(json_text(dumps(shown)))
    elif not invocation.quiet:
        for line in shown:
            click.echo(line, color=coloured)
