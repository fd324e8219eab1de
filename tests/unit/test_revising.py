"""What `drift propose` writes: right, as it is, for every name; all of it, or nothing."""

from __future__ import annotations

import ast
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from etl.errors import UsageError
from etl.jobs.revising import Written, write_to_checkout, write_to_folder
from etl.map import Line, extended
from etl.map import lines_of as lines_of_map
from etl.payload.paths import member
from etl.proposal.model import Proposal, Rename
from etl.proposal.source import NEW_COLUMNS, NEW_TABLES
from tests.unit.proposals import (
    EVERY_HOME,
    EVERY_HOSTILE,
    EVERY_TYPE,
    HOSTILE,
    NOW,
    listed,
    proposal,
)

CHECKOUT = Path(__file__).parents[2]
VERSIONS = "migrations/versions"


@pytest.fixture
def checkout(tmp_path):
    """What of a checkout is written to, and what judges it."""
    made = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("etl", "migrations"):
        shutil.copytree(CHECKOUT / folder, made / folder, ignore=ignored)
    shutil.copy(CHECKOUT / "pyproject.toml", made)
    return made


def ruff(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("ruff"), *arguments, "--no-cache", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode else ""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def proposing_until_killed(folder: Path, nth: int) -> None:
    """Writes a revision, and dies at the nth thing that it does to a file."""
    left = iter(range(nth))

    def die(event: str, arguments: tuple[Any, ...]) -> None:
        of_ours = any(str(folder) in str(one) for one in arguments)
        is_of_files = event in {"open", "os.rename", "os.link", "os.remove"}
        if is_of_files and of_ours and next(left, None) is None:
            os._exit(9)

    sys.addaudithook(die)
    write_to_folder([proposal()], folder, NOW)
    os._exit(0)


def test_killed_at_any_moment_it_leaves_a_whole_revision_or_none(tmp_path):
    for nth in range(30):
        folder = tmp_path / str(nth)
        folder.mkdir()
        if (child := os.fork()) == 0:
            proposing_until_killed(folder, nth)
        _, status = os.waitpid(child, 0)
        for file in folder.glob("*.py"):
            assert file.read_text().endswith('""")\n')
        # What is left of it is in nobody's way.
        assert text_of(write_to_folder([proposal()], folder, NOW))
        if status == 0:
            break
    else:
        pytest.fail("it never got to its end")
    assert nth > 2


def text_of(written: Written) -> str:
    return written.files[0].read_text(encoding="utf-8")


def fields(count: int, name: str) -> list[Proposal]:
    """As many as it takes for a function to have many statements."""
    return [proposal(f"{name}{at}", f"{name}_{at}") for at in range(count)]


def test_what_is_written_passes_the_formatter_and_the_linter_as_it_is(checkout):
    many = [fields(count, f"of{count}") for count in (45, 46, 47, 48, 60)]
    for proposals in (EVERY_TYPE, EVERY_HOME, EVERY_HOSTILE, *many):
        write_to_checkout(proposals, checkout, NOW)
        # In a folder whose files are judged as migrations are.
        write_to_folder(proposals, checkout / "migrations" / "local", NOW)
    assert ruff(checkout, "format", "--diff") == ""
    assert ruff(checkout, "check") == ""


DESCRIBE = """
import pickle, sys
from etl.map import SHIPPED, extended
from etl.tables import OWNER, PARENT, POSITION, source

def described(the_map):
    return {
        (table.name, repr(the_map.origin(table)), column.name): (
            repr(column.type), column.nullable, column.comment, table.comment,
            sorted(key.target_fullname for key in column.foreign_keys),
            source(column) and (source(column).path, source(column).json_types
                if source(column).path not in {OWNER, PARENT, POSITION} else ()),
        )
        for table in the_map.projections()
        for column in table.columns
    }
"""


def test_the_written_map_is_the_one_that_local_lines_make(checkout):
    proposals = [*EVERY_TYPE, *EVERY_HOME, *EVERY_HOSTILE]
    write_to_checkout(proposals, checkout, NOW)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{DESCRIBE}\nsys.stdout.buffer.write(pickle.dumps(described(SHIPPED)))",
        ],
        cwd=checkout,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    names: dict[str, Any] = {}
    exec(DESCRIBE, names)
    local = names["described"](extended(tuple(each.line for each in proposals)))
    assert pickle.loads(done.stdout) == local


def test_a_local_file_carries_its_lines_as_data(tmp_path):
    proposals = [*EVERY_TYPE, *EVERY_HOME, *EVERY_HOSTILE]
    written = write_to_folder(proposals, tmp_path / "to" / "local", NOW)
    assert lines_of(text_of(written)) == tuple(
        sorted((each.line for each in proposals), key=lambda line: (line.table, line.column))
    )


def lines_of(text: str) -> tuple[Line, ...]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.AnnAssign) and node.value and ast.unparse(node.target) == "LINES":
            return lines_of_map(ast.literal_eval(node.value))
    raise AssertionError("no LINES")


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_a_name_is_code(tmp_path, checkout, text):
    """But for its texts, a file is the one that a harmless field gets."""
    proposals = [
        proposal(member("", key), "hostile", comment=key, shapes=(key,))
        for key in (text, "harmless")
    ]
    trees = []
    for each in proposals:
        folder = tmp_path / each.line.path.encode().hex()[:40]
        write_to_checkout([each], shutil.copytree(checkout, folder), NOW)
        write_to_folder([each], folder, NOW)
        trees.append([skeleton(file) for file in sorted(folder.rglob("*hostile*.py"))])
    assert trees[0] == trees[1]
    assert len(trees[0]) == 2


def skeleton(file: Path) -> str:
    text = file.read_text(encoding="ascii")
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = "text"
    return ast.dump(tree)


def test_a_revision_says_what_was_seen_since_when_and_what_it_came_in_place_of(checkout):
    renamed = Rename("vibe", "personas", "vibe", seen=12, equal=10)
    written = write_to_checkout([proposal(shapes=("time", "text"), renamed=renamed)], checkout, NOW)
    docstring = " ".join((ast.get_docstring(ast.parse(text_of(written))) or "").split())
    assert docstring.startswith("A column for `mood` of persona documents. - ")
    assert "seen in 12 new documents from 2026-11-20 to 2026-11-23" in docstring
    assert "as string (time, text). The type follows from 12 stored values." in docstring
    assert "as `vibe` (personas.vibe) went: with the same value in 10 of 12 documents" in docstring
    assert "Why: " in docstring


def test_files_are_numbered_after_the_last_and_named_for_what_they_bring(checkout, tmp_path):
    before = sorted((checkout / VERSIONS).glob("*.py"))
    number = int(before[-1].name.split("_")[1]) + 1
    first = write_to_checkout([proposal(), listed()], checkout, NOW)
    second = write_to_checkout([listed("a[]", "a_list")], checkout, NOW)
    assert [first.revision, second.revision] == [f"{number:04}", f"{number + 1:04}"]
    assert [file.name for file in (*first.files, second.files[0])] == [
        f"20261123_{number:04}_personas_mood_and_1_more.py",
        "tables.py",
        f"20261123_{number + 1:04}_a_list.py",
    ]
    assert f'down_revision = "{first.revision}"' in text_of(second)
    local = [write_to_folder([proposal()], tmp_path / "local", NOW) for _ in range(2)]
    assert [each.files[0].name for each in local] == [
        "20261123_local_0001_personas_mood.py",
        "20261123_local_0002_personas_mood.py",
    ]
    assert "down_revision = None" in text_of(local[0])
    assert 'down_revision = "local_0001"' in text_of(local[1])


def change(file: str, old: str, new: str, count: int = -1):
    """What edits a file of a checkout by hand."""

    def edit(checkout):
        text = (checkout / file).read_text()
        assert old in text
        (checkout / file).write_text(text.replace(old, new, count))

    return edit


def add(name: str, text: str):
    """What adds a revision by hand."""

    def write(checkout):
        for folder in (VERSIONS, "local"):
            (checkout / folder).mkdir(parents=True, exist_ok=True)
            (checkout / folder / name).write_bytes(text.encode("latin-1"))

    return write


TABLES = "etl/tables.py"
BY_HAND = [
    (change(TABLES, NEW_COLUMNS, "# x"), "0 lines `# New columns above this line.` in personas"),
    (change(TABLES, NEW_COLUMNS, f"{NEW_COLUMNS}\n    {NEW_COLUMNS}"), "has 2 lines"),
    (change(TABLES, NEW_TABLES, "# x"), "has 0 lines `# New tables above this line.`"),
    (change(TABLES, "avatars = projection(", "avatars = projection(("), "is no Python"),
    (change(TABLES, '"personas",\n    "persona"', '"people",\n    "persona"'), "no table personas"),
    (change(TABLES, '"persona_preset"', '"mood"'), r"a column personas\.mood already"),
    (change(TABLES, '"persona_tools",', '"persona_languages",'), "a table persona_languages"),
    (lambda checkout: (checkout / TABLES).unlink(), "No such file"),
    (lambda checkout: (checkout / TABLES).write_bytes(b"\xff"), "is not UTF-8"),
    (lambda checkout: shutil.rmtree(checkout / VERSIONS), "No such file"),
    (lambda checkout: [f.unlink() for f in (checkout / VERSIONS).glob("*.py")], "no revisions"),
]  # fmt: skip
BROKEN = [
    (add("a.py", "revision = 'local_0009'\ndown_revision = None"), "both follow base; let one"),
    (add("a.py", "def ("), r"a\.py: line 1: .*; correct it"),
    (add("a.py", "x = 1"), "no revision; keep nothing else"),
    (add("a.py", "revision = '9'\ndown_revision = 'gone'"), "follows gone, which is not in"),
    (add("a.py", "\xff"), "not UTF-8"),
]


@pytest.mark.parametrize(("edit", "told"), [*BY_HAND, *BROKEN])
def test_a_checkout_that_is_not_as_we_know_it_is_refused_and_left_as_it_is(checkout, edit, told):
    edit(checkout)
    before = contents(checkout)
    with pytest.raises(UsageError, match=told) as caught:
        write_to_checkout([proposal(), listed()], checkout, NOW)
    assert "\n" not in str(caught.value)
    assert contents(checkout) == before


@pytest.mark.parametrize(("edit", "told"), BROKEN)
def test_a_folder_with_something_else_in_it_is_refused(tmp_path, edit, told):
    write_to_folder([proposal()], tmp_path / "local", NOW)
    edit(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=told):
        write_to_folder([proposal()], tmp_path / "local", NOW)
    assert contents(tmp_path) == before


def test_two_files_of_one_revision_are_refused(tmp_path):
    written = write_to_folder([proposal()], tmp_path, NOW)
    shutil.copy(written.files[0], tmp_path / "copy.py")
    with pytest.raises(UsageError, match="are both local_0001; give one another id"):
        write_to_folder([proposal()], tmp_path, NOW)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "local").write_text("")
    with pytest.raises(UsageError, match="Not a directory; name the folder"):
        write_to_folder([proposal()], tmp_path / "local", NOW)


LIMITED = """
import pickle, resource, signal, sys
from pathlib import Path
from etl.errors import UsageError
from etl.jobs.revising import write_to_checkout, write_to_folder
from tests.unit.proposals import NOW, listed, proposal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
for write in (write_to_checkout, write_to_folder):
    try:
        write([proposal(), listed()], Path(sys.argv[1]), NOW)
    except UsageError as exc:
        print(exc)
"""


@pytest.mark.parametrize(("room", "refused"), [(100, 2), (9_000, 1)])
def test_when_the_disk_is_full_nothing_half_written_stays(checkout, room, refused):
    """9 kB are enough for a revision, not for tables.py."""
    before = contents(checkout)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, checkout, str(room)],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("File too large; nothing was written") == refused
    after = contents(checkout)
    made = {name: after.pop(name) for name in after.keys() - before.keys()}
    assert after == before
    assert len(made) == 2 - refused
    assert all("local_0001" in name for name in made)
