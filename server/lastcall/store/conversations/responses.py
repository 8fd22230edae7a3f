"""What a response took: when it began and ended, its tokens, and what came of it."""

from __future__ import annotations

from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

Outcome: TypeAlias = Literal["completed", "incomplete", "cancelled", "failed"]


class StoredResponse(Struct, frozen=True, kw_only=True):
    """The figures of one response, whether or not it has items. It is stored once, however often it is written.

    A struct, since each turn makes one: a frozen dataclass of so many fields takes ten times as long.

    response_id: 32 hex digits. key_id: the key that its session was opened with; None: none.
    agent: its description. model: None where the agent names none.
    outcome, reason: what came of it, and why where it is not `completed`.
    created, first, ended: on this process's monotonic clock, `trio.current_time()`. first: the agent's first piece;
        None: there was none.
    input_tokens, output_tokens, cached_tokens: as the model reported them; None where it did not.
    """

    response_id: str
    session_id: UUID
    user_id: str
    key_id: UUID | None
    agent: str
    model: str | None
    outcome: Outcome
    reason: str | None
    created: float
    first: float | None
    ended: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def key(self) -> UUID:
        """What names its row."""
        return UUID(self.response_id)
