"""Which metrics there are, and what of them a run, and the database, have to say. Pure.

A sample has one of three sources. What a run was like only that run can tell; so of other commands
the samples stay as they were in the file. What only the database knows stays too while it can't be
asked: a monitor must not lose the time of the last success just when there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl.report.exposition import Family, parse, render
from etl.tables import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etl.report.exposition import Key

_PREFIX = "persona_etl_"

STAGES = ("settle", "list", "fetch", "read", "load", "remove")
"""What a copy from the API consists of."""

STATUSES = ("succeeded", "partial", "failed", "deferred", "interrupted")
"""How a run can end; one that is skipped has not begun."""

_FROM_API = ("sync", "backfill api")
_COUNTING = (*_FROM_API, "backfill files")


def _family(name: str, told: str, *labels: str) -> Family:
    return Family(_PREFIX + name, told, ("schema", *labels))


_OF_WRITING = (
    _family("build_info", "The release that wrote this file; always 1.", "version"),
    _family(
        "database_up",
        "Whether the database told how things stand as this file was written; 0: what only it"
        " knows is of before, see persona_etl_database_read_timestamp_seconds.",
    ),
)

_OF_RUN = (
    _family(
        "last_run_exit_code",
        "Exit code of the command's last run. One that found another busy (75) has not begun and"
        " is left out, here as below.",
        "command",
    ),
    _family(
        "last_run_status", "1 for how the last run ended, 0 for the rest.", "command", "status"
    ),
    _family("last_run_start_timestamp_seconds", "When the last run began.", "command"),
    _family("last_run_end_timestamp_seconds", "When the last run ended.", "command"),
    _family(
        "last_run_stage_busy_seconds",
        "How long each stage of the last run was at work. Stages overlap, so that their sum is no"
        " duration; fetch counts once however many requests are under way, pauses included.",
        "command",
        "stage",
    ),
    _family(
        "last_run_outcomes",
        "What became of the personas of the last run; of a backfill from files, of its lines.",
        "command",
        "outcome",
    ),
    _family("last_run_http_requests", "Requests that the last run sent to the API.", "command"),
)

_OF_DATABASE = (
    _family("database_read_timestamp_seconds", "When the database told what follows."),
    _family(
        "last_success_timestamp_seconds",
        "When the last sync or backfill api that succeeded ended; 0: none is known of.",
    ),
    _family(
        "last_complete_timestamp_seconds",
        "When the last sync or backfill api ended that asked for everybody, whether some personas"
        " failed or none; 0: none is known of.",
    ),
    _family("skipped_runs", "Runs that found another busy since the last one that ended began."),
    _family("live_personas", "Personas that are wanted, and that the API shows."),
    _family("failing_personas", "Wanted personas whose last attempt failed."),
    _family("never_seen_personas", "Personas that the settings name and no run has seen."),
    _family("untracked_personas", "Live personas that the settings name no longer."),
    _family(
        "stalest_persona_timestamp_seconds",
        "When the live persona that has waited longest was last confirmed by the API; its age is"
        " time() minus this.",
    ),
    _family(
        "stalest_persona_age_when_read_seconds",
        "How long ago that was when the database was read. It stands still until the next run: for"
        " alerts take the time above.",
    ),
    _family("open_drift_paths", "Where API and tables differ and nobody has decided."),
    _family("open_value_issues", "Values that do not fit their columns."),
    _family("schema_info", "The revision that the tables are at; always 1.", "revision"),
)

FAMILIES = (*_OF_WRITING, *_OF_RUN, *_OF_DATABASE)
"""In the order of the file."""

_RUN_NAMES = {family.name for family in _OF_RUN}
_DATABASE_NAMES = {family.name for family in _OF_DATABASE}


@dataclass(frozen=True, slots=True)
class LastRun:
    """How a run ended. Times are seconds since 1970."""

    command: str
    status: str
    exit_code: int
    started_at: float
    finished_at: float
    counts: Mapping[str, int] = field(default_factory=dict)
    """By outcome; empty: it asked for nobody."""
    http_requests: int = 0
    stages: Mapping[str, float] = field(default_factory=dict)
    """Busy seconds."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand in the database. Times are seconds since 1970; None: there is none."""

    read_at: float
    last_success_at: float | None
    last_complete_at: float | None
    skipped: int
    live: int
    failing: int
    never_seen: int
    untracked: int
    stalest_at: float | None
    drift_paths: int | None
    """None, here and below: this role may not see it."""
    value_issues: int | None
    revision: str | None


def textfile(
    schema: str, version: str, run: LastRun, standing: Standing | None, before: str
) -> str:
    """The file's new text.

    Args:
        schema: Stands in each sample, so that several installations can share a monitor.
        version: This release.
        run: The run that has just ended.
        standing: None: the database can't be asked.
        before: What the file held; what is foreign in it, or broken, is dropped.
    """
    samples = {
        key: value
        for key, value in parse(FAMILIES, before).items()
        if key[1][0] == schema and _stays(key, run, standing)
    }
    told = {("build_info", version): 1.0, ("database_up",): float(standing is not None)}
    if run.status != "skipped":
        told |= _of_run(run)
    if standing is not None:
        told |= _of_database(standing)
    samples |= {(_PREFIX + name, (schema, *values)): v for (name, *values), v in told.items()}
    # Also where nothing was ever known: an alert on what is not there never fires.
    for name in ("last_success_timestamp_seconds", "last_complete_timestamp_seconds"):
        samples.setdefault((_PREFIX + name, (schema,)), 0.0)
    return render(FAMILIES, samples)


def _stays(key: Key, run: LastRun, standing: Standing | None) -> bool:
    """Whether what the file held of this is still the latest that is known."""
    name, labels = key
    if name in _RUN_NAMES:
        return run.status == "skipped" or labels[1] != run.command
    return name in _DATABASE_NAMES and standing is None


def _of_run(run: LastRun) -> dict[tuple[str, ...], float]:
    command = run.command
    told: dict[tuple[str, ...], float] = {
        ("last_run_exit_code", command): float(run.exit_code),
        ("last_run_start_timestamp_seconds", command): run.started_at,
        ("last_run_end_timestamp_seconds", command): run.finished_at,
    }
    told |= {("last_run_status", command, s): float(s == run.status) for s in STATUSES}
    if command in _COUNTING:
        told |= {("last_run_outcomes", command, o): float(run.counts.get(o, 0)) for o in OUTCOMES}
    if command in _FROM_API:
        busy = {stage: round(run.stages.get(stage, 0.0), 6) for stage in STAGES}
        told |= {("last_run_stage_busy_seconds", command, s): busy[s] for s in STAGES}
        told["last_run_http_requests", command] = float(run.http_requests)
    return told


def _of_database(standing: Standing) -> dict[tuple[str, ...], float]:
    stalest = standing.stalest_at
    told: dict[tuple[str, ...], float | None] = {
        ("database_read_timestamp_seconds",): standing.read_at,
        ("last_success_timestamp_seconds",): standing.last_success_at,
        ("last_complete_timestamp_seconds",): standing.last_complete_at,
        ("skipped_runs",): standing.skipped,
        ("live_personas",): standing.live,
        ("failing_personas",): standing.failing,
        ("never_seen_personas",): standing.never_seen,
        ("untracked_personas",): standing.untracked,
        ("stalest_persona_timestamp_seconds",): stalest,
        ("stalest_persona_age_when_read_seconds",): (
            None if stalest is None else round(standing.read_at - stalest, 6)
        ),
        ("open_drift_paths",): standing.drift_paths,
        ("open_value_issues",): standing.value_issues,
    }
    if standing.revision is not None:
        told["schema_info", standing.revision] = 1.0
    return {key: float(value) for key, value in told.items() if value is not None}
