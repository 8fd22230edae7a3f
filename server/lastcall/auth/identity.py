"""Credentials and scopes of a request, by the same rules for HTTP and WebSockets. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from ..secret_prefixes import API_KEY, KEY_SUBPROTOCOL

USER_HEADER = "openai-safety-identifier"
USER_QUERY = "user"
ANONYMOUS = "anonymous"
USER_CHARS_MAX = 256

SUBPROTOCOL = "realtime"

# Controls, format characters, lone surrogates, line and paragraph separators: they hide, or make two names look alike.
_REFUSED_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Letters, marks and symbols that show as nothing: fillers of Hangul, Khmer and Mongolian, the joiner of graphemes, a
# Braille cell without dots.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


class Scope(StrEnum):
    """What a request may do. Keys have one of user, service, admin and reader."""

    OPEN = "open"  # no keys exist: everything, for anyone who can reach this machine
    CLIENT = "client"  # a client secret: its user's sessions and memory
    USER = "user"  # a key or token of one user: the same, and client secrets for that user
    SERVICE = "service"  # a backend: for any user
    ADMIN = "admin"  # a backend that may also operate: the console, its API, the metrics
    READER = "reader"  # for people who look on: the console, its API and the metrics, without acting

    @property
    def names_users(self) -> bool:
        """Whether the request names its user."""
        return self in (Scope.OPEN, Scope.SERVICE, Scope.ADMIN)

    @property
    def oversees(self) -> bool:
        """Whether it may read what is for operators only."""
        return self in (Scope.OPEN, Scope.ADMIN, Scope.READER)

    @property
    def operates(self) -> bool:
        """Whether it may do what is for operators only."""
        return self in (Scope.OPEN, Scope.ADMIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a request.

    credential_id: the key or client secret that was presented; None for a token, and where no keys exist.
    key_id: that key, or the key that made the client secret; quotas are counted by it.
    conversation_id: the only conversation it may resume; None for any of the user's and new ones.
    session: JSON of the session's initial configuration, as in `session.update`.
    valid_until: when its token or client secret expires, on Trio's clock (seconds); None: it does not.
    subject: of its key, whatever user it names.
    vouched: whether an operator or the identity provider signed it in, and no key did; quotas are counted by its user.
    """

    user_id: str
    scope: Scope
    credential_id: UUID | None = None
    key_id: UUID | None = None
    conversation_id: UUID | None = None
    session: str = "{}"
    valid_until: float | None = field(default=None, compare=False)
    subject: str = field(default="", compare=False)
    vouched: bool = field(default=False, compare=False)

    def may_enter(self, conversation_id: UUID) -> bool:
        """Whether it is not restricted to another conversation. The store checks whose conversation it is."""
        return self.conversation_id in (None, conversation_id)


@dataclass(frozen=True, slots=True)
class Presented:
    """The parts of a request that identify its sender.

    headers: names in lower case (or any mapping that ignores case), values decoded as Latin-1 like HTTP/1.1.
    query: percent-decoded; the last value of a repeated key. host: the Host header.
    subprotocols, query_key: of a WebSocket's handshake; the key is one that stood in its address.
    address: of the client. scheme: of the URL that it asked for, where a trusted proxy tells; None: not known.
    sign_of_proxy: what shows that the request came through a proxy; None: nothing does.
    only_reads: whether it is an HTTP request that changes nothing; for one of its own pages, no Origin is sent.
    """

    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str]
    host: str
    subprotocols: Sequence[str] = field(default=(), repr=False)
    query_key: str | None = field(default=None, repr=False)
    address: str = ""
    scheme: str | None = None
    sign_of_proxy: str | None = None
    only_reads: bool = False

    @property
    def token(self) -> str | None:
        """The key, client secret or token.

        From `Authorization: Bearer`, else from `api-key`, as Azure's clients send it; from browsers, which send no
        headers, out of a subprotocol or the address.
        """
        authorization = self.headers.get("authorization")
        if authorization is not None:
            scheme, _, token = authorization.strip().partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
        if (key := self.headers.get(API_KEY)) is not None:
            return key.strip()
        offered = (name for name in self.subprotocols if name.startswith(KEY_SUBPROTOCOL))
        return next((name.removeprefix(KEY_SUBPROTOCOL) for name in offered), self.query_key)

    @property
    def from_browser(self) -> bool:
        """Whether the client cannot see an HTTP reply to its handshake, and must be rejected on the open socket."""
        as_pages_do = SUBPROTOCOL in self.subprotocols or self.query_key is not None
        return as_pages_do and "authorization" not in self.headers and API_KEY not in self.headers


def user_of(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """The user that a request names, by the header `OpenAI-Safety-Identifier`, else by `?user=`, else None.

    Raises `ValueError`, with a sentence for the client, for an id that is too long or has control characters.
    """
    user = _header_text(headers.get(USER_HEADER, "")).strip() or query.get(USER_QUERY, "").strip()
    return canonical_user(user) if user else None


def canonical_user(user: str) -> str:
    """The one form of a user's name, wherever it is given: trimmed, in Unicode's normal form C.

    So `josé` is one person, whether the é is one character or an e with an accent.

    Raises:
        ValueError: It cannot be a name; with a sentence for the client.
    """
    user = unicodedata.normalize("NFC", user.strip())
    if not user:
        raise ValueError("The user id is empty.")
    if len(user) > USER_CHARS_MAX:
        raise ValueError(f"The user id has {len(user)} characters; at most {USER_CHARS_MAX} are allowed.")
    if user.isascii() and user.isprintable():  # as nearly all are
        return user
    if any(each in _INVISIBLE or unicodedata.category(each) in _REFUSED_CATEGORIES for each in user):
        raise ValueError("The user id must not contain control characters or invisible ones.")
    if _UNDECODABLE in user:
        raise ValueError("The user id must be UTF-8.")
    return user


def _header_text(value: str) -> str:
    """A header's text, given as Latin-1: clients send UTF-8, but for browsers and Node, which can send Latin-1 only."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
