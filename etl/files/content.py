"""A file's text as chunks: gzip inflated, a byte order mark dropped, and why it can't go on.

Knows magic bytes and not what the text says. Never holds more than a chunk or two.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK_BYTES = 128 * 1024

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
# As long as the longest of the beginnings below.
_HEAD_BYTES = 6
_CONVERT = "not UTF-8; convert it, as with iconv"
_UNPACK = "unpack it, or pipe it in unpacked"
_BEGINNINGS = {
    b"\xff\xfe": f"it is UTF-16 or UTF-32, {_CONVERT}",
    b"\xfe\xff": f"it is UTF-16, {_CONVERT}",
    b"\0\0\xfe\xff": f"it is UTF-32, {_CONVERT}",
    b"BZh": f"it is compressed with bzip2; {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"it is compressed with zstd; {_UNPACK}",
    b"\xfd7zXZ\0": f"it is compressed with xz; {_UNPACK}",
    b"PK\x03\x04": f"it is a zip archive; {_UNPACK}",
    _GZIP: f"it is gzip inside gzip; {_UNPACK}",
}


class ContentError(Exception):
    """A file can't be read, or not to its end. The message is one line."""


def chunks_of(read: Callable[[int], bytes | None]) -> Iterator[bytes]:
    """What `read` gives until there is no more.

    Raises ContentError where it fails.
    """
    while True:
        try:
            chunk = read(CHUNK_BYTES)
        except OSError as exc:
            raise ContentError(f"can't be read: {exc.strerror or exc}") from exc
        if chunk is None:
            # This is not the end, though it looks alike.
            raise ContentError("can't be read: the pipe was set to wait for nothing (O_NONBLOCK)")
        if not chunk:
            return
        yield chunk


def text_of(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The text that the bytes of a file are: gzip is told by its magic bytes, not by a name.

    Raises ContentError, behind all that could be read, for a gzip that is cut short or corrupt, and
    at once for what is no UTF-8 text by its first bytes.
    """
    head, chunks = _headed(chunks)
    if head.startswith(_GZIP):
        head, chunks = _headed(_inflated(chunks))
    for beginning, told in _BEGINNINGS.items():
        if head.startswith(beginning):
            raise ContentError(told)
    if b"\0" in head[:4]:
        # JSON begins with an ASCII character or two: in UTF-16 and UTF-32 zeros stand around them.
        raise ContentError(f"it begins with zero bytes, as UTF-16 and UTF-32 do, {_CONVERT}")
    first = next(chunks, b"")
    yield from chain([first.removeprefix(_BOM)], chunks)


def _headed(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and all chunks: out of a pipe even these may come one by one."""
    first = b""
    try:
        for chunk in chunks:
            first += chunk
            if len(first) >= _HEAD_BYTES:
                break
    except ContentError as exc:
        return first, chain([first], failing(exc))
    return first[:_HEAD_BYTES], chain([first], chunks)


def failing(exc: ContentError) -> Iterator[bytes]:
    """No chunk, and then this error: to put it behind chunks that were read ahead."""
    raise exc
    yield b""


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """What a series of gzip members (RFC 1952, 2.2) inflates to; zeros may stand behind it."""
    stream = _new_stream()
    for chunk in chunks:
        rest = chunk
        while rest:
            if stream.eof:
                rest = rest.lstrip(b"\0")
                stream = _new_stream() if rest else stream
                continue
            before = stream.copy()
            try:
                text = stream.decompress(rest, CHUNK_BYTES)
            except zlib.error as exc:
                yield _saved(before, rest)
                raise ContentError("the gzip data is corrupt from here on") from exc
            if text:
                yield text
            rest = stream.unused_data or stream.unconsumed_tail
    if not stream.eof:
        raise ContentError("the gzip data ends early")


def _saved(stream: zlib._Decompress, data: bytes) -> bytes:
    """What comes before the fault: zlib itself drops what it inflated in the call that fails."""
    text = bytearray()
    with suppress(zlib.error):
        for at in range(len(data)):
            text += stream.decompress(data[at : at + 1], CHUNK_BYTES - len(text))
    return bytes(text)


def _new_stream() -> zlib._Decompress:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: a gzip header
