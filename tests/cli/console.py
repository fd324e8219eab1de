"""Examples in a document: commands and what they print, queries and what they give.

A `console` block holds commands after `$ ` and what they print. They run in one shell, in an empty
folder. A `sql` block holds a query, and a `text` block behind it what it gives. Between blocks a
comment, `<!-- meanwhile: … -->`, names what happens at the API or in the database. Times, durations
and ids of runs may differ.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from etl.report.text import as_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from etl.sandbox import Sandbox

    Happens = Mapping[str, Callable[[Sandbox, str], None]]

MARK = "\x1e"
# Where the examples say that they run.
FOLDER = "/home/you/personas"
WIDEST = 40

PIECE = re.compile(
    r"^<!-- meanwhile: (?P<event>.*?) -->$"
    r"|^```console\n(?P<block>.*?)^```$"
    r"|^```sql\n(?P<query>.*?)^```$(?:\n\n^```text\n(?P<rows>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
_VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00(:00)?)"), "<time>"),
    (re.compile(r"\bin \d+(\.\d)? m?s\b"), "in <duration>"),
    (re.compile(r"seen \d+ \w+( to \d+ \w+)? ago(, median \d+ \w+)?"), "seen <age> ago"),
    (re.compile(r"\b\d+ (s|min) ago"), "<age> ago"),
    (re.compile(r"\btook \d+ s\b"), "took <duration>"),
    (re.compile(r"""(runs? |--resume |run_id=|"run_id": ?")[0-9a-f-]{36}"""), r"\1<run>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8787"),
    (re.compile(r"Postgres \d+(\.\d+)?, database \S+ as \S+"), "Postgres"),
    # A release adds revisions, and lists of its own.
    (re.compile(r"\b(revision|is at|base to) \d{4}\b"), r"\1 <head>"),
    (re.compile(r"\d+ rows in \d+ tables"), "<rows> in <tables>"),
    (re.compile(r"\b202\d-?[01]\d-?[0-3]\d\b"), "<date>"),
    # The list of runs.
    (re.compile(r"<date> \d\d:\d\d  [0-9a-f]{8}  "), "<date> <time>  <run>  "),
    # A report.
    (re.compile(r"<date> \d\d:\d\d\b"), "<date> <time>"),
    (re.compile(r"\b[01]\d-[0-3]\d \d\d:\d\d  "), "<date> <time>  "),
    (re.compile(r"\b(median|slowest|without one was) \d+(\.\d)? \w+"), r"\1 <duration>"),
    (re.compile(r"(succeeded|partial)( +)\d+ m?s\b"), r"\1\2<took>"),
)


class Example(NamedTuple):
    """A command or a query, what it should print, and what happens before it."""

    command: str
    output: str
    events: list[str]
    is_query: bool


def examples(document: str) -> list[Example]:
    found: list[Example] = []
    events: list[str] = []
    for piece in PIECE.finditer(document):
        if piece["event"]:
            events.append(piece["event"])
            continue
        if piece["query"]:
            found.append(Example(piece["query"], piece["rows"] or "", events, is_query=True))
            events = []
            continue
        for part in re.split(r"^\$ ", piece["block"], flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append(Example(command, output, events, is_query=False))
            events = []
    return found


def without_what_may_differ(text: str) -> str:
    for pattern, instead in _VOLATILE:
        text = pattern.sub(instead, text)
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


class Shell:
    """One shell that lives through all examples."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            ["bash", "--norc", "-s"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            text=True,
        )

    def run(self, command: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # The exit code of the example goes on to be $? in the next.
        self.process.stdin.write(f"{command}\n{{ s=$?; echo {MARK}; (exit $s); }}\n")
        self.process.stdin.flush()
        lines: list[str] = []
        while (line := self.process.stdout.readline()) and not line.endswith(f"{MARK}\n"):
            lines.append(line)
        return "".join([*lines, line.removesuffix(f"{MARK}\n")])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


def environment(folder: Path, sandbox: Sandbox, url: str) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "ANAM_API_URL": sandbox.url,
        "ANAM_API_KEY": sandbox.key,
        "PERSONA_ETL_DATABASE__URL": url,
    }


def answer(url: str, query: str) -> str:
    """What a query gives, as the documents show it."""
    with psycopg.connect(url) as connection:
        connection.execute("SET TimeZone TO 'UTC'")
        cursor = connection.execute(query)
        assert cursor.description is not None
        return as_table([c.name for c in cursor.description], cursor.fetchall(), widest=WIDEST)


def check_document(
    document: str, folder: Path, sandbox: Sandbox, url: str, happens: Happens
) -> None:
    """Runs all examples of a document, in order, and compares what they print."""
    shell = Shell(folder, environment(folder, sandbox, url))
    with shell.process:
        for example in examples(document):
            for event in example.events:
                happens[event](sandbox, url)
            if example.is_query:
                printed = answer(url, example.command)
                if not example.output:
                    continue
            else:
                printed = shell.run(example.command).replace(str(folder), FOLDER)
            assert without_what_may_differ(printed) == without_what_may_differ(example.output), (
                example.command
            )
        shell.close()


def fill_document(document: str, folder: Path, sandbox: Sandbox, url: str, happens: Happens) -> str:
    """The document with what its examples print now."""
    shell = Shell(folder, environment(folder, sandbox, url))

    def filled(piece: re.Match[str]) -> str:
        if piece["event"]:
            happens[piece["event"]](sandbox, url)
            return piece[0]
        if piece["query"]:
            if piece["rows"] is None:
                return piece[0]
            return f"```sql\n{piece['query']}```\n\n```text\n{answer(url, piece['query'])}\n```"
        blocks = []
        for part in re.split(r"^\$ ", piece["block"], flags=re.MULTILINE)[1:]:
            command = part.partition("\n")[0]
            printed = shell.run(command).replace(str(folder), FOLDER).rstrip("\n")
            printed = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8787", printed)
            blocks.append(f"$ {command}\n" + (f"{printed}\n" if printed else ""))
        return f"```console\n{''.join(blocks)}```"

    with shell.process:
        text = PIECE.sub(filled, document)
        shell.close()
    return text
