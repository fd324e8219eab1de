"""What of a folder of local revisions still waits to be run."""

from __future__ import annotations

import pytest

from etl.jobs.revision_home import Home
from tests.local_revisions import LANGUAGES, MAKE_LANGUAGES, MOOD, RANK, write


@pytest.mark.parametrize(
    ("present", "waiting"),
    [
        ("base", ["mood", "rank", "languages[]"]),
        ("local_0001", ["rank", "languages[]"]),
        # What a release took over meanwhile is in `local_columns` no more, and waits for nothing.
        ("local_0002", []),
        # Somebody else's file is yet to come.
        ("local_0009", ["mood", "rank", "languages[]"]),
    ],
)
def test_what_waits_are_the_revisions_after_the_present_one(tmp_path, present, waiting):
    write(tmp_path, 1, [MOOD])
    write(tmp_path, 2, [RANK, LANGUAGES], up=MAKE_LANGUAGES)
    found = Home(tmp_path, is_checkout=False).pending(present)
    assert sorted(line.path for line in found) == sorted(waiting)
    assert Home(tmp_path, is_checkout=True).pending(present) == ()
