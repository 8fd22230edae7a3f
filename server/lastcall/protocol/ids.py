"""Identifiers as clients see them."""

from __future__ import annotations

from uuid import UUID


def public_id(kind: str, identifier: UUID) -> str:
    """What clients see of an id: `conv_` or `sess_` and its 32 hex digits."""
    return f"{kind}_{identifier.hex}"


def parse_public_id(kind: str, text: str) -> UUID:
    """Reads what `public_id` wrote, or a plain UUID. Raises ValueError."""
    return UUID(text.removeprefix(f"{kind}_"))
