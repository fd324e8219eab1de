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
from etl.map import TYPES
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
    for proposal in proposals:
        line = proposal.line
        declared = _declared(text)
        if line.is_list:
            if line.table in declared:
                raise UsageError(f"tables.py has a table {line.table} already; ignore the field")
            named = f"{line.table} = " if _is_free(line.table, text) else ""
            text = _above(text, NEW_TABLES, 0, _list(line, named) + "\n")
            continue
        if (call := declared.get(line.table)) is None:
            raise UsageError(f"tables.py declares no table {line.table}; put it back, then again")
        if line.column in _columns(call):
            raise UsageError(
                f"tables.py has a column {line.table}.{line.column} already:"
                " run `persona-etl migrate`, or take that line away"
            )
        text = _above(text, NEW_COLUMNS, call.lineno - 1, _column(line), call.end_lineno)
    return text


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


def _above(text: str, marker: str, start: int, new: str, end: int | None = None) -> str:
    """The text with something new above the marker that stands between these lines."""
    # Not `splitlines`: to Python's own parser a form feed ends no line.
    lines = text.split("\n")
    found = [at for at, each in enumerate(lines[:end]) if at >= start and each.strip() == marker]
    if len(found) != 1:
        where = f" in {lines[start].partition(' ')[0]}" if start else ""
        raise UsageError(
            f"tables.py has {len(found)} lines `{marker}`{where}; it needs one, where new ones go"
        )
    return "\n".join([*lines[: found[0]], *new.split("\n"), *lines[found[0] :]])


def _column(line: Line) -> str:
    called = (f'"{line.column}"', _TYPES[line.type], Text(line.path), *_said(line))
    return "\n".join(Call("column(", called).laid_out(4, ","))


def _list(line: Line, named: str) -> str:
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
    return "\n".join(Call(f"{named}projection(", called).laid_out(0))


def _said(line: Line) -> tuple[str | Text, ...]:
    comment = Text(line.comment, "comment=")
    if line.json_types == usual_json_types(TYPES[line.type]):
        return (comment,)
    return (comment, f"json_types={words(line.json_types)}")
