"""What an agent is: it answers turns, and it turns a finished session into memories."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One text item of a conversation, as agents see it."""

    role: Role
    text: str
    item_id: str


@dataclass(frozen=True, slots=True)
class Turn:
    """What an agent answers to.

    instructions: the system prompt, what is remembered of the user included.
    messages: the conversation so far, oldest first; the last one is usually the user's.
    max_output_tokens: None for no limit of the client's.
    """

    user_id: str
    conversation_id: str
    instructions: str
    messages: Sequence[Message]
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """A closed session's own items, oldest first."""

    session_id: str
    user_id: str
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Memory:
    """Something worth knowing about a user at the next meeting.

    kind: name, place, need, like, dislike, note, or a word of the agent's own (at most 32 characters).
    content: one sentence, at most 1,000 characters.
    item_id: the item it comes from; its text holds `quote` word for word.
    """

    kind: str
    content: str
    item_id: str
    quote: str


class AgentFailed(Exception):
    """The agent cannot answer. `code` and the message go to the client in `response.done`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Agent(Protocol):
    """One small protocol; `--agent module:factory` calls `factory()` for an object that has it.

    `describe` is shown at start. An agent with an `aclose` coroutine method has it awaited at shutdown.
    """

    @property
    def describe(self) -> str: ...

    def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        """Yields the answer in pieces. Raises `AgentFailed` with what the client should know.

        Cancellation is how a client's cancel, a disconnect and a shutdown reach it: release what you hold and let
        `trio.Cancelled` pass.
        """
        ...

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        """What to remember of a closed session. May be called again for the same session after a crash."""
        ...
