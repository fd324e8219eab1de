"""Reading what should not be there: values that Python's types have no place for.

A moment that is infinite or has a year of five digits, and JSON's null where SQL's is meant.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import Loader
from psycopg.pq import Format

from etl.payload.decode import loads

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg.abc import AdaptContext, Buffer
    from sqlalchemy import Connection

    from etl.payload.decode import Json

_TYPE = "timestamptz"


class JsonNull(Enum):
    """JSON's null: no other value is equal to it."""

    NULL = "null, as JSON has it"


def loads_faithfully(text: str | bytes) -> Json | JsonNull:
    """Parse jsonb: SQL's NULL, which does not come here, is another value than JSON's."""
    value = loads(text)
    return JsonNull.NULL if value is None else value


def read_faithfully(connection: Connection) -> None:
    """Makes a connection give a moment that Python can't hold as Postgres writes it."""
    driver_connection: Any = connection.connection.driver_connection
    driver_connection.adapters.register_loader(_TYPE, _MomentLoader)


class _MomentLoader(Loader):
    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        usual = psycopg.adapters.get_loader(oid, Format.TEXT)
        assert usual is not None  # noqa: S101  the driver's own
        self._load = usual(oid, context).load

    def load(self, data: Buffer) -> datetime | str:
        try:
            moment: datetime = self._load(data)
        except psycopg.DataError:
            return bytes(data).decode()
        return moment
