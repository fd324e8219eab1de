"""What is read off a folder of local revisions, and what is no such folder."""

from __future__ import annotations

import os

import pytest

from etl.errors import UsageError
from etl.store.local_history import read_history
from tests.local_revisions import LANGUAGES, MOOD, RANK, write


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "local"


def test_the_revisions_are_told_in_their_order_with_their_lines(folder):
    last = write(folder, 3, [LANGUAGES], up="    pass", down="    pass")
    write(folder, 1, [MOOD])
    write(folder, 2, [RANK])
    last.rename(folder / "0_comes_first_by_name.py")
    history = read_history(folder)
    assert [one.revision for one in history.revisions] == ["local_0001", "local_0002", "local_0003"]
    assert [line.path for line in read_history(folder).lines] == ["mood", "rank", "languages[]"]
    assert history.head == "local_0003"
    (mood, *_) = read_history(folder).lines
    assert (mood.table, mood.column, mood.json_types) == ("personas", "mood", ("string",))


def test_a_folder_without_revisions_ends_at_the_base(folder):
    folder.mkdir()
    for name in ("README.md", "__init__.py", ".#lock.py", "query.sql"):
        (folder / name).write_text("not a revision")
    (folder / "__pycache__").mkdir()
    assert (read_history(folder).head, read_history(folder).lines) == ("base", ())


def test_before_the_first_revision_is_written_there_are_no_lines(folder):
    assert not folder.exists()
    assert (read_history(folder).head, read_history(folder).lines) == ("base", ())
    folder.write_text("")
    with pytest.raises(UsageError, match=r"local: Not a directory; name the folder"):
        read_history(folder)


def test_nothing_of_it_is_run(folder, tmp_path):
    file = write(folder, 1, [MOOD])
    touched = tmp_path / "touched"
    file.write_text(file.read_text() + f"\nopen({str(touched)!r}, 'w')\nraise SystemExit\n")
    assert [line.path for line in read_history(folder).lines] == ["mood"]
    assert not touched.exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda text: text.replace("local_0001", "0003"), "no local revision; keep nothing else"),
        (lambda _: "import this\n", "no revision; keep nothing else in this folder"),
        (lambda _: "", "no revision"),
        (lambda text: text.replace("= None", "= ('local_0007', 'local_0008')", 1), "more than one"),
        (lambda text: text.replace("depends_on = None", "depends_on = '0001'"), "more than one"),
        (lambda text: text.replace("= None", "= 'local_0009'", 1), "local_0009, which is not in"),
        (lambda text: text.replace("= None", "= 'local_0001'", 1), "let the first follow None"),
        (
            lambda text: text.replace("def upgrade", "def up grade"),
            r"line \d+: expected '\('; corr",
        ),
        (lambda text: text + "x = " + "(" * 9000, "(?:nested|parenthes).*; correct it"),
        (lambda text: text + "x = " + "-" * 90000 + "1", "nested too deeply; correct it"),
        (lambda text: text + "\0", "; correct it|null bytes"),
        (lambda text: text.replace("'How it feels.'", "str(1)"), "LINES is no plain value"),
        (lambda text: text.replace("local_columns = sa", "LINES = {}\nx = sa"), "LINES is no list"),
        (lambda text: text.replace("'comment'", "'remark'"), "other keys than table_name, column"),
        (lambda text: text.replace("['string']", "'string'"), "a value that is no text"),
        (lambda text: text.replace("'How it feels.'", "7"), "a value that is no text"),
        (lambda text: text.replace("'How it feels.'", r"'\0'"), "a value that is no text"),
        (lambda text: text.replace("'persona'", "'person'"), "kind 'person'; write one of avatar"),
        (lambda text: text.replace("['string']", "['integer']"), "json type 'integer'; write one"),
        (lambda text: text.replace("'text'", "'money'"), "type 'money'; write one of uuid, timest"),
        (lambda text: text.replace("'mood'", "''"), "has no path; correct its LINES"),
        (
            lambda text: text.replace("'personas'", "'people'"),
            "mood is a member of what personas has rows of: people",
        ),
    ],
)
def test_what_is_no_local_revision_is_told_with_its_file(folder, spoil, says):
    file = write(folder, 1, [MOOD])
    file.write_text(spoil(file.read_text()), encoding="utf-8")
    with pytest.raises(UsageError, match=says) as told:
        read_history(folder)
    assert str(folder) in str(told.value)
    assert "\n" not in str(told.value)


def test_two_revisions_that_follow_one_are_no_history(folder):
    write(folder, 1, [MOOD])
    write(folder, 2, [RANK], before="local_0001")
    write(folder, 3, before="local_0001")
    with pytest.raises(UsageError, match=r"0002_\w+.py and .*0003_\w+.py both follow local_0001"):
        read_history(folder)


def test_two_files_of_one_revision_are_no_history(folder):
    file = write(folder, 1, [MOOD])
    (folder / "copy.py").write_bytes(file.read_bytes())
    with pytest.raises(UsageError, match=r"columns.py and copy.py are both local_0001; give one"):
        read_history(folder)


def test_what_is_no_text_or_no_file_is_not_waited_for(folder):
    folder.mkdir()
    for make, says in (
        (os.mkfifo, "a pipe that nobody writes to"),
        (lambda file: file.mkdir(), "cannot be read"),
        (lambda file: file.write_bytes(b"\xff"), "not UTF-8"),
        (lambda file: file.symlink_to("nowhere"), "there is no such file"),
    ):
        file = folder / "odd.py"
        make(file)
        with pytest.raises(UsageError, match=f"odd.py: {says}"):
            read_history(folder)
        file.rmdir() if file.is_dir() else file.unlink()


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "local").write_text("")
    with pytest.raises(UsageError, match=r"migrations.local_dir: .*local: Not a directory"):
        read_history(tmp_path / "local")
