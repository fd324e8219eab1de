"""`backfill`: history once more, from files, the API or the observations."""

from __future__ import annotations

import click

from etl.cli.backfill_api import command as api_command
from etl.cli.backfill_files import command as files_command
from etl.cli.backfill_replay import command as replay_command

EXAMPLES = """\b
Examples:
  persona-etl backfill files exports/
  persona-etl backfill api --all
  persona-etl backfill replay --check
  persona-etl backfill replay
"""


@click.group("backfill", epilog=EXAMPLES)
def command() -> None:
    """Get history from files or the API, or the tables from it."""


command.add_command(api_command)
command.add_command(files_command)
command.add_command(replay_command)
