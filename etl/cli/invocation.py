"""What the global options said, for the commands. Imports nothing heavy: `--help` passes here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import click

from etl.cli.hiding import Hiding

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
    hiding: Hiding = field(default_factory=Hiding, repr=False, compare=False)
    on_each_line: dict[str, str] = field(default_factory=dict, compare=False)
    """What each line of the log and each error has besides: the run_id."""

    def begin_run(self) -> UUID:
        """Choose the id of the run that is about to open; the log has it from here on."""
        run_id = uuid4()
        self.on_each_line["run_id"] = str(run_id)
        return run_id

    def settings(self) -> Settings:
        """Read the settings, on demand, as `COMMAND --help` must work without any.

        Raises:
            UsageError: everything that is wrong with them.
        """
        # Here, as `--help` passes through this module and must not wait for pydantic.
        from etl.settings import load_settings  # noqa: PLC0415  spares --help

        settings = load_settings(os.environ, self.config)
        if settings.api.key is not None:
            self.hiding.add(settings.api.key.get_secret_value())
        if settings.database.url is not None:
            self.hiding.add_url(settings.database.url.get_secret_value())
        if settings.notify.ping_url is not None:
            self.hiding.add_address(settings.notify.ping_url.get_secret_value())
        return settings


pass_invocation = click.make_pass_decorator(Invocation)
