"""Which names sound like secrets: of members, of headers, of a URL's parameters.

Judged by whole words, so that `maxTokens`, `keyboard` and `secretary` stay what they are. In
doubt about an unknown name it is a secret: a blank costs one value, a leak can't be undone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


# These make a name secret wherever they stand in it, unless it ends in a describing word.
_SECRET = _listed(
    "apikey apikeys creds credential credentials jwt passcode passphrase passwd password "
    "passwords pwd secret secrets"
)

# No other English words end like this; names run together in small letters do: `dbpassword`.
_SECRET_ENDINGS = ("accesskey", "apikey", "passwd", "password", "secret")

# These do so at its end only: `accessToken` is a secret; `tokenBudget`, `cookieBanner` and
# `signatureMove` are not.
_SECRET_AT_END = _listed(
    "auth authorization bearer cookie cookies dsn hmac oauth sas signature token"
)

_SECRET_AT_END_ENDINGS = ("signature", "token")

# What may follow such a word at the end without changing what it is: `tokenValue`, `authHeader`.
_FILLERS = _listed(
    "b base current data dev encoded encrypted hash header headers live new old plain prod "
    "production raw sandbox staging string test text v value values"
)

# A token after one of these is a piece of text, as language models count it.
_TEXT_TOKENS = _listed("bos cost end eos input mask max min output pad per special start stop")

# A key is a secret only after one of these: `primaryKey`, `objectKey` and `hotKey` aren't.
_KEYS = _listed(
    "access account admin aes anam anthropic api app auth aws azure cartesia client cohere "
    "decryption deepgram deploy elevenlabs encryption functions gemini google gpg groq hmac "
    "license master mistral openai pgp private rsa secret server service session shared signature "
    "signing ssh stripe subscription twilio webhook write"
)

# Tokens in the plural are most often a count; after one of these they are not.
_TOKENS = _listed("access api auth bearer refresh session")

_PAIRS = frozenset(
    {(word, key) for word in _KEYS for key in ("key", "keys")}
    | {(word, "tokens") for word in _TOKENS}
    | {(word, "pass") for word in ("admin", "basic", "db", "login", "smtp", "user")}
    | {("connection", "string"), ("connection", "strings"), ("access", "code")}
)

# The same run together in small letters.
_JOINED = frozenset({first + second for first, second in _PAIRS})

# A secret when it is the whole name: beside `user` it is a password.
_SECRET_ALONE = frozenset({"pass"})

# A name that ends in one of these tells something about a secret: `passwordPolicy`, `tokenUrl`.
# The JSON schema keywords are among them, so that a schema outlives its property's name.
_DESCRIBING = _listed(
    "age alg algorithm allowed at budget color comment count counts date days deprecated "
    "description disabled domain enabled encoding endpoint enum expiration expires expiry field "
    "format host hours icon in items kind label length lifetime limit limits location max maximum "
    "method min minimum minutes mode ms name names of on order path pattern placeholder policy "
    "position present prompt provider ref region regex required rule rules schema scheme scope "
    "scopes seconds set size state status strength time timestamp title ttl type uri url usage "
    "valid version visible"
)

# Inside an object under a secret name these describe it too; at the end of a secret name
# (`accessKeyId`, `secretId`) they are half of a credential.
_DESCRIBING_INSIDE = _DESCRIBING | _listed(
    "audience email env environment id ids issuer message realm tenant user username"
)

# Parameters that only in a URL's query are credentials.
_PARAMETERS = _listed(
    "awsaccesskeyid googleaccessid hdnea hdntl hdnts jsessionid key keypairid ossaccesskeyid pass "
    "phpsessid sessionid sig sign"
)

# OAuth's and Azure Functions' `code` is a credential; a country's, a voucher's is short.
_CODE_LENGTH = 32

# Names come from payloads: longer ones are judged anew each time rather than kept in memory.
_CACHED_LENGTH = 64

# What is longer is no name: of such a one only both ends are read, as a word takes fifty bytes.
_LONGEST = 20_000

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words(name: str) -> tuple[str, ...]:
    """The words of a camelCase, snake_case, kebab-case or spaced name, in small letters."""
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST // 2]} {name[-_LONGEST // 2 :]}"
    return tuple(word.lower() for word in _WORD.findall(name))


def sounds_secret(name: str) -> bool:
    """Whether a value under this name is to be blanked."""
    return _cached_sounds(name) if len(name) <= _CACHED_LENGTH else _sounds(words(name))


def describes(name: str) -> bool:
    """Whether a member of an object under a secret name may keep its value."""
    parts = words(name)
    return bool(parts) and parts[-1] in _DESCRIBING_INSIDE and not _sounds(parts)


def is_credential(parameter: str, value: str) -> bool:
    """Whether a URL that holds this parameter must lose its query."""
    if len(parameter) <= _CACHED_LENGTH:
        return _cached_is_credential(parameter) or (
            parameter.lower() == "code" and len(value) >= _CODE_LENGTH
        )
    return _is_credential(parameter)


def _sounds(parts: tuple[str, ...]) -> bool:
    joined = "".join(parts)  # also meets `passWord` and `ToKeN`
    if any(joined in known for known in (_SECRET, _SECRET_AT_END, _SECRET_ALONE, _JOINED)):
        return True
    if not parts or parts[-1] in _DESCRIBING:
        return False
    if any(
        part in _SECRET or part in _JOINED or part.endswith(_SECRET_ENDINGS) for part in parts
    ) or any(pair in _PAIRS for pair in pairwise(parts)):
        return True
    end = len(parts)
    while end > 1 and parts[end - 1] in _FILLERS:
        end -= 1
    last = parts[end - 1]
    if last == "token" and end > 1 and parts[end - 2] in _TEXT_TOKENS:
        return False
    return last in _SECRET_AT_END or last.endswith(_SECRET_AT_END_ENDINGS)


def _is_credential(parameter: str) -> bool:
    parts = words(parameter)
    joined = "".join(parts)
    return joined in _PARAMETERS or _sounds(parts)


_cached_sounds = lru_cache(maxsize=4096)(lambda name: _sounds(words(name)))
_cached_is_credential = lru_cache(maxsize=4096)(_is_credential)
