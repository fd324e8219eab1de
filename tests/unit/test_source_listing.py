"""The list of personas: read whole while it moves, and to an end whatever the server says."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.errors import DeferredError, KeyRefusedError, RunError, SourceDownError
from etl.sandbox import World, running_sandbox
from etl.source.client import PersonaClient
from etl.source.listing import MOST_PAGES, Listing, list_persona_ids
from tests.unit.replies import reply

KEY = "sk-very-secret"


def an_id(number: int) -> UUID:
    return UUID(int=number)


def some(count: int, start: int = 0) -> list[UUID]:
    return [an_id(number) for number in range(start, start + count)]


def page_of(ids: list[UUID], page: int, per_page: int) -> dict[str, Any]:
    """A page as it is documented."""
    last = -(-len(ids) // per_page)
    meta = {
        "total": len(ids),
        "lastPage": last,
        "currentPage": page,
        "perPage": per_page,
        "prev": page - 1 if page > 1 else None,
        "next": page + 1 if page < last else None,
    }
    return {"data": [{"id": str(i)} for i in ids[(page - 1) * per_page :][:per_page]], "meta": meta}


class Api(httpx.AsyncBaseTransport):
    """Answers each request for a page by a function of its number."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        self.answer = answer
        self.pages: list[int] = []
        self.urls: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = parse_qs(request.url.query.decode())
        assert asked["perPage"] == ["100"]
        (page,) = asked["page"]
        self.urls.append(str(request.url))
        self.pages.append(int(page))
        answer = self.answer(int(page))
        return answer if isinstance(answer, httpx.Response) else reply(200, answer)

    def read(self, **options: Any) -> Listing:
        async def no_sleep(_seconds: float) -> None:
            pass

        async def read() -> Listing:
            async with PersonaClient(
                base_url="https://api.example",
                api_key=KEY,
                concurrency=1,
                timeout_seconds=5,
                max_wait_seconds=60,
                max_body_bytes=100_000,
                transport=lambda: self,
                sleep=no_sleep,
            ) as client:
                try:
                    return await list_persona_ids(client, **options)
                finally:
                    assert client.http_requests == len(self.pages)

        return asyncio.run(read())

    def failure(self, **options: Any) -> RunError:
        with pytest.raises(RunError) as caught:
            self.read(**options)
        assert "\n" not in str(caught.value)
        assert KEY not in str(caught.value)
        return caught.value


def serving(ids: list[UUID], most_per_page: int = 100, **meta: Any) -> Api:
    """The list as documented; `meta` lies."""

    def answer(page: int) -> dict[str, Any]:
        told = page_of(ids, page, most_per_page)
        return told | {"meta": told["meta"] | meta}

    return Api(answer)


# ── A list that stands still ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [0, 1, 99, 100])
def test_a_single_page_is_one_request(count):
    api = serving(some(count))
    assert api.read() == Listing(tuple(some(count)), (), settled=True, total=count)
    assert api.urls == ["https://api.example/v1/personas?page=1&perPage=100"]


@pytest.mark.parametrize("count", [101, 200, 250])
def test_a_longer_list_is_read_whole_and_twice(count):
    api = serving(some(count))
    assert api.read() == Listing(tuple(some(count)), (), settled=True, total=count)
    once = [*range(1, -(-count // 100) + 2)]
    assert api.pages == once * 2


def test_more_than_a_hundred_personas_come_over_a_real_socket():
    world = World()
    ids = [world.add({"id": str(an_id(number)), "name": "P"}) for number in range(234)]
    world.delete(ids.pop(7))

    async def read(url: str) -> Listing:
        async with PersonaClient(
            base_url=url,
            api_key="sandbox-key",
            concurrency=2,
            timeout_seconds=5,
            max_wait_seconds=0,
        ) as client:
            return await list_persona_ids(client)

    with running_sandbox(world=world) as sandbox:
        listing = asyncio.run(read(sandbox.url))
        assert sandbox.requests.by_target == {"list": 8}
    assert [str(found) for found in listing.ids] == ids
    assert (listing.settled, listing.warnings) == (True, [])


# ── A list that moves ────────────────────────────────────────────────────────────────────────────

moves = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 30)),
        st.tuples(st.just("delete"), st.integers(0, 30)),
        st.tuples(st.just("reverse"), st.integers(0, 30)),
        st.tuples(st.just("to the front"), st.integers(0, 30)),
        st.tuples(st.just("to the back"), st.integers(0, 30)),
    ),
    max_size=6,
)


class Moving:
    """A list, what was ever in it, and what was in it all the time."""

    def __init__(self, count: int) -> None:
        self.ids = some(count)
        self.ever = set(self.ids)
        self.always = set(self.ids)

    def move(self, how: str, where: int) -> None:
        where = min(where, len(self.ids))
        if how == "insert":
            self.ids.insert(where, an_id(len(self.ever)))
            self.ever.add(self.ids[where])
        elif how == "reverse":
            self.ids[where:] = self.ids[where:][::-1]
        elif where < len(self.ids):
            moved = self.ids.pop(where)
            if how == "delete":
                self.always.discard(moved)
            else:
                self.ids.insert(0 if how == "to the front" else len(self.ids), moved)


@given(
    st.integers(0, 30),
    st.integers(1, 7),
    st.lists(moves, max_size=60),
)
def test_nothing_is_lost_or_doubled_that_moves_during_one_reading(count, per_page, script):
    listed = Moving(count)
    passes = 0

    def answer(page: int) -> dict[str, Any]:
        nonlocal passes
        passes += page == 1
        for move in script.pop(0) if script and passes == 1 and page > 1 else ():
            listed.move(*move)
        return page_of(listed.ids, page, per_page)

    listing = Api(answer).read()
    assert len(set(listing.ids)) == len(listing.ids)
    assert listed.always <= set(listing.ids) <= listed.ever
    assert listing.settled
    assert passes <= 3


@given(st.integers(0, 30), st.integers(1, 7), st.lists(moves, min_size=1, max_size=60))
def test_a_list_that_never_stands_still_comes_to_an_end(count, per_page, script):
    listed = Moving(count)
    requests = 0

    def answer(page: int) -> dict[str, Any]:
        nonlocal requests
        for move in script[requests % len(script)]:
            listed.move(*move)
        requests += 1
        return page_of(listed.ids, page, per_page)

    try:
        listing = Api(answer).read(most_pages=50)
    except SourceDownError as exc:
        # More came in than a page holds, for as long as it was read.
        assert "does not end: 50 pages" in str(exc)  # noqa: PT017
    else:
        assert len(set(listing.ids)) == len(listing.ids)
        assert set(listing.ids) <= listed.ever


def test_an_id_that_slips_through_twice_while_many_go_is_found():
    ids = some(300)
    api = serving(ids)
    honest = api.answer

    def answer(page: int) -> Any:
        told = honest(page)
        # After the second page of the first pass, and after the first page of the second pass: the
        # last hundred are on the third page, then on the second, then on the first.
        if len(api.pages) in (2, 4):
            del ids[:100]
        return told

    api.answer = answer
    listing = api.read()
    # Those that went count too: who was listed is asked for, and a 404 then tells.
    assert listing.ids == tuple(some(300))
    assert listing.settled


def test_a_list_that_changes_with_each_reading_is_told():
    ids = some(150)
    fresh = iter(range(1000, 2000))
    api = serving(ids)
    honest = api.answer

    def answer(page: int) -> Any:
        if page == 1:
            ids.insert(0, an_id(next(fresh)))
        return honest(page)

    api.answer = answer
    listing = api.read()
    assert set(listing.ids) == set(ids)
    assert not listing.settled
    assert "kept changing in 5 readings" in listing.warnings[0]


# ── A server that lies ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "meta",
    [
        {"total": 3, "lastPage": 1, "next": 2},
        {"total": 3, "lastPage": 2, "next": None},
        {"total": None, "lastPage": None, "next": None},
        {"total": "23", "lastPage": [], "next": {}},
        {"total": 0, "lastPage": 0, "next": None},
        {"total": -1, "lastPage": 10**30, "next": 1},
        {"total": 23, "lastPage": 1, "currentPage": 1, "next": 1},
        {"total": 3.5, "lastPage": True, "next": "https://evil.example/"},
    ],
)
def test_whatever_meta_says_all_pages_of_a_server_that_gives_fewer_are_read(meta):
    listing = serving(some(23), most_per_page=3, **meta).read()
    assert listing.ids == tuple(some(23))
    assert listing.settled


@pytest.mark.parametrize("meta", [None, [], "no", 7])
def test_a_list_without_meta_is_read_to_its_empty_page(meta):
    ids = some(150)

    def answer(page: int) -> dict[str, Any]:
        data = page_of(ids, page, 100)["data"]
        return {"data": data} if meta is None else {"data": data, "meta": meta}

    api = Api(answer)
    assert api.read() == Listing(tuple(ids), (), settled=True, total=None)
    assert api.pages == [1, 2, 3, 1, 2, 3]


def test_a_server_that_gives_the_same_page_for_ever_comes_to_an_end_and_is_told():
    api = Api(lambda _page: page_of(some(250), 1, 100))
    listing = api.read()
    assert listing.ids == tuple(some(100))
    assert api.pages == [1, 2, 3, 4] * 2
    assert listing.warnings == ["the API says that there are 250 personas, and lists 100"]


def test_a_server_that_repeats_its_last_page_comes_to_an_end():
    listing = Api(lambda page: page_of(some(250), min(page, 3), 100)).read()
    assert listing == Listing(tuple(some(250)), (), settled=True, total=250)


def test_a_server_that_gives_all_at_once_on_each_page_comes_to_an_end():
    listing = Api(lambda _page: {"data": [{"id": str(i)} for i in some(500)]}).read()
    assert listing.ids == tuple(some(500))


def test_ids_without_end_are_an_error():
    api = Api(lambda page: page_of(some(page * 100 + 1), page, 100))
    error = api.failure(most_pages=20)
    assert isinstance(error, SourceDownError)
    assert error.exit_code == 5
    assert "the list does not end: 20 pages brought 2000 ids; list the ids in" in str(error)
    assert api.pages == [*range(1, 21)]


def test_very_many_ids_on_each_page_are_an_error_before_they_fill_the_memory():
    api = Api(
        lambda page: {"data": [{"id": str(i)} for i in some(1000, page * 1000)], "meta": None}
    )
    assert "6 pages brought 6000 ids" in str(api.failure(most_pages=50))


def test_the_bound_is_beyond_any_real_list():
    assert MOST_PAGES * 100 == 1_000_000


def test_an_item_without_a_usable_id_is_left_out_and_told():
    odd = [{"id": "abc"}, {"id": "abc"}, {"id": None}, {}, "x", {"id": 7}, {"id": {}}]
    items = [{"id": str(an_id(1))}, *odd, {"id": str(an_id(2)).upper()}, {"id": str(an_id(1))}]
    api = Api(lambda page: {"data": items if page == 1 else [], "meta": None})
    listing = api.read()
    assert listing.ids == (an_id(1), an_id(2))
    assert listing.unusable == ('"abc"', "null", "7", "a table")
    assert listing.warnings == [
        '4 of the listed personas were left out, as their ids are no UUIDs; the first is "abc"'
    ]


def test_pages_of_unusable_items_do_not_hide_those_behind_them():
    def answer(page: int) -> dict[str, Any]:
        if page > 6:
            return {"data": []}
        odd = [{"id": f"odd-{page}-{number}"} for number in range(100)]
        return {"data": odd if page < 6 else [{"id": str(an_id(1))}]}

    assert Api(answer).read().ids == (an_id(1),)


# ── What ends it ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "kind", "code", "told"),
    [
        (reply(401), KeyRefusedError, 4, "401, the API refuses the key"),
        (
            reply(403),
            KeyRefusedError,
            4,
            "403, the key may not list personas; use one that may, or",
        ),
        (reply(404), SourceDownError, 5, "404, there is no list; check api.base_url"),
        (
            reply(400, {"message": "odd"}),
            SourceDownError,
            5,
            '400 ("odd"); nothing was copied',
        ),
        (reply(503), SourceDownError, 5, "503 after 4 attempts; nothing was copied; the next run"),
        (reply(429, retry_after="9999"), DeferredError, 5, "told to wait 9999 s"),
        (reply(302, location="https://x"), SourceDownError, 5, "a redirect to x"),
        (
            reply(200, b"<html>Log in</html>", content_type="text/html; charset=utf-8"),
            SourceDownError,
            5,
            "no list of personas but text/html: not JSON at offset 0; check api.base_url",
        ),
        (reply(200, b""), SourceDownError, 5, "no content type: not JSON: the body is empty"),
        (reply(200, []), SourceDownError, 5, 'no array "data" in it'),
        (reply(200, {"data": {}}), SourceDownError, 5, 'no array "data" in it'),
        (reply(200, b"x" * 100_001), SourceDownError, 5, "longer than 100000 bytes"),
        (reply(200, b"", content_encoding="br"), SourceDownError, 5, "Content-Encoding 'br'"),
    ],
)
@pytest.mark.parametrize("page", [1, 2])
def test_what_is_no_page_ends_the_run(page, answer, kind, code, told):
    def served(asked: int) -> Any:
        if asked != page:
            return page_of(some(250), asked, 100)
        # A stream is read once, and a retry comes again.
        return httpx.Response(answer.status_code, headers=answer.headers, stream=answer.stream)

    error = Api(served).failure()
    assert isinstance(error, kind)
    assert error.exit_code == code
    assert str(error).startswith(f"GET /v1/personas?page={page}&perPage=100: ")
    assert told in str(error)


def test_an_unreachable_api_ends_the_run():
    def refuse(_page: int) -> None:
        raise httpx.ConnectError("x")

    error = Api(refuse).failure()
    assert isinstance(error, SourceDownError)
    assert "no connection to api.example:443 after 4 attempts; check api.base_url" in str(error)


def test_a_page_that_fails_once_is_asked_for_again():
    troubles = [reply(503), reply(429, retry_after="1")]
    api = Api(lambda page: troubles.pop() if troubles else page_of(some(5), page, 100))
    assert api.read().ids == tuple(some(5))
    assert api.pages == [1, 1, 1]
