"""Checks every session's memory at rest: made once where the user spoke, failed only where it had to."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from tests.support.fake_rows import MemoryRecord, SessionRecord

from ...promises import Promise
from ..server import Server
from ..world import SETTINGS, World
from .causes import INFINITE
from .findings import overlap
from .step_checks import StepChecks


class MemoryChecks:
    """One check of all memories of a world."""

    def __init__(self, world: World, checks: StepChecks) -> None:
        self._world = world
        self._checks = checks
        self._memories: dict[UUID, list[tuple[str, MemoryRecord]]] = {}
        for (user_id, _, _), memory in world.database.memories.items():
            self._memories.setdefault(memory.source_session_id, []).append((user_id, memory))
        self._failed = Counter(
            fields["session_id"] for _, event, fields in world.logged if event == "memory_not_finalized"
        )

    def run(self) -> None:
        for row in self._world.database.sessions.values():
            if not row.is_active:
                self._check_attempts(row)
                self._check_memory(row)

    def _check_memory(self, row: SessionRecord) -> None:
        key = row.session_id
        said = [item for item in self._world.database.said_in(key) if item.role == "user"]
        kept = [item for item in said if not item.deleted]
        wanted = self._wanted(row, [item.content for item in said], [item.content for item in kept])
        if row.memory_status != wanted or (wanted == "failed" and not row.memory_error):
            self._broken(f"{key} is {row.memory_status}, not {wanted} (error: {row.memory_error})")
            return
        self._world.count("memory", wanted)
        made = self._memories.get(key, [])
        found = sorted((user_id, memory.source_item_id, memory.content) for user_id, memory in made)
        expected = sorted((row.user_id, item.item_id, item.content) for item in kept) if wanted == "done" else []
        if found != expected:
            missing = sorted(set(expected) - set(found))
            self._broken(f"{key} left {len(found)} memories of {len(expected)}; missing: {missing[:1]}")
        if any(memory.updated_at != row.memory_finalized_at for _, memory in made):
            self._broken(f"the memory of {key} was applied again")

    def _wanted(self, row: SessionRecord, said: list[str], kept: list[str]) -> str:
        """The status that the row must have."""
        if not said:
            return "none"
        if any("#never" in words for words in kept):
            return "failed"
        exhausted = row.memory_status == "failed" and row.memory_attempts >= SETTINGS.memory_attempts_max
        # Attempts that ended with their server, or without a database, count too.
        cut_off = any(server.trouble or server.signalled_at for server in self._world.servers)
        return "failed" if exhausted and cut_off else "done"

    def _check_attempts(self, row: SessionRecord) -> None:
        """Only attempts that failed were counted: one that a shutdown cut off is given back."""
        world, since = self._world, row.ended_at or INFINITE
        until = row.memory_finalized_at or INFINITE
        if any(overlap(server.trouble, since, until) or _died(server, since, until) for server in world.servers):
            return
        store = world.counts.get("store", Counter())
        if store["claim_memory/cancelled_yet_done"] or store["claim_memory/cancelled_unheard"]:
            return  # a shutdown cut off the claim itself, and nobody knows what to give back
        failed = self._failed[str(row.session_id)]
        if row.memory_attempts > failed + (row.memory_status == "done"):
            self._broken(f"{row.session_id} counts {row.memory_attempts} attempts; {failed} failed")

    def _broken(self, example: str) -> None:
        self._checks.broken(Promise.MEMORY_ONCE, example)


def _died(server: Server, since: float, until: float) -> bool:
    """Whether it was killed between two moments."""
    return server.how in ("crashed", "forced") and server.over_at is not None and since <= server.over_at <= until
