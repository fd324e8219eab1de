"""Says what is right and wrong with settings, API, database and schema, a line each.

It asks the API for one page of one persona and reads Postgres' catalog; it writes nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from etl.errors import (
    DatabaseError,
    FetchFailedError,
    KeyRefusedError,
    PayloadRejectedError,
    RunError,
    SourceDownError,
    UsageError,
)
from etl.jobs.check_database import check_database
from etl.jobs.check_lines import Line, ok, unknown, wrong
from etl.jobs.metrics import require_file
from etl.report.text import counted
from etl.settings import API_KEY_VARIABLE, load_settings, settings_file
from etl.source.answer import ListForbiddenError, ToldToWaitError
from etl.source.client import PersonaClient
from etl.source.listing import read_page
from etl.source.ping import way_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from uuid import UUID

    from etl.settings import Settings

# Always told. Of local revisions, pings and metrics there is a line where the settings name them.
SUBJECTS = ("settings", "key", "api", "database", "privileges", "schema")

# Without the right settings nothing else can be judged; then as a run ranks them.
_WORST_FIRST = [
    *(error.exit_code for error in (UsageError, DatabaseError, KeyRefusedError, SourceDownError)),
    0,
]

# A check is watched by somebody; a longer wait that the API asks for is told instead.
_MOST_WAIT_SECONDS = 5.0


def exit_code(lines: Iterable[Line]) -> int:
    """That of the worst line."""
    return min((line.exit_code for line in lines), key=_WORST_FIRST.index, default=0)


def check(environ: Mapping[str, str], config: Path | None) -> Iterator[Line]:
    """Looks at everything. A line comes when it is known: the API may be slow.

    `config` is the settings file that was named, if one was.
    """
    try:
        settings = load_settings(environ, config)
    except UsageError as exc:
        # One mistake is a line; of several the first line counts them.
        first, *others = str(exc).split("\n")
        for mistake in others or [first]:
            yield wrong("settings", mistake.strip(), exc.exit_code)
        for subject in SUBJECTS[1:]:
            yield unknown(subject, "not checked: the settings have to be right first")
        return
    yield ok("settings", f"{_file(settings_file(environ, config))}, {_whom(settings)}")
    is_set = environ.get(API_KEY_VARIABLE, "").strip()
    key_from = f"from {API_KEY_VARIABLE if is_set else settings.api.api_key_file}"
    yield from _check_api(settings, key_from)
    yield from check_database(settings, environ)
    yield from _metrics_lines(settings)
    yield from _ping_lines(settings)


def _file(file: Path | None) -> str:
    if file is None:
        return "no file, the environment alone"
    # In this folder; elsewhere, or where this folder was removed, the path says it all.
    with suppress(FileNotFoundError):
        if file.parent == Path.cwd():
            return f"./{file.name}"
    return str(file)


def _whom(settings: Settings) -> str:
    count = len(settings.personas.ids)
    told = counted(count, "persona")
    if settings.personas.discover:
        return f"{told} and all that the API lists" if count else "all that the API lists"
    return told if count else "no personas: set ids or discover, or tell sync"


def _check_api(settings: Settings, key_from: str) -> list[Line]:
    """The lines of key and API: one request tells of both."""
    base_url = settings.api.base_url
    try:
        settings.require_key()
    except UsageError as exc:
        return [wrong("key", exc, exc.exit_code), unknown("api", "not checked: no key")]
    try:
        answered = asyncio.run(_ask(settings))
    except KeyRefusedError as exc:
        return [
            wrong("key", f"{key_from}: {exc}", exc.exit_code),
            ok("api", f"{base_url} answers"),
        ]
    except (UsageError, RunError) as exc:
        told = f"{base_url}: {exc}"
        if isinstance(exc, ToldToWaitError):
            told = f"{base_url} asks to wait {exc.wait_seconds:.0f} s; check again then"
        return [
            unknown("key", f"{key_from}, not tried: no answer from the API"),
            wrong("api", told, exc.exit_code),
        ]
    return [ok("key", key_from), ok("api", f"{base_url} {answered}")]


async def _ask(settings: Settings) -> str:
    """Asks for a page of one; where the key may not list, for the first persona configured."""
    api = settings.api
    async with PersonaClient(
        base_url=api.base_url,
        api_key=settings.require_key().get_secret_value(),
        concurrency=1,
        timeout_seconds=api.timeout_seconds,
        max_wait_seconds=min(api.max_wait_seconds, _MOST_WAIT_SECONDS),
    ) as client:
        try:
            page = await read_page(client, 1, per_page=1)
        except ListForbiddenError:
            if settings.personas.discover or not settings.personas.ids:
                raise
            return await _ask_for(client, settings.personas.ids[0])
    listed = "" if page.total is None else f", personas listed: {page.total}"
    return f"answers in {page.duration_ms} ms{listed}"


async def _ask_for(client: PersonaClient, persona_id: UUID) -> str:
    try:
        answer = await client.fetch(persona_id)
    except (FetchFailedError, PayloadRejectedError) as exc:
        raise SourceDownError(str(exc)) from exc
    if answer.status == HTTPStatus.FORBIDDEN:
        raise KeyRefusedError(
            f"403 for the list and for persona {persona_id}; check the key's permissions and plan"
        )
    found = "" if answer.body is not None else f", knows no persona {persona_id}"
    return f"answers in {answer.duration_ms} ms{found}; this key may not list personas"


def _ping_lines(settings: Settings) -> list[Line]:
    """Where pings go. Nothing is sent there: each request would count as a run that succeeded."""
    if settings.notify.ping_url is None:
        return []
    try:
        way = way_to(settings.notify.ping_url.get_secret_value())
    except UsageError as exc:
        return [wrong("ping", exc, exc.exit_code)]
    return [ok("ping", f"to {way}, not tried: a ping would count as a run")]


def _metrics_lines(settings: Settings) -> list[Line]:
    """Whether the metrics file can be written. A run does not fail by it, but nobody would see."""
    file = settings.metrics.textfile
    if file is None:
        return []
    try:
        require_file(file)
    except UsageError as exc:
        return [wrong("metrics", exc, exc.exit_code)]
    return [ok("metrics", f"{file}, written at the end of each run")]
