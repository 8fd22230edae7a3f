"""The words of a connection string about TLS."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from .conninfo import BadAddress

CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
PROTECTED_MODES = ("require", "verify-ca", "verify-full")
FILE_WORDS = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
SSL_WORDS = (
    *FILE_WORDS, "sslmode", "sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"
)  # fmt: skip


def ssl_words(words: Mapping[str, str]) -> dict[str, str]:
    """The words as asyncpg takes them. Raises `BadAddress` where they contradict each other, or name no file."""
    tls = {word: words[word] for word in SSL_WORDS if word in words}
    if tls.get("sslrootcert") == "system":
        if tls.setdefault("sslmode", "verify-full") != "verify-full":
            raise BadAddress("sslrootcert=system needs sslmode=verify-full, or no sslmode")
        tls["sslrootcert"] = _system_bundle()
    mode = tls.setdefault("sslmode", "prefer")
    if words.get("channel_binding") == "require":
        if mode == "disable":
            raise BadAddress("channel_binding=require needs TLS; leave out sslmode=disable")
        tls["sslmode"] = mode if mode in PROTECTED_MODES else "require"
    missing = [word for word in FILE_WORDS if word in tls and not Path(tls[word]).is_file()]
    if missing and tls["sslmode"] != "disable":
        raise BadAddress(f"there is no file {tls[missing[0]]}, which {missing[0]} names")
    return tls


def _system_bundle() -> str:
    """The system's certificate authorities in one file; SSL_CERT_FILE names another."""
    for file in (ssl.get_default_verify_paths().cafile or "", *CA_BUNDLES):
        if Path(file).is_file():
            return file
    raise BadAddress("this system has no file of certificate authorities; name one with sslrootcert")
