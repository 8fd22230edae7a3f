"""Whose request it is: what a client presents, and what it may do. One rule for HTTP and for WebSockets. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

USER_HEADER = "openai-safety-identifier"
USER_QUERY = "user"
ANONYMOUS = "anonymous"
USER_CHARS_MAX = 256

KEY_SUBPROTOCOL = "openai-insecure-api-key."
SUBPROTOCOL = "realtime"

_REFUSED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}  # controls, lone surrogates, line and paragraph separators


class Scope(StrEnum):
    """What a request may do. Those of keys: user, service, admin."""

    OPEN = "open"  # no keys are set: everything, for whoever reaches this machine
    CLIENT = "client"  # a client secret: its user's sessions and memory
    USER = "user"  # a key or token of one user: that, and client secrets for the same user
    SERVICE = "service"  # a backend: for any user
    ADMIN = "admin"  # a backend that also sees what operators see

    @property
    def names_users(self) -> bool:
        """Whether it says itself on whose behalf it comes."""
        return self in (Scope.OPEN, Scope.SERVICE, Scope.ADMIN)

    @property
    def operates(self) -> bool:
        """Whether it may see what operators see."""
        return self in (Scope.OPEN, Scope.ADMIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a request.

    credential_id: the key or client secret that it came with; None for a token, and where no keys are set.
    key_id: the key behind that: its own, or the one that made the secret. What limits are counted by.
    conversation_id: the only one that it may go on in; None: any of the user's, and new ones.
    session: JSON of the protocol's session, what its sessions begin with.
    """

    user_id: str
    scope: Scope
    credential_id: UUID | None = None
    key_id: UUID | None = None
    conversation_id: UUID | None = None
    session: str = "{}"

    def may_enter(self, conversation_id: UUID) -> bool:
        """Whether its restriction lets it into a conversation; whether that is the user's, the store knows."""
        return self.conversation_id in (None, conversation_id)


class RequestRefused(Exception):
    """A request that is refused before anything is done for it: an HTTP status, and an error for the client.

    retry_after: the header's value.
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, *, retry_after: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request shows of its sender.

    headers: names in lower case (or any mapping that ignores case), values decoded as Latin-1, as HTTP/1.1 has them.
    query: percent-decoded; of a key given several times, its last value. host: of the Host header.
    subprotocols: of a WebSocket's handshake.
    """

    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str]
    host: str
    subprotocols: Sequence[str] = field(default=(), repr=False)

    @property
    def token(self) -> str | None:
        """A key, client secret or token: `Authorization: Bearer`, else a subprotocol, as browsers have to do it."""
        authorization = self.headers.get("authorization")
        if authorization is not None:
            scheme, _, token = authorization.strip().partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
        offered = (name for name in self.subprotocols if name.startswith(KEY_SUBPROTOCOL))
        return next((name.removeprefix(KEY_SUBPROTOCOL) for name in offered), None)

    @property
    def from_browser(self) -> bool:
        """A client that sees nothing of an HTTP answer to its handshake: to be refused once the socket is open."""
        return "authorization" not in self.headers and SUBPROTOCOL in self.subprotocols


def user_of(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """The user that a request names: by the header `OpenAI-Safety-Identifier`, else by `?user=`; None: it names none.

    Raises `ValueError`, with a sentence for the client, for an id that is too long or holds control characters.
    """
    user = headers.get(USER_HEADER, "").strip() or query.get(USER_QUERY, "").strip()
    return check_user(user) if user else None


def check_user(user: str) -> str:
    """A user id as it is stored. Raises `ValueError`, with a sentence for the client."""
    if not user:
        raise ValueError("The user id is empty.")
    if len(user) > USER_CHARS_MAX:
        raise ValueError(f"The user id has {len(user)} characters; at most {USER_CHARS_MAX} are allowed.")
    if any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in user):
        raise ValueError("The user id holds control characters; use printable ones only.")
    return user
