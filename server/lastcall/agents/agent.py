"""What an agent is: it answers turns, and it turns a finished session into memories."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One text item of a conversation, as agents see it."""

    role: Role
    text: str
    item_id: str


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call of one of the client's tools that an agent made earlier. arguments: JSON, as the agent wrote it."""

    name: str
    arguments: str
    call_id: str
    item_id: str


@dataclass(frozen=True, slots=True)
class FunctionOutput:
    """What the client answered to the call of the same `call_id`."""

    call_id: str
    output: str
    item_id: str


ContextItem: TypeAlias = Message | FunctionCall | FunctionOutput


@dataclass(frozen=True, slots=True)
class Tool:
    """A function of the client's that an agent may call. parameters: the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """What an agent answers to.

    instructions: the system prompt, what is remembered of the user included.
    messages: the conversation so far, oldest first; the last one is usually the user's.
    max_output_tokens: None for no limit of the client's.
    items: the messages with the calls of tools and their outputs between them, for agents that call tools.
    tools: what may be called in this turn.
    tool_choice: whether to call one is the agent's choice, forbidden or required; a tool: this one must be called.
    parallel_tool_calls: whether there may be several calls; None where the client does not say.
    """

    user_id: str
    conversation_id: str
    instructions: str
    messages: Sequence[Message]
    max_output_tokens: int | None = None
    items: Sequence[ContextItem] = ()
    tools: Sequence[Tool] = ()
    tool_choice: Literal["auto", "none", "required"] | Tool = "auto"
    parallel_tool_calls: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Begins the call of a tool of the turn's, whose name it is; `ToolArguments` go on with it.

    arguments: the beginning of the JSON, or all of it. call_id: None, and one is made.
    """

    name: str
    arguments: str = ""
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolArguments:
    """A further piece of the arguments of the call that was begun last."""

    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a turn cost, as whoever counted it says. cached_tokens: of the input, read from a cache."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class CutOff:
    """The answer ends here although it is not finished."""

    reason: Literal["max_output_tokens", "content_filter"]


Piece: TypeAlias = str | ToolCall | ToolArguments | Usage | CutOff
"""What an answer is made of; an agent that only speaks yields nothing but `str`."""


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

    def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        """Yields the answer in pieces. Raises `AgentFailed` with what the client should know.

        An answer that calls tools ends with the calls: the client sends what came of them, and asks for the next.

        Cancellation is how a client's cancel, a disconnect and a shutdown reach it: release what you hold and let
        `trio.Cancelled` pass.
        """
        ...

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        """What to remember of a closed session. May be called again for the same session after a crash."""
        ...
