"""URLs in text: takes out credentials, and masks the signatures that differ on every fetch.

Every pattern here consumes what it looks at (possessive quantifiers, bounded look-ahead), so that
the time is linear in the text, whoever wrote it. What repeats a group is a loop: a greedy group
takes a hundred bytes for each of its turns, and a possessive one goes wrong before Python 3.11.5.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from etl.payload.secret_names import is_credential

if TYPE_CHECKING:
    from collections.abc import Iterator

BLANK = "[redacted]"

# What ends a URL in running text, quotation marks and fullwidth punctuation included. Brackets,
# commas and bars don't: they occur in queries, and a query cut short would leave its secret behind.
_MARKS = (
    r"\s\x00-\x20\x7f\"<>`«»\u2018-\u201f\u2026"
    r"\u3000-\u303f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
_ENDS = rf"{_MARKS}\\"
_SLASHES = r"(?:\\?/){2}"  # `\/\/` in JSON that was put into a string
_SCHEME = rf"[A-Za-z][A-Za-z0-9+.\-]{{1,15}}+:{_SLASHES}"

# What stands between words that may be or hold a URL. A URL that follows a comma or a bracket is a
# word of its own; an escaped slash, & or = belongs to its word.
_BREAK = re.compile(rf"[{_MARKS}]|[,;'|()\[\]](?={_SCHEME})|\\(?!/|u00(?:26|3[dD]))")
_ABSOLUTE = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.\-]*+:)?//")
_PARTS = re.compile(r"[&;][^?#]*+|\?[^#]*+|#.*+", re.DOTALL)

# `user:password@` after the slashes. The first form is RFC 3986's; user names alone count after a
# scheme, where they are often tokens. The last is what SQLAlchemy takes: a password with / ? or #
# in it, told from a port by its first characters.
_DOUBLE_SLASH = re.compile(_SLASHES)
_USERINFO = re.compile(rf"[^{_ENDS}:/?#@]*+:[^{_ENDS}/?#@]*+@")
_USERINFO_AFTER_SCHEME = re.compile(
    rf"[^{_ENDS}:/?#@,;()']*+@"
    rf"|{_USERINFO.pattern}"
    rf"|[^{_ENDS}:/?#@\[{{]*+:(?!\d*+(?:\W|$))[^{_ENDS}@{{]{{1,100}}+@"
)
_NESTED_USERINFO = re.compile(r"//[^:/?#&@]*+:[^/?#&@]*+@")
_SEPARATORS = re.compile(r"[?&;#]")
_HOST = re.compile(r"(?:[A-Za-z0-9\-]++\.)++[A-Za-z]{2,24}+(?::[0-9]{1,5}+)?")

# In a URL that is percent-encoded as a whole, once or more: its query, its userinfo.
_ENCODED_QUERY = re.compile(rf"%(?:25)*+3[Ff][^{_ENDS}?#]*+")
_ENCODED_USERINFO = re.compile(
    rf"(%(?:25)*+2[Ff]%(?:25)*+2[Ff])[^{_ENDS}%/?#&]*+%(?:25)*+3[Aa][^{_ENDS}%/?#&]*+%(?:25)*+40"
)
_BETWEEN_SEPARATORS = re.compile(r"[^?&;#]+")

# What a text must hold somewhere to hold a query; running text seldom does, and is done with.
_PARAMETER = re.compile(rf"[?&;#][^{_ENDS}?&;#=%]*+[=%\\]")

# A URL's last characters that belong to the sentence around it. Not _ ~ - which signatures end in.
_PUNCTUATION = ".,;:!?'*"
_BRACKETS = ("()", "[]", "{}")

# Headers pasted into a prompt. Alone, "bearer" is an English word.
_HEADER = re.compile(
    r"(\bbearer[ \t]++|\bauthorization[\"']?[ \t]*+[:=][ \t]*+[\"']?[A-Za-z]{1,20}+[ \t]++)"
    r"([A-Za-z0-9._~+/\-]{8,}+=*+)",
    re.IGNORECASE,
)
_RANDOM = re.compile(r"[0-9]|[a-z][A-Z]")
_BEARER_LENGTH = 20
_HAS_DIGIT = re.compile(r"[0-9]")

# Percent-encoded once for being in a query, once more for being in a URL in a query.
_ENCODINGS = 3

# A whole URL under a plain key, in characters that neither end a word nor start another. Of the
# escapes with `\\u` only that of & will do, which is seen to where it is masked. No group that is
# possessive here holds a choice: that is what goes wrong before Python 3.11.5.
_RAW_URL = re.compile(
    rb'"https?:(?:\\?/){2}[A-Za-z0-9%._~:=+$@\-/]*+(?:\\/[A-Za-z0-9%._~:=+$@\-/]*+)*+'
    rb'(\?[A-Za-z0-9%._~:=+$\-/?&]*+(?:\\[/u][A-Za-z0-9%._~:=+$\-/?&]*+)*+)"'
)
_KEY_WINDOW = 80


def clean_text(text: str) -> str:
    """The text, its URLs without userinfo and without queries that hold a credential.

    Parameters in the path and in the fragment are judged, and dropped, each on their own.
    """
    if "/" in text and "@" in text:
        text = _without_userinfo(text)
    if ("=" in text or "%" in text or "\\" in text) and _PARAMETER.search(text):
        text = _without_queries(text)
    if "%" in text:
        text = _ENCODED_USERINFO.sub(r"\1", text)
        text = _ENCODED_QUERY.sub(_without_encoded_query, text)
    if len(text) > _BEARER_LENGTH and ("earer" in text or "EARER" in text or "horization" in text):
        text = _HEADER.sub(_without_header, text)
    return text


def mask_urls(body: bytes) -> bytes:
    """A raw body in which two fetches that differ in URL signatures alone are equal.

    Masks less than `clean` drops, never more: equal results mean equal cleaned payloads, while
    different ones mean nothing. The mask is a byte that no JSON string may hold.
    """
    return _RAW_URL.sub(_masked, body) if b"?" in body else body


def _without_userinfo(text: str) -> str:
    kept: list[str] = []
    copied = position = 0
    while (slashes := _DOUBLE_SLASH.search(text, position)) is not None:
        start = end = slashes.end()
        has_scheme = text[slashes.start() - 1 : slashes.start()] == ":"
        userinfo = _USERINFO_AFTER_SCHEME if has_scheme else _USERINFO
        while (found := userinfo.match(text, end)) is not None:
            end = found.end()
        if end > start:
            kept.append(text[copied:start])
            copied = position = end
        else:
            position = slashes.start() + 1
    return "".join([*kept, text[copied:]])


def _without_queries(text: str) -> str:
    kept: list[str] = []
    copied = start = 0
    for end, after in _words(text):
        word = text[start:end]
        cleaned = _without_credentials(word, is_alone=len(word) == len(text))
        if cleaned != word:
            kept += [text[copied:start], cleaned]
            copied = end
        start = after
    return "".join([*kept, text[copied:]])


def _words(text: str) -> Iterator[tuple[int, int]]:
    """Where each word ends, and where the next begins."""
    for found in _BREAK.finditer(text):
        yield found.span()
    yield len(text), len(text)


def _without_credentials(word: str, *, is_alone: bool) -> str:
    if not _PARAMETER.search(word):
        return word
    head = _SEPARATORS.split(word, maxsplit=1)[0]
    tail = word[len(head) :]
    if "/" not in head and not (tail.startswith("?") and _HOST.fullmatch(head)):
        return word
    if not is_alone or not _ABSOLUTE.match(word):
        sentence = _PUNCTUATION + "".join(b[1] for b in _BRACKETS if b[0] not in tail)
        tail = tail.rstrip(sentence)
    kept = [part for part in _PARTS.findall(tail) if not _holds_credential(part)]
    return head + "".join(kept) + word[len(head) + len(tail) :]


def _holds_credential(part: str) -> bool:
    if "\\" in part:
        part = part.replace("\\u0026", "&").replace("\\u003d", "=").replace("\\u003D", "=")
    for _ in range(_ENCODINGS):
        for parameter in _BETWEEN_SEPARATORS.finditer(part):
            name, equals, value = parameter[0].partition("=")
            if equals and is_credential(name, value):
                return True
        if _NESTED_USERINFO.search(part):
            return True
        if "%" not in part:
            return False
        part = _unquoted(part)
    return False


def _without_encoded_query(match: re.Match[str]) -> str:
    sentence = _PUNCTUATION + ")]}"
    query = match[0].rstrip(sentence)
    return match[0][len(query) :] if _holds_credential(query) else match[0]


def _unquoted(text: str) -> str:
    """Percent-decoded, a stretch at a time: `unquote` takes eighty bytes for each escape."""
    pieces: list[str] = []
    start = 0
    while start < len(text):
        end = start + 4096
        # An escape has three characters, which are not to be parted.
        cut = text.find("%", end - 2, end)
        end = end if cut < 0 or end >= len(text) else cut
        pieces.append(unquote(text[start:end]))
        start = end
    return "".join(pieces)


def _without_header(match: re.Match[str]) -> str:
    prefix, token = match.groups()
    if prefix[0] in "aA":
        secret = _RANDOM.search(token) is not None
    else:
        secret = len(token) >= _BEARER_LENGTH and _HAS_DIGIT.search(token) is not None
    return prefix + BLANK if secret else match[0]


def _masked(match: re.Match[bytes]) -> bytes:
    """The URL without its query, where clean() drops that; as it stands, where that isn't sure."""
    before = match.string[max(0, match.start() - _KEY_WINDOW) : match.start()].rstrip()
    quote, key = before.removesuffix(b":").rstrip().removesuffix(b'"').rpartition(b'"')[1:]
    # A share link's token is hashed whole, so there each byte counts.
    is_member = before.endswith(b":") and quote and b"\\" not in key and key != b"token"
    query = match[1].decode("ascii").replace("\\u0026", "&")
    if not is_member or "\\u" in query or not _holds_credential(query):
        return match[0]
    return match[0][: match.start(1) - match.start()] + b'?\x01"'
