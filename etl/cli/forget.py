"""`forget`: takes everything about a persona out of every table, and leaves a receipt."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from etl.cli import ended, options
from etl.cli.boundary import tell_error
from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.moments import iso
from etl.cli.reported import reported
from etl.cli.selection import PersonaId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from etl.jobs.forget import Forgotten, Found
    from etl.store.forgetting import Shared

_LONGEST_NAME = 40

EXAMPLES = """\b
Examples:
  persona-etl forget 00000000-0000-0000-0000-000000000000 --dry-run
  persona-etl forget 00000000-0000-0000-0000-000000000000
  persona-etl forget 00000000-0000-0000-0000-000000000000 --yes --json
"""


@click.command("forget", epilog=EXAMPLES)
@click.argument("persona_id", type=PersonaId(), metavar="PERSONA_ID")
@click.option("--dry-run", is_flag=True, help="Say what would go; write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask, as it is done without a terminal.")
@options.wait
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@pass_invocation
def command(
    invocation: Invocation,
    *,
    persona_id: UUID,
    dry_run: bool,
    yes: bool,
    wait: int,
    as_json: bool,
) -> int:
    """Take everything about a persona out of every table, for good.

    In one transaction: its rows, its whole history, what went wrong with it, and the avatar, voice,
    tools and knowledge that nobody else brought. A receipt without its id is left, and no later
    sync brings it back unless told to --unforget.
    """
    from etl.jobs.forget import forget, look  # noqa: PLC0415  spares --help

    settings = invocation.settings()
    summaries: list[Forgotten] = []
    with target_of(settings) as url:
        found = look(settings, persona_id, url=url)
        if dry_run or not found.is_anything:
            tell_found(invocation, found, as_json=as_json)
            return 0
        if not yes and sys.stdin.isatty():
            click.confirm(_question(found), abort=True, err=True)
        with reported(settings, "forget", summaries, partial(tell, invocation, as_json=as_json)):
            forget(
                settings,
                persona_id,
                url=url,
                wait_seconds=wait,
                run_id=invocation.begin_run(),
                report=summaries.append,
            )
    return summaries[0].exit_code


def tell_found(invocation: Invocation, found: Found, *, as_json: bool) -> None:
    """Print what would go, or that nothing is left."""
    belongings = found.belongings
    if as_json:
        _echo_json(
            {
                "run_id": None,
                "command": "forget",
                "status": "succeeded",
                "started_at": None,
                "finished_at": None,
                **_what(belongings.persona_id, belongings.rows, belongings.shared),
                "forgotten_at": iso(found.erased_at),
            }
        )
    elif invocation.quiet:
        return
    elif found.is_anything:
        click.echo("forget, a dry run: nothing was written")
        for line in (*_table(belongings.rows), *_shared_lines(belongings.shared)):
            click.echo(line)
    elif found.erased_at is not None:
        when = f"{found.erased_at:%Y-%m-%dT%H:%M:%SZ}"
        click.echo(f"persona {belongings.persona_id} was forgotten at {when}: nothing is kept")


def tell(invocation: Invocation, forgotten: Forgotten, *, as_json: bool) -> None:
    """Print what went to stdout, an error to stderr."""
    # Whom it forgot, a log must not remember.
    ended.log_end(invocation, forgotten, "forget", {"rows_deleted": forgotten.rows})
    try:
        if as_json:
            _echo_json(
                {
                    **ended.as_object(forgotten, "forget"),
                    **_what(forgotten.persona_id, forgotten.rows, forgotten.shared),
                    "forgotten_at": iso(forgotten.erased_at),
                }
            )
        elif not invocation.quiet:
            click.echo(ended.as_line(forgotten, "forget"))
            for line in (*_table(forgotten.rows), *_shared_lines(forgotten.shared)):
                click.echo(line)
    finally:
        # Also where the result can't be printed.
        if forgotten.error is not None:
            tell_error(invocation, forgotten.error)


def _question(found: Found) -> str:
    from etl.report.text import as_line  # noqa: PLC0415  spares --help

    belongings = found.belongings
    name = as_line(belongings.name, _LONGEST_NAME)
    rows = sum(belongings.rows.values())
    tables = len(belongings.rows)
    return (
        f"Forget persona {belongings.persona_id}{f' {name}' if name else ''}:"
        f" {rows} {'row' if rows == 1 else 'rows'}"
        f" in {tables} {'table' if tables == 1 else 'tables'}, for good?"
    )


def _what(persona_id: UUID, rows: Mapping[str, int], shared: Iterable[Shared]) -> dict[str, object]:
    return {
        "persona_id": str(persona_id),
        "rows_deleted": dict(sorted(rows.items())),
        "shared": [
            {"kind": s.kind, "id": str(s.entity_id), "name": s.name, "goes": s.is_sole}
            for s in shared
        ],
    }


def _table(rows: Mapping[str, int]) -> list[str]:
    width = max(map(len, rows), default=0)
    return [f"  {name:<{width}}{number:>9}" for name, number in sorted(rows.items())]


def _shared_lines(shared: Iterable[Shared]) -> list[str]:
    from etl.report.text import as_line  # noqa: PLC0415  spares --help

    lines = []
    for s in shared:
        name = f" {as_line(s.name, _LONGEST_NAME)}" if s.name else ""
        what = "goes, nobody else brought it" if s.is_sole else "stays, others brought it too"
        lines.append(f"{s.kind} {s.entity_id}{name}: {what}")
    return lines


def _echo_json(told: dict[str, object]) -> None:
    import msgspec  # noqa: PLC0415  spares --help

    from etl.report.text import json_text  # noqa: PLC0415  spares --help

    click.echo(json_text(msgspec.json.encode(told)))
