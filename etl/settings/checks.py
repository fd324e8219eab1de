"""What a single URL, name or key must be.

A ValueError says what to write instead and never quotes the value: it may hold a password.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import SecretStr

# `<schema>_reporting` and the longest index names on it must fit Postgres' 63 bytes.
_SCHEMA_BYTES = 40
# Quotes the body of a DO block. No schema's name can end it: it is longer than any.
BODY_TAG = f"$persona_etl_{'_' * _SCHEMA_BYTES}$"


def check_base_url(text: str) -> str:
    """Let the key travel over TLS only, except to this machine."""
    write = "write it like https://api.anam.ai"
    parts = _split(text, write)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ValueError(f"not an https:// URL; {write}")
    if "@" in parts.netloc:
        raise ValueError("a user name or password does not belong in the URL; write it without")
    if "?" in text or "#" in text:
        raise ValueError("the URL goes on after ? or #; write it without")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError("http:// would send the API key unencrypted; write https://")
    return text.rstrip("/")


def check_database_url(secret: SecretStr) -> SecretStr:
    """Take `embedded`, `embedded:/folder` and Postgres URLs, whose details libpq judges later."""
    url = secret.get_secret_value()
    write = 'write postgresql://user@host/name, "embedded" or "embedded:/some/folder"'
    if url == "embedded" or (url.startswith("embedded:") and url.isprintable() and url[9:]):
        return secret
    if url.startswith("postgresql+"):
        raise ValueError("the driver is not chosen here; write postgresql:// without it")
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError(f"not a Postgres URL; {write}")
    return secret


def check_ping_url(secret: SecretStr) -> SecretStr:
    """Take what `/start` or `/<exit code>` can be put behind; http:// too: no key goes there."""
    url = secret.get_secret_value()
    write = "write it like https://hc-ping.com/your-uuid"
    parts = _split(url, write)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ValueError(f"not an https:// or http:// URL; {write}")
    if "#" in url:
        raise ValueError("the URL goes on after #; write it without")
    return secret


def check_schema(name: str) -> str:
    """Any name that Postgres takes in quotes, short enough for the names made from it."""
    if not name or not name.isprintable():
        raise ValueError("empty, or not printable; write a name like anam")
    if len(name.encode()) > _SCHEMA_BYTES:
        raise ValueError(f"longer than {_SCHEMA_BYTES} bytes; write a shorter name")
    if name.startswith("pg_") or name == "information_schema":
        raise ValueError("that name belongs to Postgres; write another, like anam")
    return name


def check_textfile(file: Path) -> Path:
    """Refuse a name that node_exporter passes over without a word."""
    if file.suffix != ".prom":
        raise ValueError(
            "node_exporter reads only files whose names end in .prom; write one like"
            " persona_etl.prom"
        )
    return file


def check_key(secret: SecretStr) -> SecretStr:
    """Refuse what no HTTP header carries: the HTTP library's own error would quote it."""
    key = secret.get_secret_value()
    if not key:
        raise ValueError("no key in it; put the API key there, on one line")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("not an API key: a key is one word of printable ASCII; copy it again")
    return secret


def _split(url: str, hint: str) -> SplitResult:
    # urlsplit silently drops tabs and newlines, and browsers read \ as /.
    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError(f"a space, a backslash or an unprintable character in the URL; {hint}")
    try:
        parts = urlsplit(url)
        _ = parts.port  # Computed on access, and that is where a bad one raises.
    except ValueError:
        # Not chained: urlsplit quotes what it could not read, which may be the password.
        raise ValueError(f"the host or port in the URL cannot be read; {hint}") from None
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
