"""Names for what is added to the map: tables and columns that need no quotes anywhere. Pure.

A name comes off the wire: it is made of the words in a key, and of nothing else of it. One that is
given by hand is held to the same rules, and never altered.
"""

from __future__ import annotations

import builtins
import hashlib
import keyword
import re
import unicodedata
from itertools import count
from typing import TYPE_CHECKING, Final

from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS

from etl import tables
from etl.map import VALUE, Line, home, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from etl.map import Map
    from etl.proposal.inference import Inferred
    from etl.tables import Kind

MAX_NAME_LENGTH: Final = 50
"""Postgres takes 63 bytes: there is room for `__local`, and for what views put in front."""

# What the views that show the map's columns have besides.
_VIEW_COLUMNS = frozenset(
    {
        *("version", "valid_from", "valid_to", "last_observed_at", "observed_until"),
        *("change", "changed_paths", "source_updated_at", "run_id"),
        *("first_seen_at", "last_changed_at", "removed_at", "last_attempt_at", "last_outcome"),
        *("avatar_name", "voice_name", "voice_provider"),
        *("tool_count", "knowledge_group_count", "share_link_count"),
        *("prompt_version", "prompt_length", "last_success_at", "age"),
        "persona_count",
    }
)
# What the queries of those views know by a bare name, as a table or as an argument.
_VIEW_NAMES = frozenset(
    {
        *("persona", "avatar", "voice", "brain", "state", "tool", "link", "past", "first"),
        *("stored", "unpacked", "document", "moment"),
    }
)
_SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "oid", "tableoid"})

# SQLAlchemy knows most of what Postgres reserves. The others: what it does not know, and what may
# name a column, but not one that a function returns, unless it is quoted.
_RESERVED = RESERVED_WORDS | frozenset(
    """
    collation concurrently lateral system_user tablesample

    between bigint bit boolean char character coalesce dec decimal exists extract float greatest
    grouping inout int integer interval json json_array json_arrayagg json_exists json_object
    json_objectagg json_query json_scalar json_serialize json_table json_value least merge_action
    national nchar none normalize nullif numeric out overlay position precision real row setof
    smallint substring time timestamp treat trim values varchar xmlattributes xmlconcat xmlelement
    xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """.split()  # noqa: SIM905  (quoted one by one they fill a page)
)

# The views show what a persona is told beside what it is.
_SHOWN_TOGETHER = frozenset({"personas", "brains"})

_NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{MAX_NAME_LENGTH - 1}}}")
# A release that maps the same field with another type renames the local column so.
_LOCAL = "__local"
# Constraints and indexes stand beside tables, and the system's own tables before them.
_NO_TABLES = ("pg_", "pk_", "uq_", "ix_", "fk_", "ck_", "alembic_")
_MAX_KEY_LENGTH = 100

# As in TTSModelID2, userIDs, isZdr, mood_score, 3d.
_WORD = re.compile(
    r"[A-Z]{2,}s(?![a-z])[0-9]*|[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+[a-z]*"
)

# What tells a second column for the same field from the first.
_SUFFIXES = {
    "uuid": "uuid",
    "timestamptz": "time",
    "boolean": "boolean",
    "bigint": "number",
    "double precision": "number",
    "text": "text",
    "jsonb": "json",
}
_DATA = "its keys are data, not names; its values stay in extra"
_HINT = "give it one with --name NAME"


class UnnameableError(Exception):
    """No name can be made for a field, or the one given can't be had. One line, with what to do."""


def name_line(
    kind: Kind,
    path: str,
    inferred: Inferred,
    comment: str,
    the_map: Map,
    *,
    name: str | None = None,
    taken: Sequence[Line] = (),
    there: Collection[tuple[str, str]] = (),
    beside: str | None = None,
) -> Line:
    """The map's line for a field.

    Args:
        kind: The kind of documents that have the field.
        path: Where it stands in them, as drift tells it.
        inferred: What its column is, or its list.
        comment: The column's.
        the_map: The one in force, whose names are taken.
        name: The column's, of a list its table's. Refused rather than altered.
        taken: Lines that are not in the map yet.
        there: Tables and columns of the database, whoever made them.
        beside: The column that the field has already; the second is called after it and its type.

    Raises:
        UnnameableError: There is no name, or not this one.
    """
    path = path.removesuffix("[]")
    table, keys = place(kind, path)
    inside = the_map.origin(the_map.tables[table])
    (key,) = the_map.tables[table].primary_key.columns
    owner = key.name.removesuffix("_id")
    if beside:
        keys = [beside, _SUFFIXES[inferred.type]]
    if inferred.is_list:
        # Its table is called after its owner, which is never a part: that is named as well.
        around = [owner, *([inside.path] if inside.shape == "part" else [])]
        refusal = _refusal_of_table(the_map, taken, there)
    else:
        around, refusal = [], _refusal_of_column(the_map, table, taken, there)
    if name is None:
        name = next(n for n in _candidates(around, keys, owner) if refusal(n) is None)
    elif reason := refusal(name):
        raise UnnameableError(f"{reason}; {_HINT}")
    if inferred.is_list:
        table, path, column = name, f"{path}[]", VALUE
    else:
        column = name
    return Line(kind, path, table, column, inferred.type, inferred.json_types, comment)


def place(kind: Kind, path: str) -> tuple[str, list[str]]:
    """The table whose rows have the field, and the keys that lead there from a row's object.

    Raises UnnameableError where there is none, whatever it would be called.
    """
    try:
        table, found = home(kind, path), steps(path)
    except ValueError:
        raise UnnameableError(_DATA) from None
    below = found[len(steps(tables.origins()[table].path)) :]
    keys = [step for step in below if step is not None]
    if len(keys) < len(below):
        raise UnnameableError("it stands in an array that has no table; that is kept as a whole")
    if any(len(key) > _MAX_KEY_LENGTH for key in keys):
        raise UnnameableError(_DATA)
    return table, keys


def _candidates(around: Sequence[str], keys: Sequence[str], owner: str) -> Iterator[str]:
    """The name that the words in the keys make, the same after its owner, then with numbers."""
    words = [word for key in keys for word in _words(key)]
    if not words:
        raise UnnameableError(f"there is no word of a to z in its name; {_HINT}")
    name = "_".join([*(word for key in around for word in _words(key)), *words])
    owned = name if name.startswith(f"{owner}_") else f"{owner}_{name}"
    yield _fitted(name)
    yield _fitted(owned)
    stem = owned if name[0].isdigit() else name
    for number in count(2):
        yield _fitted(f"{stem}_{number}")


def _words(key: str) -> list[str]:
    """The words in a key, in small letters: `TTSModelID2` is `tts`, `model`, `id2`."""
    # Only what Unicode itself calls a letter with an accent: not look-alikes in other forms.
    plain = "".join(c for c in unicodedata.normalize("NFD", key) if not unicodedata.combining(c))
    if not plain.isascii():
        raise UnnameableError(f"its name is not of the letters a to z; {_HINT}")
    return [word.lower() for word in _WORD.findall(plain)]


def _fitted(name: str) -> str:
    """A name of at most so many bytes. Of two that begin alike each keeps a name of its own."""
    if len(name) <= MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME_LENGTH - 9].rstrip('_')}_{digest}"


def _refusal_of_column(
    the_map: Map, table: str, taken: Sequence[Line], there: Collection[tuple[str, str]]
) -> Callable[[str], str | None]:
    """What says why a name can't be a column's in this table; None: it can."""
    inside = the_map.origin(the_map.tables[table])
    is_shown = inside.shape == "entity" or table in _SHOWN_TOGETHER
    together = _SHOWN_TOGETHER if table in _SHOWN_TOGETHER else {table}
    used = {column.name for name in together for column in the_map.tables[name].columns}
    used |= {line.column for line in taken if line.table in together}
    used |= {column for of, column in there if of in together}
    shown = _VIEW_COLUMNS | _VIEW_NAMES | _shown_of_others(the_map, inside.kind)

    def refusal(name: str) -> str | None:
        if name in used:
            return f"{name} is taken, in {' or '.join(sorted(together))}"
        if name in _SYSTEM_COLUMNS or (is_shown and name in shown):
            return f"{name} means something else in tables or views"
        return _refusal_of_name(name)

    return refusal


def _shown_of_others(the_map: Map, kind: Kind) -> set[str]:
    """What the views call the options and the lists of a document, beside its own columns."""
    names = set()
    for table in the_map.projections(kind):
        match the_map.origin(table).shape:
            case "part" if table.name not in _SHOWN_TOGETHER:
                prefix = table.name.removesuffix("_options")
                names |= {f"{prefix}_{column.name}" for column in table.columns}
            case "values" | "list":
                names.add(table.name.removeprefix(f"{kind}_"))
    return names


def _refusal_of_table(
    the_map: Map, taken: Sequence[Line], there: Collection[tuple[str, str]]
) -> Callable[[str], str | None]:
    """What says why a name can't be a list's table's; None: it can."""
    used = {*the_map.metadata.tables, *(line.table for line in taken), *(of for of, _ in there)}

    def refusal(name: str) -> str | None:
        # In a checkout it names a variable of `tables.py` as well.
        is_python = any(hasattr(there, name) for there in (builtins, tables))
        if name in used or is_python or keyword.iskeyword(name):
            return f"{name} is taken"
        if name.startswith(_NO_TABLES):
            return f"{name} begins as names of the database's own do"
        return _refusal_of_name(name)

    return refusal


def is_plain(name: str) -> bool:
    """Whether a name needs quotes nowhere in SQL."""
    return _NAME.fullmatch(name) is not None and name not in _RESERVED


def _refusal_of_name(name: str) -> str | None:
    if not _NAME.fullmatch(name):
        return f"a name is a letter, then letters a to z, 0 to 9 and _, at most {MAX_NAME_LENGTH}"
    if name in _RESERVED:
        return f"{name} is a word of SQL"
    if name.endswith(_LOCAL):
        return f"names that end in {_LOCAL} are kept for columns that a release takes over"
    return None
