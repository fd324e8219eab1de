"""`check`: what is right and wrong, before a run finds out."""

from __future__ import annotations

import json
import os

import click

from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.logs import on_one_line

EXAMPLES = """\b
Examples:
  persona-etl check
  persona-etl check --json
  persona-etl -q check && persona-etl sync
"""


@click.command("check", epilog=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_invocation
def command(invocation: Invocation, *, as_json: bool) -> int:
    """Say what is right and wrong with settings, key, API and database.

    A line each, and the exit code of the worst. Asks the API for one persona, and writes nothing.
    """
    # Here, so that `check --help` does not wait for Postgres and HTTP libraries.
    from etl.jobs.check import check, exit_code  # noqa: PLC0415  spares --help

    lines = []
    for line in check(os.environ, invocation.config):
        lines.append(line)
        if not as_json and (line.exit_code or not invocation.quiet):
            click.echo(f"{line.verdict:<7}{line.subject:<12}{on_one_line(line.told)}")
    code = exit_code(lines)
    if as_json:
        told = [{"subject": x.subject, "verdict": x.verdict, "message": x.told} for x in lines]
        click.echo(json.dumps({"exit_code": code, "checks": told}))
    return code
