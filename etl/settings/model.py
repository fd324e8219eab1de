"""The settings: each key with its type, default, limits and explanation.

The commented file of `init`, the environment's names and the README's table are read off here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    Strict,
)
from pydantic_core import PydanticCustomError

from etl.errors import UsageError
from etl.settings.checks import (
    check_base_url,
    check_database_url,
    check_key,
    check_ping_url,
    check_schema,
    check_textfile,
)
from etl.settings.ids import to_uuid


def setting(default: object, description: str, *, expects: str, **field: Any) -> Any:  # noqa: ANN401  as pydantic has it
    """Declare a key. `expects` ends the sentence "write …" when the value is something else."""
    return Field(default, description=description, json_schema_extra={"expects": expects}, **field)


def _not_a_bool(value: object) -> object:
    """Python's True is 1, but `concurrency = true` is a mistake."""
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "a boolean")
    return value


def _not_empty(value: object) -> object:
    """Path("") is the current folder, which nobody meant."""
    if value == "" or (isinstance(value, str) and "\0" in value):
        raise PydanticCustomError("path", "not a path")
    return value


def _without_repetitions(ids: tuple[UUID, ...]) -> tuple[UUID, ...]:
    return tuple(dict.fromkeys(ids))


NotABool = BeforeValidator(_not_a_bool)
Flag = Annotated[bool, Strict()]
Positive = Annotated[float, NotABool, Field(gt=0, allow_inf_nan=False)]
FilePath = Annotated[Path, BeforeValidator(_not_empty)]
Ids = Annotated[
    tuple[Annotated[UUID, BeforeValidator(to_uuid)], ...], AfterValidator(_without_repetitions)
]


class Section(BaseModel):
    """One `[table]` of the file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True
    )


class Api(Section):
    """The Anam API and how hard to press it."""

    base_url: Annotated[str, AfterValidator(check_base_url)] = setting(
        "https://api.anam.ai",
        "Where the API is; ANAM_API_URL beats it. http:// only on loopback.",
        expects="a URL like https://api.anam.ai",
    )
    api_key_file: FilePath | None = setting(
        None,
        "A file that holds the API key, readable by its owner only; ANAM_API_KEY beats it.",
        expects="the path of a file",
        examples=["anam-api-key"],
    )
    concurrency: Annotated[int, NotABool, Field(ge=1, le=64)] = setting(
        16, "Requests at a time, 1 to 64.", expects="a whole number from 1 to 64"
    )
    timeout_seconds: Positive = setting(
        30.0, "The longest that one request may take.", expects="seconds, more than 0"
    )
    max_wait_seconds: Annotated[float, NotABool, Field(ge=0, allow_inf_nan=False)] = setting(
        120.0,
        "The longest wait that the API may impose; a longer one defers the run.",
        expects="seconds, 0 or more",
    )
    requests_per_second: Positive | None = setting(
        None,
        "A ceiling of your own, besides the API's.",
        expects="a number above 0",
        examples=[10],
    )
    # Not a key of the file: comes from ANAM_API_KEY or api_key_file.
    key: Annotated[SecretStr, AfterValidator(check_key)] | None = None


class Personas(Section):
    """Which personas to copy."""

    ids: Ids = setting(
        (),
        "The personas to copy; repetitions count once.",
        expects='a list of ids, like ["00000000-0000-0000-0000-000000000000"]',
        examples=[["00000000-0000-0000-0000-000000000000"]],
    )
    ids_file: FilePath | None = setting(
        None,
        "More ids from a file, one a line, # for comments; relative to this file's folder.",
        expects="the path of a file",
        examples=["persona-ids.txt"],
    )
    discover: Flag = setting(
        default=False,
        description="Also copy every persona that the API lists.",
        expects="true or false",
    )


class Database(Section):
    """The Postgres to copy into."""

    url: Annotated[SecretStr, AfterValidator(check_database_url)] | None = setting(
        None,
        'A postgresql:// URL, "embedded" or "embedded:/some/folder".',
        expects='postgresql://user@host/name, "embedded" or "embedded:/some/folder"',
        examples=["postgresql://etl@localhost/personas"],
    )
    schema_: Annotated[str, AfterValidator(check_schema)] = setting(
        "anam",
        "The schema of the tables; `migrate` makes it.",
        expects="a name like anam",
        alias="schema",
    )


class Safety(Section):
    """When to stop instead of going on."""

    max_removed_percent: Annotated[float, NotABool, Field(ge=0, le=100)] = setting(
        20.0,
        "More of the known personas gone than this, and more than five: nothing is removed.",
        expects="a number from 0 to 100",
    )
    run_deadline_seconds: Positive | None = setting(
        None,
        "After so long nobody else is asked for; what has arrived is loaded.",
        expects="seconds, more than 0",
        examples=[3600],
    )
    drift: Literal["record", "warn", "fail"] = setting(
        "record",
        "When the API moves: record it, warn too, or fail (exit 7).",
        expects='"record", "warn" or "fail"',
    )


class Notify(Section):
    """Who is told that a sync began, and how it ended."""

    ping_url: Annotated[SecretStr, AfterValidator(check_ping_url)] | None = setting(
        None,
        "A check of healthchecks.io or the like; each `sync` pings it as it begins and ends.",
        expects="a URL like https://hc-ping.com/your-uuid",
        examples=["https://hc-ping.com/your-uuid"],
    )


class Metrics(Section):
    """What a monitor reads."""

    textfile: Annotated[FilePath, AfterValidator(check_textfile)] | None = setting(
        None,
        "A file for Prometheus' node_exporter, written anew at the end of each run.",
        expects="the path of a file whose name ends in .prom",
        examples=["/var/lib/node_exporter/textfile/persona_etl.prom"],
    )


class Migrations(Section):
    """The columns that are added here rather than by a release."""

    local_dir: FilePath | None = setting(
        None,
        "The folder of your own revisions; `migrate` runs them after the release's.",
        expects="the path of a folder",
        examples=["local-revisions"],
    )


class Settings(Section):
    """All settings, checked. Its repr shows no secret."""

    api: Api = Api()
    personas: Personas = Personas()
    database: Database = Database()
    safety: Safety = Safety()
    notify: Notify = Notify()
    metrics: Metrics = Metrics()
    migrations: Migrations = Migrations()

    def require_key(self) -> SecretStr:
        """Return the API key, or raise a UsageError that says where to put one."""
        if self.api.key is None:
            raise UsageError("no API key; set ANAM_API_KEY, or name a file in api.api_key_file")
        return self.api.key

    def require_database(self) -> SecretStr:
        """Return the database's URL, or raise a UsageError that says where to put one."""
        if self.database.url is None:
            raise UsageError(
                "no database; set database.url in persona-etl.toml or PERSONA_ETL_DATABASE__URL "
                'to postgresql://user@host/name, or to "embedded" to try it out'
            )
        return self.database.url

    def require_ids(self) -> tuple[UUID, ...]:
        """Return the configured ids, or raise a UsageError that says where to put some.

        With `personas.discover` there need not be any.
        """
        if not self.personas.ids and not self.personas.discover:
            raise UsageError(
                "no personas; give ids as arguments or with --ids-from, or --all for all of them, "
                "or set personas.ids, personas.ids_file or personas.discover"
            )
        return self.personas.ids
