"""What tests of several commands begin with."""

from __future__ import annotations

import pytest


@pytest.fixture
def url(sandbox, database_url, tmp_path, monkeypatch):
    """A migrated database without a persona; it and the module's sandbox are what commands find."""
    for name, value in {
        "ANAM_API_KEY": sandbox.key,
        "ANAM_API_URL": sandbox.url,
        "PERSONA_ETL_DATABASE__URL": database_url,
        "PERSONA_ETL_PERSONAS__IDS": ",".join(sandbox.persona_ids),
        "XDG_CONFIG_HOME": str(tmp_path),
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return database_url
