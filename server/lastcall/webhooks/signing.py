"""Signatures after Standard Webhooks (standardwebhooks.com), v1: HMAC-SHA256 with a secret of each endpoint. Pure.

Its library for Python signs in one line as this does, and makes neither secrets nor headers: not worth a dependency.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from ..secret_prefixes import WEBHOOK_SECRET

SECRET_BYTES = 32


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """A secret as receivers are given it."""
    return WEBHOOK_SECRET + base64.b64encode(secret).decode()


def signed_headers(secret: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows the sender. timestamp: of this try, in Unix seconds."""
    digest = hmac.digest(secret, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
