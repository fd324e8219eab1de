"""The wheel, installed outside of the checkout, does the job."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import psycopg
import pytest

from etl.sandbox import running_sandbox

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python of its own that has the wheel and the locked dependencies, and no checkout."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # The .pth files in there are not followed, so the editable checkout stays out of sight.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return home / "bin" / "python"


def run(python: Path, folder: Path, *arguments: str, **environment: str):
    return subprocess.run(
        [python, "-m", "etl", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_wheel_carries_the_migrations_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "etl/alembic.ini" in names
    assert "etl/migrations/env.py" in names
    assert any(name.startswith("etl/migrations/versions/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bench/", "migrations/"))]


def test_migrate_and_sync_run_from_an_empty_folder(
    installed: Path, tmp_path: Path, empty_database_url: str
) -> None:
    where = subprocess.run(
        [installed, "-c", "import etl; print(etl.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(installed.parents[1]) in where
    with running_sandbox(count=5) as sandbox:
        environment = {
            "PERSONA_ETL_DATABASE__URL": empty_database_url,
            "ANAM_API_URL": sandbox.url,
            "ANAM_API_KEY": sandbox.key,
        }
        migrated = run(installed, tmp_path, "migrate", **environment)
        assert (migrated.returncode, migrated.stderr) == (0, "")
        synced = run(installed, tmp_path, "-q", "sync", *sandbox.persona_ids, **environment)
        assert (synced.returncode, synced.stdout, synced.stderr) == (0, "", "")
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM anam.personas").fetchone() == (5,)
    assert list(tmp_path.iterdir()) == []
