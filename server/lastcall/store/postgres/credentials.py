"""API keys and client secrets."""

from __future__ import annotations

from ..errors import CredentialRevoked, InvalidRow
from ..records import ClientSecret, Credential
from .connections import Queries


class CredentialQueries(Queries):
    """The part of `Store` about credentials."""

    async def keys_exist(self) -> bool:
        [row] = await self.fetch("keys_exist")
        return bool(row["found"])

    async def find_credential(self, secret_hash: bytes) -> Credential | None:
        rows = await self.fetch("find_credential", secret_hash)
        return Credential(**rows[0]) if rows else None

    async def create_client_secret(self, secret: ClientSecret) -> int:
        names = ("secret_id", "key_id", "user_id", "conversation_id", "session", "secret_hash", "seconds")
        [row] = await self.fetch("create_client_secret", *(getattr(secret, name) for name in names))
        if not row["allowed"]:
            raise CredentialRevoked("the key was revoked")
        if row["expires_at"] is None:
            raise InvalidRow("the user has no such conversation")
        return int(row["expires_at"])
