"""What a text must lose before it is logged: its excess length, secrets, and control characters. In linear time."""

from __future__ import annotations

import re

from ..secret_prefixes import API_KEY, CLIENT_SECRET, KEY, KEY_SHOWN_CHARS, KEY_SUBPROTOCOL, TOKEN, WEBHOOK_SECRET

VALUE_CHARS_MAX = 4_000  # of one value of a line
TRACEBACK_CHARS_MAX = 8_000

# User information of a URL, and libpq's parameter: the password may hold an @ that should have been encoded.
_WORD = re.compile(r"\S+")
_USER = re.compile(r"://[^\s:@/?#]*:")
_PARAMETER = re.compile(r"([?&]password=)[^&\s'\"]*", re.IGNORECASE)
# Keys, client secrets, and tokens in three parts. Their prefixes stay, and of keys as much as lists show.
_SECRET = re.compile(rf"\b({KEY}[\w-]{{{KEY_SHOWN_CHARS - len(KEY)}}}|{CLIENT_SECRET})[\w-]{{16,}}")
_WEBHOOK_SECRET = re.compile(rf"\b({WEBHOOK_SECRET})[\w+/=-]{{16,}}")
# Begins where a part of a token can begin, and gives nothing back (?>, ++): searching a long word again from each
# prefix in it would take time that grows with its square.
_TOKEN = re.compile(rf"(?<![\w-])((?>[\w-]*?\b{TOKEN}))[\w-]{{8,}}+\.[\w-]++\.[\w-]*")
# Whatever else a browser, or a client of Azure's, presents as a key.
_SUBPROTOCOL = re.compile(rf"({re.escape(KEY_SUBPROTOCOL)})(?!{KEY}|{CLIENT_SECRET}|{TOKEN})[^\s,;'\"]+")
_KEY_VALUE = re.compile(
    rf"({API_KEY}['\"]?[=:,] ?b?['\"]?)(?!{KEY}|{CLIENT_SECRET}|{TOKEN})[^\s&,;'\"]+", re.IGNORECASE
)
_CONTROL = re.compile(r"[^\S\n\t ]|[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def redact(text: str) -> str:
    """Replaces keys, client secrets, secrets of webhooks, tokens and the passwords of URLs by three asterisks."""
    without_secrets = _WEBHOOK_SECRET.sub(r"\1***", _TOKEN.sub(r"\1***", _SECRET.sub(r"\1***", text)))
    without_secrets = _KEY_VALUE.sub(r"\1***", _SUBPROTOCOL.sub(r"\1***", without_secrets))
    if "://" in without_secrets and "@" in without_secrets:
        without_secrets = _WORD.sub(_without_password, without_secrets)
    return _PARAMETER.sub(r"\1***", without_secrets)


def _without_password(word: re.Match[str]) -> str:
    """In a word: from the first user of a URL to the last @."""
    text = word[0]
    end = text.rfind("@")
    user = _USER.search(text, 0, max(end, 0))
    return text if user is None else f"{text[: user.end()]}***{text[end:]}"


def printable(text: str) -> str:
    """Replaces terminal escapes, control characters and changes of direction; keeps newlines and tabs."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def cut(text: str, chars_max: int = VALUE_CHARS_MAX) -> str:
    """Shortens a long text: keeps its beginning and its end, and says how many characters are missing between them.

    A word that the cut would divide goes as a whole: the rest of a secret would not look like one to `redact`.
    """
    if len(text) <= chars_max:
        return text
    start = _last_space(text, chars_max * 3 // 4)
    end = _next_space(text, max(len(text) - chars_max // 4, start))
    return f"{text[:start]} [{end - start} characters cut] {text[end:]}".strip()


def _last_space(text: str, before: int) -> int:
    """The end of the last whole word that ends before a place; 0 if there is none."""
    while before > 0 and not text[before].isspace():
        before -= 1
    return before


def _next_space(text: str, after: int) -> int:
    while after < len(text) and not text[after - 1].isspace():
        after += 1
    return after
