"""What no document tells any more once some are gone: differences of API and map, value issues."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import any_, bindparam, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from etl.flatten import flatten
from etl.payload.paths import element, member
from etl.proposal.model import Key
from etl.store.chains import documents_in_order
from etl.store.drift import drifts
from etl.store.mapped import map_of
from etl.store.recordset import encode_rows
from etl.store.rows import delete_rows
from etl.tables import UUID_, documents, drift_paths, observed_paths, value_issues

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.payload.decode import Json
    from etl.store.observations import EntityKey
    from etl.tables import Kind

    Contents = Mapping[EntityKey, Sequence[bytes]]

_DOCUMENTS_AT_ONCE = 500
# What stands for a character or a number that could not be stored, as `reading.py` tells it.
_REPLACED = "replaced"

_WITHOUT_MEMBERS = text("""
    UPDATE drift_paths AS d
       SET new_members = ARRAY(SELECT m FROM unnest(d.new_members) WITH ORDINALITY AS t(m, place)
                                WHERE m <> ALL(k.members) ORDER BY place)
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, path text, members text[])
     WHERE d.kind = k.kind AND d.path = k.path AND d.problem = 'new_value'
""")

# A run that drift made fail says where, and the end of a long path is left out there.
_CUT_ERRORS = text("""
    UPDATE runs SET error = 'the API has moved and drift is to fail; where is forgotten'
     WHERE error LIKE 'the API has moved%'
       AND EXISTS (SELECT FROM unnest(:told) AS told WHERE position(told IN error) > 0)
""").bindparams(bindparam("told", type_=ARRAY(TEXT)))
_PATH_CHARACTERS = 40


class Told(NamedTuple):
    """What documents tell of a path: that it is unknown, or one new value of it."""

    key: Key
    new_member: str | None


@dataclass(frozen=True, slots=True)
class Untold:
    """What is to go."""

    paths: list[Key]
    """Rows of drift_paths."""
    members: dict[Key, list[str]]
    """New values of rows that stay."""
    issues: list[tuple[Kind, UUID, str]]
    """Rows of value_issues."""


def untold(connection: Connection, gone: Contents, staying: Contents, *, pruned: bool) -> Untold:
    """What only the documents that go told of. Writes nothing.

    Args:
        connection: Where the documents still are.
        gone: The contents that go, by their entity.
        staying: Of entities that lose some contents all those that are left.
        pruned: Documents went before these: nobody knows what those told.
    """
    paths: list[Key] = []
    members: dict[Key, list[str]] = {}
    kept = {drift.key: drift.new_members for drift in drifts(connection)}
    lost = _lost(connection, gone, pruned=pruned)
    for key in dict.fromkeys(told.key for told in sorted(lost, key=str)):
        mine = [m for m in kept[key] if Told(key, m) in lost]
        if key.problem == "unknown" or len(mine) == len(kept[key]):
            paths.append(key)
        else:
            members[key] = mine
    return Untold(paths, members, list(_untold_issues(connection, staying)))


def delete_untold(connection: Connection, found: Untold) -> Counter[str]:
    """Takes it out of the tables, also out of what runs said of it. Returns how many rows went."""
    delete_rows(connection, drift_paths, found.paths)
    delete_rows(connection, value_issues, found.issues)
    cut = [
        {"kind": key.kind, "path": key.path, "members": gone} for key, gone in found.members.items()
    ]
    if cut:
        connection.execute(_WITHOUT_MEMBERS, {"rows": encode_rows(cut)})
    places = [" ".join(key.path.split()) for key in (*found.paths, *found.members)]
    told = [place[:_PATH_CHARACTERS] for place in places]
    if told:
        connection.execute(_CUT_ERRORS, {"told": told})
    return +Counter({drift_paths.name: len(found.paths), value_issues.name: len(found.issues)})


def _lost(connection: Connection, gone: Contents, *, pruned: bool) -> set[Told]:
    known = {
        Told(drift.key, new_member)
        for drift in drifts(connection)
        if drift.problem in {"unknown", "new_value"}
        for new_member in (drift.new_members if drift.problem == "new_value" else [None])
    }
    if not known:
        return known
    lost = set(known) if pruned else set[Told]()
    for (kind, _), contents in gone.items() if not pruned else ():
        of_kind = {told for told in known if told.key.kind == kind}
        for told in _told(connection, kind, contents if of_kind else ()):
            lost |= told & of_kind
            if of_kind <= lost:
                break
    for kind in {told.key.kind for told in lost}:
        left_out = {c for key, contents in gone.items() if key[0] == kind for c in contents}
        for page in _pages(connection, kind):
            if not any(told.key.kind == kind for told in lost):
                break
            for told in _told(connection, kind, [c for c in page if c not in left_out]):
                lost -= told
    return lost


def _told(connection: Connection, kind: Kind, contents: Sequence[bytes]) -> Iterator[set[Told]]:
    """What each of these documents tells that is not as the map expects."""
    the_map = map_of(connection)
    for stored in documents_in_order(connection, kind, contents):
        if stored is not None:
            flat = flatten(kind, stored.entity_id, stored.document, "stored", the_map=the_map)
            yield {Told(Key(kind, f.path, f.problem), f.member) for f in flat.findings}


def _pages(connection: Connection, kind: Kind) -> Iterator[list[bytes]]:
    """The hashes of all documents of a kind, some at a time."""
    d = documents.c
    statement = select(d.content_hash).where(d.kind == kind).order_by(d.content_hash)
    page: list[bytes] = []
    while True:
        after = d.content_hash > (page[-1] if page else b"")
        found = connection.execute(statement.where(after).limit(_DOCUMENTS_AT_ONCE))
        if not (page := list(found.scalars())):
            return
        yield page


def _untold_issues(connection: Connection, staying: Contents) -> Iterator[tuple[Kind, UUID, str]]:
    """Issues of these entities that none of the contents that are left has."""
    for (kind, entity_id), issues in _issues(connection, staying).items():
        # An observed field stands in no document; its path is the map's own.
        left = issues.keys() - {".".join(path) for path in observed_paths(kind)}
        for stored in documents_in_order(connection, kind, staying[kind, entity_id]):
            if stored is None or not left:
                continue
            flat = flatten(kind, entity_id, stored.document, "stored", the_map=map_of(connection))
            left -= {issue.path for issue in flat.issues}
            if replaced := {path for path in left if issues[path] == _REPLACED}:
                left -= replaced & set(paths_within(stored.document))
        for path in sorted(left):
            yield kind, entity_id, path


def _issues(
    connection: Connection, entities: Collection[EntityKey]
) -> dict[EntityKey, dict[str, str | None]]:
    """The issues of these entities: what came, by the path."""
    found: dict[EntityKey, dict[str, str | None]] = {}
    i = value_issues.c
    for kind in {kind for kind, _ in entities}:
        ids = literal([id_ for k, id_ in entities if k == kind], ARRAY(UUID_))
        statement = select(i.entity_id, i.path, i.got).where(i.kind == kind)
        for entity_id, path, got in connection.execute(statement.where(i.entity_id == any_(ids))):
            found.setdefault((kind, entity_id), {})[path] = got
    return found


def paths_within(value: Json, path: str = "") -> Iterator[str]:
    """All paths of a document."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_within(inner, member(path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths_within(inner, element(path, inner, index))
