"""Many workers, one pace: throttling APIs in virtual time."""

import asyncio
import random
from typing import Any
from uuid import UUID

import httpx
import pytest
from msgspec import structs

from etl.errors import DeferredError
from etl.sandbox.traffic import RateLimit, Throttle
from etl.source.answer import NoAnswerError
from etl.source.budgets import read_left
from etl.source.client import PersonaClient
from tests.unit.replies import reply
from tests.unit.virtual_time import run_virtually


class Limited(httpx.AsyncBaseTransport):
    """Answers after `latency` seconds, within a limit."""

    def __init__(self, limit: RateLimit, latency: float) -> None:
        self.limit = limit
        self.latency = latency
        self.throttle: Throttle | None = None
        self.statuses: list[int] = []
        self.errors: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.throttle is None:
            self.throttle = Throttle(self.limit, asyncio.get_running_loop().time)
        await asyncio.sleep(self.latency)
        allowed, headers = self.throttle.take()
        self.statuses.append(200 if allowed else 429)
        return httpx.Response(self.statuses[-1], headers=headers, stream=reply(200).stream)

    def seconds_for(self, count: int, **settings: Any) -> float:
        """Fetch so many with 16 workers; return how long it took."""

        async def scenario() -> float:
            left = iter(range(count))

            async def work() -> None:
                for number in left:
                    try:
                        await client.fetch(UUID(int=number))
                    except NoAnswerError as error:
                        self.errors.append(str(error))

            async with PersonaClient(
                base_url="https://api.example",
                api_key="k",
                concurrency=16,
                timeout_seconds=30,
                max_wait_seconds=settings.pop("max_wait_seconds", 120),
                transport=lambda: self,
                fraction=random.Random(1).random,
                **settings,
            ) as client:
                started = asyncio.get_running_loop().time()
                await asyncio.gather(*(work() for _ in range(16)))
                return asyncio.get_running_loop().time() - started

        return run_virtually(scenario())

    @property
    def refused(self) -> float:
        return self.statuses.count(429) / len(self.statuses)


@pytest.mark.parametrize("latency", [0.005, 0.5])
@pytest.mark.parametrize("headers", ["standard", "org_hour", "both"])
def test_a_limit_that_is_told_is_met_and_never_overrun(headers, latency):
    api = Limited(RateLimit(100, 60, headers=headers), latency)
    seconds = api.seconds_for(500)
    assert api.refused == 0
    assert 500 / seconds >= 0.9 * 100 / 60


def test_without_a_limit_the_pace_is_that_of_the_connections():
    api = Limited(RateLimit(10**6, 60, headers="none"), 0.1)
    assert Limited.seconds_for(api, 1600) < 10.5


def test_our_own_ceiling_is_kept():
    api = Limited(RateLimit(10**6, 60, headers="none"), 0.005)
    assert 9.8 <= api.seconds_for(200, requests_per_second=20) <= 10.2


@pytest.mark.parametrize("shape", ["fixed", "sliding", "bucket"])
def test_a_limit_that_nobody_tells_is_learned(shape):
    api = Limited(RateLimit(25, 1, shape=shape, headers="none", retry_after="none"), 0.1)
    seconds = api.seconds_for(3000)
    assert api.refused < 0.05
    assert 2975 / seconds >= 0.88 * 25


# Requests, and of how many a second, in what shape: the share of it that is got at least, with
# headers, with Retry-After alone, and with nothing but 429s. Whole seconds are told, so that each
# refusal by a small bucket costs a second in which it would have been filled many times.
SHARES = {
    "a window of a second": (600, RateLimit(25, 1), (0.94, 0.88, 0.94)),
    "a big window of a second": (1500, RateLimit(100, 1), (0.95, 0.88, 0.92)),
    "a small window of a second": (300, RateLimit(10, 1), (0.94, 0.88, 0.92)),
    "a bucket": (750, RateLimit(25, 1, "bucket"), (0.95, 0.94, 0.95)),
    "a small bucket": (3000, RateLimit(100, 1, "bucket", 10), (0.8, 0.7, 0.85)),
    "ten seconds": (500, RateLimit(100, 10), (0.95, 0.92, 0.9)),
    "a minute": (500, RateLimit(100, 60), (0.93, 0.93, 0.9)),
    "any second": (600, RateLimit(25, 1, "sliding"), (0.94, 0.85, 0.92)),
    "any minute": (500, RateLimit(100, 60, "sliding"), (0.93, 0.93, 0.88)),
    "one after the other": (300, RateLimit(10, 1, "bucket", 1), (0.6, 0.6, 0.85)),
}


@pytest.mark.parametrize(("count", "limit", "shares"), SHARES.values(), ids=SHARES)
def test_most_of_what_is_allowed_is_got_with_few_refusals(count, limit, shares):
    told = [("standard", "seconds"), ("none", "seconds"), ("none", "none")]
    for share, (headers, retry_after) in zip(shares, told, strict=True):
        api = Limited(structs.replace(limit, headers=headers, retry_after=retry_after), 0.05)
        seconds = api.seconds_for(count, max_wait_seconds=300)
        assert count / seconds >= share * limit.requests / limit.window_seconds, headers
        assert api.errors == []
        assert api.refused < 0.08
        assert api.refused <= 0.03 or headers == "none"


def test_one_who_is_always_refused_holds_up_nobody_for_long():
    class OneIsRefused(Limited):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("0000-000000000005"):
                return httpx.Response(429, stream=reply(200).stream)
            return await super().handle_async_request(request)

    api = OneIsRefused(RateLimit(10**6, 60, headers="none"), 0.05)
    # Without that one it would take three seconds; what was learned from it is soon forgotten.
    assert api.seconds_for(1000) < 25
    assert api.errors == [f"GET /v1/personas/{UUID(int=5)}: 429 after 8 attempts"]


def test_an_exhausted_limit_that_is_renewed_too_late_defers_at_once():
    api = Limited(RateLimit(50, 3600, headers="org_hour"), 0.1)
    with pytest.raises(DeferredError, match=r"Org-Hour-Remaining: 0"):
        api.seconds_for(100)
    assert api.statuses == [200] * 50


def test_a_limit_that_suffices_to_the_last_defers_nobody():
    api = Limited(RateLimit(50, 3600, headers="org_hour"), 0.1)
    assert api.seconds_for(50) < 30


def raw(**headers: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
EPOCH = 1445412480


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("30", 30),
        (str(EPOCH + 30), 30),
        (str((EPOCH + 30) * 1000), 30),
        ("-5", None),
        ("soon", None),
        ("999999", None),
        (str(EPOCH - 30), None),
        ("9" * 40, None),
    ],
)
def test_a_reset_is_seconds_or_a_date_and_nonsense_is_ignored(reset, seconds):
    headers = raw(RATELIMIT_Remaining="4", ratelimit_reset=reset, Date=DATE)
    assert [left.reset_seconds for left in read_left(headers)] == ([] if seconds is None else [30])


def test_the_combined_header_is_read_too():
    for value in ("limit=9, remaining=1, reset=5", '"default";r=1;t=5'):
        (left,) = read_left(raw(RateLimit=value))
        assert (left.remaining, left.reset_seconds) == (1, 5)


def test_each_limit_is_one_of_its_own():
    headers = raw(
        RateLimit_Remaining="4",
        RateLimit_Reset="5",
        X_RateLimit_Org_Hour_Remaining="900",
        X_RateLimit_Org_Hour_Reset="1800",
    )
    assert [left.name for left in read_left(headers)] == ["RateLimit", "X-RateLimit-Org-Hour"]
