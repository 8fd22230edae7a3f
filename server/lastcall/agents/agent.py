"""The agent protocol, and the values that agents take and return."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from .memory import KnownFact as KnownFact
from .memory import Memory as Memory
from .recalled import RecalledTurn

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """A text message of the conversation."""

    role: Role
    text: str
    item_id: str


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """An earlier call of one of the client's tools. arguments: JSON, as the agent wrote it."""

    name: str
    arguments: str
    call_id: str
    item_id: str


@dataclass(frozen=True, slots=True)
class FunctionOutput:
    """The client's output for the call of the same `call_id`."""

    call_id: str
    output: str
    item_id: str


ContextItem: TypeAlias = Message | FunctionCall | FunctionOutput


@dataclass(frozen=True, slots=True)
class Tool:
    """A function of the client's that the agent may call. parameters: the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """The input of one answer.

    instructions: the system prompt, including what is remembered of the user, and `recalled` as quotations.
    messages: the conversation so far, oldest first; the last one is usually the user's.
    max_output_tokens: the client's limit, in tokens; None for no limit.
    items: the messages with tool calls and their outputs in between, for agents that call tools.
    tools, tool_choice: what may be called in this turn; "auto", "none", "required", or the tool that must be called.
    parallel_tool_calls: whether several calls are allowed; None if the client does not say.
    recalled: what was said in earlier conversations that belongs to the newest message, best first.
    facts: what is known of the user, oldest first; the instructions have it too.
    search: searches the user's earlier conversations, a few times a turn; returns quotations for a model, or an empty
        string. None: there are none, or the turn has an input of its own.
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
    recalled: Sequence[RecalledTurn] = ()
    facts: Sequence[KnownFact] = ()
    search: Callable[[str], Awaitable[str]] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Begins a call of a tool; `ToolArguments` continue it. arguments: JSON, or its start. call_id: None: a new one."""

    name: str
    arguments: str = ""
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolArguments:
    """A further piece of the arguments of the last call."""

    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of a turn. cached_tokens: input tokens that were read from a cache; None: the model does not say."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class CutOff:
    """The answer ends here, unfinished."""

    reason: Literal["max_output_tokens", "content_filter"]


Piece: TypeAlias = str | ToolCall | ToolArguments | Usage | CutOff
"""A part of an answer; agents that only produce text yield nothing but `str`."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """The messages of one closed session, oldest first."""

    session_id: str
    user_id: str
    messages: Sequence[Message]


class AgentFailed(Exception):
    """The agent cannot answer. The client gets `code` and the message in `response.done`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RequestUnsupported(AgentFailed):
    """The model's endpoint does not accept this kind of request; trying again will not help."""


class ModelUnavailable(AgentFailed):
    """The model is away for everybody. certain: False where it may be this one request that it fails on."""

    def __init__(self, code: str, message: str, *, certain: bool = True) -> None:
        super().__init__(code, message)
        self.certain = certain


class AgentUnavailable(Exception):
    """The configured agent cannot be started. The message is one line that says what to change."""


class AgentBroken(Exception):
    """An agent raised something other than an `Exception`, such as `SystemExit`."""


class Agent(Protocol):
    """What answers the user. With `--agent module:factory`, `factory()` returns an object of this protocol.

    An agent may also have:

    - `async def finalize(self, transcript: Transcript) -> Sequence[Memory]`, to extract the memories of a closed
      session itself. It may be called again for the same session after a crash, and is cancelled after
      `memory_seconds`. After `ModelUnavailable` sessions wait until the model is back; whatever else it raises is
      recorded, and the session is tried again later, a limited number of times.
    - `extractor`, for agents without `finalize`: `"rules"` (the default) keeps the user's own sentences about
      themselves; a `JsonModel` is asked for the memories.
    - `model: str`, the name of its model, which is stored with each answer.
    - `reads_past = False`, where it reads nothing of earlier conversations: then no turn waits for a look into the
      user's past, and `recalled` and `search` have nothing.
    - `async def aclose(self) -> None`, called at shutdown, with a limit of 2 seconds.
    """

    @property
    def describe(self) -> str:
        """The agent's name in one line, shown at start."""
        ...

    def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        """Answers a turn, as an async generator.

        The answer is bounded by the settings `reply_seconds` and `reply_chars_max` and to 64 items. An answer that
        calls tools ends with its calls: the client sends their outputs and requests the next response.

        The generator is cancelled when the client cancels or disconnects, and at shutdown: release what you hold, and
        let `trio.Cancelled` pass.

        Args:
            turn: The conversation so far, and what the client asks for.

        Yields:
            Text, and the parts of tool calls, in order; `Usage` and `CutOff` where they apply.

        Raises:
            AgentFailed: The client gets its code and message. Of other exceptions, it only hears "agent_error".
        """
        ...


class JsonModel(Protocol):
    """A language model that answers in JSON. Memory extraction uses it."""

    async def complete_json(
        self, instructions: str, prompt: str, *, schema: Mapping[str, object], max_tokens: int
    ) -> str:
        """Asks the model once, without a conversation.

        Args:
            instructions: The system prompt.
            prompt: The user's message.
            schema: The JSON schema of the answer.
            max_tokens: Limit of the answer, in tokens.

        Returns:
            The model's answer. It should be JSON of this schema, but callers must check it.

        Raises:
            RequestUnsupported: The model does not take such a request: in a JSON schema, or so long.
            AgentFailed: The model failed, or is away (`ModelUnavailable`); trying again later may help.
        """
        ...


class contained:  # noqa: N801 - a context manager, but no generator: that takes ten times as long, in every turn
    """Lets nothing out of an agent's code but `Exception`s and cancellation.

    A `yield` inside an agent's own nursery raises a group around `GeneratorExit` when the generator is closed. No
    `except Exception` catches that, and it would end the server.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is None or isinstance(error, Exception):
            return
        from trio import Cancelled  # not above: commands that only need the values must not wait for trio's import

        if isinstance(error, Cancelled):
            return
        cancelled = error.subgroup(Cancelled) if isinstance(error, BaseExceptionGroup) else None
        if cancelled is not None:
            raise cancelled from None
        raise AgentBroken(repr(error)) from error
