"""Whom we talk to and as whom: the base URL, the key, the proxy, TLS. Sends nothing.

No .netrc is read, so nothing but the key that was passed in ever becomes the Authorization.
"""

from __future__ import annotations

import contextlib
import ssl
from importlib import metadata
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

import httpx

from etl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def parse_base_url(base_url: str) -> httpx.URL:
    """Return the base URL, without the slash at its end; it may have a path of its own."""
    try:
        return readable(base_url.rstrip("/"))
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise UsageError("api.base_url: not a URL; it looks like https://api.anam.ai") from exc


def readable(url: str) -> httpx.URL:
    """Return a URL whose host can be asked for. Raises httpx.InvalidURL or UnicodeError."""
    parsed = httpx.URL(url)
    # A name in Punycode that is none, like xn--0, is refused by its first reader.
    if not parsed.host:
        raise httpx.InvalidURL("no host")
    return parsed


def request_headers(api_key: str) -> httpx.Headers:
    """Return the headers of every request. `repr` of httpx.Headers masks Authorization."""
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key or not api_key:
        # h11 would refuse the header as well, and quote the key in its message.
        raise UsageError(
            "the API key is empty or holds a space, a line break or a character beyond ASCII;"
            " check ANAM_API_KEY or api.api_key_file"
        )
    return httpx.Headers(
        {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "Authorization": f"Bearer {api_key}",
            "User-Agent": f"persona-etl/{metadata.version('persona-etl')} (+python httpx)",
        }
    )


def proxy_for(url: httpx.URL) -> httpx.URL | None:
    """Return the proxy that HTTPS_PROXY, ALL_PROXY and NO_PROXY choose, for https only.

    Through https a proxy carries the key unread; plain http is for loopback, where none belongs.
    """
    if url.scheme != "https" or proxy_bypass(url.host):
        return None
    proxies = getproxies()
    address = proxies.get("https") or proxies.get("all")
    if not address:
        return None
    with contextlib.suppress(httpx.InvalidURL, UnicodeError):
        proxy = httpx.URL(address if "://" in address else f"http://{address}")
        if proxy.scheme in ("http", "https") and proxy.host:
            return proxy
    # Without its value, which can hold a password.
    raise UsageError("HTTPS_PROXY or ALL_PROXY: not a usable proxy; it looks like http://host:3128")


def transports(url: httpx.URL, proxy: httpx.URL | None) -> Callable[[], httpx.AsyncBaseTransport]:
    """Return a maker of transports of one connection each, which share one TLS context.

    One connection each, as httpx's pool slows with the connections in it: 64 workers got 300
    answers a second out of one pool, 1 200 out of 64. One context, as reading the CA certificates
    takes tens of milliseconds; plain http, on loopback, gets one that trusts nobody. SSL_CERT_FILE
    and SSL_CERT_DIR replace certifi's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if url.scheme == "https":
        try:
            context = httpx.create_ssl_context()
        except OSError as exc:
            raise UsageError(
                f"SSL_CERT_FILE or SSL_CERT_DIR: {exc.strerror or exc};"
                " name certificates that can be read, or unset it"
            ) from exc
    limits = httpx.Limits(max_connections=1)
    return lambda: httpx.AsyncHTTPTransport(
        verify=context, limits=limits, proxy=httpx.Proxy(proxy) if proxy else None
    )


def host_and_port(url: httpx.URL) -> str:
    """Return whom a URL connects to, and nothing else of it."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{url.port or {'http': 80, 'https': 443}.get(url.scheme)}"
