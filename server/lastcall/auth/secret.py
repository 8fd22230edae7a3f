"""API keys and client secrets: how they are made, and what is stored of them. Pure.

Each has 256 random bits, so nothing can be guessed, and its plain SHA-256 is safe to store and to look it up by: slow
hashes and salts are for passwords, and the time of a look-up tells about the hash, not about the secret.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

from ..secret_prefixes import CLIENT_SECRET, KEY, KEY_SHOWN_CHARS

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Secret:
    """value: shown to its owner, once. prefix: shown in lists."""

    value: str = field(repr=False)

    @property
    def prefix(self) -> str:
        return self.value[:KEY_SHOWN_CHARS]

    @property
    def digest(self) -> bytes:
        return digest(self.value)


def new_key() -> Secret:
    return Secret(KEY + secrets.token_urlsafe(SECRET_BYTES))


def new_client_secret() -> Secret:
    return Secret(CLIENT_SECRET + secrets.token_urlsafe(SECRET_BYTES))


def digest(value: str) -> bytes:
    """The hash by which a key or client secret is stored and found."""
    return hashlib.sha256(value.encode(errors="surrogatepass")).digest()


def is_client_secret(value: str) -> bool:
    return value.startswith(CLIENT_SECRET)


def is_key_or_client_secret(value: str) -> bool:
    """Whether a credential is one of this server's; else it may be a token."""
    return value.startswith((KEY, CLIENT_SECRET))
