"""The values at a path in all documents that are stored, also those that are in force no more.

They come as a stream, and as small as the question which type holds them allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from etl.map import steps
from etl.payload.decode import loads

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Connection

    from etl.payload.decode import Json
    from etl.tables import Kind

_ROWS_AT_ONCE = 2000

# No uuid is longer, nor a time that says something to a microsecond; of a prompt of 10 MB so much
# tells that it is a text.
_BYTES_OF_A_STRING = 64

# OFFSET keeps the planner from looking the value up again at each mention.
_VALUES = """
    SELECT jsonb_typeof(found.value) = 'array' AS is_array,
           jsonb_typeof(single.item) AS json_type,
           CASE WHEN jsonb_typeof(single.item) = 'string'
                 AND octet_length(single.item #>> '{{}}') > :bytes
                THEN left(single.item #>> '{{}}', :bytes) || '…'
                WHEN jsonb_typeof(single.item) NOT IN ('array', 'object')
                THEN single.item #>> '{{}}'
            END AS told
      FROM documents AS stored
           {elements}
     CROSS JOIN LATERAL (SELECT {value} AS value OFFSET 0) AS found
      LEFT JOIN LATERAL jsonb_array_elements(
           CASE jsonb_typeof(found.value) WHEN 'array' THEN found.value END) AS element (item)
        ON true
     CROSS JOIN LATERAL (
           SELECT CASE jsonb_typeof(found.value) WHEN 'array' THEN element.item ELSE found.value END
               AS item) AS single
     WHERE stored.kind = :kind AND jsonb_typeof(found.value) <> 'null'
"""
_ELEMENTS = """
     CROSS JOIN LATERAL jsonb_array_elements(
           CASE jsonb_typeof({array}) WHEN 'array' THEN {array} ELSE '[]' END) AS {name} (item)
"""


def stored_values(connection: Connection, kind: Kind, path: str) -> Generator[Json]:
    """What stands at a path, `brain.mood` or `shareLinks[].label`, in the documents of a kind.

    Nulls are left out. What is long is shortened: an object is `{}`, a string is cut and ends in an
    ellipsis, an array comes an element at a time, each in an array of its own.

    Raises ValueError for a path whose keys are data, and for what is no path.
    """
    # A path off the wire: its keys go in as parameters. `->` takes them for nothing but keys.
    value, elements, keys = "stored.document", "", list[str]()
    for step in steps(path):
        if step is None:
            name = f"element_{len(keys)}"
            elements += _ELEMENTS.format(array=value, name=name)
            value = f"{name}.item"
        else:
            value = f"({value} -> CAST(:key_{len(keys)} AS text))"
            keys.append(step)
    statement = text(_VALUES.format(elements=elements, value=value)).execution_options(
        yield_per=_ROWS_AT_ONCE
    )
    parameters = {f"key_{number}": key for number, key in enumerate(keys)}
    wanted = parameters | {"kind": kind, "bytes": _BYTES_OF_A_STRING}
    with connection.execute(statement, wanted) as found:
        for is_array, json_type, told in found:
            item = _value(json_type, told)
            if not is_array:
                yield item
            else:
                yield [] if json_type is None else [item]


def _value(json_type: str | None, told: str | None) -> Json:
    match json_type:
        case "object":
            return {}
        case "array":
            return []
        case "string":
            return told
        case None | "null":
            return None
        case _:
            return loads(told or "")
