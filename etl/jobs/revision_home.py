"""Where a proposed revision goes: the user's own folder, or the checkout that this runs from.

Knows the places, and how to show what would be written to them; what is written others know.
"""

from __future__ import annotations

import difflib
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import etl
from etl.errors import UsageError
from etl.jobs.revising import write_to_checkout, write_to_folder
from etl.store.local_history import read_history
from etl.store.migration import alembic_config
from etl.store.revision_files import BASE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from etl.jobs.revising import Written
    from etl.map import Line
    from etl.proposal.model import Proposal
    from etl.settings import Settings

# What of a checkout, or of one's own folder, a revision is written by and to.
_IN_CHECKOUT = ("migrations/versions/*.py", "etl/tables.py")
_IN_FOLDER = ("*.py",)


@dataclass(frozen=True, slots=True)
class Home:
    """A folder that revisions are written to."""

    folder: Path
    is_checkout: bool

    def write(self, proposals: Sequence[Proposal], now: datetime) -> Written:
        """Writes one revision of these. Raises UsageError where that can't be."""
        write = write_to_checkout if self.is_checkout else write_to_folder
        return write(proposals, self.folder, now)

    def show(self, proposals: Sequence[Proposal], now: datetime) -> tuple[Written, dict[Path, str]]:
        """What `write` would write, which is done to a copy: by file its text.

        Of a file that is there already what would change, as a unified diff.
        """
        with _told(), tempfile.TemporaryDirectory(prefix="persona-etl-") as name:
            copy = Path(name).resolve() / "copy"
            copy.mkdir()
            self._copy_to(copy)
            written = Home(copy, self.is_checkout).write(proposals, now)
            return written, {
                self.folder / file.relative_to(copy): self._difference(file, copy)
                for file in written.files
            }

    def pending(self, present: str) -> tuple[Line, ...]:
        """The lines of revisions that lie there after `present`, and were not run yet.

        In a checkout there are none: the schema is not at the head then.
        """
        if self.is_checkout:
            return ()
        history = read_history(self.folder)
        run = present if history.knows(present) else BASE
        return tuple(line for one in history.between(run, history.head) for line in one.lines)

    def _copy_to(self, copy: Path) -> None:
        for pattern in _IN_CHECKOUT if self.is_checkout else _IN_FOLDER:
            for file in self.folder.glob(pattern):
                target = copy / file.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)

    def _difference(self, file: Path, copy: Path) -> str:
        text, inner = file.read_text(encoding="utf-8"), file.relative_to(copy)
        there = self.folder / inner
        if not there.exists():
            return text
        before, after = (t.splitlines(keepends=True) for t in (there.read_text("utf-8"), text))
        return "".join(difflib.unified_diff(before, after, f"a/{inner}", f"b/{inner}", n=1))


def home_of(settings: Settings) -> Home | None:
    """Where revisions go: `migrations.local_dir` if it is set, else the checkout if this is one."""
    if settings.migrations.local_dir is not None:
        return Home(settings.migrations.local_dir.absolute(), is_checkout=False)
    file = alembic_config().config_file_name
    # A wheel has it in the package.
    if file is None or Path(file).parent == Path(etl.__file__).parent:
        return None
    return Home(Path(file).parent, is_checkout=True)


def require_home(settings: Settings) -> Home:
    """The same, or a UsageError that says how to have one."""
    home = home_of(settings)
    if home is None:
        raise UsageError(
            "nowhere to write a revision to; set migrations.local_dir in persona-etl.toml, or"
            " PERSONA_ETL_MIGRATIONS__LOCAL_DIR, to a folder that you keep under version control"
        )
    return home


@contextmanager
def _told() -> Iterator[None]:
    """A copy that can't be made is for the user to mend."""
    try:
        yield
    except OSError as exc:
        raise UsageError(
            f"{exc.filename or 'no copy for --dry-run'}: {exc.strerror}; mend that, or set TMPDIR"
            " to a folder with room"
        ) from exc
