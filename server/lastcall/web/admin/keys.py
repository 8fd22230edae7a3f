"""`/v1/admin/keys`: their list, new ones, and their revocation."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from ...auth import key_admin
from ...auth.identity import Scope
from ...protocol.errors import RequestRefused
from ..access import actor_of, overseer_of, services_of
from ..answers import answer
from ..conversations import limit_of
from .bodies import KeyCreated, KeyPage, KeyRevoked, KeyRow
from .parameters import body_of, unix, user_named


class _NewKeyWanted(Struct, forbid_unknown_fields=True):
    subject: str
    scope: Literal["user", "service", "admin", "reader"] = "user"


async def list_keys(request: Request) -> Response:
    """The newest keys, without their secrets."""
    await overseer_of(request)
    found = await key_admin.list_keys(services_of(request).store, limit_of(request))
    rows = [
        KeyRow(
            id=str(each.key_id),
            prefix=each.prefix,
            subject=each.subject,
            scope=each.scope,
            created_at=each.created_at.timestamp(),
            revoked_at=unix(each.revoked_at),
            active_sessions=each.active_sessions,
        )
        for each in found
    ]
    return answer(KeyPage(data=rows))


async def create_key(request: Request) -> Response:
    """Creates a key. The first one shuts out everybody without a key."""
    actor, wanted = await actor_of(request), await body_of(request, _NewKeyWanted)
    subject = user_named(wanted.subject, "subject")
    made = await key_admin.create_key(services_of(request).store, subject, Scope(wanted.scope), actor)
    return answer(KeyCreated(id=str(made.key_id), key=made.key, subject=made.subject, scope=made.scope.value))


async def revoke_key(request: Request) -> Response:
    """Revokes a key or client secret for good, and ends its sessions."""
    actor = await actor_of(request)
    try:
        key_id = UUID(request.path_params["key_id"])
    except ValueError:
        raise _no_key() from None
    revoked = await key_admin.revoke(services_of(request).store, key_id, actor)
    if revoked is None:
        raise _no_key()
    return answer(
        KeyRevoked(
            id=str(revoked.id), revoked_at=revoked.revoked_at.timestamp(), closed_sessions=revoked.closed_sessions
        )
    )


def _no_key() -> RequestRefused:
    return RequestRefused("key_not_found", "There is no such key or client secret.")
