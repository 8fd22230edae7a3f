"""The records of keys and client secrets, as the store takes and returns them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID, uuid4

# How a credential is shown: in a header or the like, in a link that is traded for a cookie, or as that cookie.
Form = Literal["bearer", "link", "cookie"]
# Who vouches for the user of a client secret: a backend with a key, an operator, the identity provider.
Origin = Literal["backend", "operator", "provider"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A key or client secret that is neither revoked nor expired.

    key_id: a key's own id, or the key that created the secret; None: no keys were set.
    scope: the value of a `Scope`; the authenticator converts it.
    conversation_id: the only conversation it may continue; None: any of the user.
    session: JSON, see `ClientSecret`.
    seconds_left: until it expires, by the database's clock; None: it does not.
    """

    credential_id: UUID
    key_id: UUID | None
    user_id: str
    scope: str
    conversation_id: UUID | None = None
    session: str = "{}"
    seconds_left: float | None = field(default=None, compare=False)
    form: Form = "bearer"
    origin: Origin = field(default="backend", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecret:
    """A client secret to be stored.

    key_id: the key that creates it; None: no keys are set.
    session: initial configuration of its sessions, as JSON of the protocol's session.
    secret_hash: SHA-256 of the secret that the client is given.
    seconds: until it expires.
    form: how it is shown. origin: who vouches for the user.
    """

    secret_id: UUID = field(default_factory=uuid4)
    key_id: UUID | None
    user_id: str
    conversation_id: UUID | None
    session: str
    secret_hash: bytes
    seconds: float
    form: Form = "bearer"
    origin: Origin = "backend"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A browser that is signed in. seconds: until its cookie expires."""

    user_id: str
    seconds: float
