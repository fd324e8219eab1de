"""What a document is called, in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.report.ours import text
from etl.tables import KINDS, name_column, source

if TYPE_CHECKING:
    from etl.tables import Kind


def name_of(document: str, kind: str) -> str:
    """SQL of a document's name, given SQL of it and of its kind; NULL when that is no scalar."""
    names = " ".join(f"WHEN {text(kind)} THEN {text(_path(kind))}" for kind in KINDS)
    path = f"CASE {kind} {names} END"
    return f"""CASE WHEN jsonb_typeof({document} -> {path}) NOT IN ('object', 'array')
            THEN {document} ->> {path}
       END"""


def _path(kind: Kind) -> str:
    found = source(name_column(kind))
    return found.path if found else "name"
