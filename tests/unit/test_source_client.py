"""What each status, each header and each exception of the transport comes to."""

import asyncio
import itertools
import logging
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any
from uuid import UUID

import anyio
import h11
import httpx
import pytest

from etl.errors import (
    DeferredError,
    EtlError,
    FetchFailedError,
    KeyRefusedError,
    PayloadRejectedError,
    UsageError,
)
from etl.source.answer import (
    Answer,
    BodyTooBigError,
    NoAnswerError,
    SourceError,
    ToldToWaitError,
)
from etl.source.client import PersonaClient
from tests.unit.replies import Body, reply
from tests.unit.virtual_time import VirtualLoop, run_virtually

ID = UUID("11111111-2222-3333-4444-555555555555")
KEY = "sk-very-secret"


class Api(httpx.AsyncBaseTransport):
    """Plays its script, a reply or an exception a request; the last one goes on for ever."""

    def __init__(self, *script: httpx.Response | BaseException) -> None:
        self.script = list(script)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []
        self.times: list[float] = []
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.times.append(asyncio.get_running_loop().time())
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, BaseException):
            raise step
        return httpx.Response(step.status_code, headers=step.headers, stream=step.stream)

    async def aclose(self) -> None:
        self.closed = True

    @property
    def pauses(self) -> list[float]:
        """Between its requests, in virtual time."""
        return [round(b - a, 6) for a, b in itertools.pairwise(self.times)]

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        if isinstance(asyncio.get_running_loop(), VirtualLoop):
            await asyncio.sleep(seconds)

    def client(self, **settings: Any) -> PersonaClient:
        defaults: dict[str, Any] = {
            "base_url": "https://api.example",
            "api_key": KEY,
            "concurrency": 1,
            "timeout_seconds": 5,
            "max_wait_seconds": 60,
            "transport": lambda: self,
            "sleep": self.sleep,
            "fraction": lambda: 1.0,
        }
        return PersonaClient(**(defaults | settings))

    def fetch(self, *, is_virtual: bool = False, **settings: Any) -> Answer:
        async def fetch() -> Answer:
            async with self.client(**settings) as client:
                try:
                    return await client.fetch(ID)
                finally:
                    assert client.http_requests == len(self.requests)

        return run_virtually(fetch()) if is_virtual else asyncio.run(fetch())

    def failure(self, **settings: Any) -> SourceError:
        with pytest.raises(SourceError) as caught:
            self.fetch(**settings)
        assert "\n" not in str(caught.value)
        assert KEY not in str(caught.value)
        return caught.value


def test_a_200_is_an_answer_with_its_body():
    before = time.monotonic()
    answer = Api(reply(200, b'{"id": 1}', content_type="application/json")).fetch()
    assert (answer.persona_id, answer.status, answer.body) == (ID, 200, b'{"id": 1}')
    assert answer.content_type == "application/json"
    assert answer.attempts == 1
    assert before <= answer.completed_at <= time.monotonic()


@pytest.mark.parametrize("status", [403, 404])
def test_403_and_404_are_answers_and_never_asked_again(status):
    api = Api(reply(status, b'{"message": "no"}'))
    answer = api.fetch()
    assert (answer.status, answer.body, answer.attempts) == (status, None, 1)
    assert len(api.requests) == 1


def test_the_request_names_the_persona_the_key_and_us():
    api = Api(reply(200))
    api.fetch()
    (request,) = api.requests
    assert str(request.url) == f"https://api.example/v1/personas/{ID}"
    assert request.method == "GET"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("base_url", ["https://api.example/anam", "https://api.example/anam/"])
def test_a_base_url_may_have_a_path(base_url):
    api = Api(reply(200))
    api.fetch(base_url=base_url)
    assert str(api.requests[0].url) == f"https://api.example/anam/v1/personas/{ID}"


def test_every_wait_of_the_transport_is_bounded():
    api = Api(reply(200))
    api.fetch(timeout_seconds=7)
    bounds = {"connect": 7, "read": 7, "write": 7, "pool": 7}
    assert api.requests[0].extensions["timeout"] == bounds


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 599])
def test_a_passing_trouble_is_retried_until_it_passes(status):
    api = Api(reply(status), reply(status), reply(status), reply(200))
    assert api.fetch(is_virtual=True).attempts == 4
    assert api.pauses == [0.5, 1.0, 2.0]


def test_whoever_is_throttled_is_asked_again_as_long_as_all_are():
    api = Api(*[reply(429)] * 9, reply(200))
    assert api.fetch(is_virtual=True, max_wait_seconds=120).attempts == 10


def test_to_be_throttled_without_end_defers_the_run():
    error = Api(reply(429)).failure(is_virtual=True)
    assert isinstance(error, ToldToWaitError)
    assert "429 for every request" in str(error)


def test_four_attempts_are_all():
    error = Api(reply(503)).failure()
    assert isinstance(error, FetchFailedError)
    assert (error.http_status, error.attempts) == (503, 4)
    assert str(error) == f"GET /v1/personas/{ID}: 503 after 4 attempts"


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 402, 405, 410, 418, 422, 600, 999])
def test_any_other_status_is_a_failure_at_once(status):
    api = Api(reply(status))
    error = api.failure()
    assert isinstance(error, FetchFailedError)
    assert (error.http_status, error.attempts, api.waits) == (status, 1, [])
    assert str(error) == f"GET /v1/personas/{ID}: {status}"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error": "Bad Request", "message": "page is no number"}', ' ("page is no number")'),
        (b'{"error": "Bad Request", "message": ""}', ' ("Bad Request")'),
        (b'{"message": ["a is wrong", "b is wrong"]}', ' ("a is wrong; b is wrong")'),
        (b'{"error": {"code": 7, "message": "no such plan"}}', ' ("no such plan")'),
        (b'{"message": "two\\nlines \\u001b[31m\\u202e"}', ' ("two lines [31m")'),
        (b'{"message": "%s"}' % (b"x" * 201), f' ("{"x" * 200}…")'),
        (b'{"message": "no to Bearer sk-very-secret."}', ' ("no to Bearer [redacted]")'),
        (b'{"message": "your SK-VERY-SECRE... is"}', ' ("your [redacted] is")'),
        (b'{"message": "bad key abc123DEF/45+=, id 7"}', ' ("bad key [redacted], id 7")'),
        (b'{"message": "no id=%s."}' % str(ID).encode(), f' ("no id={ID}.")'),
        (b'{"message": "see https://u:hunter2@h/?token=abcdef12345"}', ' ("see https://h/")'),
        (b'{"message": {"a": 1}, "error": 5, "detail": "hush"}', ""),
        (b'["hush", ', ""),
        (b"<html>hush</html>", ""),
        (b"", ""),
        (b'{"message": "%s"}' % (b"x" * 20_000), ""),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_an_error_tells_the_words_of_the_api_and_no_secret_in_them(status, body, told):
    error = Api(reply(status, body)).failure()
    assert (error.http_status, error.attempts) == (status, 1)
    assert str(error) == f"GET /v1/personas/{ID}: {status}{told}"


def test_a_key_is_not_told_in_the_encoding_of_urls_either():
    key = "+/=+/=+/=+/=rest"
    body = b'{"message": "no: %2B%2F%3D%2B%2F%3D%2B%2F%3D%2B%2F%3Drest"}'
    assert "rest" not in str(Api(reply(400, body)).failure(api_key=key))


@pytest.mark.parametrize("broken", [httpx.ReadError("x"), TimeoutError(), zlib.error("x")])
def test_an_error_whose_words_break_off_is_the_error_that_it_was(broken):
    class Broken(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'{"mess'
            raise broken

    error = Api(httpx.Response(400, stream=Broken())).failure()
    assert str(error) == f"GET /v1/personas/{ID}: 400"


def test_an_error_whose_words_take_too_long_is_told_without_them():
    class Slow(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'{"mess'
            await asyncio.sleep(60)

    api = Api(httpx.Response(400, stream=Slow()))
    assert str(api.failure(timeout_seconds=0.4)) == f"GET /v1/personas/{ID}: 400"
    assert len(api.requests) == 1


def test_a_failure_on_a_later_attempt_tells_how_many_there_were():
    assert str(Api(reply(503), reply(418)).failure()).endswith(": 418 after 2 attempts")


def test_401_refuses_the_key_at_once():
    error = Api(reply(401)).failure()
    assert isinstance(error, KeyRefusedError)
    assert (error.exit_code, error.http_status, error.attempts) == (4, 401, 1)
    assert "ANAM_API_KEY" in str(error)


def test_the_duration_spans_attempts_and_waits():
    async def nap(_seconds: float) -> None:
        await asyncio.sleep(0.02)

    answer = Api(reply(503), reply(503), reply(200)).fetch(sleep=nap)
    assert 40 <= answer.duration_ms < 10_000
    error = Api(reply(503)).failure(sleep=nap)
    assert 60 <= error.duration_ms < 10_000


def test_the_jitter_comes_from_the_source_it_is_given():
    api = Api(reply(503), reply(200))
    api.fetch(fraction=lambda: 0.5)
    assert api.waits == [0.25]


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honoured(status):
    api = Api(reply(status, retry_after="7"), reply(200))
    api.fetch(is_virtual=True)
    assert api.pauses == [7.0]


def test_retry_after_as_a_date_is_honoured():
    now = time.time()
    date, later = formatdate(now, usegmt=True), formatdate(now + 9, usegmt=True)
    api = Api(reply(429, retry_after=later, date=date), reply(200))
    api.fetch(is_virtual=True)
    assert api.pauses == [9.0]


def test_an_unreadable_retry_after_leaves_a_wait_of_our_own_that_grows():
    api = Api(*[reply(429, retry_after="later")] * 3, reply(200))
    api.fetch(is_virtual=True)
    assert api.pauses == pytest.approx([0.075, 0.1125, 0.16875])


def test_the_longest_wait_allowed_is_waited():
    api = Api(reply(429, retry_after="60"), reply(200))
    api.fetch(is_virtual=True)
    assert api.pauses == [60.0]


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({}, "api.max_wait_seconds (60 s)"),
        ({"run_deadline_seconds": 30.0}, "what is left of safety.run_deadline_seconds (30 s)"),
    ],
)
def test_a_longer_wait_than_allowed_defers_the_run_without_waiting(settings, setting):
    api = Api(reply(429, retry_after="3600"))
    error = api.failure(is_virtual=True, **settings)
    assert isinstance(error, DeferredError)
    assert isinstance(error, ToldToWaitError)
    assert (error.exit_code, error.attempts, api.pauses) == (5, 1, [])
    assert round(error.wait_seconds) == 3600
    assert "told to wait 3600 s, until 20" in str(error)
    assert f" UTC (429, Retry-After); longer than {setting} allows" in str(error)


@pytest.mark.parametrize("asked", ["1732320000000", "9" * 20, "9" * 300])
def test_a_wait_beyond_all_dates_defers_too(asked):
    error = Api(reply(429, retry_after=asked)).failure(is_virtual=True)
    assert isinstance(error, ToldToWaitError)
    assert "told to wait" in str(error)


def test_a_longer_wait_asked_with_the_last_attempt_defers_too():
    error = Api(reply(503), reply(503), reply(503), reply(503, retry_after="3600")).failure()
    assert isinstance(error, DeferredError)
    assert error.attempts == 4


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://evil.example/steal?token=hush", "evil.example"),
        ("https://user:hush@evil.example/", "evil.example"),
        ("/hush", "the same host"),
        ("https://[hush", "an unreadable Location"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_tells_the_host_only(status, location, told):
    api = Api(reply(status, location=location))
    error = api.failure()
    assert isinstance(error, FetchFailedError)
    assert (error.http_status, len(api.requests)) == (status, 1)
    assert f"{status}, a redirect to {told}, which" in str(error)
    assert "hush" not in str(error)


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "gzip, identity", "zstd", "x" * 500])
def test_an_encoding_that_was_not_asked_for_is_a_failure_at_once(encoding):
    error = Api(reply(200, content_encoding=encoding)).failure()
    assert isinstance(error, FetchFailedError)
    assert (error.http_status, error.attempts) == (200, 1)
    assert repr(encoding[:40]) in str(error)
    assert len(str(error)) < 300


def test_a_declared_length_beyond_the_limit_is_rejected_unread():
    error = Api(reply(200, b"x", content_length="101", content_type="text/html")).failure(
        max_body_bytes=100
    )
    assert isinstance(error, PayloadRejectedError)
    assert isinstance(error, BodyTooBigError)
    assert (error.length, error.content_type, error.http_status) == (101, "text/html", 200)


def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_not():
    assert Api(reply(200, b"x" * 100)).fetch(max_body_bytes=100).body == b"x" * 100
    error = Api(reply(200, b"x" * 101)).failure(max_body_bytes=100)
    assert isinstance(error, BodyTooBigError)
    assert (error.length, error.attempts) == (101, 1)


def caused(error: Exception, cause: Exception) -> Exception:
    """As httpx raises it: httpcore's pool drops the cause but not the context."""
    error.__context__ = cause
    return error


REFUSED = ConnectionRefusedError(111, "refused")


@pytest.mark.parametrize(
    ("exc", "told", "attempts"),
    [
        (caused(httpx.ConnectError("x"), REFUSED), "refused by api.example:443 after 4", 4),
        (
            caused(httpx.ConnectError("x"), ExceptionGroup("two", [OSError(1), REFUSED])),
            "connection refused by api.example:443",
            4,
        ),
        (caused(httpx.ConnectError("x"), socket.gaierror(-2, "x")), "does not resolve", 4),
        (caused(httpx.ConnectError("x"), ssl.SSLError(1, "x")), "TLS with api.example:443", 4),
        (
            caused(httpx.ConnectError("x"), ssl.SSLCertVerificationError(1, "x")),
            "is not trusted; check api.base_url; SSL_CERT_FILE",
            1,
        ),
        (caused(httpx.ConnectError("x"), TimeoutError(110, "x")), "no connection to api.ex", 4),
        (httpx.ConnectTimeout("x"), "no connection to api.example:443 within 5 s", 4),
        (httpx.ReadTimeout("x"), "no whole answer from api.example:443 within 5 s", 4),
        (httpx.WriteTimeout("x"), "no whole answer", 4),
        (httpx.PoolTimeout("x"), "no whole answer", 4),
        (TimeoutError(), "no whole answer", 4),
        (httpx.ReadError("x"), "the connection to api.example:443 broke", 4),
        (httpx.RemoteProtocolError("x"), "broke off or does not speak HTTP", 4),
        (httpx.ProxyError("x"), "check HTTPS_PROXY", 4),
        (httpx.DecodingError("x"), "broke", 4),
        (httpx.LocalProtocolError("x"), "broke", 4),
        (httpx.StreamClosed(), "broke", 4),
        (h11.LocalProtocolError("x"), "broke", 4),
        (anyio.ClosedResourceError(), "broke", 4),
        (anyio.BrokenResourceError(), "broke", 4),
        (anyio.EndOfStream(), "broke", 4),
        (ConnectionResetError(), "broke", 4),
        (httpx.InvalidURL("x"), "no request can be sent", 1),
        (httpx.UnsupportedProtocol("x"), "no request can be sent", 1),
        (UnicodeError("x"), "no request can be sent", 1),
    ],
)
def test_no_foreign_exception_gets_out_and_each_is_told_in_words(exc, told, attempts):
    error = Api(exc).failure()
    assert type(error) is NoAnswerError
    assert (error.http_status, error.attempts) == (None, attempts)
    assert told in str(error)
    assert error.__cause__ is exc


def test_a_connection_that_breaks_once_is_retried():
    assert Api(httpx.ReadError("x"), reply(200)).fetch().attempts == 2


def test_a_bug_of_ours_is_not_taken_for_trouble_with_the_api():
    with pytest.raises(KeyError):
        Api(KeyError("x")).fetch()


def test_cancellation_passes_and_frees_the_connection():
    class Slow(Api):
        asked = asyncio.Event()

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if not self.asked.is_set():
                self.asked.set()
                await asyncio.sleep(60)
            return await super().handle_async_request(request)

    async def scenario() -> Answer:
        api = Slow(reply(200))
        async with api.client() as client:
            task = asyncio.create_task(client.fetch(ID))
            await api.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await client.fetch(ID)

    assert asyncio.run(scenario()).status == 200


def test_concurrency_bounds_the_requests_in_flight():
    class Crowd(Api):
        inside = most = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0.01)
            self.inside -= 1
            return await super().handle_async_request(request)

    async def scenario() -> int:
        api = Crowd(reply(200))
        async with api.client(concurrency=3) as client:
            await asyncio.gather(*(client.fetch(ID) for _ in range(10)))
            assert client.http_requests == 10
        return api.most

    assert asyncio.run(scenario()) == 3


def test_leaving_the_client_closes_its_connections():
    api = Api(reply(200))
    api.fetch()
    assert api.closed


def test_a_key_that_no_header_can_carry_is_told_before_anything_is_sent():
    api = Api(reply(200))
    with pytest.raises(UsageError):
        api.client(api_key="two words")


def test_neither_key_nor_body_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    Api(reply(503, b"hush"), reply(200, b"hush")).fetch()
    Api(reply(401, b"hush")).failure()
    assert f"GET /v1/personas/{ID}: 200, attempts: 2" in caplog.text
    assert "401, the API refuses the key" in caplog.text
    assert KEY not in caplog.text
    assert "hush" not in caplog.text
    assert {record.levelno for record in caplog.records if record.name != "asyncio"} == {
        logging.DEBUG
    }


def test_nothing_the_client_holds_shows_the_key():
    client = Api(reply(200)).client()
    assert KEY not in repr(vars(client))


def test_every_error_is_one_that_the_ledger_and_the_exit_code_know():
    for kind in SourceError.__subclasses__():
        assert issubclass(kind, EtlError)
        assert kind.exit_code in (3, 4, 5)
