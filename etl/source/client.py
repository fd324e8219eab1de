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
from etl.source.pace import Pace
from etl.source.retry import Tries, backoff_seconds, is_transient, retry_after_seconds
from etl.source.room import BodyRoom
from etl.source.trouble import TROUBLE, explain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from uuid import UUID

    from etl.source.pace import Turn
    from etl.source.room import Place

logger = logging.getLogger(__name__)

# Besides those of the workers, for probes.
SPARE_CONNECTIONS = 3


def page_path(page: int, per_page: int) -> str:
    """Return what is asked for to get a page of the list; both numbers count from 1."""
    return f"/v1/personas?page={page}&perPage={per_page}"


class PersonaClient:
    """Fetches personas over `concurrency` connections, to be entered with `async with`.

    One client serves all workers; a fetch beyond `concurrency` waits for a connection.
    `timeout_seconds` bounds each attempt, `max_wait_seconds` and what is left of
    `run_deadline_seconds` a wait that the API asks for, `max_body_bytes` a body after
    decompression. `http_requests` counts the attempts that were started. `watch` is told how each
    attempt at a persona ended: with an error, or None for an answer. Raises UsageError for a URL,
    key or proxy that can't be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        concurrency: int,
        timeout_seconds: float,
        max_wait_seconds: float,
        requests_per_second: float | None = None,
        run_deadline_seconds: float | None = None,
        max_body_bytes: int = 64 * 1024 * 1024,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self.http_requests = 0
        self.watch: Callable[[UUID, NoAnswerError | None], None] = lambda _id, _error: None
        self.pace = Pace(
            concurrency=concurrency,
            max_wait_seconds=max_wait_seconds,
            requests_per_second=requests_per_second,
            run_deadline_seconds=run_deadline_seconds,
            fraction=fraction,
        )
        self._base_url = parse_base_url(base_url)
        self._headers = request_headers(api_key)
        self._echo = Echo(api_key)
        self._concurrency = concurrency
        self._timeout_seconds = timeout_seconds
        self._extensions = {"timeout": httpx.Timeout(timeout_seconds).as_dict()}
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
        self.pace.enter()
        new_transport = self._new_transport or transports(self._base_url, self._proxy)
        # Last in, first out: with little to do, few connections stay warm instead of many cold.
        self._idle: asyncio.LifoQueue[httpx.AsyncBaseTransport] = asyncio.LifoQueue()
        async with contextlib.AsyncExitStack() as stack:
            # Those who wait for a turn keep theirs: probes need some of their own.
            for _ in range(self._concurrency + SPARE_CONNECTIONS):
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

    async def probe(self, persona_id: UUID, room: BodyRoom | None = None) -> Answer:
        """Fetch with one attempt, also while the pace is paused."""
        return await self._get(f"/v1/personas/{persona_id}", persona_id, room, is_probe=True)

    async def list_page(self, page: int, per_page: int) -> Answer:
        """Return a page of the list of personas, in the same way as `fetch`."""
        return await self._get(page_path(page, per_page), None)

    async def _get(
        self,
        path: str,
        persona_id: UUID | None,
        room: BodyRoom | None = None,
        *,
        is_probe: bool = False,
    ) -> Answer:
        """Send requests until one is answered or there is no use in another."""
        transport = await self._idle.get()
        started = time.monotonic()
        tries = Tries()
        first: Turn | None = None
        try:
            while True:
                turn = await self.pace.turn(is_probe=is_probe)
                first = first or turn
                tries.attempts += 1
                try:
                    place = (room or self._room).place()
                    status, body, content_type = await self._attempt(transport, path, turn, place)
                    break
                except NoAnswerError as error:
                    _fill_in(error, path, tries, started)
                    error.attempt_seconds = asyncio.get_running_loop().time() - turn.started
                    self._tell(persona_id, error)
                    self.pace.require_patience()
                    another = tries.leave_another(
                        error,
                        time.monotonic() - started,
                        is_serving=self.pace.has_served_since(first),
                    )
                    if is_probe or not another:
                        raise
                    # Whoever is throttled waits with all others, for the pace.
                    wait = 0.0
                    if not error.is_throttled:
                        wait = backoff_seconds(tries.failed, self._fraction())
                logger.debug("GET %s: attempt %d failed", path, tries.attempts)
                if wait:
                    await self._sleep(wait)
        except SourceError as error:
            _fill_in(error, path, tries, started)
            if not isinstance(error, (NoAnswerError, ToldToWaitError)):
                # It is there: it refuses the key, or sends too big a body.
                self._tell(persona_id, None)
            logger.debug("%s", error)
            raise
        finally:
            self._idle.put_nowait(transport)
        if room is None:
            self._room.leave(body)
        self._tell(persona_id, None)
        logger.debug("GET %s: %d, attempts: %d", path, status, tries.attempts)
        return Answer(
            persona_id=persona_id,
            status=status,
            body=body,
            content_type=content_type,
            completed_at=time.monotonic(),
            attempts=tries.attempts,
            duration_ms=_milliseconds_since(started),
        )

    def _tell(self, persona_id: UUID | None, error: NoAnswerError | None) -> None:
        if persona_id is not None:
            self.watch(persona_id, error)

    async def _attempt(
        self, transport: httpx.AsyncBaseTransport, path: str, turn: Turn, place: Place
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
                self._hear(turn, response)
                body = await self._take(response, place)
        except TROUBLE as exc:
            raise explain(exc, self._peer, self._timeout_seconds) from exc
        finally:
            self.pace.end()
        return response.status_code, body, response.headers.get("content-type")

    def _hear(self, turn: Turn, response: httpx.Response) -> None:
        status = response.status_code
        asked = retry_after_seconds(response.headers) if is_transient(status) else None
        self.pace.hear(turn, status, response.headers.raw, asked)

    async def _take(self, response: httpx.Response, place: Place) -> bytes | None:
        """Return the body of a 200, None for a 403 or 404; raise SourceError for all else."""
        status = response.status_code
        if status == httpx.codes.OK:
            body = self._echo.out_of(await read_body(response, self._max_body_bytes, place))
            # Without our key it may have another length, and that is what leaves the room.
            place.settle(len(body))
            return body
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
            transient=is_transient(status),
            retry_after=retry_after_seconds(response.headers),
        )


def _redirect_host(response: httpx.Response) -> str:
    """Return the Location's host and no more: its path and query can hold secrets."""
    try:
        return urlsplit(response.headers["location"]).hostname or "the same host"
    except ValueError:
        return "an unreadable Location"


def _fill_in(error: SourceError, path: str, tries: Tries, started: float) -> None:
    """Fill in what the error does not know by itself."""
    error.path = path
    error.attempts = tries.attempts
    error.duration_ms = _milliseconds_since(started)


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
