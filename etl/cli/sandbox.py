"""`persona-etl sandbox`: a stand-in for the API, to try everything on without a key."""

from __future__ import annotations

import shlex
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etl.cli.invocation import Invocation, pass_invocation
from etl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from etl.sandbox import World

    T = TypeVar("T")

_DEFAULT_KEY = "sandbox-key"
_MADE_UP = 50

EXAMPLES = """\b
A fault is [TARGET:]PART[:PART]...
  TARGET  all (the default), list, personas, or a persona's id
  PART    a status, NAME=VALUE, or a word: always, truncate, gzip, chunked,
          endless, close, reset, stall, shuffle, html, text, empty, half,
          not_json, array, nan, deep, huge, gzip_bomb, repeated_key,
          invalid_utf8, nul, lone_surrogate, other_persona
  NAME    whom it meets: times after every probability seed
          in answer:     status body headers.<Name> raw wrong size_bytes
                         retry_after retry_after_date gzip chunked endless
          how it comes:  delay_seconds jitter_seconds trickle_seconds
                         trickle_bytes truncate_at drop
          of the list:   per_page shift shuffle meta.<name>

\b
Examples:
  persona-etl sandbox --personas 500 --write-ids ids.txt
  persona-etl sandbox --fault 429:retry_after=2:times=3 --fault list:500
  persona-etl sandbox --fault personas:reset:probability=0.05
  persona-etl sandbox --rate-limit 100/60:retry_after=date --latency 0.05
  persona-etl sandbox --payload mine.json --static
  persona-etl sandbox --shape later
"""


@click.command("sandbox", epilog=EXAMPLES)
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
    help="How many to make up.  [default: 50; with --payload none]",
)
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same personas.")
@click.option(
    "--payload",
    "payloads",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Serve your own: JSON, one persona, an array, or one a line. Repeatable.",
)
@click.option("--key", default=_DEFAULT_KEY, show_default=True, help="The API key that it lets in.")
@click.option("--static", is_flag=True, help="Nothing moves between two fetches.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT",
    help="What goes wrong, and for whom; see below. Repeatable.",
)
@click.option(
    "--latency",
    type=click.FloatRange(0, 86_400),
    default=0,
    metavar="SECONDS",
    help="How long every answer takes at least.",
)
@click.option(
    "--rate-limit",
    metavar="N/SECONDS",
    help="Refuse more; :headers=standard|org_hour|both|none, "
    ":retry_after=seconds|date|none|nonsense and :status=CODE may follow.",
)
@click.option(
    "--shape",
    metavar="SHAPE",
    help="The shape that the API has moved to: later, or JSON of rename, remove, retype, "
    "recode, add, choose and sign.",
)
@click.option(
    "--write-ids",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the personas' ids to this file, one a line.",
)
@pass_invocation
def command(
    invocation: Invocation,
    *,
    host: str,
    port: int,
    personas: int | None,
    seed: int,
    payloads: tuple[Path, ...],
    key: str,
    static: bool,
    faults: tuple[str, ...],
    latency: float,
    rate_limit: str | None,
    shape: str | None,
    write_ids: Path | None,
) -> None:
    """Serve made-up personas on loopback, as the Anam API would, until Ctrl-C.

    What it holds can be changed while it runs, and faults ordered:
    GET /_sandbox/ lists the calls.
    """
    # Here, as `sandbox --help` need not wait for them.
    from etl.sandbox import generate, running_sandbox  # noqa: PLC0415  spares --help
    from etl.sandbox.spelling import read_fault, read_rate_limit, read_shape  # noqa: PLC0415  spares --help

    stop = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        if personas is None:
            personas = 0 if payloads else _MADE_UP
        world = generate(personas, seed)
        for path in payloads:
            _add_payloads(world, path)
        if shape:
            world.reshape(_read("--shape", shape, read_shape))
        orders = [_read("--fault", text, lambda t: read_fault(t, world.knows)) for text in faults]
        limit = _read("--rate-limit", rate_limit, read_rate_limit) if rate_limit else None
        with running_sandbox(
            world=world,
            key=key,
            moving=not static,
            latency_seconds=latency,
            rate_limit=limit,
            faults=orders,
            host=host,
            port=port,
        ) as sandbox:
            if write_ids:
                _write_ids(write_ids, sandbox.persona_ids)
            if not invocation.quiet:
                click.echo(_welcome(sandbox.url, sandbox.persona_ids, key, write_ids))
            stop.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _read(option: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except ValueError as exc:
        raise UsageError(f"{option} {text}: {exc}") from exc


def _add_payloads(world: World, path: Path) -> None:
    from etl.sandbox.payloads import read_payloads  # noqa: PLC0415  spares --help

    try:
        for persona in read_payloads(path.read_text(encoding="utf-8-sig")):
            world.add(persona, blanks=False)
    except OSError as exc:
        raise UsageError(f"--payload {path}: {exc.strerror}; name a file that can be read") from exc
    except UnicodeDecodeError as exc:
        raise UsageError(f"--payload {path}: it is not UTF-8; convert it") from exc
    except RecursionError as exc:
        raise UsageError(f"--payload {path}: it is nested too deeply to be a persona") from exc
    except ValueError as exc:
        raise UsageError(f"--payload {path}: {exc}") from exc


def _write_ids(path: Path, persona_ids: Sequence[str]) -> None:
    try:
        path.write_text("".join(f"{id_}\n" for id_ in persona_ids), encoding="utf-8")
    except OSError as exc:
        raise UsageError(
            f"--write-ids {path}: {exc.strerror}; name a file that can be written"
        ) from exc


def _welcome(url: str, persona_ids: Sequence[str], key: str, ids_file: Path | None) -> str:
    # A key that somebody chose may be a real one: it is not repeated on the screen.
    shown = key if key == _DEFAULT_KEY else "<the key you gave>"
    whom = f"--ids-from {shlex.quote(str(ids_file))}" if ids_file else "--all"
    lines = [
        f"{url} serves {len(persona_ids)} personas to the key {shown}.",
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
            """  curl -X PATCH -d '{"name": "Ada"}' \\""",
            f"  {url}/_sandbox/personas/{persona_ids[0]}",
            "Let something go wrong:",
            f"  curl -d '\"429:retry_after=2:times=3\"' {url}/_sandbox/faults",
            "Let the API move, as it does without a word, and sync again:",
            f"  curl -d '\"later\"' {url}/_sandbox/reshape",
            "See what else can be ordered:",
            f"  curl {url}/_sandbox/",
        ]
    return "\n".join([*lines, "", "Ctrl-C stops it."])
