"""Values that did not fit: opened when met, resolved when gone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from etl.store.recordset import encode_rows, update, upsert
from etl.tables import observed_paths, value_issues

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.flatten import ValueIssue
    from etl.store.ahead import Ahead
    from etl.store.observations import EntityKey
    from etl.store.recordset import Row
    from etl.tables import Kind

_OPEN = text("""
    SELECT i.kind, i.entity_id, i.path
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, entity_id uuid)
      JOIN value_issues AS i USING (kind, entity_id)
     WHERE i.resolved_at IS NULL
""")

_ELEMENT = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True, slots=True)
class Found:
    """What did not fit in one document."""

    kind: Kind
    entity_id: UUID
    observed_at: datetime
    issues: list[ValueIssue]
    whole: bool
    """All of the document was looked at, not its observed fields alone."""


@dataclass(frozen=True, slots=True)
class Issues:
    """What to enter: not yet written."""

    met: list[Row]
    gone: list[Row]
    opened: int
    """How many were not open before."""
    open: dict[EntityKey, set[str]]
    """The paths that are open then, of each document that was looked at."""


def issues_of(connection: Connection, found: Sequence[Found], run_id: UUID, ahead: Ahead) -> Issues:
    """Tells which issues are new and which are gone. Writes nothing."""
    keys = encode_rows({"kind": f.kind, "entity_id": f.entity_id} for f in found)
    known: dict[EntityKey, set[str]] = {}
    for kind, entity_id, path in connection.execute(_OPEN, {"rows": keys}) if found else ():
        known.setdefault((kind, entity_id), set()).add(path)
    known |= ahead.issues
    met: list[Row] = []
    gone: list[Row] = []
    opened = 0
    left: dict[EntityKey, set[str]] = {}
    for document in found:
        before = known.get((document.kind, document.entity_id), set())
        # Of two at one place, a mended text that does not fit either, the first counts.
        now = {issue.path: issue for issue in reversed(document.issues)}
        opened += len(now.keys() - before)
        met += [
            {
                "kind": issue.kind,
                "entity_id": issue.entity_id,
                "path": issue.path,
                "problem": issue.problem,
                "expected": issue.expected,
                "got": issue.got,
                "first_seen_at": document.observed_at,
                "last_seen_at": document.observed_at,
                "resolved_at": None,
                "run_id": run_id,
            }
            for issue in now.values()
            # An unchanged document's known issue is no news.
            if document.whole or issue.path not in before
        ]
        resolved = {
            path
            for path in before - now.keys()
            if document.whole or _is_observed(document.kind, path)
        }
        gone += [
            {
                "kind": document.kind,
                "entity_id": document.entity_id,
                "path": path,
                "resolved_at": document.observed_at,
            }
            for path in resolved
        ]
        left[document.kind, document.entity_id] = (before | now.keys()) - resolved
    return Issues(met, gone, opened, left)


def record_issues(connection: Connection, issues: Issues) -> None:
    """Opens what is new, resolves what is gone."""
    upsert(connection, value_issues, issues.met, keep=("first_seen_at",))
    update(connection, value_issues, issues.gone, on=("kind", "entity_id", "path"))


def _is_observed(kind: Kind, path: str) -> bool:
    steps = tuple(_ELEMENT.sub(".[]", path).split("."))
    return steps in observed_paths(kind)
