"""The lines of `tables.py` for proposed fields: its text, and the same with them in it.

They go above the markers, where people look for them. The rest of the file is left as it is.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from typing import TYPE_CHECKING, Final

from etl.errors import UsageError
from etl.map import TYPES, below
from etl.proposal.revision import list_table
from etl.proposal.spelling import Call, Text, words
from etl.tables import OWNER, PARENT, source, usual_json_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etl.map import Line
    from etl.proposal.model import Proposal

NEW_COLUMNS: Final = "# New columns above this line."
NEW_TABLES: Final = "# New tables above this line."

_TYPES: Final = {
    "uuid": "UUID_",
    "timestamptz": "TIME",
    "boolean": "Boolean()",
    "bigint": "BigInteger()",
    "double precision": "Double()",
    "text": "Text()",
    "jsonb": "JSONB()",
}
_WORDS: Final = {OWNER: "OWNER", PARENT: "PARENT"}


def with_lines(text: str, proposals: Sequence[Proposal]) -> str:
    """The text of `tables.py` with the lines of these fields in it, as ruff formats them.

    Raises:
        UsageError: The text is not that of a `tables.py`, or has a line of that name already.
    """
    # Not `splitlines`: to Python's own parser a form feed ends no line.
    lines = text.split("\n")
    declared = _declared(text)
    added: dict[int, list[str]] = {}
    for proposal in proposals:
        line = proposal.line
        call = declared.get(line.table)
        if line.is_list:
            if call is not None:
                raise UsageError(f"tables.py has a table {line.table} already; ignore the field")
            named = f"{line.table} = " if _is_free(line.table, text) else ""
            place = _marked(lines, NEW_TABLES)
            added.setdefault(place, []).extend([*_list(line, named), ""])
            continue
        if call is None:
            raise UsageError(f"tables.py declares no table {line.table}; put it back, then again")
        if line.column in _columns(call):
            raise UsageError(
                f"tables.py has a column {line.table}.{line.column} already:"
                " run `persona-etl migrate`, or take that line away"
            )
        place = _marked(lines, NEW_COLUMNS, line.table, call.lineno - 1, call.end_lineno)
        added.setdefault(place, []).extend(_column(line))
    return "\n".join(new for at, each in enumerate(lines) for new in [*added.get(at, ()), each])


def _declared(text: str) -> dict[str, ast.Call]:
    """The calls that make the tables of the map, by the table's name."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as exc:
        raise UsageError(f"tables.py is no Python ({exc}); mend it, then again") from None
    return {
        node.args[0].value: node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"projection", "Table"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def _is_free(name: str, text: str) -> bool:
    """Whether the module can call something by this name: it has no other use for it."""
    used = re.search(rf"\b{name}\b", text)
    return not (used or keyword.iskeyword(name) or hasattr(builtins, name))


def _columns(table: ast.Call) -> set[object]:
    """The columns that such a call names itself."""
    return {
        node.args[0].value
        for node in table.args
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
    }


def _marked(
    lines: list[str], marker: str, table: str = "", start: int = 0, end: int | None = None
) -> int:
    """Which of the lines that make a table, or of all, is the marker."""
    found = [at for at, each in enumerate(lines[:end]) if at >= start and each.strip() == marker]
    if len(found) != 1:
        raise UsageError(
            f"tables.py has {len(found)} lines `{marker}`{f' in {table}' if table else ''};"
            " it needs one, where new ones go"
        )
    return found[0]


def _column(line: Line) -> list[str]:
    called = (
        f'"{line.column}"',
        _TYPES[line.type],
        Text(below(line.kind, line.path)),
        *_said(line),
    )
    return Call("column(", called).laid_out(4, ",")


def _list(line: Line, named: str) -> list[str]:
    """The same table as the map makes of such a line where it was added locally."""
    owner, *_ = list_table(line).columns
    (reference,) = owner.foreign_keys
    found = source(owner)
    owned: str | Call = "persona_key()"
    if found is None or (owner.name, found.path) != ("persona_id", OWNER):
        word = OWNER if found is None else found.path
        key = f'ForeignKey("{reference.target_fullname}")'
        comment = Text(owner.comment or "", "comment=")
        owned = Call("column(", (f'"{owner.name}"', "UUID_", _WORDS[word], key, comment))
    value = Call("column(", (f'"{line.column}"', _TYPES[line.type], "SELF", *_said(line)))
    called = (
        f'"{line.table}"',
        f'"{line.kind}"',
        Text(line.path),
        '"list"',
        owned,
        "position()",
        value,
        f'key=("{owner.name}", "position")',
        Text(line.comment, "comment="),
    )
    return Call(f"{named}projection(", called).laid_out(0)


def _said(line: Line) -> tuple[str | Text, ...]:
    comment = Text(line.comment, "comment=")
    if line.json_types == usual_json_types(TYPES[line.type]):
        return (comment,)
    return (comment, f"json_types={words(line.json_types)}")
