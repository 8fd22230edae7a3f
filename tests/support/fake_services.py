"""The services behind the HTTP routes, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lastcall.auth.authenticator import Authenticator
from lastcall.config import Settings
from lastcall.limits.gate import Gate
from lastcall.memory.meaning.encoder import Encode
from lastcall.metrics import Metrics
from lastcall.store.people.memories import StoredMemory

from tests.support.fake_store import FakeStore


@dataclass
class FakeServices:
    """A running server, as the routes see it: in trouble where a test says so."""

    unready: str | None = None
    settings: Settings = field(default_factory=lambda: Settings(instructions="Be brief."))
    metrics: Metrics = field(default_factory=Metrics)
    gate: Gate = field(default_factory=lambda: Gate(Settings(), Metrics().count_refusal))
    encode: Encode | None = None
    store: Recalling = field(default_factory=lambda: Recalling())
    authenticator: Authenticator = field(default_factory=lambda: Authenticator(FakeStore(), Settings()))

    async def ready(self) -> str | None:
        return self.unready


class Recalling(FakeStore):
    """Remembers two facts of everybody, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self.asked_for: list[str] = []

    async def known_memories(self, user_id: str, limit: int, *, memory_id: int | None = None) -> Sequence[StoredMemory]:
        self.asked_for.append(user_id)
        if self.failure is not None:
            raise self.failure
        facts = [(2, "place", "Lives in Oslo."), (1, "name", f"The user is called {user_id}.")]
        return [
            StoredMemory(
                memory_id=number,
                kind=kind,
                content=content,
                quote=content,
                slot=kind,
                said_at=float(number),
                edited_at=None,
                expires_at=None,
                conversation_id=None,
                source_session_id=None,
                source_item_id=None,
            )
            for number, kind, content in facts
        ]
