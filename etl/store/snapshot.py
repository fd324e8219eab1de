"""Sessions of what only looks: each transaction sees one moment, and nothing can be written.

They wait for no table that somebody has locked for long.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from etl.store.engine import LOOKS_FOR_SECONDS, make_engine, translated
from etl.store.mapped import at_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine


def looking_engine(
    url: str, schema: str, *, json_deserializer: Callable[[str | bytes], Any] | None = None
) -> Engine:
    """An engine for several snapshots, or of a schema that may not be at head."""
    return make_engine(
        url,
        schema,
        lock_timeout_seconds=LOOKS_FOR_SECONDS,
        json_deserializer=json_deserializer,
        read_only=True,
    ).execution_options(isolation_level="REPEATABLE READ")


@contextmanager
def snapshot(
    url: str, schema: str, *, json_deserializer: Callable[[str | bytes], Any] | None = None
) -> Iterator[Connection]:
    """One snapshot, with the map that is in force.

    Raises DatabaseError unless `schema` is at head, and for what Postgres does to us within.
    """
    engine = at_head(looking_engine(url, schema, json_deserializer=json_deserializer), schema)
    with translated(engine), engine.begin() as connection:
        yield connection
