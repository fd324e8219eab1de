"""`init`: a file that says everything, changes nothing, and is never overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from etl.cli.main import cli
from etl.settings import Settings, known_keys, load_settings


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def init(*options: str, **environ: str) -> Result:
        return CliRunner().invoke(cli, [*options, "init"], env={"PERSONA_ETL_CONFIG": ""} | environ)

    return init


def test_the_file_loads_and_changes_nothing(init, tmp_path: Path) -> None:
    assert init().exit_code == 0
    assert load_settings({}, Path("persona-etl.toml"), cwd=tmp_path) == Settings()


def test_every_key_is_in_it_explained_and_right_when_uncommented(init, tmp_path: Path) -> None:
    init()
    file = tmp_path / "persona-etl.toml"
    lines = file.read_text(encoding="utf-8").splitlines()
    for key in known_keys().values():
        (row,) = (i for i, line in enumerate(lines) if line.startswith(f"#{key.name} = "))
        assert lines[row - 1].startswith(f"# {key.description}")
        assert key.description.endswith(".")
        lines[row] = lines[row].removeprefix("#")
    uncommented = "\n".join(lines)
    tables = tomllib.loads(uncommented)
    names = {(section, name) for section, table in tables.items() for name in table}
    assert names == set(known_keys())

    file.write_text(uncommented, encoding="utf-8")
    (tmp_path / "anam-api-key").write_text("hunter22")
    (tmp_path / "anam-api-key").chmod(0o600)
    (tmp_path / "persona-ids.txt").write_text("")
    settings = load_settings({}, cwd=tmp_path)
    for key in known_keys().values():
        if key.example is None:
            assert tables[key.section][key.name] == key.default
    assert settings.require_ids()


def test_only_its_owner_can_read_it(init, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        init()
    finally:
        os.umask(before)
    assert (tmp_path / "persona-etl.toml").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_left_alone(init, tmp_path: Path) -> None:
    file = tmp_path / "persona-etl.toml"
    file.write_text("# mine\n", encoding="utf-8")
    result = init()
    assert result.exit_code == 2
    assert result.stderr.startswith("persona-etl: error: persona-etl.toml is already there")
    assert file.read_text(encoding="utf-8") == "# mine\n"


def test_a_folder_that_is_not_there_is_a_usage_error(init) -> None:
    result = init("--config", "nowhere/persona-etl.toml")
    assert result.exit_code == 2
    assert "nowhere/persona-etl.toml: cannot be written (No such file" in result.stderr


def test_half_of_a_file_is_not_left_in_the_way(tmp_path: Path) -> None:
    # A limit on a file's size is a disk that fills up, for a test.
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 1; exec "$@"', "sh", sys.executable, "-m", "etl", "init"],
        cwd=tmp_path,
        env={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "persona-etl.toml: cannot be written (File too large)" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_writes_where_the_option_or_the_variable_says(init, tmp_path: Path) -> None:
    assert init(PERSONA_ETL_CONFIG="by-variable.toml").exit_code == 0
    assert init("--config", "by-option.toml", PERSONA_ETL_CONFIG="by-variable.toml").exit_code == 0
    assert {file.name for file in tmp_path.iterdir()} == {"by-variable.toml", "by-option.toml"}


def test_it_tells_the_next_steps_unless_quiet(init) -> None:
    result = init()
    assert result.stdout.startswith("Wrote persona-etl.toml. Next:\n")
    assert "persona-etl migrate" in result.stdout
    assert init("-q", "--config", "other.toml").output == ""
