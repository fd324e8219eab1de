"""Why a connection to Postgres did not come about, in one line that says what to do next.

Before a session exists libpq hands over text and no SQLSTATE: the reasons are read from that. A
server that speaks another language than English gets its own words told, and general advice.
"""

from __future__ import annotations

import re

from etl.errors import EtlError, NoConnectionError, UsageError

# The text around the reasons: psycopg's for each attempt, libpq's for each address and TLS mode.
_AROUND = re.compile(
    r"^(?:connection failed|connection is bad): "
    r"|^Multiple connection attempts failed.*$"
    r"|^- host: .*?, hostaddr: .*?: (?:connection failed: |connection is bad: )?"
    r'|connection to server (?:at|on socket) ".*?".*? failed: ',
    re.MULTILINE,
)
# What a reason wears besides: a severity, an errno.
_DRESS = re.compile(r"^FATAL: +|\[Errno -?\d+\] ")

# A value in the URL, the environment or the service file that libpq can't use.
_MISTAKE = re.compile(
    r"^invalid .* value|^invalid port number|^bad value for|service .* not found|^service file"
    r"|'idna' codec"
)

# The first that is found in the reasons counts.
_NEXT_STEPS = {
    r"^(?!.* SSL encryption).*pg_hba\.conf.* no encryption": "set sslmode=require in database.url",
    r"pg_hba\.conf": "let this user in from here, in the server's pg_hba.conf",
    r"no password supplied": "put the password into database.url, PGPASSWORD or ~/.pgpass",
    r"certificate authentication failed|requires a valid client certificate": (
        "set sslcert and sslkey to a certificate for this user"
    ),
    r"authentication failed|no such user": "check the user and password in database.url",
    r"role .* does not exist": "create the role, or correct the user in database.url",
    r"not permitted to log in": "ALTER ROLE … LOGIN, or use another user in database.url",
    r"permission denied for database": "GRANT CONNECT ON DATABASE to the user in database.url",
    r"database .* does not exist|no such database": (
        "create the database, or correct its name in database.url"
    ),
    r"too many (?:connections|clients)|remaining connection slots|no more connections allowed": (
        "end other sessions or raise the server's limit; a run needs three"
    ),
    r"starting up|shutting down|not yet accepting|recovery": (
        "the server is starting or stopping; run again"
    ),
    r"does not support SSL": "turn TLS on at the server, or set sslmode=prefer in database.url",
    r"does not match host name": (
        "write the host as the server's certificate names it, or set sslmode=verify-ca"
    ),
    r"root certificate file|certificate verify failed": (
        "set sslrootcert to the certificate of the server's CA"
    ),
    r"private key|certificate file": "check sslcert and sslkey, whose key only its owner may read",
    r"unsupported startup parameter": (
        "the pooler takes none: remove `options` from database.url, and PGOPTIONS"
    ),
    r"read-only|not in hot standby": ("database.url must lead to the primary, which takes writes"),
    r"Connection refused|No such file": (
        "start the server, or correct host and port in database.url"
    ),
    r"resolve host": "correct the host in database.url, or mend the name service",
    r"time(?:d )?out|unreachable|No route": "check host, port, network and firewall",
}
_OTHERWISE = "check database.url, and that the server is up and lets this user in"


def refused(exc: Exception, target: str) -> EtlError:
    """The error to raise for one of `psycopg.connect`; `target` says where it was to lead.

    A UsageError when a parameter's value is no good, since nothing was asked of a server then.
    """
    told = " / ".join(_reasons(str(exc)))
    if _MISTAKE.search(told):
        return UsageError(f"database.url: {told}; correct it there, or where libpq got it from")
    fitting = (step for pattern, step in _NEXT_STEPS.items() if re.search(pattern, told))
    return NoConnectionError(f"Postgres at {target}: {told}; {next(fitting, _OTHERWISE)}")


def _reasons(text: str) -> list[str]:
    """The first line of each reason, without hints; the same one once."""
    pieces = (piece.strip() for piece in _AROUND.split(text))
    lines = (" ".join(piece.partition("\n")[0].split()) for piece in pieces if piece)
    return list(dict.fromkeys(_DRESS.sub("", line) for line in lines)) or ["no reason given"]
