"""The console entry: global options, commands imported on use, and the one error boundary."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from etl.cli.invocation import Invocation
from etl.cli.logs import logs_to_stderr
from etl.errors import EtlError

if TYPE_CHECKING:
    from types import FrameType

# name -> (module, help). `--help` reads this instead of importing Postgres and HTTP libraries.
COMMANDS = {
    "init": ("etl.cli.init", "Write a commented persona-etl.toml."),
    "migrate": ("etl.cli.migrate", "Bring the database's schema up to date."),
    "sync": ("etl.cli.sync", "Copy the personas and record what changed."),
    "sandbox": ("etl.cli.sandbox", "Serve a stand-in for the API on loopback."),
    "demo": ("etl.cli.demo", "Show all of it in one go; needs no key."),
}


class EtlGroup(click.Group):
    """A group that imports a command on use and turns any EtlError into its exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """List the names in the order of the table, which is that of first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; its module exposes it as `command`."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _ = COMMANDS[cmd_name]
        command: click.Command = importlib.import_module(module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands for `--help` without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        """Run the command. An int that it returns is the exit code."""
        try:
            code = super().invoke(ctx)
            # A closed pipe is handled here; on its way out the interpreter would report it.
            sys.stdout.flush()
        except EtlError as exc:
            click.echo(f"persona-etl: error: {exc}", err=True)
            ctx.exit(exc.exit_code)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort):
            click.echo("persona-etl: interrupted", err=True)
            ctx.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            # `| head` has seen enough: end as the signal would have ended us.
            _drop_stdout()
            ctx.exit(128 + signal.SIGPIPE)
        except Exception:  # noqa: BLE001
            # Printed here, as click takes an EOFError for a person's Ctrl-D.
            traceback.print_exc()
            ctx.exit(1)
        ctx.exit(code or 0)


@click.group(cls=EtlGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings; otherwise ./persona-etl.toml or the one in the user's config folder.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every persona and request.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing when all is well.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text")
@click.version_option(package_name="persona-etl", message="%(prog)s %(version)s")
@click.pass_context
def cli(
    ctx: click.Context, *, config: Path | None, verbose: bool, quiet: bool, log_format: str
) -> None:
    """Copy Anam personas into Postgres tables, with their history."""
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet exclude each other.")
    ctx.obj = Invocation(
        config=config, verbose=verbose, quiet=quiet, json_logs=log_format == "json"
    )
    ctx.with_resource(logs_to_stderr(ctx.obj))


def main() -> None:
    """Run persona-etl and exit with its code."""
    signal.signal(signal.SIGTERM, _terminate)
    cli(prog_name="persona-etl")


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    """Unwind on SIGTERM as on Ctrl-C, so that what a command started is stopped."""
    sys.exit(128 + signum)


def _drop_stdout() -> None:
    """Let the interpreter's last flush go nowhere: it would report the broken pipe once more."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
