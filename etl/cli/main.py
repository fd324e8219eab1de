"""The console entry: global options, commands imported on use, and the one error boundary."""

from __future__ import annotations

import difflib
import importlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from etl.cli.boundary import ended_by
from etl.cli.invocation import Invocation
from etl.cli.logs import logs_to_stderr
from etl.cli.streams import make_streams_safe
from etl.errors import Terminated

if TYPE_CHECKING:
    from types import FrameType

# name -> (module, help). `--help` reads this instead of importing Postgres and HTTP libraries.
COMMANDS = {
    "init": ("etl.cli.init", "Write a commented persona-etl.toml."),
    "check": ("etl.cli.check", "Say what is right and wrong, before a run does."),
    "migrate": ("etl.cli.migrate", "Bring the database's schema up to date."),
    "sync": ("etl.cli.sync", "Copy the personas and record what changed."),
    "status": ("etl.cli.status", "Say how fresh it all is, and what is in the way."),
    "runs": ("etl.cli.runs", "Show what each run did, and to whom."),
    "backfill": ("etl.cli.backfill", "Get history once more, or tables from it."),
    "diff": ("etl.cli.diff", "Show what changed of a persona."),
    "report": ("etl.cli.report", "Tell what changed lately and what needs attention."),
    "query": ("etl.cli.query", "Answer SQL of your own, which only reads."),
    "prompts": ("etl.cli.prompts", "Search prompts; group those nearly alike; count."),
    "export": ("etl.cli.export", "Write what was observed, as lines of JSON."),
    "verify": ("etl.cli.verify", "Compare the API with versions and tables."),
    "drift": ("etl.cli.drift", "Show where the API moved; propose columns."),
    "schema": ("etl.cli.schema", "Print the data dictionary, the ERD or dbt sources."),
    "forget": ("etl.cli.forget", "Take everything about a persona out of every table."),
    "prune": ("etl.cli.prune", "Let go of old history and of an old ledger."),
    "sandbox": ("etl.cli.sandbox", "Serve a stand-in for the API on loopback."),
    "demo": ("etl.cli.demo", "Show all of it in one go; needs no key."),
}


class EtlGroup(click.Group):
    """A group that imports a command on use and turns any EtlError into its exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """List the names in the order of the table, which is that of first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; its module exposes it as `command`."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _ = COMMANDS[cmd_name]
        command: click.Command = importlib.import_module(module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's signature
        """List the commands for `--help` without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where there is none of that name, name the nearest."""
        name = args[0]
        if not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            for near in difflib.get_close_matches(name, self.list_commands(ctx), n=1):
                ctx.fail(f"No such command {name!r}. Did you mean {near!r}?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names and options without importing a command."""
        names = [
            CompletionItem(name, help=summary)
            for name, (_, summary) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  click's signature
        """Run the command. An int that it returns is the exit code."""
        try:
            code = super().invoke(ctx)
            # Here, where a failure can still be told: the interpreter's own flush comes too late.
            sys.stdout.flush()
        except click.exceptions.Exit:
            raise
        except click.NoSuchOption as exc:
            told: click.UsageError = exc
            if any(exc.option_name in option.opts for option in ctx.command.params):
                instead = f"It goes before the command: persona-etl {exc.option_name} …"
                told = click.UsageError(f"{exc.message} {instead}", exc.ctx)
            ctx.exit(ended_by(ctx.obj or Invocation(), told))
        except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001  the boundary
            # A mistake in the command's name comes before the options have become an Invocation.
            as_json = ctx.params.get("log_format") == "json"
            ctx.exit(ended_by(ctx.obj or Invocation(json_logs=as_json), exc))
        ctx.exit(code or 0)

    def main(self, *args: Any, **options: Any) -> NoReturn:  # noqa: ANN401  click's signature
        """Exit with the command's code, whatever happens, also before there is a command."""
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except Exception as exc:  # noqa: BLE001  the boundary
            # The options could not be read: of them only this one matters now.
            given = " ".join(sys.argv[1:]).replace("=", " ")
            code = ended_by(Invocation(json_logs="--log-format json" in given), exc)
        sys.exit(code)


EPILOG = """\b
Settings: the FILE of --config, else of $PERSONA_ETL_CONFIG, else
./persona-etl.toml, else ~/.config/persona-etl/persona-etl.toml.
Variables beat it (PERSONA_ETL_DATABASE__URL, ANAM_API_KEY, ...),
options beat both.

\b
Exit codes: 0 all well, 1 a bug, 2 usage or settings, 3 some personas
failed, 4 key refused, 5 API unreachable, 6 Postgres unreachable or not
migrated, 7 safety stop, 8 the answer is no, 74 output not written, 75
another run is busy, 130 Ctrl-C, 141 output closed, 143 SIGTERM.

\b
Examples:
  persona-etl init
  persona-etl migrate
  persona-etl -q sync
"""


@click.group(cls=EtlGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings; otherwise ./persona-etl.toml or the one in the user's config folder.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every persona and request.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing when all is well.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How stderr is written: for people, or a JSON object a line.",
)
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
    make_streams_safe()
    try:
        cli(prog_name="persona-etl")
    finally:
        # All is done and told: a signal that comes as the interpreter ends changes no exit code.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  a handler's signature
    """Unwind on SIGTERM as on Ctrl-C, so that what a command started is stopped."""
    raise Terminated
