"""The proof that a server is ready: a commit that has just succeeded."""

from __future__ import annotations

import math
from uuid import UUID

import trio

from .errors import CommitRefused, StoreError
from .store import Store

FRESH_SECONDS = 2.0  # between two proofs, however often it is asked for
PROOF_SECONDS = 2.0  # for one
REASON_CHARS_MAX = 200


class CommitProof:
    """Whether the database would commit what a session writes, asked at most once in `FRESH_SECONDS`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._one_at_a_time = trio.Lock()
        self._proved = -math.inf
        self._reason: str | None = None

    async def missing(self, instance_id: UUID) -> str | None:
        """None where it would, else why not, in a few words. Returns within some `PROOF_SECONDS`."""
        async with self._one_at_a_time:
            if trio.current_time() - self._proved >= FRESH_SECONDS:
                self._reason = await self._prove(instance_id)
                self._proved = trio.current_time()
            return self._reason

    async def _prove(self, instance_id: UUID) -> str | None:
        with trio.move_on_after(PROOF_SECONDS):
            try:
                await self._store.prove_commit(instance_id)
            except CommitRefused as error:
                return f"no commit: {error}"[:REASON_CHARS_MAX]
            except StoreError:
                return "database unreachable"
            return None
        return "database unreachable"
