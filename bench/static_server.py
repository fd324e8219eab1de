"""A server on loopback that answers at once, as a process of its own.

What a client gets from it is what the client's own work costs. It knows HTTP just well enough for
GETs over kept connections, and answers for each persona with a body that was made beforehand.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from uuid import UUID

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def write_bodies(file: Path, bodies: Iterable[tuple[UUID, bytes]]) -> None:
    """Writes what is to be served: a line a persona, its id and its JSON, which has no breaks."""
    with file.open("wb") as out:
        out.writelines(b"%s %s\n" % (str(persona_id).encode(), body) for persona_id, body in bodies)


@contextmanager
def serving(file: Path) -> Iterator[str]:
    """The base URL of a server of these bodies, running until the `with` ends."""
    server = subprocess.Popen([sys.executable, __file__, str(file)], stdout=subprocess.PIPE)
    with server:
        try:
            assert server.stdout
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


class _Answers(asyncio.Protocol):
    def __init__(self, answers: Mapping[bytes, bytes]) -> None:
        self._answers = answers
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._unread = (self._unread + data).split(b"\r\n\r\n")
        for request in requests:
            path = request.split(b" ", 2)[1]
            self._transport.write(self._answers.get(path.rpartition(b"/")[2], _NOT_FOUND))


async def _serve(file: Path) -> None:
    lines = (line.rstrip(b"\n").split(b" ", 1) for line in file.open("rb"))
    answers = {persona_id: _HEAD % len(body) + body for persona_id, body in lines}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answers(answers), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
