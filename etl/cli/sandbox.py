"""`persona-etl sandbox`: a stand-in for the API, to try everything on without a key."""

from __future__ import annotations

import shlex
import signal
import threading
from pathlib import Path

import click

from etl.cli.invocation import Invocation, pass_invocation
from etl.errors import UsageError

_DEFAULT_KEY = "sandbox-key"


@click.command("sandbox")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8787,
    show_default=True,
    help="0 takes any free one.",
)
@click.option(
    "--personas",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="How many to make up.",
)
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same personas.")
@click.option("--key", default=_DEFAULT_KEY, show_default=True, help="The API key that it lets in.")
@click.option("--static", is_flag=True, help="Nothing moves between two fetches.")
@click.option(
    "--write-ids",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the personas' ids to this file, one a line.",
)
@pass_invocation
def command(
    invocation: Invocation,
    *,
    host: str,
    port: int,
    personas: int,
    seed: int,
    key: str,
    static: bool,
    write_ids: Path | None,
) -> None:
    """Serve made-up personas on loopback, as the Anam API would, until Ctrl-C.

    What it holds can be changed while it runs, and faults ordered, below /_sandbox/.
    """
    try:
        from etl.sandbox import running_sandbox  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        if exc.name != "h11":
            raise
        raise UsageError('the sandbox needs h11: pip install "persona-etl[sandbox]"') from exc
    stop = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with running_sandbox(
            count=personas, seed=seed, key=key, moving=not static, host=host, port=port
        ) as sandbox:
            if write_ids:
                _write_ids(write_ids, sandbox.persona_ids)
            if not invocation.quiet:
                click.echo(_welcome(sandbox.url, sandbox.persona_ids, key, write_ids))
            stop.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _write_ids(path: Path, persona_ids: list[str]) -> None:
    try:
        path.write_text("".join(f"{id_}\n" for id_ in persona_ids), encoding="ascii")
    except OSError as exc:
        raise UsageError(f"--write-ids {path}: {exc.strerror}") from exc


def _welcome(url: str, persona_ids: list[str], key: str, ids_file: Path | None) -> str:
    # A key that somebody chose may be a real one: it is not repeated on the screen.
    shown = key if key == _DEFAULT_KEY else "<the key you gave>"
    whom = f"--ids-from {shlex.quote(str(ids_file))}" if ids_file else next(iter(persona_ids), "ID")
    lines = [
        f"{url} serves {len(persona_ids)} made-up personas to the key {shown}.",
        "",
        "In another terminal:",
        f"  export ANAM_API_URL={url} ANAM_API_KEY={shlex.quote(shown)}",
        "  export PERSONA_ETL_DATABASE__URL=embedded",
        "  persona-etl migrate",
        f"  persona-etl sync {whom}",
    ]
    if persona_ids:
        lines += [
            "Change something and sync again:",
            f'  curl -X PATCH {url}/_sandbox/personas/{persona_ids[0]} -d \'{{"name": "Ada"}}\'',
        ]
    return "\n".join([*lines, "", "Ctrl-C stops it."])
