"""docs/operations.md has every message of the program with what to do, and none that is no more.

A new error fails the first test, which says where it is raised. Put it, as it is printed and with
`…` for what differs, into an indented block below the heading where a person meets it. What to do
about it stands in the paragraph behind the block, which begins with the exit code in bold.
"""

from __future__ import annotations

import importlib
import re
import socket
import ssl
from functools import cache

import click
import httpx
import pytest

from etl.errors import EtlError
from etl.source.trouble import explain
from tests.message_page import Entry, entries, holds, left_over, looked_up
from tests.message_templates import Template, templates, words

# A text of fewer words is a piece of a message that has more.
LEAST_WORDS = 2
NO_MESSAGES = {
    "persona-etl: error: …": "stands in front of each error",
    "… persona-etl: error: …": "the same, below a traceback",
    "an arrival has an answer or an error": "a bug if it is ever raised",
    "… is no list of a document": "a bug if it is ever raised",
    "there is no file to write": "a bug if it is ever raised",
}
# What runs, personas, lines and values end with that do not end the command.
NO_CODES = {"log", "item", "value"}


@cache
def told() -> list[Template]:
    """Those that have to be there."""
    return [t for t in sorted(templates()) if words(t.text) >= LEAST_WORDS]


@cache
def page() -> list[tuple[Entry, str]]:
    return [(entry, message) for entry in entries() for message in entry.messages]


def test_each_message_of_the_source_stands_in_the_manual():
    lacking = {
        f"{each.where}: {each.text}"
        for each in told()
        if each.text not in NO_MESSAGES
        and not any(holds(message, each.text) for _, message in page())
    }
    assert not lacking, "\n".join(
        ["to docs/operations.md, below the heading that fits, add with what to do", *lacking]
    )


def test_each_message_of_the_manual_is_one_of_the_source():
    texts = [each.text for each in templates()]
    stale = [
        f"{message}: {' '.join(left)}"
        for _, message in page()
        if (left := re.findall(r"\w{2,}", left_over(message, texts)))
    ]
    assert not stale, "\n".join(["nothing in the source says", *stale])


def test_what_is_left_out_of_the_manual_is_still_there():
    assert NO_MESSAGES.keys() <= {each.text for each in told()}


def test_no_message_stands_there_twice():
    messages = [message for _, message in page()]
    assert sorted(messages) == sorted(set(messages))


def test_each_message_says_what_it_ends_with_and_what_to_do():
    known = {str(class_.exit_code) for class_ in errors().values()} | {"1", "130", "137", "143"}
    for entry in entries():
        assert entry.ends_with, entry.messages
        assert set(entry.ends_with.split(", ")) <= known | NO_CODES, entry


def test_the_exit_code_of_a_message_is_that_of_its_error():
    classes = errors()
    for each in told():
        entries_of = [entry for entry, message in page() if holds(message, each.text)]
        if each.error not in classes or not entries_of:
            continue
        ends_with = {end for entry in entries_of for end in entry.ends_with.split(", ")}
        may_be = {str(classes[each.error].exit_code)}
        # One persona's, which is 3 at the end of the run; a list's can end a run by itself.
        may_be |= {"item", "5"} if may_be == {"3"} else set()
        assert may_be & ends_with, each


def errors() -> dict[str, type[EtlError | click.ClickException]]:
    """Those that end a command, by name."""
    for module in ("etl.source.answer", "etl.proposal.naming"):
        importlib.import_module(module)
    found: dict[str, type[EtlError | click.ClickException]] = {}
    classes = [EtlError]
    while classes:
        class_ = classes.pop()
        found[class_.__name__] = class_
        classes += class_.__subclasses__()
    return found | {"BadParameter": click.BadParameter}


@pytest.mark.parametrize("attempts", [1, 4])
@pytest.mark.parametrize(
    "met",
    [
        ssl.SSLCertVerificationError(),
        ssl.SSLError(),
        socket.gaierror(),
        ConnectionRefusedError(),
        httpx.ConnectTimeout(""),
        httpx.ProxyError(""),
        httpx.ConnectError(""),
        TimeoutError(),
        httpx.RemoteProtocolError(""),
        httpx.InvalidURL(""),
        ConnectionResetError(),
    ],
    ids=lambda met: type(met).__name__,
)
def test_what_the_network_does_is_found_however_often_it_was_tried(met, attempts):
    failed = explain(met, "api.anam.ai:443", 30.0)
    failed.path, failed.attempts = "/v1/personas", attempts if failed.transient else 1
    assert looked_up(str(failed))
