"""Public ids of conversations and sessions."""

from __future__ import annotations

from uuid import UUID


def public_id(kind: str, identifier: UUID) -> str:
    """The id that clients see: `conv_` or `sess_`, then 32 hex digits."""
    return f"{kind}_{identifier.hex}"


def parse_public_id(kind: str, text: str) -> UUID:
    """Parses a public id or a plain UUID. Raises `ValueError`."""
    return UUID(text.removeprefix(f"{kind}_"))
