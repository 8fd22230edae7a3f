"""What a response took: when it began and ended, its tokens, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias
from uuid import UUID

Outcome: TypeAlias = Literal["completed", "incomplete", "cancelled", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """The figures of one response, whether or not it has items. It is stored once, however often it is written.

    key_id: the key that its session was opened with; None: none.
    agent: its description. model: None where the agent names none.
    outcome, reason: what came of it, and why where it is not `completed`.
    created, first, ended: on this process's monotonic clock, `trio.current_time()`. first: the agent's first piece;
        None: there was none.
    input_tokens, output_tokens, cached_tokens: as the model reported them; None where it did not.
    """

    response_id: UUID
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
        return self.response_id
