"""Creates, lists and revokes keys in the database, whichever servers use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from uuid import UUID, uuid4

from ..store.operators.acts import Actor
from ..store.reports import Rows
from .identity import Scope
from .secret import new_client_secret, new_key

KEY_SCOPES = (Scope.SERVICE, Scope.USER, Scope.ADMIN, Scope.READER)


@dataclass(frozen=True, slots=True)
class NewKey:
    """key: shown once and stored nowhere."""

    key_id: UUID
    key: str = field(repr=False)
    subject: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class Key:
    """prefix: its first characters. active_sessions: with those of its client secrets."""

    key_id: UUID
    prefix: str
    subject: str
    scope: str
    created_at: datetime
    revoked_at: datetime | None
    active_sessions: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """id: of a key or client secret. revoked_at: when it was first revoked."""

    id: UUID
    revoked_at: datetime
    closed_sessions: int


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link with which somebody signs in, once. secret: shown once and stored nowhere. seconds: until it expires."""

    link_id: UUID
    secret: str = field(repr=False)
    user: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SignOutReport:
    """browsers, links: that were of use until now. closed_sessions: of these browsers."""

    browsers: int
    links: int
    closed_sessions: int


async def create_key(store: Rows, subject: str, scope: Scope, by: Actor) -> NewKey:
    key_id, secret = uuid4(), new_key()
    await store.fetch("create_key", *by.columns, key_id, subject, scope.value, secret.prefix, secret.digest)
    return NewKey(key_id, secret.value, subject, scope)


async def list_keys(store: Rows, limit: int) -> Sequence[Key]:
    """The newest first."""
    rows = await store.fetch("list_keys", limit)
    return [Key(*(row[each.name] for each in fields(Key))) for row in rows]


async def revoke(store: Rows, identifier: UUID, by: Actor) -> Revoked | None:
    """Revokes a key or client secret and ends its sessions; None where the id is unknown."""
    rows = await store.fetch("revoke_credential", *by.columns, identifier)
    return Revoked(*(rows[0][each.name] for each in fields(Revoked))) if rows else None


async def create_link(store: Rows, user: str, seconds: float, by: Actor) -> NewLink:
    link_id, secret = uuid4(), new_client_secret()
    await store.fetch("create_link", *by.columns, link_id, user, secret.digest, seconds)
    return NewLink(link_id, secret.value, user, seconds)


async def sign_out(store: Rows, user: str, by: Actor) -> SignOutReport:
    """Signs all browsers of a user out, which ends their sessions, and revokes the user's links."""
    [row] = await store.fetch("sign_out_user", *by.columns, user)
    return SignOutReport(*(row[each.name] for each in fields(SignOutReport)))
