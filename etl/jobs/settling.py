"""Folds what was observed and not yet folded: versions from observations, rows from versions.

A load from files leaves that to its end, and one that died to whoever runs next.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from etl.flatten import Flat, ValueIssue, flatten
from etl.jobs.chains import replay_chains
from etl.store.ahead import Ahead
from etl.store.chains import BYTES_AT_ONCE, Picked, documents_in_order, sizes_of
from etl.store.issues import Found, issues_of, record_issues
from etl.store.mapped import map_of
from etl.store.projections import Projected, project, update_observed
from etl.store.rows import delete_entities, standings_of
from etl.store.unfolded import (
    count_unfolded,
    forget_unfolded,
    latest_copies,
    next_unfolded,
    observe_contexts,
)
from etl.tables import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.jobs.opened_run import OpenedRun
    from etl.store.rows import Standing
    from etl.tables import Kind

_ENTITIES_AT_ONCE = 500


def settle(
    run: OpenedRun, *, watch: Callable[[int, int], None] = lambda _done, _total: None
) -> int:
    """Folds all that is noted as unfolded, a few hundred entities a transaction.

    Shared documents come before the personas that refer to them. `watch` is told how many are done,
    of how many. Returns how many value issues were opened.
    """
    with run.connection.begin():
        total = count_unfolded(run.connection)
    done = opened = 0
    gone: dict[Kind, list[UUID]] = {}
    for kind in KINDS if total else ():
        after: UUID | None = None
        while True:
            run.halt.check()
            ids, folded = run.in_transaction(partial(_fold_next, run, kind, after))
            if not ids:
                break
            after = ids[-1]
            done += len(ids)
            opened += folded.value_issues
            if folded.gone:
                gone.setdefault(kind, []).extend(folded.gone)
            watch(done, total)
    for kind, ids in gone.items():
        # Personas referred to them until they were folded themselves.
        run.halt.check()
        run.in_transaction(partial(_delete, run.connection, kind, ids))
    return opened


def _fold_next(run: OpenedRun, kind: Kind, after: UUID | None) -> tuple[list[UUID], Folding]:
    ids = next_unfolded(run.connection, kind, after, _ENTITIES_AT_ONCE)
    if kind != "persona" and ids:
        observe_contexts(run.connection, kind, ids, run.run_id)
    return ids, fold_entities(run.connection, kind, ids, run_id=run.run_id)


def _delete(connection: Connection, kind: Kind, ids: Sequence[UUID]) -> None:
    delete_entities(connection, kind, ids)
    forget_unfolded(connection, kind, ids)


@dataclass(frozen=True, slots=True)
class Folding:
    """What became of entities that were folded."""

    value_issues: int
    """How many were opened."""
    gone: list[UUID]
    """Those that nobody has observed, it turns out: their rows are there, as others may refer to
    them, and they are still noted as unfolded."""


def fold_entities(
    connection: Connection, kind: Kind, ids: Sequence[UUID], *, run_id: UUID
) -> Folding:
    """Makes these entities' versions and rows what their observations say, in one transaction.

    What they refer to has its rows already. They are noted as unfolded no more.
    """
    before = {standing.entity_id: standing for standing in standings_of(connection, kind, ids)}
    mended = replay_chains(connection, kind, Picked(ids), None, write=True)
    moved = {
        entity_id: standing
        for entity_id, standing in mended.items()
        if standing is not None and standing != before.get(entity_id)
    }
    gone = [entity_id for entity_id, standing in mended.items() if standing is None]
    issues = 0
    for part in _parts(connection, kind, moved):
        issues += _project(connection, kind, part, before, run_id)
    copies = latest_copies(connection, kind, ids)
    update_observed(connection, [Flat(rows=copy["rows"]) for copy in copies.values()])
    issues += _record_issues_of_copies(connection, kind, copies, {**before, **moved}, run_id)
    forget_unfolded(connection, kind, sorted(set(ids) - set(gone)))
    return Folding(issues, gone)


def _parts(
    connection: Connection, kind: Kind, standings: Mapping[UUID, Standing]
) -> Iterator[dict[UUID, Standing]]:
    """As many at once as have documents that may be held."""
    contents = [s.content_hash for s in standings.values() if s.content_hash is not None]
    sizes = sizes_of(connection, kind, contents)
    part: dict[UUID, Standing] = {}
    size = 0
    for entity_id, standing in standings.items():
        more = sizes.get(standing.content_hash or b"", 0)
        if part and size + more > BYTES_AT_ONCE:
            yield part
            part, size = {}, 0
        part[entity_id] = standing
        size += more
    if part:
        yield part


def _project(
    connection: Connection,
    kind: Kind,
    standings: Mapping[UUID, Standing],
    before: Mapping[UUID, Standing],
    run_id: UUID,
) -> int:
    """Makes the tables say what these stand for. Returns how many value issues were opened."""
    the_map = map_of(connection)
    shown = {id_: s for id_, s in standings.items() if s.content_hash is not None}
    read = documents_in_order(connection, kind, [s.content_hash or b"" for s in shown.values()])
    on_time: list[Projected] = []
    late: list[Projected] = []
    found: list[Found] = []
    for (entity_id, standing), stored in zip(shown.items(), read, strict=True):
        if stored is None:
            continue
        flat = flatten(kind, entity_id, stored.document, "stored", the_map=the_map)
        was = before.get(entity_id)
        # What is in force since earlier than it was may have lost a share link to another.
        is_late = was is not None and standing.last_changed_at < was.last_changed_at
        (late if is_late else on_time).append(
            Projected(
                kind,
                entity_id,
                flat,
                standing.first_seen_at or standing.last_changed_at,
                standing.last_changed_at,
                removed_at=standing.last_changed_at if standing.is_removed else None,
                is_new=was is None,
            )
        )
        found.append(Found(kind, entity_id, standing.last_changed_at, flat.issues, whole=True))
    project(connection, on_time)
    project(connection, late, are_late=True)
    issues = issues_of(connection, found, run_id, Ahead())
    record_issues(connection, issues)
    return issues.opened


def _record_issues_of_copies(
    connection: Connection,
    kind: Kind,
    copies: Mapping[UUID, dict[str, Any]],
    standings: Mapping[UUID, Standing],
    run_id: UUID,
) -> int:
    """Opens what was wrong with copies alone: mended text, observed fields that do not fit."""
    found = [
        Found(
            kind,
            entity_id,
            standings[entity_id].last_changed_at,
            [ValueIssue(kind, entity_id, *issue) for issue in copy["issues"]],
            whole=False,
        )
        for entity_id, copy in copies.items()
        if copy["issues"] and entity_id in standings
    ]
    issues = issues_of(connection, found, run_id, Ahead())
    record_issues(connection, issues)
    return issues.opened
