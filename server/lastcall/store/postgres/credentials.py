"""API keys and client secrets."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import trio

from ..credentials import ClientSecret, Credential, SignIn
from ..errors import CredentialRevoked, InvalidRow, StoreUnavailable
from ..queries import QUERIES
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
        names = (
            "secret_id", "key_id", "user_id", "conversation_id", "session", "secret_hash", "seconds", "form", "origin",
        )  # fmt: skip
        row = await self._unlocked(QUERIES["create_client_secret"], *(getattr(secret, name) for name in names))
        if not row["allowed"]:
            raise CredentialRevoked("the key was revoked")
        if row["expires_at"] is None:
            raise InvalidRow("the user has no such conversation")
        return int(row["expires_at"])

    async def trade_secret(
        self, secret_hash: bytes, cookie_id: UUID, cookie_hash: bytes, *, link_seconds: float
    ) -> SignIn | None:
        values = (secret_hash, CLOCK_STEP_SECONDS_MAX, cookie_id, cookie_hash, link_seconds)
        row = await self._unlocked(QUERIES["trade_secret"], *values)
        if row["user_id"] is None:
            return None
        return SignIn(user_id=row["user_id"], seconds=float(row["seconds_left"]))

    async def sign_out(self, cookie_hash: bytes) -> bool:
        return bool(await self.fetch("sign_out", cookie_hash))

    async def _unlocked(self, sql: str, *values: object) -> asyncpg.Record:
        """The row of a statement that skips rows which another transaction has locked, and then says `held`."""
        until = trio.current_time() + LOCKED_SECONDS
        while (row := (await self.select(sql, *values))[0])["held"] and row.get("allowed", True):
            if trio.current_time() >= until:
                raise StoreUnavailable("the row of the credential is locked by another transaction")
            await trio.sleep(LOCKED_RETRY_SECONDS)  # most locks are short; it waits without a connection
        return row

    async def finish_revocations(self) -> int:
        return len(await self.fetch("finish_revocations"))
