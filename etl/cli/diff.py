"""`diff`: what changed of a persona, field by field and word by word."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from etl.cli.database import target_of
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.moments import MomentOrVersion, iso
from etl.cli.selection import PersonaId
from etl.cli.streams import takes_colour

if TYPE_CHECKING:
    from uuid import UUID

    from etl.jobs.diff import Diff, Event
    from etl.jobs.lifeline import When
    from etl.payload.differences import Difference
    from etl.report.persona_diff import Comparison, Snapshot
    from etl.tables import Kind

EXAMPLES = """\b
Examples:
  persona-etl diff 11111111-2222-4333-8444-555555555555
  persona-etl diff 11111111-2222-4333-8444-555555555555 --from 2026-11-01
  persona-etl diff 11111111-2222-4333-8444-555555555555 --from v3 --to v5
  persona-etl diff 11111111-2222-4333-8444-555555555555 --json
"""

_SIGNS = {"same": "=", "old": "-", "new": "+"}


@click.command("diff", epilog=EXAMPLES)
@click.argument("persona_id", type=PersonaId(), metavar="PERSONA_ID")
@click.option(
    "--from",
    "since",
    type=MomentOrVersion(),
    metavar="WHEN",
    help="Since when; otherwise just before the last change by --to.",
)
@click.option(
    "--to",
    "until",
    type=MomentOrVersion(),
    default="now",
    metavar="WHEN",
    help="Until when; otherwise now.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_invocation
def command(
    invocation: Invocation, *, persona_id: UUID, since: When | None, until: When, as_json: bool
) -> None:
    """Show what changed of a persona, field by field and word by word.

    Without options the last change that reached it, be it its own or one of its avatar, voice,
    tools or knowledge groups. WHEN is a moment like 2026-11-23T14:00:00Z, a day (its midnight in
    UTC), a version of the persona like 3 or v3 (when that began), or now. Asks the database alone,
    and writes nothing. The role must be one that may read the tables.
    """
    from etl.cli.diff_screen import as_lines  # noqa: PLC0415  spares --help
    from etl.jobs.diff import diff  # noqa: PLC0415  spares --help
    from etl.payload.decode import dumps  # noqa: PLC0415  spares --help
    from etl.report.text import json_text  # noqa: PLC0415  spares --help

    settings = invocation.settings()
    with target_of(settings) as url:
        found = diff(settings, persona_id, url=url, since=since, until=until)
    if as_json:
        # With numbers as exact as they are stored.
        click.echo(json_text(dumps(as_object(found))))
    elif not invocation.quiet:
        coloured = takes_colour(sys.stdout)
        for line in as_lines(found, coloured=coloured):
            click.echo(line, color=coloured)


def as_object(found: Diff) -> dict[str, Any]:
    """What `--json` prints. Times are RFC 3339 in UTC, to the microsecond.

    - `persona_id`, `name`: whose it is; the name is null where no document is kept.
    - `from`, `to`: each `at`, `state` (`live`; `removed`: the API said 404; `unseen`; `pruned`: not
      kept), `version` in force, `valid_from` of it, and `shown_version`, whose document is
      compared: of a removed persona the one before.
    - `first_seen_at`; `kept_since`: null unless the history before that moment was pruned.
    - `is_reshaped`: there are changes, and only the API's shape moved, nobody edited.
    - `changes`: a field each, persona first, in the order of paths. `document` is `persona`, or
      the kind and id of a shared thing that stayed and changed, `voice <id>`; `path` is relative to
      it; `change` is `added` (was not sent), `removed` (is sent no more) or `changed`; `old` and
      `new` (null too where nothing was sent); `old_name` and `new_name` of what is referred to;
      `of_shape`; `words`, of long texts: pairs of `=`, `-` or `+` and a passage; `went` and `came`,
      of arrays whose order means nothing.
    - `not_kept`: the shared things of which one side is pruned.
    - `events`: what began after `from` up to `to`: `at`, `not_before` (last seen otherwise),
      `document`, `name`, `version`, `change` (`updated`, `reshaped`, `removed`, `restored`,
      `created`), `changed_paths`.
    - `unfolded`: how many of these documents have observations that the next run will fold in.
    """
    changes = [
        _change(found, comparison, change)
        for comparison in found.comparisons
        for change in comparison.changes
    ]
    return {
        "persona_id": str(found.persona_id),
        "name": found.name,
        "from": _moment(found.before),
        "to": _moment(found.after),
        "first_seen_at": iso(found.first_seen_at),
        "kept_since": iso(found.kept_since),
        "is_reshaped": bool(changes) and all(change["of_shape"] for change in changes),
        "changes": changes,
        "not_kept": [_document(c.kind, c.entity_id) for c in found.comparisons if not c.is_kept],
        "events": [_event(event) for event in found.events],
        "unfolded": found.unfolded,
    }


def _moment(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "at": iso(snapshot.at),
        "state": snapshot.state,
        "version": snapshot.version,
        "valid_from": iso(snapshot.valid_from),
        "shown_version": snapshot.shown_version,
    }


def _change(found: Diff, comparison: Comparison, change: Difference) -> dict[str, Any]:
    from etl.payload.differences import ABSENT  # noqa: PLC0415  spares --help
    from etl.report.persona_diff import elements, is_prose, is_set  # noqa: PLC0415  spares --help
    from etl.report.word_diff import word_diff  # noqa: PLC0415  spares --help

    old, new = (None if value is ABSENT else value for value in (change.old, change.new))
    told: dict[str, Any] = {
        "document": _document(comparison.kind, comparison.entity_id),
        "path": change.path,
        "change": "added"
        if change.old is ABSENT
        else "removed"
        if change.new is ABSENT
        else "changed",
        "old": old,
        "new": new,
        "of_shape": change.of_shape,
    }
    names = found.names(comparison, change)
    if any(names):
        told["old_name"], told["new_name"] = names
    if isinstance(old, str) and isinstance(new, str) and is_prose(change):
        told["words"] = [[_SIGNS[kind], text] for kind, text in word_diff(old, new)]
    if isinstance(old, list) and isinstance(new, list) and is_set(comparison.kind, change.path):
        told["went"], told["came"] = elements(change)
    return told


def _event(event: Event) -> dict[str, Any]:
    return {
        "at": iso(event.at),
        "not_before": iso(event.not_before),
        "document": _document(*event.key),
        "name": event.name,
        "version": event.version,
        "change": event.change,
        "changed_paths": list(event.changed_paths),
    }


def _document(kind: Kind, entity_id: UUID) -> str:
    return "persona" if kind == "persona" else f"{kind} {entity_id}"
