"""Makes the nth statement or commit of this process go wrong, as a real server would do it.

Counted is what SQLAlchemy sends. What goes wrong goes wrong at the server: a session that it ends,
or an error that it returns.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa

from etl.errors import EtlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KILLED = "the session is ended"
ANSWER_LOST = "the session is ended after its commit, whose answer is lost"
ERRORS = {
    "57014": "a statement timeout, or somebody cancels it",
    "40001": "serialization failure",
    "40P01": "deadlock",
    "53100": "disk full",
    "53200": "out of memory",
}

# A commit that the server refuses: the deferred trigger raises what the row says.
DOOM = """
    CREATE TABLE IF NOT EXISTS public.doom (sqlstate text);
    CREATE OR REPLACE FUNCTION public.doom() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'doomed' USING ERRCODE = NEW.sqlstate; END $$;
    DROP TRIGGER IF EXISTS doom ON public.doom;
    CREATE CONSTRAINT TRIGGER doom AFTER INSERT ON public.doom
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.doom();
"""


class Strike:
    """What goes wrong: `how` is KILLED, ANSWER_LOST or an SQLSTATE.

    With ANSWER_LOST only commits are counted, as only theirs can be lost without a trace. `url` is
    the database's, for a session that ends others; it has DOOM.
    """

    def __init__(self, url: str, nth: int, how: str) -> None:
        self.url = url
        self.nth = nth
        self.how = how
        self.seen = 0
        self._is_striking = False

    @property
    def has_struck(self) -> bool:
        return 0 < self.nth <= self.seen

    def at_statement(
        self,
        connection: sa.Connection,
        _cursor: object,
        statement: str,
        parameters: Any,
        _context: object,
        executemany: bool,
    ) -> tuple[str, Any]:
        if self.how == ANSWER_LOST or not self._is_due():
            return statement, parameters
        if self.how == KILLED:
            self._end_session(connection)
            return statement, parameters
        refused = f"DO $$ BEGIN RAISE EXCEPTION 'doomed' USING ERRCODE = '{self.how}'; END $$"
        return refused, [()] if executemany else ()

    def at_commit(self, connection: sa.Connection) -> None:
        if not self._is_due():
            return
        if self.how == ANSWER_LOST:
            _driver_connection(connection).commit()
        if self.how in (KILLED, ANSWER_LOST):
            self._end_session(connection)
        else:
            self._is_striking = True
            connection.exec_driver_sql(f"INSERT INTO public.doom VALUES ('{self.how}')")
            self._is_striking = False
        if self.how == ANSWER_LOST:
            # The driver would not notice before the next statement.
            raise psycopg.OperationalError("the connection was lost")

    def _is_due(self) -> bool:
        if self._is_striking:
            return False
        self.seen += 1
        return self.seen == self.nth

    def _end_session(self, connection: sa.Connection) -> None:
        pid = _driver_connection(connection).info.backend_pid
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


@contextmanager
def striking(strike: Strike) -> Iterator[None]:
    """All that the process sends is counted, and the nth goes wrong."""
    listeners: dict[str, Callable[..., Any]] = {
        "before_cursor_execute": strike.at_statement,
        "commit": strike.at_commit,
    }
    sa.event.listen(
        sa.Engine, "before_cursor_execute", listeners["before_cursor_execute"], retval=True
    )
    sa.event.listen(sa.Engine, "commit", listeners["commit"])
    try:
        yield
    finally:
        for name, listener in listeners.items():
            sa.event.remove(sa.Engine, name, listener)


def struck(url: str, nth: int, how: str, work: Callable[[], object]) -> bool:
    """Does the work with its nth statement going wrong; False when it has no nth one.

    An error in good order may be raised; anything else is a bug, and passes.
    """
    strike = Strike(url, nth, how)
    with striking(strike), suppress(EtlError):
        work()
    return strike.has_struck


def _driver_connection(connection: sa.Connection) -> psycopg.Connection[Any]:
    found = connection.connection.driver_connection
    assert isinstance(found, psycopg.Connection)
    return found
