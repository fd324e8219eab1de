"""The body of an answer: whole, inflated, and never more of it than the limit in memory.

httpx's own decoding is not used: it inflates each chunk without a bound (a gzip bomb grows by
hundreds of MiB in one step) and takes a truncated gzip for a whole one.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from etl.source.answer import BodyTooBigError, NoAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from etl.source.room import Place


async def read_body(response: httpx.Response, limit: int, place: Place) -> bytes:
    """Read a 200 to its end and inflate it, up to `limit` bytes; a big one waits for its `place`.

    Raises BodyTooBigError, or NoAnswerError for a body that is cut short, corrupt or encoded in a
    way that was not asked for. That a body is shorter than its Content-Length is httpx's to notice.
    """
    inflater = _inflater_for(response.headers.get("content-encoding", "identity"))
    declared = _declared_length(response)
    if declared is not None and declared > limit:
        raise _too_big(response, declared, limit)
    # Sent in chunks, a body has no length but theirs, whatever else it declares.
    is_chunked = "transfer-encoding" in response.headers
    most = limit if declared is None or inflater or is_chunked else declared
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            for piece in inflater.pieces(chunk) if inflater else (chunk,):
                await place.grow(len(body) + len(piece), most)
                body += piece
                if len(body) > limit:
                    raise _too_big(response, len(body), limit)
        if inflater and not inflater.finished:
            raise NoAnswerError("the gzip body is cut short", http_status=200, transient=True)
        place.settle(len(body))
        return bytes(body)
    except zlib.error as exc:
        raise NoAnswerError("the gzip body is corrupt", http_status=200, transient=True) from exc
    finally:
        # An error holds on to this frame until it is in the ledger.
        body.clear()


def _declared_length(response: httpx.Response) -> int | None:
    declared = response.headers.get("content-length", "")
    # Python refuses to read an integer of thousands of digits.
    return int(declared[:20]) if declared.isascii() and declared.isdecimal() else None


async def drain(response: httpx.Response) -> None:
    """Read a short body to its end, for its connection to be of further use; drop a long one."""
    enough = 64 * 1024
    length = 0
    async for chunk in response.aiter_raw():
        length += len(chunk)
        if length > enough:
            return


class Inflater:
    """Inflates gzip and deflate (RFC 9110, 8.4.1) in steps that a bomb can't make bigger."""

    def __init__(self) -> None:
        self._stream = _new_stream()

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what `chunk` inflates to, in pieces of at most 64 KiB."""
        while chunk:
            if self._stream.eof:
                # RFC 1952, 2.2: a gzip body is a series of members.
                self._stream = _new_stream()
            yield self._stream.decompress(chunk, 64 * 1024)
            chunk = self._stream.unused_data or self._stream.unconsumed_tail

    @property
    def finished(self) -> bool:
        """Whether the trailer, with its checksum, was met."""
        return self._stream.eof


def _new_stream() -> zlib._Decompress:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: a gzip or a zlib header


def _inflater_for(encoding: str) -> Inflater | None:
    match encoding.strip().lower():
        case "identity" | "":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return Inflater()
        case _:
            # Encodings in a row ("gzip, gzip") are refused too: each multiplies what a bomb can do.
            raise NoAnswerError(
                f"200 with Content-Encoding {encoding[:40]!r}, where gzip was asked for",
                next_step="check api.base_url and what stands between",
                http_status=200,
                transient=False,
            )


def _too_big(response: httpx.Response, length: int, limit: int) -> BodyTooBigError:
    return BodyTooBigError(
        f"the body is longer than {limit} bytes",
        length=length,
        content_type=response.headers.get("content-type"),
    )
