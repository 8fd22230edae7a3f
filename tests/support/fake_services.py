"""The services behind the HTTP routes, without a server."""

from __future__ import annotations

from dataclasses import dataclass, field

from lastcall.auth.authenticator import Authenticator
from lastcall.config import Settings
from lastcall.limits.gate import Gate
from lastcall.metrics import Metrics
from lastcall.store.records import Recollection, RememberedFact

from tests.support.fake_store import FakeStore


@dataclass
class FakeServices:
    """A running server, as the routes see it: in trouble where a test says so."""

    unready: str | None = None
    settings: Settings = field(default_factory=lambda: Settings(instructions="Be brief."))
    metrics: Metrics = field(default_factory=Metrics)
    gate: Gate = field(default_factory=lambda: Gate(Settings(), Metrics().count_refusal))
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

    async def recall(self, user_id: str, limit: int) -> Recollection:
        self.asked_for.append(user_id)
        if self.failure is not None:
            raise self.failure
        facts = [RememberedFact("name", f"The user is called {user_id}."), RememberedFact("place", "Lives in Oslo.")]
        return Recollection(facts, pending=False)
