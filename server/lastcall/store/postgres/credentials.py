"""API keys and client secrets."""

from __future__ import annotations

import trio

from ..credentials import ClientSecret, Credential
from ..errors import CredentialRevoked, InvalidRow, StoreUnavailable
from ..records import CLOCK_STEP_SECONDS_MAX
from .connections import Queries

LOCKED_SECONDS = 1.0  # to wait for the row of a key that another transaction has locked
LOCKED_RETRY_SECONDS = 0.05


class CredentialQueries(Queries):
    """The part of `Store` about credentials."""

    async def keys_exist(self) -> bool:
        [row] = await self.fetch("keys_exist")
        return bool(row["found"])

    async def find_credential(self, secret_hash: bytes) -> Credential | None:
        rows = await self.fetch("find_credential", secret_hash, CLOCK_STEP_SECONDS_MAX)
        return Credential(**rows[0]) if rows else None

    async def create_client_secret(self, secret: ClientSecret) -> int:
        names = ("secret_id", "key_id", "user_id", "conversation_id", "session", "secret_hash", "seconds")
        values = [getattr(secret, name) for name in names]
        until = trio.current_time() + LOCKED_SECONDS
        while (row := (await self.fetch("create_client_secret", *values))[0])["allowed"] and row["held"]:
            if trio.current_time() >= until:
                raise StoreUnavailable("the row of the key is locked by another transaction")
            await trio.sleep(LOCKED_RETRY_SECONDS)  # most locks are short; it waits without a connection
        if not row["allowed"]:
            raise CredentialRevoked("the key was revoked")
        if row["expires_at"] is None:
            raise InvalidRow("the user has no such conversation")
        return int(row["expires_at"])

    async def finish_revocations(self) -> int:
        return len(await self.fetch("finish_revocations"))
