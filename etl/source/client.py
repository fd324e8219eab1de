"""One persona by its id, or one page of the list: requests, attempts, what each status means.

What a body says is not known here, but for the words that the API has for an error.

httpx's transports are used without its AsyncClient, which keeps cookies, prepares redirects and
logs a line per request at INFO. `bench/fetch.py` measures both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import httpx

from etl.source.answer import (
    Answer,
    NoAnswerError,
    RefusedKeyError,
    SourceError,
    ToldToWaitError,
)
from etl.source.body import drain, read_body
from etl.source.complaint import read_complaint
from etl.source.connect import (
    host_and_port,
    parse_base_url,
    proxy_for,
    request_headers,
    transports,
)
from etl.source.echo import Echo
from etl.source.retry import backoff_seconds, retry_after_seconds
from etl.source.room import BodyRoom
from etl.source.trouble import TROUBLE, explain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from uuid import UUID

    from etl.source.room import Place

logger = logging.getLogger(__name__)


def page_path(page: int, per_page: int) -> str:
    """Return what is asked for to get a page of the list; both numbers count from 1."""
    return f"/v1/personas?page={page}&perPage={per_page}"


class PersonaClient:
    """Fetches personas over `concurrency` connections, to be entered with `async with`.

    One client serves all workers; a fetch beyond `concurrency` waits for a connection.
    `timeout_seconds` bounds each attempt, `max_wait_seconds` a wait that the API asks for,
    `max_body_bytes` a body after decompression. `http_requests` counts the attempts that were
    started. Raises UsageError for a URL, key or proxy that can't be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        concurrency: int,
        timeout_seconds: float,
        max_wait_seconds: float,
        max_body_bytes: int = 64 * 1024 * 1024,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self.http_requests = 0
        self._base_url = parse_base_url(base_url)
        self._headers = request_headers(api_key)
        self._echo = Echo(api_key)
        self._concurrency = concurrency
        self._timeout_seconds = timeout_seconds
        self._extensions = {"timeout": httpx.Timeout(timeout_seconds).as_dict()}
        self._max_wait_seconds = max_wait_seconds
        self._max_body_bytes = max_body_bytes
        self._room = BodyRoom()
        self._new_transport = transport
        self._sleep = sleep
        self._fraction = fraction
        self._proxy = proxy_for(self._base_url)
        self._peer = host_and_port(self._base_url)
        if self._proxy:
            self._peer = f"the proxy {host_and_port(self._proxy)}"

    async def __aenter__(self) -> Self:
        new_transport = self._new_transport or transports(self._base_url, self._proxy)
        # Last in, first out: with little to do, few connections stay warm instead of many cold.
        self._idle: asyncio.LifoQueue[httpx.AsyncBaseTransport] = asyncio.LifoQueue()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(self._concurrency):
                self._idle.put_nowait(await stack.enter_async_context(new_transport()))
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def fetch(self, persona_id: UUID, room: BodyRoom | None = None) -> Answer:
        """Return the API's answer: 200 with its body, 403 or 404. Raises SourceError.

        In a `room` of the caller's the body stays until the caller says that it leaves.
        """
        return await self._get(f"/v1/personas/{persona_id}", persona_id, room)

    async def list_page(self, page: int, per_page: int) -> Answer:
        """Return a page of the list of personas, in the same way as `fetch`."""
        return await self._get(page_path(page, per_page), None)

    async def _get(
        self, path: str, persona_id: UUID | None, room: BodyRoom | None = None
    ) -> Answer:
        """Send requests until one is answered or there is no use in another."""
        transport = await self._idle.get()
        started = time.monotonic()
        attempts = 0
        try:
            while True:
                attempts += 1
                try:
                    place = (room or self._room).place()
                    status, body, content_type = await self._attempt(transport, path, place)
                    break
                except NoAnswerError as error:
                    wait = self._wait_after(error, attempts)
                logger.debug("GET %s: attempt %d failed, next in %.1f s", path, attempts, wait)
                await self._sleep(wait)
        except SourceError as error:
            error.path = path
            error.attempts = attempts
            error.duration_ms = _milliseconds_since(started)
            logger.debug("%s", error)
            raise
        finally:
            self._idle.put_nowait(transport)
        if room is None:
            self._room.leave(body)
        logger.debug("GET %s: %d, attempts: %d", path, status, attempts)
        return Answer(
            persona_id=persona_id,
            status=status,
            body=body and self._echo.out_of(body),
            content_type=content_type,
            completed_at=time.monotonic(),
            attempts=attempts,
            duration_ms=_milliseconds_since(started),
        )

    async def _attempt(
        self, transport: httpx.AsyncBaseTransport, path: str, place: Place
    ) -> tuple[int, bytes | None, str | None]:
        """Send one request; return status, body and content type, or raise SourceError."""
        self.http_requests += 1
        try:
            request = httpx.Request(
                "GET",
                f"{self._base_url}{path}",
                headers=self._headers,
                extensions=self._extensions,
            )
            # httpx bounds each single read; only this bounds the sum of a slow trickle of them.
            async with (
                place,
                asyncio.timeout(self._timeout_seconds) as place.deadline,
                contextlib.aclosing(await transport.handle_async_request(request)) as response,
            ):
                self._echo.out_of_headers(response)
                body = await self._take(response, place)
        except TROUBLE as exc:
            raise explain(exc, self._peer, self._timeout_seconds) from exc
        return response.status_code, body, response.headers.get("content-type")

    async def _take(self, response: httpx.Response, place: Place) -> bytes | None:
        """Return the body of a 200, None for a 403 or 404; raise SourceError for all else."""
        status = response.status_code
        if status == httpx.codes.OK:
            return await read_body(response, self._max_body_bytes, place)
        if status in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
            await drain(response)
            return None
        if status == httpx.codes.UNAUTHORIZED:
            raise RefusedKeyError(
                "401, the API refuses the key",
                next_step="check ANAM_API_KEY or api.api_key_file",
                http_status=status,
            )
        if response.has_redirect_location:
            # Following it would hand the key to whomever the answer names.
            raise NoAnswerError(
                f"{status}, a redirect to {_redirect_host(response)}, which is not followed",
                next_step="check api.base_url",
                http_status=status,
                transient=False,
            )
        told = await read_complaint(
            response,
            authorization=self._headers["authorization"],
            # Well before the attempt's own deadline, which would make it another error.
            seconds=min(2.0, self._timeout_seconds / 4),
        )
        raise NoAnswerError(
            f'{status} ("{told}")' if told else str(status),
            http_status=status,
            transient=status in (408, 425, 429) or httpx.codes.is_server_error(status),
            retry_after=retry_after_seconds(response.headers),
        )

    def _wait_after(self, error: NoAnswerError, attempts: int) -> float:
        """Return the seconds to wait before the next attempt, or raise if there is none."""
        max_attempts = 4
        if not error.transient:
            raise error
        asked = error.retry_after or 0.0
        if asked > self._max_wait_seconds:
            raise ToldToWaitError(
                error.what,
                next_step=f"Retry-After asks for {asked:g} s, more than api.max_wait_seconds"
                f" ({self._max_wait_seconds:g})",
                http_status=error.http_status,
                wait_seconds=asked,
            ) from error
        if attempts == max_attempts:
            raise error
        # Added, not the greater of both: all workers are told the same second to come back.
        return asked + backoff_seconds(attempts, self._fraction())


def _redirect_host(response: httpx.Response) -> str:
    """Return the Location's host and no more: its path and query can hold secrets."""
    try:
        return urlsplit(response.headers["location"]).hostname or "the same host"
    except ValueError:
        return "an unreadable Location"


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
