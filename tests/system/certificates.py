"""Certificates of a CA of our own, made with the openssl program."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.system.server import owned

if TYPE_CHECKING:
    from pathlib import Path


def issue_all(folder: Path) -> None:
    """ca, other_ca, server (for localhost) and client (for the role `certified`): .crt and .key."""
    request(folder, "ca", "our CA")
    request(folder, "other_ca", "another CA")
    request(folder, "server", "localhost", issuer="ca")
    request(folder, "client", "certified", issuer="ca")
    owned(folder / "server.key")


def request(folder: Path, name: str, common_name: str, *, issuer: str | None = None) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-noenc", "-days", "2", "-subj", f"/CN={common_name}"]
    command += ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
    if issuer:
        command += ["-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key"]
        command += ["-addext", f"subjectAltName=DNS:{common_name}"]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / f"{name}.key").chmod(0o600)
