"""Pings: what a monitor is told of a run, at the URL of its check. Knows no run and prints nothing.

The conventions are those of https://healthchecks.io/docs/http_api/. The URL is a secret, as who has
it can say that all is well: of it only `monitor_at` gets into words.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

import httpx

from etl.errors import UsageError
from etl.source.connect import host_and_port, proxy_for, readable, transports
from etl.source.trouble import TROUBLE, explain

# A ping as a whole, with the look-up of the name, TLS and the answer.
SECONDS = 10.0
_BODY_BYTES = 10_000
# As much of the answer is looked at: `OK (not found)` is 14.
_ANSWER_BYTES = 1024

_CHECK = "check notify.ping_url"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a ping failed, in words without its URL."""

    told: str
    is_passing: bool
    """Whether it may be over by the next ping. Otherwise somebody has to change something."""


_LATE = Trouble("no whole answer in time", is_passing=True)


def monitor_at(url: str) -> str:
    """Scheme, host and port of a URL that `check_ping_url` has let through."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def way_to(url: str) -> str:
    """Where pings go and through which proxy. Raises UsageError where none can go."""
    proxy = proxy_for(address(url))
    return monitor_at(url) + (f" through {host_and_port(proxy)}" if proxy else "")


def address(url: str, sign: str = "", run_id: str | None = None) -> httpx.URL:
    """Where to say it: `start`, an exit code, or nothing for a success, behind the URL's path.

    The run's id, by which a monitor finds the two ends of a run, goes behind the URL's own query.
    """
    try:
        whole = readable(url)
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise UsageError(f"no URL that can be asked; {_CHECK}") from exc
    path, _, query = whole.raw_path.partition(b"?")
    path = path.rstrip(b"/") + (f"/{sign}".encode() if sign else b"")
    query = b"&".join(part for part in (query, f"rid={run_id}".encode() if run_id else b"") if part)
    return whole.copy_with(raw_path=(path or b"/") + (b"?" + query if query else b""))


def shortened(text: str) -> bytes:
    """As much of a text as is sent."""
    encoded = text.encode(errors="backslashreplace")
    return encoded[:_BODY_BYTES].decode(errors="ignore").encode()


class Ping:
    """A ping under way. The thread that it runs in keeps no process from ending."""

    def __init__(
        self,
        url: str,
        sign: str = "",
        *,
        run_id: str | None = None,
        text: str = "",
        seconds: float = SECONDS,
    ) -> None:
        self._trouble: Trouble | None = _LATE
        self._deadline = time.monotonic() + seconds
        self._is_over = threading.Event()
        run = threading.Thread(target=self._run, args=(url, sign, run_id, text), daemon=True)
        try:
            run.start()
        except RuntimeError:
            self._trouble = Trouble("the machine has no room for another thread", is_passing=True)
            self._is_over.set()

    def trouble(self, seconds: float = SECONDS) -> Trouble | None:
        """Waits for the end, up to so long; not beyond its deadline. Why it failed, if it did."""
        self._is_over.wait(min(seconds, max(0, self._deadline - time.monotonic())))
        return self._trouble

    def _run(self, url: str, sign: str, run_id: str | None, text: str) -> None:
        seconds = self._deadline - time.monotonic()
        try:
            with asyncio.Runner(loop_factory=_Loop) as runner:
                self._trouble = runner.run(
                    _ping(address(url, sign, run_id), shortened(text), seconds)
                )
        except UsageError as exc:
            self._trouble = Trouble(str(exc), is_passing=False)
        except Exception as exc:  # noqa: BLE001  a ping fails no job, and a thread's traceback would pass by all nets
            self._trouble = Trouble(
                f"no ping could be sent ({type(exc).__name__})", is_passing=True
            )
        self._is_over.set()


async def _ping(url: httpx.URL, body: bytes, seconds: float) -> Trouble | None:
    """Send it, a second time where no answer came."""
    proxy = proxy_for(url)
    peer = host_and_port(proxy or url)
    headers = {
        "Accept-Encoding": "identity",
        "Content-Type": "text/plain; charset=utf-8",
        "User-Agent": f"persona-etl/{metadata.version('persona-etl')} (+python httpx)",
    }
    try:
        # What is not over in time is broken off, lest a start arrive after the end.
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(
                transport=transports(url, proxy)(),
                headers=headers,
                timeout=None,  # noqa: S113  bounded as a whole
                trust_env=False,
            ) as client,
        ):
            try:
                return await _sent(client, url, body)
            except TROUBLE as exc:
                if not explain(exc, peer, seconds).transient:
                    raise
            await asyncio.sleep(seconds / 10)
            return await _sent(client, url, body)
    except TimeoutError:
        return _LATE
    except TROUBLE as exc:
        meant = explain(exc, peer, seconds)
        # Those are words about the API, whose address is another setting.
        next_step = meant.next_step.replace("api.base_url", "notify.ping_url")
        told = meant.what if meant.transient else f"{meant.what}; {next_step}"
        return Trouble(told, is_passing=meant.transient)


async def _sent(client: httpx.AsyncClient, url: httpx.URL, body: bytes) -> Trouble | None:
    """What the monitor makes of it."""
    async with client.stream("POST", url, content=body) as response:
        said = b""
        async for part in response.aiter_raw(_ANSWER_BYTES):
            said = part
            break
        return _judged(response, said)


def _judged(response: httpx.Response, said: bytes) -> Trouble | None:
    """Whether the ping has counted, by the answer's status and the beginning of its body."""
    status = response.status_code
    if response.is_success:
        # healthchecks.io says both with a 200.
        if b"(not found)" in said:
            return Trouble(f"the monitor has no such check; {_CHECK}", is_passing=False)
        if b"(rate limited)" in said:
            return Trouble("the monitor takes no more pings for now", is_passing=True)
        return None
    if response.has_redirect_location:
        # Following it would hand what a run says to whomever the answer names.
        return Trouble(f"{status}, a redirect, which is not followed; {_CHECK}", is_passing=False)
    passing = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
    if status in passing or response.is_server_error:
        return Trouble(f"the monitor answers {status}", is_passing=True)
    return Trouble(f"the monitor answers {status}; {_CHECK}", is_passing=False)


class _Loop(asyncio.SelectorEventLoop):
    """Looks names up in threads that the end of the process does not wait for, as for asyncio's."""

    async def getaddrinfo(self, *what: Any, **hints: Any) -> Any:  # noqa: ANN401  as socket has it
        found: Future[Any] = Future()
        # What comes after nobody waits for it any more is then dropped.
        found.set_running_or_notify_cancel()

        def look_up() -> None:
            try:
                found.set_result(socket.getaddrinfo(*what, **hints))
            except Exception as exc:  # noqa: BLE001  raised where it is awaited
                found.set_exception(exc)

        threading.Thread(target=look_up, daemon=True).start()
        return await asyncio.wrap_future(found, loop=self)
