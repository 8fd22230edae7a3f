"""The two forms of a connection string, as libpq reads them: a URL, and `key=value` pairs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

FORM = (
    "it must look like postgresql://user@127.0.0.1:5432/name, with special characters of the password percent-encoded"
)
PORT_MAX = 65_535

_SCHEME = re.compile(r"postgres(?:ql)?://")
_URL = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^@/?]*)@)?(?P<hosts>[^@/?]*)(?:/(?P<name>[^?]*))?(?:\?(?P<query>.*))?"
)
_HOST = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<name>[^\[\]:]*))(?::(?P<port>\d*))?")
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)", re.DOTALL)
_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})|%00")


class BadAddress(Exception):
    """The database's address is wrong; the message is for the user and never holds a password."""


def is_url(text: str) -> bool:
    """Whether it is a URL of PostgreSQL, right or wrong."""
    return _SCHEME.match(text) is not None


def words_of(text: str) -> dict[str, str]:
    """Splits a connection string into words such as `host` and `sslmode` and their values; empty ones are left out.

    Raises:
        BadAddress: It has neither form.
    """
    if is_url(text):
        words = _url_words(text)
    elif "=" in text and "://" not in text.partition("=")[0]:
        words = dict(_pairs(text))
    else:
        raise BadAddress(FORM)
    return {word: value for word, value in words.items() if value}


def ports_of(text: str) -> list[int]:
    """Port numbers separated by commas; an empty one is the default."""
    ports = [int(part or 5432) if re.fullmatch(r"\d{0,5}", part, re.ASCII) else 0 for part in text.split(",")]
    if not all(0 < port <= PORT_MAX for port in ports):
        raise BadAddress(f"a port is a number from 1 to {PORT_MAX}; {FORM}")
    return ports


def _url_words(text: str) -> dict[str, str]:
    parts = _URL.fullmatch(text)
    if parts is None or "@" in (parts["name"] or "") or "#" in text or re.search(r"\s", text):
        raise BadAddress(FORM)
    user, _, password = (parts["user"] or "").partition(":")
    words = {"user": _decoded(user), "password": _decoded(password), "dbname": _decoded(parts["name"] or "")}
    words |= _hosts_words(parts["hosts"])
    return words | dict(_query_words(parts["query"] or ""))


def _query_words(query: str) -> Iterator[tuple[str, str]]:
    for pair in filter(None, query.split("&")):
        word, equals, value = pair.partition("=")
        if not equals:
            raise BadAddress(f"after the ? of a URL come word=value pairs, separated by &; {FORM}")
        word, value = _decoded(word), _decoded(value)
        if (word, value) == ("ssl", "true"):  # as JDBC writes it; libpq takes it too
            word, value = "sslmode", "require"
        yield "dbname" if word == "database" else word, value


def _hosts_words(text: str) -> dict[str, str]:
    hosts = [_HOST.fullmatch(each) for each in text.split(",")]
    names, ports = [], []
    for host in hosts:
        if host is None:
            raise BadAddress(FORM)
        names.append(_decoded(host["v6"] or host["name"] or ""))
        ports.append(host["port"] or "")
    given = any(ports)
    ports_of(",".join(ports))
    return {"host": ",".join(names) if any(names) else "", "port": ",".join(ports) if given else ""}


def _decoded(text: str) -> str:
    if _PERCENT.search(text):
        raise BadAddress(f"a % must be followed by two hexadecimal digits, and a percent sign itself is %25; {FORM}")
    return unquote(text)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while text[position:].strip():
        pair = _PAIR.match(text, position)
        if pair is None:
            raise BadAddress(
                "it must be a URL, or word=value pairs separated by spaces; a value with spaces stands in single quotes"
            )
        value = pair[2] if pair[2] is not None else pair[3]
        yield pair[1], re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        position = pair.end()
