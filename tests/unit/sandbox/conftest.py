"""A running sandbox, and the three ways to talk to it: HTTP, raw bytes, and its own objects."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx
import pytest

from etl.sandbox import running_sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.sandbox import Sandbox


def _client_of(sandbox: Sandbox) -> httpx.Client:
    return httpx.Client(
        base_url=sandbox.url,
        headers={"Authorization": f"Bearer {sandbox.key}"},
        timeout=5,
        trust_env=False,
        verify=False,  # no TLS here, and loading the certificates takes longer than a test
    )


@pytest.fixture
def sandbox():
    with running_sandbox(count=25, moving=False) as running:
        yield running


@pytest.fixture
def client_of() -> Callable[[Sandbox], httpx.Client]:
    """What makes a client with the right key."""
    return _client_of


@pytest.fixture
def client(sandbox):
    with _client_of(sandbox) as client:
        yield client


@pytest.fixture
def first(sandbox) -> str:
    """The path of the first persona."""
    return f"/v1/personas/{sandbox.persona_ids[0]}"


@pytest.fixture
def connect(sandbox) -> Callable[[], socket.socket]:
    """What opens a connection to the sandbox."""
    host, port = sandbox.url.removeprefix("http://").split(":")
    return lambda: socket.create_connection((host, int(port)), timeout=5)


@pytest.fixture
def exchange(connect) -> Callable[[bytes], bytes]:
    """What sends bytes and returns everything that is said until the server hangs up."""

    def say(request: bytes) -> bytes:
        with connect() as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    return say
