"""Which personas a command is about: the arguments and options for it, and what they come to."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from etl.settings import Settings

Command = TypeVar("Command", bound="Callable[..., Any]")

_OPTIONS = (
    click.argument("ids", nargs=-1, metavar="[ID]..."),
    click.option(
        "--ids-from",
        type=click.File("r", encoding="utf-8", errors="replace"),
        metavar="FILE",
        help="Take the ids from a file, one a line, # for comments; - reads standard input.",
    ),
    click.option("--all", "every", is_flag=True, help="Also every persona that the API lists."),
)


class PersonaId(click.ParamType["UUID"]):
    """An id as the API writes it."""

    name = "id"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> UUID:
        """Read it, or say how it is written."""
        from etl.settings.ids import to_uuid  # noqa: PLC0415  spares --help

        try:
            return to_uuid(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def which_personas(command: Command) -> Command:
    """Gives a command `ids`, `ids_from` and `every`, for `wanted_personas`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def wanted_personas(
    ids: Sequence[str], ids_from: IO[str] | None, settings: Settings, *, every: bool
) -> tuple[Sequence[UUID], bool]:
    """The ids of the arguments and of the file, without either those of the settings.

    Also whether those that the API lists are wanted.
    """
    from etl.settings import parse_ids  # noqa: PLC0415  spares --help

    found: list[UUID] = []
    if ids:
        found += parse_ids("\n".join(ids), "argument")
    if ids_from is not None:
        # A standard input that somebody put in the place of the real one may have no name.
        found += parse_ids(ids_from.read(), getattr(ids_from, "name", "<stdin>"))
    if not ids and ids_from is None:
        known = settings.personas.ids if every else settings.require_ids()
        return known, every or settings.personas.discover
    if not found and not every:
        raise click.UsageError("no ids: there are none in --ids-from")
    return list(dict.fromkeys(found)), every
