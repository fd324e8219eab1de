"""The wheel and its dependencies, installed from nothing for each Python that the machine has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from etl.sandbox import running_sandbox
from tests.db.revisions import revisions

CHECKOUT = Path(__file__).parents[2]
OLDEST = (3, 11)


def pythons() -> dict[str, Path]:
    """The interpreters by version: the one that runs this, those on the PATH, those of pyenv."""
    names = [which(f"python3.{minor}") for minor in range(OLDEST[1], 20)]
    candidates = [Path(sys.executable), *(Path(name) for name in names if name)]
    candidates += sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))
    found: dict[str, Path] = {}
    for python in candidates:
        # One on the PATH may be a wrapper that has no such version.
        ask = [str(python), "-c", "import sys; print(*sys.version_info[:2])"]
        told = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split()
        if told and (int(told[0]), int(told[1])) >= OLDEST:
            found.setdefault(".".join(told), python)
    return found


PYTHONS = pythons()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """The lock's versions as constraints, without the hashes, which the wheel has none of."""
    lines = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    file = tmp_path_factory.mktemp("lock") / "constraints.txt"
    pins = [line.rstrip(" \\") for line in lines if re.match(r"[a-z0-9]", line)]
    file.write_text("\n".join(pins), encoding="utf-8")
    return file


@pytest.mark.parametrize("version", PYTHONS)
def test_the_job_runs_from_an_empty_folder_on_python(version, wheel, locked, tmp_path):
    home = tmp_path / "venv"
    subprocess.run([PYTHONS[version], "-m", "venv", "--without-pip", home], check=True)
    pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--only-binary=:all:", "--constraint", locked]
    subprocess.run([*pip, f"{wheel}[embedded,html]"], check=True)

    folder = tmp_path / "empty"
    folder.mkdir()

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [home / "bin" / "python", "-W", "error", "-m", "etl", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    with running_sandbox(count=3, moving=False) as api:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "ANAM_API_URL": api.url,
            "ANAM_API_KEY": api.key,
            "PERSONA_ETL_DATABASE__URL": "embedded",
            "PERSONA_ETL_PERSONAS__IDS": ",".join(api.persona_ids),
        }
        assert "persona-etl " in run("--version")
        run("init")
        assert [path.name for path in folder.iterdir()] == ["persona-etl.toml"]
        assert f"is at {revisions()[-1]} now" in run("migrate")
        assert "created" in run("sync")
        assert "unchanged" in run("sync")
        assert run("report", "--html", "-").count("<svg ") > 1


def test_this_python_is_among_them():
    assert "{}.{}".format(*sys.version_info) in PYTHONS
