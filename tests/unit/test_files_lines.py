"""Files, folders, gzip and pipes become lines; what can't be read is told and the rest goes on."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.errors import UsageError
from etl.files.lines import Lines
from tests.unit.strategies import properties

if TYPE_CHECKING:
    from collections.abc import Sequence

AT = datetime(2026, 3, 1, tzinfo=UTC)
NDJSON = b'{"a": 1}\n{"b": 2}\n{"c": 3}\n'
RAWS = [b'{"a": 1}', b'{"b": 2}', b'{"c": 3}']
PRETTY = b'[\n  {"a": 1},\n  {"b": 2},\n  {"c": 3}\n]\n'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def lines(*paths: str, dated: datetime | None = None, stdin: bytes = b"") -> Lines:
    return Lines(paths, dated=dated, stdin=io.BytesIO(stdin))


def read(*paths: str, **options: Any) -> list[tuple[str, int, bytes | str]]:
    """Of each line the file, the number, and the value or the problem."""
    return [(x.name, x.number, x.problem or x.raw) for x in lines(*paths, **options)]


def names(*paths: str) -> list[str]:
    return [line.name for line in lines(*paths)]


def put(path: str, content: bytes = b"{}") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)


def test_a_folder_is_its_files_of_these_names_in_order_below_it_too():
    for name in ("b/z.json", "b/a.NDJSON", "a.jsonl.gz", "c.json.gz", "b/deep/er/x.ndjson.gz"):
        put(f"in/{name}")
    for name in (".hidden.json", ".git/x.json", "b/notes.txt", "b/x.json.bak", "json", "b/x.gz"):
        put(f"in/{name}")
    expected = ["a.jsonl.gz", "b/a.NDJSON", "b/deep/er/x.ndjson.gz", "b/z.json", "c.json.gz"]
    assert names("in") == [f"in/{name}" for name in expected]
    assert names("in/b/notes.txt", "in/.hidden.json") == ["in/b/notes.txt", "in/.hidden.json"]


def test_links_are_followed_and_a_loop_of_them_ends():
    put("in/a.json")
    put("elsewhere/b.json")
    for link, target in (("in/loop", ".."), ("in/other", "../elsewhere"), ("in/self", "self")):
        Path(link).symlink_to(target)
    Path("elsewhere/back").symlink_to("../in")
    Path("in/dangling.txt").symlink_to("nowhere")
    assert sorted(names("in")) == ["in/a.json", "in/loop/elsewhere/b.json"]


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (["there", "nowhere.json"], "nowhere.json: no such file or folder"),
        (["there/a.json/b"], "there/a.json/b: no such file or folder"),
        (["a\x1b[31m\udcff"], "a\\x1b[31m\\xff: no such file or folder"),
        (["there", "empty"], "empty: nothing to read in this folder; files there are found by"),
        (["-", "-"], "-: standard input can be read once only"),
    ],
)
def test_paths_where_nothing_is_are_told_before_anything_is_read(paths, told):
    put("there/a.json")
    put("empty/a.txt")
    with pytest.raises(UsageError) as raised:
        lines(*paths)
    assert str(raised.value).startswith(told)


def test_a_file_without_a_value_is_no_mistake():
    put("a.json", b"")
    put("b.json", b"\n \n")
    put("c.json.gz", gzip.compress(b""))
    assert read(".") == []


@contextmanager
def unprivileged():
    """Not as root, who may read everything."""
    before = os.geteuid()
    Path().chmod(0o755)
    os.seteuid(before or 65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_file_that_may_not_be_read_is_told_and_the_rest_goes_on():
    for path in ("in/a.json", "in/b.json", "in/c/d.json"):
        put(path)
    Path("in/a.json").chmod(0)
    Path("in/c").chmod(0)
    denied = "can't be read: Permission denied"
    with unprivileged():
        found = read("in", "in/c", "in/c/d.json")
    assert found == [
        ("in/a.json", 1, denied),
        ("in/b.json", 1, b"{}"),
        ("in/c", 1, denied),
        ("in/c", 1, denied),
        ("in/c/d.json", 1, denied),
    ]


def test_what_can_not_be_read_any_more_is_told_and_the_rest_goes_on():
    for name in "abcd":
        put(f"in/{name}.json")
    found = lines("in", "in/a.json")
    Path("in/a.json").unlink()
    Path("in/a.json").symlink_to("nowhere")
    it = iter(found)
    first = next(it)
    Path("in/b.json").unlink()
    Path("in/b.json").mkdir()
    rest = [(x.name, x.problem) for x in it]
    missing = "can't be read: No such file or directory"
    assert (first.name, first.number, first.raw, first.problem) == ("in/a.json", 1, b"", missing)
    assert rest == [("in/c.json", None), ("in/d.json", None), ("in/a.json", missing)]


def test_an_error_on_the_way_is_told_behind_what_was_read():
    # A folder can be opened, and not be read.
    put("in/a.json")
    found = lines("in/a.json", "-", stdin=b'{"b": 2}')
    Path("in/a.json").unlink()
    Path("in/a.json").mkdir()
    put("in/a.json/x.json")
    assert [x.name for x in found] == ["in/a.json/x.json", "-"]

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if piece := super().read(10):
                return piece
            raise OSError(5, "Input/output error")

    failing = Lines(["-"], dated=None, stdin=Failing(NDJSON))
    assert [x.problem or x.raw for x in failing] == [*RAWS, "can't be read: Input/output error"]


def test_a_pipe_is_read_when_it_is_named_and_left_alone_in_a_folder():
    Path("in").mkdir()
    os.mkfifo("in/p.json")
    put("in/z.json", b"{}")
    assert names("in") == ["in/z.json"]
    writer = threading.Thread(target=Path("in/p.json").write_bytes, args=[gzip.compress(NDJSON)])
    writer.start()
    found = lines("in/p.json")
    assert found.total_bytes is None
    # When a pipe was made says nothing about what comes out of it.
    assert [(x.raw, x.dated) for x in found] == [(raw, None) for raw in RAWS]
    writer.join()


def test_a_file_that_became_a_pipe_meanwhile_is_not_waited_for():
    put("in/a.json")
    put("in/b.json")
    it = iter(lines("in"))
    next(it)
    Path("in/b.json").unlink()
    os.mkfifo("in/b.json")
    # What is no file any more is passed over.
    assert list(it) == []


def test_a_bare_payload_is_dated_by_the_flag_or_by_when_its_file_was_written():
    put("a.json")
    put("b.json.gz", gzip.compress(b"{}", mtime=1))
    for name in ("a.json", "b.json.gz"):
        os.utime(name, ns=(0, 1_772_366_400_123_456_999))
    written = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    assert [x.dated for x in lines(".")] == [written, written]
    assert [x.dated for x in lines("-", stdin=b"{}")] == [None]
    assert {x.dated for x in lines(".", "-", dated=AT, stdin=b"{}")} == {AT}


def test_names_are_fit_for_a_terminal():
    name = b"in/caf\xc3\xa9 \x1b[31m\n\xff.json"
    put("in/x.json")
    Path("in/x.json").rename(os.fsdecode(name))
    assert names("in") == ["in/café \\x1b[31m\\n\\xff.json"]


def test_how_far_it_is_is_told_in_bytes_on_disk():
    put("in/a.json", NDJSON)
    put("in/b.json.gz", gzip.compress(NDJSON * 1000))
    found = lines("in")
    sizes = [Path(f"in/{name}").stat().st_size for name in ("a.json", "b.json.gz")]
    assert found.total_bytes == sum(sizes)
    it = iter(found)
    next(it)
    assert (found.current, found.read_bytes) == ("in/a.json", sizes[0])
    for _ in it:
        pass
    assert (found.current, found.read_bytes) == ("in/b.json.gz", sum(sizes))
    assert lines("in", "-").total_bytes is None


# --- what the bytes of a file are


@properties(40)
@given(
    st.lists(st.binary(max_size=40), max_size=4),
    st.sampled_from([NDJSON, PRETTY]),
    st.sampled_from([1, 7, 1000]),
    st.integers(0, 3),
)
def test_gzip_is_told_by_its_bytes_in_whatever_members(cuts, text, size, zeros):
    edges = sorted({0, len(text), *(sum(c) % len(text) for c in cuts)})
    members = [gzip.compress(text[a:b]) for a, b in pairwise(edges)]
    packed = (b"\0" * zeros).join([*members, b""])

    class Slow(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            return super().read(size)

    for content in (packed, text, b"\xef\xbb\xbf" + text, gzip.compress(b"\xef\xbb\xbf" + text)):
        found = Lines(["-"], dated=None, stdin=Slow(content))
        assert [(x.raw, x.problem) for x in found] == [(raw, None) for raw in RAWS]


def complete(text: bytes) -> Sequence[bytes]:
    """The lines of this text that are whole."""
    return text.split(b"\n")[:-1]


@pytest.mark.parametrize("name", ["a.json", "a.ndjson.gz"])
def test_of_a_gzip_that_ends_early_all_whole_lines_are_given(name):
    written = [json.dumps({"number": number, "hash": hash(number)}) for number in range(300)]
    text = "".join(f"{line}\n" for line in written).encode()
    packed = gzip.compress(text)
    for length in (2, 11, 30, len(packed) // 2, len(packed) - 9, len(packed) - 1):
        put(name, packed[:length])
        *given_, last = read(name)
        assert last[2] == "the gzip data ends early"
        there = [raw for _, _, raw in given_]
        assert there == complete(text)[: len(there)]
        assert last[1] == len(there) + 1
        # What inflates from so much is given: all of it, but for the checksum.
        assert len(there) >= (300 * (length - 200)) // len(packed)
    put(name, packed[:-1])
    assert len(read(name)) == 301


def test_of_a_gzip_that_is_corrupt_all_before_is_given():
    text = b"".join(b'{"number": %d}\n' % number for number in range(50))
    packed = gzip.compress(text) + gzip.compress(text)
    told = "the gzip data is corrupt from here on"
    for broken, most in (
        (packed[:-8] + b"sum!" + packed[-4:], 100),  # the checksum
        (packed + b"rubbish", 100),
        (packed[: len(packed) // 2] + b"rubbish", 50),
        (packed[: len(packed) // 2 + 20] + b"\xff" * 40 + packed[len(packed) // 2 + 60 :], 99),
    ):
        put("a.ndjson.gz", broken)
        *given_, last = read("a.ndjson.gz")
        raws = [raw for _, _, raw in given_]
        assert last == ("a.ndjson.gz", len(raws) + 1, told)
        assert raws == complete(text * 2)[: len(raws)]
        assert 50 <= len(raws) <= most
        assert len(raws) >= most - 49


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}".encode("utf-16"), "it is UTF-16 or UTF-32, not UTF-8; convert it"),
        ("{}".encode("utf-32"), "it is UTF-16 or UTF-32, not UTF-8; convert it"),
        (b"\xfe\xff" + "{}".encode("utf-16-be"), "it is UTF-16, not UTF-8; convert it"),
        (b"\0\0\xfe\xff" + "{}".encode("utf-32-be"), "it is UTF-32, not UTF-8; convert it"),
        ("{}".encode("utf-16-le"), "it begins with zero bytes, as UTF-16 and UTF-32 do, not UTF-8"),
        ("{}".encode("utf-16-be"), "it begins with zero bytes, as UTF-16 and UTF-32 do, not UTF-8"),
        (gzip.compress("{}".encode("utf-16"), mtime=0), "it is UTF-16 or UTF-32, not UTF-8"),
        (gzip.compress(gzip.compress(NDJSON, mtime=0), mtime=0), "it is gzip inside gzip; unpack"),
        (b"PK\x03\x04rest", "it is a zip archive; unpack it, or pipe it in unpacked"),
        (b"\x28\xb5\x2f\xfdrest", "it is compressed with zstd; unpack it"),
        (b"BZh91AY", "it is compressed with bzip2; unpack it"),
        (b"\xfd7zXZ\0rest", "it is compressed with xz; unpack it"),
    ],
)
def test_what_is_no_utf8_text_is_one_problem_and_the_rest_goes_on(content, told):
    put("in/a.json", content)
    put("in/b.json")
    first, second = read("in")
    assert first[:2] == ("in/a.json", 1)
    assert str(first[2]).startswith(told)
    assert second == ("in/b.json", 1, b"{}")


def test_bytes_that_are_not_utf8_and_zeros_in_a_value_are_given_as_they_are():
    put("a.json", b'{"a": "\xff"}\n{"b": "\0"}\n')
    assert [x.raw for x in lines("a.json")] == [b'{"a": "\xff"}', b'{"b": "\0"}']


def test_a_pipe_that_has_nothing_yet_is_not_taken_for_its_end():
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, b'{"a": 1}\n')
    with os.fdopen(reading, "rb") as stdin:
        found = [x.problem or x.raw for x in Lines(["-"], dated=None, stdin=stdin)]
    os.close(writing)
    assert found == [
        b'{"a": 1}',
        "can't be read: the pipe was set to wait for nothing (O_NONBLOCK)",
    ]


# --- how much memory it takes


READ = """
import pathlib, re, sys
from etl.files.lines import Lines
count = problems = 0
for line in Lines(sys.argv[1:], dated=None, stdin=sys.stdin.buffer):
    count += 1
    problems += line.problem is not None
# Not ru_maxrss, which begins with that of the process that started this one.
memory = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]
print(count, problems, memory)
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def mebibytes(*paths: str) -> tuple[int, int, float]:
    """Of a process that reads these files: how many lines, how many problems, its memory."""
    done = subprocess.run(
        [sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=True
    )
    count, problems, memory = map(int, done.stdout.split())
    return count, problems, memory / 2**10


def repeated(path: str, piece: bytes, times: int, head: bytes = b"", tail: bytes = b"") -> None:
    """A gzip of much that is the same, quickly made: of members that are all alike."""
    member = gzip.compress(piece, 6)
    with Path(path).open("wb") as file:
        file.write(gzip.compress(head))
        file.writelines(repeat(member, times))
        file.write(gzip.compress(tail))


@linux_only
def test_300_mb_take_no_more_memory_than_3():
    prompt = "Be kind. " * 600
    payload = json.dumps({"id": "x", "brain": {"systemPrompt": prompt}}).encode()
    lines_ = (payload + b"\n") * (3 * 2**20 // len(payload))
    elements = lines_.replace(b"\n", b",\n")
    count = lines_.count(b"\n")
    for name, piece, head, tail, most in (
        ("a.ndjson", lines_, b"", b"{}", 99),
        ("a.json", elements, b"[", b"{}]", 20),
    ):
        used = []
        for times in (1, most):
            repeated(name, piece, times, head, tail)
            found, problems, memory = mebibytes(name)
            assert (found, problems) == (times * count + 1, 0)
            used.append(memory)
        assert used[1] < used[0] + 2


@linux_only
@pytest.mark.parametrize(
    ("head", "piece"), [(b'{"a": "', b"x"), (b'[{"a":\n"', b"x"), (b'{"a":\n', b"[")]
)
def test_a_gzip_bomb_takes_no_more_memory_than_one_value_may(head, piece):
    put("small.json")
    repeated("bomb.json", piece * 2**22, 60, head)
    _, _, small = mebibytes("small.json")
    found, problems, memory = mebibytes("bomb.json")
    assert (found, problems) == (1, 1)
    # The value so far, and while it grows a copy of it.
    assert memory < small + 2.5 * 64
