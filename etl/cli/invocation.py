"""What the global options said, for the commands. Imports nothing heavy: `--help` passes here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

    from etl.settings import Settings


@dataclass(frozen=True)
class Invocation:
    """The global options. Commands get it with `@pass_invocation`."""

    config: Path | None = None
    verbose: bool = False
    quiet: bool = False
    json_logs: bool = False

    def settings(self) -> Settings:
        """Read the settings, on demand, as `COMMAND --help` must work without any.

        Raises:
            UsageError: everything that is wrong with them.
        """
        # Here, as `--help` passes through this module and must not wait for pydantic.
        from etl.settings import load_settings  # noqa: PLC0415  spares --help

        return load_settings(os.environ, self.config)


pass_invocation = click.make_pass_decorator(Invocation)
