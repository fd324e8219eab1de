"""Big bodies wait for room, small ones don't, and room is never lost."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from etl.sandbox import Fault, running_sandbox
from etl.source.answer import BodyTooBigError, NoAnswerError
from etl.source.client import PersonaClient
from etl.source.room import SMALL_BODY, BodyRoom

BIG = b" " * (3 * SMALL_BODY)


@pytest.fixture
def sandbox():
    with running_sandbox(count=6, moving=False) as running:
        yield running


def client(sandbox, **settings):
    return PersonaClient(
        base_url=sandbox.url,
        api_key=sandbox.key,
        concurrency=6,
        timeout_seconds=settings.pop("timeout_seconds", 10),
        max_wait_seconds=1,
        sleep=lambda _: asyncio.sleep(0),
        **settings,
    )


def test_big_bodies_come_one_after_the_other_and_small_ones_meanwhile(sandbox):
    big, *small = [UUID(id_) for id_ in sandbox.persona_ids]
    sandbox.order(Fault(body=BIG, target=str(big), times=None))

    async def scenario() -> None:
        room = BodyRoom(len(BIG) + 1)
        async with client(sandbox) as persona_client:
            first = await persona_client.fetch(big, room)
            second = asyncio.create_task(persona_client.fetch(big, room))
            for id_ in small:
                await persona_client.fetch(id_, room)
            assert not second.done()
            room.leave(first.body)
            assert (await second).body == BIG

    asyncio.run(scenario())


def test_a_body_in_chunks_needs_room_whatever_length_it_declares(sandbox):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked = b"%x\r\n" % len(BIG) + BIG + b"\r\n0\r\n\r\n"
    first, second = map(UUID, sandbox.persona_ids[:2])
    sandbox.order(Fault(raw=head + chunked, times=None))

    async def scenario() -> None:
        room = BodyRoom(len(BIG) + 1)
        async with client(sandbox) as persona_client:
            held = await persona_client.fetch(first, room)
            waiting = asyncio.create_task(persona_client.fetch(second, room))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            room.leave(held.body)
            assert (await waiting).body == BIG

    asyncio.run(scenario())


def test_to_wait_for_room_does_not_use_up_an_attempts_time(sandbox):
    sandbox.order(Fault(body=BIG, times=None))
    big = UUID(sandbox.persona_ids[0])

    async def scenario() -> None:
        room = BodyRoom(len(BIG))
        async with client(sandbox, timeout_seconds=0.5) as persona_client:
            held = await room.take(1)
            fetching = asyncio.create_task(persona_client.fetch(big, room))
            for _ in range(4):
                await asyncio.sleep(0.2)
            room.give_back(held)
            assert (await fetching).attempts == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(body=BIG, truncate_at=2 * SMALL_BODY, times=None), NoAnswerError),
        (Fault(body=BIG, endless=True, times=None), BodyTooBigError),
        (
            Fault(body=BIG, gzip=True, headers={"X": "y"}, truncate_at=900, times=None),
            NoAnswerError,
        ),
    ],
    ids=["cut short", "without an end", "a gzip that is cut"],
)
def test_what_comes_to_nothing_gives_its_room_back(sandbox, fault, error):
    sandbox.order(fault)
    ids = [UUID(id_) for id_ in sandbox.persona_ids]

    async def scenario() -> None:
        room = BodyRoom(5 * SMALL_BODY)
        async with client(sandbox, max_body_bytes=4 * SMALL_BODY) as persona_client:
            asked = (persona_client.fetch(id_, room) for id_ in ids)
            async with asyncio.timeout(20):
                found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(what) for what in found} == {error}
        async with asyncio.timeout(1):
            await room.take(5 * SMALL_BODY)

    asyncio.run(scenario())


def test_without_a_room_of_the_callers_nothing_has_to_be_given_back(sandbox):
    sandbox.order(Fault(body=b" " * 60 * SMALL_BODY, gzip=True, times=None))
    big = UUID(sandbox.persona_ids[0])

    async def scenario() -> None:
        async with client(sandbox) as persona_client:
            for _ in range(4):
                await persona_client.fetch(big)

    asyncio.run(scenario())


def test_one_who_needs_much_is_not_passed_by_those_who_need_little():
    async def scenario() -> None:
        room = BodyRoom(10)
        await room.take(5)
        order: list[int] = []

        async def take(size: int) -> None:
            order.append(await room.take(size))

        waiting = [asyncio.create_task(take(size)) for size in (8, 1, 1)]
        await asyncio.sleep(0)
        assert order == []
        room.give_back(5)
        await asyncio.gather(*waiting)
        assert order == [8, 1, 1]

    asyncio.run(scenario())
