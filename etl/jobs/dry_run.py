"""A run that only says what it would do: everything of `sync` but the writing.

Its sessions are read-only, it takes no lock and enters nothing in the ledger.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from etl.errors import EtlError, RunError
from etl.jobs.arrival import DatabaseClock
from etl.jobs.asking import Asking
from etl.jobs.halt import Halt, stopped_by_signals
from etl.jobs.reckoning import reckon
from etl.jobs.removal import gone_personas
from etl.jobs.summary import (
    Summary,
    Tally,
    log_new_drift,
    log_outcomes,
    status_of,
    verdict,
)
from etl.payload.decode import loads
from etl.payload.differences import differences
from etl.report.foreseen import Foreseen
from etl.store.ahead import Ahead
from etl.store.engine import LOOKS_FOR_SECONDS, driver_connection, make_engine, translated
from etl.store.mapped import at_head
from etl.store.session import break_off
from etl.store.states import persona_names
from etl.tables import FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.jobs.reckoning import Batch, Reckoned
    from etl.payload.decode import JsonObject
    from etl.payload.differences import Difference
    from etl.settings import Settings
    from etl.store.folding import Folded, Step
    from etl.store.observations import ContentKey


def dry_run(
    settings: Settings,
    ids: Sequence[UUID],
    *,
    url: str,
    discover: bool = False,
    strict: bool = False,
    allow_mass_removal: bool = False,
    unforget: bool = False,
    tell: Callable[[Foreseen], None],
    report: Callable[[Summary], None],
    watch: Callable[[Tally], None] = lambda _: None,
) -> None:
    """Tells what `sync` with the same arguments would do, then reports as it does.

    The observed columns, which make no versions, are left out, and so is what the API no longer
    sends: that is seen in the versions that a run has written.

    Raises:
        DatabaseError: Postgres is unreachable or its schema not at head.
        UsageError: the API's address or the key can't be used.
    """
    asking = Asking(settings, ids, discover=discover, unforget=unforget)
    schema = settings.database.schema_
    engine = make_engine(
        url,
        schema,
        lock_timeout_seconds=LOOKS_FOR_SECONDS,
        json_deserializer=loads,
        read_only=True,
    )
    engine = at_head(engine, schema)
    halt = Halt()
    with (
        stopped_by_signals(halt),
        translated(engine),
        engine.connect() as connection,
        halt.breaking(partial(break_off, driver_connection(connection))),
    ):
        clock = DatabaseClock.read(connection)
        connection.rollback()
        rehearsal = _Rehearsal(connection, Tally(len(ids)), tell, watch)
        started_at = clock.at(time.monotonic())

        def ended(status: str, error: EtlError | None) -> Summary:
            tally = rehearsal.tally
            return Summary(
                run_id=None,
                command="sync",
                status=status,
                started_at=started_at,
                finished_at=clock.at(time.monotonic()),
                counts=tally.counts(),
                value_issues=tally.value_issues,
                new_drift_paths=len(tally.new_drift_paths),
                http_requests=asking.http_requests,
                error=error,
            )

        error: EtlError | None
        try:
            with translated(engine):
                stopped = asking.ask(
                    engine, clock, halt=halt, known=rehearsal.known, load=rehearsal.load
                )
                if stopped is None:
                    limit = None if allow_mass_removal else settings.safety.max_removed_percent
                    rehearsal.remove(asking.ids, max_percent=limit)
            error = verdict(rehearsal.tally, stopped, settings.safety, strict=strict, run_id=None)
        except RunError as exc:
            error = exc
        except BaseException:
            if not halt.is_urgent:
                raise
            error = None
        log_new_drift(rehearsal.tally.new_drift_paths, settings.safety)
        error = halt.interruption or error
    report(ended(status_of(error), error))


class _Rehearsal:
    """Takes the loader's place."""

    def __init__(
        self,
        connection: Connection,
        tally: Tally,
        tell: Callable[[Foreseen], None],
        watch: Callable[[Tally], None],
    ) -> None:
        self.connection = connection
        self.tally = tally
        self._tell = tell
        self._watch = watch
        self._ahead = Ahead()
        self._run_id = uuid4()  # of a run that will not be

    def known(self, requested: int) -> None:
        """The number of personas is known now."""
        self.tally.requested = requested
        self._watch(self.tally)

    def load(self, batch: Batch) -> None:
        """Works out what a batch comes to, and tells it."""
        with self.connection.begin():
            reckoned = reckon(self.connection, batch, self._run_id, self._ahead)
        _remember(reckoned, self._ahead)
        self.tally = self.tally.plus(reckoned)
        log_outcomes(reckoned.items)
        for foreseen in _foreseen(reckoned):
            self._tell(foreseen)
        self._watch(self.tally)

    def remove(self, ids: Sequence[UUID], *, max_percent: float | None) -> None:
        """Tells which of the missing would be removed."""
        with self.connection.begin():
            gone = gone_personas(self.connection, self.tally, ids, new=0, max_percent=max_percent)
            names = persona_names(self.connection, gone)
        for persona_id in gone:
            self._tell(Foreseen("persona", persona_id, names[persona_id], "removed"))


def _foreseen(reckoned: Reckoned) -> Iterator[Foreseen]:
    """What a batch would change, then who would not be copied."""
    if reckoned.news is not None:
        for _, foreseen in foreseen_versions(reckoned.news.folded, reckoned.news.contents):
            yield foreseen
    for item in reckoned.items:
        if item.outcome in FAILURES:
            yield Foreseen("persona", item.persona_id, None, item.outcome, message=item.message)


def foreseen_versions(
    folded: Folded, brought: Mapping[ContentKey, JsonObject]
) -> Iterator[tuple[ContentKey, Foreseen]]:
    """The versions that would be opened, each with its content; `brought`: the new documents."""
    documents = {**brought, **folded.documents}
    opened = {key for key, moved in folded.moved().items() if moved.is_opened}
    for step in folded.steps:
        # Of a chain that is made anew only the end is news.
        if step.key in opened and (step.key in folded.chains or step.version.valid_to is None):
            content = (step.key[0], step.version.content_hash or b"")
            yield content, _of_version(step, documents)


def _of_version(step: Step, documents: dict[ContentKey, JsonObject]) -> Foreseen:
    kind, entity_id = step.key
    now = documents.get((kind, step.version.content_hash or b""), {})
    fields: Sequence[Difference] = ()
    if step.before is not None:
        fields = differences(kind, documents[kind, step.before], now)
    name = now.get("name", now.get("displayName"))
    return Foreseen(
        kind, entity_id, name if isinstance(name, str) else None, step.change.change, fields
    )


def _remember(reckoned: Reckoned, ahead: Ahead) -> None:
    """Keeps what later batches must know of the shared documents."""
    for key, paths in reckoned.issues.open.items():
        if key[0] != "persona":
            ahead.issues[key] = paths
    for novelty in reckoned.drift.new:
        members = novelty.details if novelty.key.problem == "new_value" else ()
        ahead.drift.setdefault(novelty.key, set()).update(members)
    if reckoned.news is None:
        return
    folded = reckoned.news.folded
    brought = reckoned.news.contents
    ahead.documents.update({key: brought[key] for key in brought if key[0] != "persona"})
    for kind, contents in folded.newest.items():
        ahead.newest.setdefault(kind, {}).update(contents)
    for key, group in folded.new.items():
        if key[0] == "persona":
            continue
        ahead.observations.setdefault(key, []).extend([*folded.confirmed.get(key, ()), *group])
        ahead.heads[key] = folded.head(key)
        # Of a chain that was made anew the fold kept no such thing.
        newest = ahead.newest.setdefault(key[0], {})
        for seen in group:
            if seen.content_hash is not None and seen.source_updated_at is not None:
                known = newest.get(seen.content_hash, seen.source_updated_at)
                newest[seen.content_hash] = max(known, seen.source_updated_at)
