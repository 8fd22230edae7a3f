"""The address of a database as a URL for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from .conninfo import is_url, words_of
from .reading import given_words
from .tls import SSL_WORDS, ssl_words

# Words that asyncpg would pass on to the server, which refuses them.
NOT_FOR_ASYNCPG = (
    "channel_binding", "client_encoding", "connect_timeout", "fallback_application_name", "gssencmode", "gssdelegation",
    "hostaddr", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts",
    "replication", "service", "sslcertmode", "sslcompression", "sslsni", "tcp_user_timeout",
)  # fmt: skip

SECRETS = ("password", "sslpassword")


def url_for_tools(text: str, environ: Mapping[str, str]) -> str:
    """The connection string as a URL that psql and asyncpg both take, without words that only one of them knows."""
    given = words_of(text)
    if is_url(text) and _is_plain(text, given):
        return text
    words = given_words(text, environ)
    if words.keys() & {*SSL_WORDS, "channel_binding"}:
        words |= ssl_words(words)
    named = {"host", "port", "user", "password", "dbname", *NOT_FOR_ASYNCPG}
    rest = "&".join(f"{word}={_quoted(value)}" for word, value in words.items() if word not in named)
    name = _quoted(words.get("dbname", ""))
    return f"postgresql://{_login(words)}{_places(words)}/{name}{'?' + rest if rest else ''}"


def without_secrets(text: str) -> str:
    """The connection string with three asterisks for each of its secrets, as `key=value` pairs or as a URL."""
    words = words_of(text)
    if not words.keys() & set(SECRETS):
        return text
    words |= {word: "***" for word in SECRETS if word in words}
    if not is_url(text):
        return " ".join(f"{word}={_pair(value)}" for word, value in words.items())
    named = {"host", "port", "user", "password", "dbname"}
    rest = "&".join(f"{word}={_quoted(value)}" for word, value in words.items() if word not in named)
    login = f"{_quoted(words.get('user', ''))}{':***' if 'password' in words else ''}@"
    name = _quoted(words.get("dbname", ""))
    return f"postgresql://{login}{_places(words)}/{name}{'?' + rest.replace('%2A%2A%2A', '***') if rest else ''}"


def _pair(value: str) -> str:
    """A value as libpq takes it."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'" if not value or " " in value or escaped != value else value


def _is_plain(text: str, words: Mapping[str, str]) -> bool:
    """Whether both take it as it is. psql refuses an = in a value that is not encoded."""
    pairs = text.partition("?")[2].split("&")
    return (
        not words.keys() & set(NOT_FOR_ASYNCPG)
        and all(pair.count("=") <= 1 for pair in pairs)
        and words.get("sslrootcert") != "system"
    )


def _login(words: Mapping[str, str]) -> str:
    secret = f":{_quoted(words['password'])}" if "password" in words else ""
    return f"{_quoted(words.get('user', ''))}{secret}@" if secret or "user" in words else ""


def _places(words: Mapping[str, str]) -> str:
    """Hosts with their ports. An address to connect to replaces a name that no certificate is compared with."""
    names = words.get("host", "").split(",")
    if "hostaddr" in words and ("host" not in words or words.get("sslmode") != "verify-full"):
        names = words["hostaddr"].split(",")
    ports = words.get("port", "").split(",")
    ports = ports * len(names) if len(ports) == 1 else ports
    pairs = zip(names, ports, strict=True)
    return ",".join(
        (f"[{name}]" if ":" in name else _quoted(name)) + (f":{port}" if port else "") for name, port in pairs
    )


def _quoted(text: str) -> str:
    return quote(text, safe="")
