"""An API that is down ends the run soon; one that restarts does not, nor do poisoned personas."""

import asyncio
import gc
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest

from etl.errors import KeyRefusedError, RunError, SourceDownError
from etl.jobs.arrival import Arrival, DatabaseClock
from etl.jobs.circuit import Circuit
from etl.jobs.fetching import fetch_and_load
from etl.jobs.halt import Halt, stopped_early
from etl.jobs.reckoning import Batch
from etl.jobs.stopwatch import Stopwatch
from etl.source.client import PersonaClient
from tests.unit.replies import reply
from tests.unit.virtual_time import run_virtually

# Of a persona's number and the seconds since the start: whether it is answered.
Answers = Callable[[int, float], bool]


class Api(httpx.AsyncBaseTransport):
    def __init__(self, answers: Answers, *, hangs: bool = False, status: int = 404) -> None:
        self.answers = answers
        self.status = status
        self.hangs = hangs
        self.asked: list[int] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        number = UUID(request.url.path.rpartition("/")[2]).int
        self.asked.append(number)
        seconds = asyncio.get_running_loop().time() - 1000
        await asyncio.sleep(0.05)
        if self.answers(number, seconds):
            return reply(self.status)
        if self.hangs:
            await asyncio.sleep(3600)
        raise httpx.ConnectError("refused")

    def run(
        self, count: int, concurrency: int = 16
    ) -> tuple[list[Arrival], RunError | None, float]:
        """All arrivals, why it stopped, and after how many seconds."""
        arrivals: list[Arrival] = []

        def read(batch: list[Arrival]) -> Batch:
            arrivals.extend(batch)
            return Batch(batch, {}, [])

        async def scenario() -> tuple[RunError | None, float]:
            halt = Halt()
            client = PersonaClient(
                base_url="https://api.example",
                api_key="k",
                concurrency=concurrency,
                timeout_seconds=30,
                max_wait_seconds=120,
                transport=lambda: self,
            )
            async with client:
                with stopped_early(halt, None):
                    await fetch_and_load(
                        [UUID(int=number) for number in range(count)],
                        client,
                        DatabaseClock(0.0, datetime(2026, 1, 1, tzinfo=UTC)),
                        read=read,
                        load=lambda _: None,
                        concurrency=concurrency,
                        circuit=Circuit(client, concurrency=concurrency, max_wait_seconds=120),
                        halt=halt,
                        stopwatch=Stopwatch(),
                    )
            return halt.reason, asyncio.get_running_loop().time() - 1000

        reason, seconds = run_virtually(scenario())
        ids = [arrival.persona_id for arrival in arrivals]
        assert len(ids) == len(set(ids))
        return arrivals, reason, seconds


@pytest.mark.parametrize("concurrency", [1, 4, 16])
@pytest.mark.parametrize("hangs", [False, True])
def test_a_dead_api_is_given_up_soon_and_in_one_line(hangs, concurrency):
    api = Api(lambda *_: False, hangs=hangs)
    arrivals, reason, seconds = api.run(10_000, concurrency)
    assert isinstance(reason, SourceDownError)
    assert len(api.asked) < 60
    assert seconds < ((100 if concurrency > 1 else 190) if hangs else 80)
    assert all(arrival.error for arrival in arrivals)
    told = str(reason)
    assert f" {10_000 - len(arrivals)} of 10000 personas not attempted;" in told
    assert "nothing but errors from the API since 20" in told
    assert "\n" not in told


@pytest.mark.parametrize("concurrency", [1, 4, 16])
@pytest.mark.parametrize("count", [100, 1000])
def test_who_was_answered_before_the_api_died_has_not_failed(count, concurrency):
    api = Api(lambda _, seconds: seconds < 0.2)
    arrivals, reason, _ = api.run(count, concurrency)
    assert isinstance(reason, SourceDownError)
    assert {arrival.answer is None for arrival in arrivals} == {True, False}
    assert f" {count - len(arrivals)} of {count} personas not attempted;" in str(reason)


@pytest.mark.parametrize("concurrency", [1, 16])
def test_an_api_that_restarts_is_waited_for_and_nobody_fails(concurrency, caplog):
    api = Api(lambda _number, seconds: not 0.3 < seconds < 30)
    arrivals, reason, _ = api.run(300, concurrency)
    assert reason is None
    assert [arrival.error for arrival in arrivals if arrival.error] == []
    assert len(arrivals) == 300
    gc.collect()
    # Such as that the end of a probe was never fetched.
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("concurrency", [1, 16])
def test_an_api_that_comes_back_and_refuses_the_key_ends_the_run_for_that(concurrency):
    api = Api(lambda _, seconds: seconds > 15, status=401)
    _, reason, seconds = api.run(300, concurrency)
    assert isinstance(reason, KeyRefusedError)
    assert seconds < 30


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("poisoned", [range(50), range(100, 150), range(150, 200)])
def test_poisoned_personas_never_stop_the_others(poisoned, concurrency):
    api = Api(lambda number, _: number not in poisoned)
    arrivals, reason, _ = api.run(200, concurrency)
    assert reason is None
    assert len(arrivals) == 200
    assert {a.persona_id.int for a in arrivals if a.error} == set(poisoned)


def test_of_a_few_that_all_fail_each_is_a_failure_of_its_own():
    arrivals, reason, seconds = Api(lambda *_: False).run(6)
    assert (len(arrivals), reason) == (6, None)
    assert seconds < 10
