"""Words for what can go wrong below HTTP: one foreign exception in, one NoAnswerError out."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import anyio
import h11
import httpx

from etl.source.answer import NoAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterator

# httpx lets exceptions of the layers below it out: h11's when a request meets a connection in the
# wrong state, anyio's when a connection closes during the handshake, idna's for a host name.
TROUBLE = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    h11.ProtocolError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    OSError,  # also TimeoutError, ssl.SSLError and socket.gaierror
    UnicodeError,
)


# First match wins: the particular before the general. {peer} is whom we connect to.
_NETWORK = "check api.base_url and the network"
_MEANINGS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str, bool], ...] = (
    # exceptions, what happened, what next, whether another attempt may fare better
    (
        ssl.SSLCertVerificationError,
        "the TLS certificate of {peer} is not trusted",
        "check api.base_url; SSL_CERT_FILE can name a company's own CA",
        False,
    ),
    (ssl.SSLError, "TLS with {peer} failed", _NETWORK, True),
    (socket.gaierror, "the name in {peer} does not resolve", _NETWORK, True),
    (ConnectionRefusedError, "connection refused by {peer}", _NETWORK, True),
    (httpx.ConnectTimeout, "no connection to {peer} within {seconds:g} s", _NETWORK, True),
    (httpx.ProxyError, "no way through {peer}", "check HTTPS_PROXY", True),
    # Before TimeoutError, which the system's own ETIMEDOUT is too.
    (httpx.ConnectError, "no connection to {peer}", _NETWORK, True),
    (
        (TimeoutError, httpx.TimeoutException),
        "no whole answer from {peer} within {seconds:g} s",
        "lower api.concurrency or raise api.timeout_seconds",
        True,
    ),
    (httpx.RemoteProtocolError, "{peer} broke off or does not speak HTTP", _NETWORK, True),
    (
        (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError),
        "no request can be sent to {peer}",
        "check api.base_url",
        False,
    ),
    (Exception, "the connection to {peer} broke", _NETWORK, True),
)


def explain(exc: Exception, peer: str, timeout_seconds: float) -> NoAnswerError:
    """Say what one of TROUBLE means. `peer` is whom we connect to, `host:port`.

    The exception's own text is left out: it can hold header lines and bytes of a body.
    """
    chain = list(_chain(exc))
    what, next_step, transient = next(
        (what, next_step, transient)
        for kind, what, next_step, transient in _MEANINGS
        if any(isinstance(link, kind) for link in chain)
    )
    return NoAnswerError(
        what.format(peer=peer, seconds=timeout_seconds), next_step=next_step, transient=transient
    )


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and all that led to it.

    The context is followed too, as httpcore's pool re-raises `from None`, and groups are opened,
    as anyio makes one of the failures of a host with several addresses.
    """
    while exc is not None:
        yield exc
        if isinstance(exc, BaseExceptionGroup):
            for member in exc.exceptions:
                yield from _chain(member)
        exc = exc.__cause__ or exc.__context__
