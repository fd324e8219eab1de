"""Which personas there are: the ids of all pages of the list, however it moves while it is read.

The list has no snapshot and no cursor: a persona that comes or goes shifts all behind it from page
to page. So it is read in passes, until two in a row see the same. Of `meta` nothing is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import UUID

from etl.errors import PayloadRejectedError
from etl.payload.decode import decode
from etl.settings.ids import shown, to_uuid
from etl.source.answer import (
    BodyTooBigError,
    ListForbiddenError,
    ListUnavailableError,
    NoAnswerError,
)
from etl.source.client import page_path

if TYPE_CHECKING:
    from etl.payload.decode import Json
    from etl.source.answer import Answer, SourceError
    from etl.source.client import PersonaClient

# The most that the API gives at once.
PER_PAGE = 100
# A million personas: a list that is longer than that does not end.
MOST_PAGES = 10_000

_MOST_PASSES = 5
# A pass ends with an empty page. Some servers give their last page again instead, others the same
# one for ever; one such page alone can also be the doing of a hundred new personas.
_FRUITLESS_PAGES = 3

_LATER = "nothing was copied; the next run tries again"
_INSTEAD = "list the ids in personas.ids or personas.ids_file instead"
_ADDRESS = "check api.base_url and what stands between"


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `names` are its items' ids, in order; what is no UUID, as a message shows it.

    `total` is how many personas there are, if the API says so. `is_all`: it says that there is no
    other page.
    """

    names: list[UUID | str]
    total: int | None
    is_all: bool
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Listing:
    """All that was listed at some time while the list was read.

    `ids` are distinct, in the order of first appearance; `unusable` are the ids that are none.
    `settled`: the list has stood still, so that no id can have slipped through. `total` is how
    many personas the API says there are.
    """

    ids: tuple[UUID, ...]
    unusable: tuple[str, ...]
    settled: bool
    total: int | None

    @property
    def warnings(self) -> list[str]:
        """What a person should know before relying on it, a line each."""
        told = []
        if not self.settled:
            told.append(
                f"the list of personas kept changing in {_MOST_PASSES} readings;"
                " one that was listed all the time may be missing until the next run"
            )
        if self.unusable:
            told.append(
                f"{len(self.unusable)} of the listed personas were left out, as their ids are no"
                f" UUIDs; the first is {self.unusable[0]}"
            )
        if self.total is not None and self.total > len(self.ids) + len(self.unusable):
            told.append(
                f"the API says that there are {self.total} personas, and lists {len(self.ids)}"
            )
        return told


async def list_persona_ids(client: PersonaClient, *, most_pages: int = MOST_PAGES) -> Listing:
    """Read the whole list. `most_pages` bounds a pass.

    Raises:
        KeyRefusedError: 401, or 403: the key may not list.
        SourceDownError: the list can't be had, is something else, or does not end.
        DeferredError: the API asks for a longer wait than the settings allow.
    """
    found: dict[UUID | str, None] = {}
    before: set[UUID | str] | None = None
    settled = False
    for _ in range(_MOST_PASSES):
        names, total, at_once = await _read_through(client, most_pages)
        found |= names
        # Not only no new ones: while others go, one can slip through two passes in a row.
        settled = at_once or names.keys() == before
        if settled:
            break
        before = set(names)
    ids = tuple(name for name in found if isinstance(name, UUID))
    unusable = tuple(name for name in found if isinstance(name, str))
    return Listing(ids, unusable, settled, total)


async def read_page(client: PersonaClient, number: int, per_page: int = PER_PAGE) -> Page:
    """Read one page. Raises RunErrors, as without the list there is nothing to go on with."""
    path = page_path(number, per_page)
    try:
        answer = await client.list_page(number, per_page)
    except (NoAnswerError, BodyTooBigError) as error:
        # Whatever it is for one persona: for the list it is the end.
        unavailable = ListUnavailableError(
            error.what, next_step=error.next_step or _LATER, http_status=error.http_status
        )
        raise _about(unavailable, path, error) from error
    if answer.status == HTTPStatus.FORBIDDEN:
        forbidden = ListForbiddenError(
            "403, the key may not list personas",
            next_step=f"use one that may, or {_INSTEAD}",
            http_status=answer.status,
        )
        raise _about(forbidden, path, answer)
    if answer.body is None:
        missing = ListUnavailableError(
            f"{answer.status}, there is no list", next_step=_ADDRESS, http_status=answer.status
        )
        raise _about(missing, path, answer)
    try:
        return _parse(answer.body, answer.duration_ms)
    except PayloadRejectedError as exc:
        unreadable = ListUnavailableError(
            f"no list of personas but {answer.media_type}: {exc}",
            next_step=_ADDRESS,
            http_status=answer.status,
        )
        raise _about(unreadable, path, answer) from exc


async def _read_through(
    client: PersonaClient, most_pages: int
) -> tuple[dict[UUID | str, None], int | None, bool]:
    """One pass: what it saw, the total that the API told last, and whether it saw all at once."""
    names: dict[UUID | str, None] = {}
    total: int | None = None
    fruitless = 0
    for number in range(1, most_pages + 1):
        page = await read_page(client, number)
        total = page.total
        before = len(names)
        names |= dict.fromkeys(page.names)
        if number == 1 and (page.is_all or not page.names):
            return names, total, True
        fruitless = 0 if len(names) > before else fruitless + 1
        if not page.names or fruitless == _FRUITLESS_PAGES:
            return names, total, False
        if len(names) > PER_PAGE * most_pages:
            break
    endless = ListUnavailableError(
        f"the list does not end: {number} pages brought {len(names)} ids", next_step=_INSTEAD
    )
    endless.path = page_path(number, PER_PAGE)
    raise endless


def _about(error: SourceError, path: str, ended: Answer | SourceError) -> SourceError:
    """Fill in what the client would have."""
    error.path = path
    error.attempts = ended.attempts
    error.duration_ms = ended.duration_ms
    return error


def _parse(body: bytes, duration_ms: int) -> Page:
    """Raises PayloadRejectedError for what is not `{"data": [...]}`; `meta` may be anything."""
    payload = decode(body).value
    items = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(payload, dict) or not isinstance(items, list):
        raise PayloadRejectedError('no array "data" in it')
    meta = payload.get("meta")
    told = meta if isinstance(meta, dict) else {}
    total = told.get("total")
    return Page(
        names=[_name(item) for item in items],
        total=total if isinstance(total, int) and not isinstance(total, bool) else None,
        # Only if all of it agrees: a page may also be short as the server gives fewer at once.
        is_all=(total, told.get("lastPage"), told.get("next")) == (len(items), 1, None),
        duration_ms=duration_ms,
    )


def _name(item: Json) -> UUID | str:
    written = item.get("id") if isinstance(item, dict) else None
    try:
        return to_uuid(written)
    except ValueError:
        return "null" if written is None else shown(written)
