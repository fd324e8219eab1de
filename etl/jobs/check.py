"""Says what is right and wrong with settings, API, database and schema, a line each.

It asks the API for one page of one persona and reads Postgres' catalog; it writes nothing.
"""

from __future__ import annotations

import asyncio
import shlex
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from etl.errors import (
    DatabaseError,
    FetchFailedError,
    KeyRefusedError,
    PayloadRejectedError,
    RunError,
    SourceDownError,
    UsageError,
)
from etl.jobs.metrics import require_file
from etl.report.catalogue import all_functions, view_names
from etl.report.ours import reporting_schema
from etl.report.text import counted, listed
from etl.report.views_sql import present_views
from etl.settings import API_KEY_VARIABLE, load_settings, settings_file
from etl.source.answer import ListForbiddenError, ToldToWaitError
from etl.source.client import PersonaClient
from etl.source.listing import read_page
from etl.source.ping import way_to
from etl.store.access import (
    PUT_BACK,
    Access,
    Server,
    look_at_schema,
    look_at_server,
    views_there,
)
from etl.store.embedded import require_cluster, served
from etl.store.engine import LOOKS_FOR_SECONDS, make_engine, translated
from etl.store.local_history import read_history
from etl.store.local_migration import look_at_local, require_known
from etl.store.revisions import head_revision, require_head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from uuid import UUID

    from sqlalchemy import Engine

    from etl.settings import Settings

# Always told. Of local revisions, pings and metrics there is a line where the settings name them.
SUBJECTS = ("settings", "key", "api", "database", "privileges", "schema")

# Without the right settings nothing else can be judged; then as a run ranks them.
_WORST_FIRST = [
    *(error.exit_code for error in (UsageError, DatabaseError, KeyRefusedError, SourceDownError)),
    0,
]

_NEWEST = 18  # major version of Postgres that was tried
_BY_OWNER = "as its owner run `persona-etl migrate`, or as a DBA the SQL of its --sql"
_SHOWN_PRIVILEGES = 3
_ROOM = 40  # for the names of views and tables
# A check is watched by somebody; a longer wait that the API asks for is told instead.
_MOST_WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of one subject. `exit_code` is 0 unless it is wrong."""

    verdict: Literal["ok", "wrong", "-"]
    subject: str
    told: str
    exit_code: int = 0


def ok(subject: str, told: str) -> Line:
    """Nothing wrong with it."""
    return Line("ok", subject, told)


def wrong(subject: str, told: object, exit_code: int) -> Line:
    """A run would fail with this exit code; `told` says what to do, as an error does."""
    return Line("wrong", subject, str(told), exit_code)


def unknown(subject: str, told: str) -> Line:
    """It could not be looked at, and why."""
    return Line("-", subject, told)


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
    yield from _check_database(settings, environ)
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


def _check_database(settings: Settings, environ: Mapping[str, str]) -> list[Line]:
    """The lines of database, privileges and schema, and of the local history where there is one."""
    schema = settings.database.schema_
    try:
        url = settings.require_database().get_secret_value()
        require_cluster(url, environ)
        with served(url, environ) as served_url:
            engine = make_engine(served_url, schema, lock_timeout_seconds=LOOKS_FOR_SECONDS)
            server = look_at_server(engine)
            access = look_at_schema(engine, schema, reporting_schema(schema))
            return [
                server_line(server),
                _privileges_line(access, schema, server.role),
                _schema_line(engine, schema, access),
                *_local_lines(settings, engine, access),
            ]
    except (UsageError, DatabaseError) as exc:
        return [
            wrong("database", str(exc).removeprefix("Postgres: "), exc.exit_code),
            unknown("privileges", "not checked: no database"),
            unknown("schema", "not checked: no database"),
            *_local_lines(settings),
        ]


def server_line(server: Server) -> Line:
    """Whether a run can write there. A server that won't do at all gives us no session."""
    told = f"Postgres {server.version}, database {server.database} as {server.role}"
    if server.read_only:
        problem = "is read-only; database.url must lead to the primary"
        return wrong("database", f"{told}, {problem}", DatabaseError.exit_code)
    newer = f"; newer than {_NEWEST}, the newest tried" if server.major > _NEWEST else ""
    return ok("database", f"{told}{newer}")


def _privileges_line(access: Access, schema: str, role: str) -> Line:
    grant = f"as its owner run `persona-etl migrate --grant-writer {shlex.quote(role)}`"
    may = "may migrate" if access.may_migrate else f"may not migrate: {_BY_OWNER}"
    if access.exists and not access.may_use:
        return wrong(
            "privileges",
            f"the role may not use schema {schema}; {grant}",
            DatabaseError.exit_code,
        )
    if not access.has_tables:
        return unknown("privileges", f"not checked: no tables in schema {schema} yet; {may}")
    if access.lacking:
        shown = [f"no {privilege} on {table}" for privilege, table in access.lacking]
        if (more := len(shown) - _SHOWN_PRIVILEGES) > 0:
            shown[_SHOWN_PRIVILEGES:] = [f"{more} more"]
        return wrong(
            "privileges",
            f"{', '.join(shown)}; {grant}",
            DatabaseError.exit_code,
        )
    # A writer should not, so that this needs no advice.
    return ok(
        "privileges", f"may read and write, may {'' if access.may_migrate else 'not '}migrate"
    )


def _schema_line(engine: Engine, schema: str, access: Access) -> Line:
    if access.exists and not access.may_use:
        return unknown("schema", f"not checked: schema {schema} can't be looked into")
    try:
        require_head(engine, schema)
    except DatabaseError as exc:
        told = str(exc).removeprefix("Postgres: ")
        if not access.may_migrate:
            told = told.replace("run `persona-etl migrate`", _BY_OWNER)
        return wrong("schema", told, exc.exit_code)
    if access.absent:
        gone = listed("no ", access.absent, len(access.absent), _ROOM)
        return wrong("schema", f"{gone} in {schema}; {PUT_BACK}", DatabaseError.exit_code)
    wanted = {*view_names()} | {made.name for made in all_functions()}
    if missing := wanted - views_there(engine, present_views(schema)):
        return wrong(
            "schema",
            f"{listed('no ', sorted(missing), len(missing), _ROOM)}"
            f" in {reporting_schema(schema)}; run `persona-etl migrate`",
            DatabaseError.exit_code,
        )
    return ok("schema", f"{schema} is at revision {head_revision()}, as this program needs it")


def _ping_lines(settings: Settings) -> list[Line]:
    """Where pings go. Nothing is sent there: each request would count as a run that succeeded."""
    if settings.notify.ping_url is None:
        return []
    try:
        way = way_to(settings.notify.ping_url.get_secret_value())
    except UsageError as exc:
        return [wrong("ping", exc, exc.exit_code)]
    return [ok("ping", f"to {way}, not tried: a ping would count as a run")]


def _local_lines(
    settings: Settings, engine: Engine | None = None, access: Access | None = None
) -> list[Line]:
    """Whether the folder of local revisions is one, and whether `migrate` has run all of it."""
    folder = settings.migrations.local_dir
    if folder is None:
        return []
    schema = settings.database.schema_
    try:
        history = read_history(folder)
        if engine is None or access is None:
            return [unknown("local", f"{folder} ends at {history.head}; no database to compare")]
        if access.exists and not access.may_use:
            return [unknown("local", f"not checked: schema {schema} can't be looked into")]
        with translated(), engine.connect() as connection:
            present = look_at_local(connection).revision
        require_known(history, present, schema)
    except (UsageError, DatabaseError) as exc:
        return [wrong("local", str(exc).removeprefix("Postgres: "), exc.exit_code)]
    if pending := history.between(present, history.head):
        count = f"{counted(len(pending), 'local revision')} to run"
        how = "`persona-etl migrate`" if access.may_migrate else _BY_OWNER
        return [
            wrong("local", f"{count}, {schema} is at {present}: {how}", DatabaseError.exit_code)
        ]
    return [ok("local", f"at {present}, the newest in {folder}")]


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
