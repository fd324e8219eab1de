"""The target database of a command that has nothing to do where there is none yet."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.settings import Settings


@contextmanager
def target_of(settings: Settings) -> Iterator[str]:
    """Its URL; an embedded server runs until the `with` ends.

    Raises UsageError when no database is configured, DatabaseError when an embedded one has not
    been made: one that is made only now has nothing to tell.
    """
    from etl.store.embedded import require_cluster, served  # noqa: PLC0415  spares --help

    url = settings.require_database().get_secret_value()
    require_cluster(url, os.environ)
    with served(url, os.environ) as served_url:
        yield served_url
