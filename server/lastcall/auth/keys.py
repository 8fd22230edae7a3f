"""API keys and client secrets: how they are made, and what is kept of them. Pure.

Each is 256 random bits. So there is nothing to guess, and its plain SHA-256 is safe to store and to be looked up by:
slow hashes and salts are for passwords, and how long a look-up takes tells about the hash, not about the secret.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

KEY = "sk-"
CLIENT_SECRET = "ek_"  # noqa: S105 - a prefix; the official clients look for it
SECRET_BYTES = 32
PREFIX_CHARS = len(KEY) + 6  # of a key, in lists: 36 of its 256 bits


@dataclass(frozen=True, slots=True)
class Secret:
    """value: what its owner gets to see, once. prefix: for people to know it by."""

    value: str = field(repr=False)

    @property
    def prefix(self) -> str:
        return self.value[:PREFIX_CHARS]

    @property
    def digest(self) -> bytes:
        return digest(self.value)


def new_key() -> Secret:
    return Secret(KEY + secrets.token_urlsafe(SECRET_BYTES))


def new_client_secret() -> Secret:
    return Secret(CLIENT_SECRET + secrets.token_urlsafe(SECRET_BYTES))


def digest(value: str) -> bytes:
    """What is stored of a key or client secret, and what it is found by."""
    return hashlib.sha256(value.encode(errors="surrogatepass")).digest()


def is_ours(value: str) -> bool:
    """Whether it looks like a key or client secret; else it may be a token."""
    return value.startswith((KEY, CLIENT_SECRET))
