"""How much memory `sync` takes at its peak when every body is hostile, and a replay after it.

Run by hand: `python -m bench.memory`. Each line is one `persona-etl sync` as a process of its own
against a sandbox of which every persona answers with such a body, at the greatest concurrency.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.load import database
from etl.sandbox import Fault, running_sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from etl.sandbox import Sandbox

MIB = 2**20
# What the kernel says of the process as it ends; a parent's own peak is no part of it.
_PEAK = """
import atexit, re, runpy, sys
atexit.register(lambda: sys.stderr.write(open("/proc/self/status").read()))
runpy.run_module("etl", run_name="__main__")
"""


def main() -> None:
    """Prints a line a kind of body."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--personas", type=int, default=64)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}")
    options = parser.parse_args()
    print(f"{'':28}{'MiB':>6}{'s':>8}")
    for name in options.kinds or KINDS:
        with (
            tempfile.TemporaryDirectory(prefix="persona-etl-bench-") as folder,
            database(Path(folder) / "database", None) as (url, schema),
            running_sandbox(count=options.personas, moving=False) as sandbox,
        ):
            _order(sandbox, KINDS[name])
            environment = {
                "ANAM_API_KEY": sandbox.key,
                "ANAM_API_URL": sandbox.url,
                "PERSONA_ETL_API__CONCURRENCY": "64",
                "PERSONA_ETL_DATABASE__URL": url,
                "PERSONA_ETL_DATABASE__SCHEMA": schema,
            }
            for command in (["sync", *sandbox.persona_ids], ["backfill", "replay", "--check"]):
                started = time.monotonic()
                peak, told = run(command, environment)
                took = time.monotonic() - started
                print(f"{name + ', ' + command[0]:28}{peak:6.0f}{took:8.1f}  {told}", flush=True)


def run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, str]:
    """The peak of a command in MiB, and the last line that it said."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"VmHWM:\s+(\d+) kB", done.stderr)
    assert found, done.stderr
    return int(found[1]) / 1024, (done.stdout.strip().splitlines() or [""])[-1]


def _order(sandbox: Sandbox, make: Callable[[], bytes | Fault]) -> None:
    made = make()
    if isinstance(made, bytes):
        packed = gzip.compress(made, compresslevel=1)
    for persona_id in sandbox.persona_ids:
        fault = made
        if not isinstance(fault, Fault):
            # Two members make one body: what all share is packed once.
            head = gzip.compress(b'{"id":"%s",' % persona_id.encode())
            fault = Fault(body=head + packed, headers={"Content-Encoding": "gzip"})
        sandbox.order(replace(fault, target=persona_id, times=None))


def _prompt(size: int, first: str = "") -> bytes:
    text = first + "Speak slowly, and be kind. " * (size // 27)
    return b'"brain":{"systemPrompt":"%s"}}' % text.encode()


def _values(count: int, text: str) -> bytes:
    return b'"widgetConfig":{"x":[%s]}}' % ",".join([text] * count).encode()


KINDS: dict[str, Callable[[], bytes | Fault]] = {
    "nothing odd": Fault,
    "gzip bombs": lambda: Fault(wrong="gzip_bomb"),
    "endless": lambda: Fault(wrong="gzip_bomb", size_bytes=MIB, endless=True),
    "10 MiB prompts": lambda: _prompt(10 * MIB),
    "60 MiB prompts": lambda: _prompt(60 * MIB),
    "60 MiB of 4-byte characters": lambda: _prompt(60 * MIB, first="\U0001f600"),
    "60 MiB of [],[]": lambda: _values(20 * MIB, "[]"),
    "990 000 objects": lambda: _values(495_000, '{"a":0}'),
    "990 000 unknown keys": lambda: ",".join(f'"k{n}":0' for n in range(990_000)).encode() + b"}",
}

if __name__ == "__main__":
    main()
