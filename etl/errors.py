"""Every error that persona-etl raises on purpose, grouped by what the caller should do.

    EtlError
    ├── UsageError             2   arguments or settings: nothing was started
    ├── PersonaError           3   one persona: record it, go on with the next
    │   ├── FetchFailedError       no whole body could be got
    │   ├── ForbiddenError         403 for this persona
    │   └── PayloadRejectedError   a body came, and it is no persona
    ├── DiscrepancyError       8   what is there is not what should be
    ├── OutputError           74   results can't be written, 141 when their reader is gone
    └── RunError                   the run: stop, close the ledger
        ├── KeyRefusedError    4   401, or 403 on all of two or more
        ├── SourceDownError    5   the API is unreachable or answers nothing but errors
        ├── DeferredError      5   the API told us to wait longer than allowed
        ├── DatabaseError      6   Postgres unreachable, or its schema not at head
        │   └── NoConnectionError      nobody answers there, or we are not let in
        ├── SafetyStopError    7   the data could be loaded, yet a person should look first
        ├── LockedError       75   another run writes to this target
        └── InterruptedRunError   130 or 143   by Ctrl-C, by SIGTERM

Anything else that escapes is a bug (exit 1, with its traceback), but for Terminated (143), which
is to SIGTERM what KeyboardInterrupt is to Ctrl-C.
"""

from __future__ import annotations

import errno
import os


class Terminated(KeyboardInterrupt):
    """SIGTERM. The driver cancels on the server what a KeyboardInterrupt comes upon."""


class EtlError(Exception):
    """The root: its message is one line a person can act on."""

    exit_code = 1


class UsageError(EtlError):
    """Arguments or settings are wrong; nothing was started."""

    exit_code = 2


class PersonaError(EtlError):
    """One persona could not be copied. Record it and go on with the next."""

    exit_code = 3


class FetchFailedError(PersonaError):
    """No whole body could be got: a timeout, a reset, a truncation, 5xx to the end."""

    def __init__(self, message: str, *, http_status: int | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status


class ForbiddenError(PersonaError):
    """403: the key may not read this persona."""


class PayloadRejectedError(PersonaError):
    """A body came and is no persona: not JSON, too big, another's id."""


class DiscrepancyError(EtlError):
    """The answer is no: what is there is not what should be."""

    exit_code = 8


class OutputError(EtlError):
    """Results can't be written: a full disk; or a pipe whose reader has seen enough.

    Not a UsageError: the work is done, only its result is not told. 74 is the neighbour of 75 in
    sysexits.h, EX_IOERR; 141 is how a shell shows a death by SIGPIPE.
    """

    exit_code = 74

    def __init__(
        self,
        number: int,
        where: str = "standard output",
        left: str = "what is printed is incomplete, what was done stays",
    ) -> None:
        super().__init__(f"{where}: {os.strerror(number)}; {left}")
        self.reader_is_gone = number == errno.EPIPE
        if self.reader_is_gone:
            self.exit_code = 141


class RunError(EtlError):
    """The run can't go on. Stop, keep what is settled, close the ledger."""


class KeyRefusedError(RunError):
    """The API refuses the key."""

    exit_code = 4


class SourceDownError(RunError):
    """The API is unreachable or answers nothing but errors."""

    exit_code = 5


class DeferredError(RunError):
    """The API told us to wait longer than `max_wait_seconds`."""

    exit_code = 5


class DatabaseError(RunError):
    """Postgres is unreachable, refuses us, or its schema is not at head."""

    exit_code = 6


class NoConnectionError(DatabaseError):
    """There was none to begin with: to ask again at once would only take as long again."""


class SafetyStopError(RunError):
    """Going on would remove or change more than is plausible."""

    exit_code = 7


class LockedError(RunError):
    """Another run holds the lock of this target."""

    exit_code = 75


class InterruptedRunError(RunError):
    """A signal asked the run to stop. What is settled stays."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted; what was loaded stays, the next run goes on")
        self.exit_code = 128 + signal_number
