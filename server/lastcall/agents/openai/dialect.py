"""What an OpenAI-compatible endpoint accepts, learned from what it refuses. No I/O.

Endpoints differ in parameters, in the order of roles, and in how much they take, and say so in words of their own. A
refusal that names its cause changes the dialect for good; the request is then sent again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .chat import alternating, without_calls

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTEXT_CHARS_MIN = 400  # of a request; one that is refused at this size is not too long
CONTEXT_TRUST_SECONDS = 600.0  # after which twice as much is tried again: one text of rare characters may have been it
WORDING_CHARS_MAX = 4_000  # of a refusal that are read

COMPLETION_TOKENS, TOKENS = "max_completion_tokens", "max_tokens"

_TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "request_too_large"})
_NOT_ABOUT_THE_REQUEST = frozenset({401, 403, 404})  # but about keys and models
_RATE_LIMITED = 429
_TOO_LONG = re.compile(
    r"context (?:length|window|size|limit|the overflows)|maximum context|max(?:imum)? prompt|model_length"
    r"|(?:prompt|input|request|messages?|conversation|content)\b(?!['\"]).{0,40}\b(?:too (?:long|large|many)|exceed)"
    r"|exceed.{0,60}\btokens?\b|\btokens?\b.{0,60}exceed|too many (?:input |total )?tokens|reduce the length"
    r"|must have less than \d+ tokens|tokens`? .{0,40}must be <=?|range of input length|too large for model"
    r"|longer than the (?:max|model|context)|expected maxlength|messages\b.{0,20}: (?:array|string) too long"
    r"|(?:payload|input) too (?:long|large|big)|context_?length|token_limit|max_?input"
    r"|(?:prompt|input|sequence|token) length|input (?:tokens|characters)|bytes: \d+ > \d+|shorten|超长|过长|超过|超出",
    re.IGNORECASE | re.DOTALL,
)
_EVEN_AT_ANOTHER_TIME = re.compile(r"request too large|must be reduced", re.IGNORECASE)  # no matter what the rate is
_UNKNOWN = re.compile(r"support|recogni|unknown|unexpected|extra|permitted|invalid param|instead", re.IGNORECASE)
_LIMIT_TOO_HIGH = re.compile(
    r"max_(?:completion_|new_|output_)?tokens.{0,80}(?:too large|too high|at most|exceed|less than|<=|maximum)",
    re.IGNORECASE | re.DOTALL,
)
_ALTERNATE = re.compile(
    r"\broles?\b|alternat|consecutive|in a row|(?:must|should) (?:start|begin|end) with|(?:first|last|final) message"
    r"|at the beginning|even index|odd number|prefill",
    re.IGNORECASE,
)
_NO_SYSTEM = re.compile(
    r"system.{0,40}(?:not |un)(?:supported|allowed)|(?:not|n't) support.{0,10}system"
    r"|only user(?:,| and) (?:model|assistant)|(?:system|developer) instruction|(?:invalid value|got):? .?system",
    re.IGNORECASE,
)
_SYSTEM = re.compile(r"\b(?:system|developer|roles?)\b", re.IGNORECASE)
_TOOLS = r"(?:\btools?\b|\btool[_ ]\w+|\bfunction[_ ]call\w*|\bfunctions\b)"
_NO_TOOLS = re.compile(
    rf"{_TOOLS}.{{0,40}}(?:(?:not|n't|un) ?(?:supported|support|enabled|available|allowed|recognized)|requires? --)"
    rf"|(?:(?:not|n't|that) (?:support|allow|take)|unsupported|unrecognized|unknown).{{0,40}}{_TOOLS}",
    re.IGNORECASE,
)
_ONE_TOOL = re.compile(r"schema|tools?\[|tools\.\d", re.IGNORECASE)  # is at fault, not that there are tools


@dataclass(frozen=True, slots=True)
class EndpointRefusal:
    """An HTTP error, or an error in place of the first chunk. status: 200 for the latter."""

    status: int
    code: str
    wording: str

    def is_too_long(self) -> bool:
        """Whether the request was too long, in anybody's words."""
        if self.status in _NOT_ABOUT_THE_REQUEST:
            return False
        if self.status == _RATE_LIMITED:
            return bool(_EVEN_AT_ANOTHER_TIME.search(self.wording))
        return self.status == 413 or self.code in _TOO_LONG_CODES or bool(_TOO_LONG.search(self.wording))

    def limits_too_much(self) -> bool:
        """Whether the limit of the answer's tokens is higher than the model's own."""
        return bool(_LIMIT_TOO_HIGH.search(self.wording))


@dataclass(slots=True)
class Dialect:
    """tokens_key: the parameter that limits an answer. refused: parameters that the endpoint does not take."""

    tokens_key: str
    alternates: bool = False
    takes_system: bool = True
    refused: set[str] = field(default_factory=set)

    def request(self, messages: Sequence[dict[str, Any]], parameters: dict[str, Any]) -> dict[str, Any]:
        """The request's parameters in this dialect. A limit of tokens comes under the name `TOKENS`."""
        named = {self.tokens_key if key == TOKENS else key: value for key, value in parameters.items()}
        told = without_calls(messages) if "tools" in self.refused else messages
        shaped = alternating(told, system=self.takes_system) if self.alternates else told
        return {"messages": shaped, **{key: value for key, value in named.items() if key not in self.refused}}

    def adapt(self, refusal: EndpointRefusal, request: dict[str, Any]) -> str | None:
        """Changes what the refusal names; returns what was changed, None where nothing helps."""
        if refusal.status not in (200, 400, 404, 422, 500, 501):
            return None
        return (
            self._other_limit(refusal, request)
            or self._without(refusal, request)
            or self._without_tools(refusal, request)
            or self._shape(refusal)
        )

    def _other_limit(self, refusal: EndpointRefusal, request: dict[str, Any]) -> str | None:
        """Endpoints that want the other name of the limit say so, or do not know the one that was sent."""
        other = TOKENS if self.tokens_key == COMPLETION_TOKENS else COMPLETION_TOKENS
        named = re.search(rf"\b{self.tokens_key}\b", refusal.wording) and _UNKNOWN.search(refusal.wording)
        if self.tokens_key not in request or not named or other in self.refused:
            return None
        self.refused.add(self.tokens_key)  # so that there is no way back
        self.tokens_key = other
        return other

    def _without(self, refusal: EndpointRefusal, request: dict[str, Any]) -> str | None:
        """An optional parameter that is named is left out."""
        for name in ("stream_options", "parallel_tool_calls", "temperature", "response_format"):
            named = re.search(name.replace("_", "[ _-]?"), refusal.wording, re.IGNORECASE)
            if name in request and name not in self.refused and named:
                self.refused.add(name)
                return f"no {name}"
        return None

    def _without_tools(self, refusal: EndpointRefusal, request: dict[str, Any]) -> str | None:
        """A model that calls no tools can still talk. What was called before becomes words."""
        if "tools" not in request or not _NO_TOOLS.search(refusal.wording) or _ONE_TOOL.search(refusal.wording):
            return None
        if "tool_choice" not in self.refused and "tool_choice" in refusal.wording:
            self.refused.add("tool_choice")
            return "no tool_choice"
        self.refused |= {"tools", "tool_choice", "parallel_tool_calls"}
        return "no tools"

    def _shape(self, refusal: EndpointRefusal) -> str | None:
        """From what most models take to what the strictest do."""
        wording = refusal.wording
        if self.takes_system and (_NO_SYSTEM.search(wording) or (self.alternates and _SYSTEM.search(wording))):
            self.alternates, self.takes_system = True, False
            return "no system role"
        if not self.alternates and _ALTERNATE.search(wording):
            self.alternates = True
            return "alternating roles"
        return None


class ContextBudget:
    """How many characters fit a request. chars_max: what is tried first."""

    def __init__(self, chars_max: int) -> None:
        self._chars_max = chars_max
        self._fits = chars_max
        self._learned = 0.0

    def chars(self, now: float) -> int:
        """now: in seconds, on a clock that never goes back."""
        doublings = min(int((now - self._learned) / CONTEXT_TRUST_SECONDS), 32)
        return min(self._chars_max, self._fits << doublings)

    def smaller(self, sent: int) -> int | None:
        """The next size to try after a request of this size was too long; None where that is not what is wrong."""
        return sent // 2 if sent > CONTEXT_CHARS_MIN else None

    def learn(self, fits: int, now: float) -> None:
        """Remembers what was accepted after more was refused."""
        self._fits, self._learned = min(fits, self._chars_max), now
