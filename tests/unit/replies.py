"""Replies of an API that tests put in the place of httpx's transport."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx


class Body(httpx.AsyncByteStream):
    """A body that is read once, as one from a socket is."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk


def reply(status: int, content: Any = b"{}", **headers: str) -> httpx.Response:
    """An answer with these bytes, or with anything else as JSON; `_` in a header stands for `-`."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, stream=Body(body))
