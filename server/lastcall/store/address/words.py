"""The words of a connection string: which are known, which values they take, and their environment variables."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from .conninfo import BadAddress

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
TARGETS = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
KEEPALIVE_SECONDS_MAX = 32_767  # the most that Linux takes
KEEPALIVE_COUNT_MAX = 127

# By word: the environment variable that sets it where the connection string does not; empty where there is none.
ENVIRONMENT = {
    "application_name": "PGAPPNAME",
    "channel_binding": "PGCHANNELBINDING",
    "client_encoding": "",  # we always speak UTF-8, and PostgreSQL converts
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "dbname": "PGDATABASE",
    "fallback_application_name": "",
    "gssencmode": "PGGSSENCMODE",
    "gsslib": "PGGSSLIB",
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "keepalives": "",
    "keepalives_count": "",
    "keepalives_idle": "",
    "keepalives_interval": "",
    "krbsrvname": "PGKRBSRVNAME",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
    "options": "PGOPTIONS",
    "passfile": "PGPASSFILE",
    "password": "PGPASSWORD",
    "port": "PGPORT",
    "service": "PGSERVICE",
    "sslcert": "PGSSLCERT",
    "sslcompression": "",  # libpq ignores it too
    "sslcrl": "PGSSLCRL",
    "sslkey": "PGSSLKEY",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslpassword": "",
    "sslrootcert": "PGSSLROOTCERT",
    "sslsni": "PGSSLSNI",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "tcp_user_timeout": "",
    "user": "PGUSER",
    # Of no use here, but harmless with the values below.
    "gssdelegation": "PGGSSDELEGATION",
    "replication": "",
    "require_auth": "PGREQUIREAUTH",
    "requirepeer": "PGREQUIREPEER",
    "sslcertmode": "PGSSLCERTMODE",
    "sslcrldir": "PGSSLCRLDIR",
}

_CHOICES: dict[str, tuple[str, ...]] = {
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer"),
    "gsslib": ("gssapi", "sspi"),
    "keepalives": ("0", "1"),
    "load_balance_hosts": ("disable", "random"),
    "sslmode": SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_max_protocol_version": TLS_VERSIONS,
    "ssl_min_protocol_version": TLS_VERSIONS,
    "sslsni": ("1",),
    "target_session_attrs": TARGETS,
    "gssdelegation": ("0",),
    "replication": ("false", "off", "no", "0"),
    "require_auth": (),
    "requirepeer": (),
    "sslcertmode": ("allow",),
    "sslcrldir": (),
}
_NUMBERS_MAX = {
    "connect_timeout": 2**31 - 1,
    "keepalives_count": KEEPALIVE_COUNT_MAX,
    "keepalives_idle": KEEPALIVE_SECONDS_MAX,
    "keepalives_interval": KEEPALIVE_SECONDS_MAX,
    "tcp_user_timeout": 2**31 - 1,
}


def check_words(words: Mapping[str, str]) -> None:
    """Raises `BadAddress` for a word that is not known, and for a value that it does not take."""
    for word, value in words.items():
        if word not in ENVIRONMENT:
            raise BadAddress(_unknown(word))
        if word in _CHOICES and value not in _CHOICES[word]:
            raise BadAddress(_wrong_choice(word, value))
        if word in _NUMBERS_MAX and not _is_number(value, _NUMBERS_MAX[word]):
            raise BadAddress(f"{word} must be a whole number up to {_NUMBERS_MAX[word]}")


def words_of_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The words that the PG… variables set."""
    return {word: environ[name] for word, name in ENVIRONMENT.items() if name and environ.get(name)}


def _unknown(word: str) -> str:
    shown = word if re.fullmatch(r"[A-Za-z_]\w{0,40}", word) else "part of it"  # what else may be a password
    near = difflib.get_close_matches(word, ENVIRONMENT, n=1)
    advice = (
        f"did you mean {near[0]}?" if near else "a setting of the server goes into options, as in options=-cjit=off"
    )
    return f"{shown} is not a word of a connection string; {advice}"


def _wrong_choice(word: str, value: str) -> str:
    choices = _CHOICES[word]
    if not choices:
        return f"{word} is not supported; leave it out"
    shown = f"{value} is not supported" if re.fullmatch(r"[\w.-]{1,40}", value) else "its value is not supported"
    return f"{word} takes {' or '.join(choices)}; {shown}"


def _is_number(text: str, most: int) -> bool:
    return re.fullmatch(r"\s*[+-]?\d{1,10}\s*", text, re.ASCII) is not None and int(text) <= most
