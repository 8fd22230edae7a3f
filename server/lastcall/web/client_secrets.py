"""Client secrets: what a backend, which has a key, hands to a browser, which must not have one."""

from __future__ import annotations

from typing import Literal
from uuid import UUID, uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..auth.identity import Principal, RequestRefused, Scope, check_user
from ..auth.keys import new_client_secret
from ..protocol.client_events import SessionPatch, parse_session
from ..protocol.ids import parse_public_id, public_id
from ..store.errors import CredentialRevoked, InvalidRow
from ..store.records import ClientSecret
from .access import principal_of, services_of

SECONDS_MIN, SECONDS_MAX, SECONDS = 10, 7200, 600  # that a secret may begin sessions
SESSION_BYTES_MAX = 65_536


class ExpiresAfter(msgspec.Struct):
    anchor: Literal["created_at"] = "created_at"
    seconds: int = SECONDS


class Wanted(msgspec.Struct):
    """The request's body. user, conversation: ours; whom the secret is for, and the only conversation it opens."""

    expires_after: ExpiresAfter = msgspec.field(default_factory=ExpiresAfter)
    session: msgspec.Raw = msgspec.Raw(b"{}")
    user: str | None = None
    conversation: str | None = None


async def create_client_secret(request: Request) -> Response:
    """`{"value": "ek_…", "expires_at", "session", "id"}`. id: ours, for `lastcall keys revoke`."""
    principal = await principal_of(request)
    if not (principal.scope is Scope.OPEN or (principal.key_id is not None and principal.scope is not Scope.CLIENT)):
        raise RequestRefused(403, "forbidden", "Client secrets are made with an API key.")
    wanted = _parse(await request.body())
    patch = _session(wanted)
    made = new_client_secret()
    secret = ClientSecret(
        key_id=principal.key_id,
        user_id=_user(principal, wanted),
        conversation_id=_conversation(wanted),
        session=msgspec.json.encode(patch).decode(),
        secret_hash=made.digest,
        seconds=wanted.expires_after.seconds,
    )
    try:
        expires_at = await services_of(request).create_client_secret(secret)
    except CredentialRevoked:
        raise RequestRefused(401, "invalid_api_key", "The key was revoked.") from None
    except InvalidRow:
        raise RequestRefused(
            404, "conversation_not_found", "The user has no such conversation.", "conversation"
        ) from None
    session = _shown(patch, services_of(request).instructions)
    answer = {"value": made.value, "expires_at": expires_at, "session": session, "id": str(secret.secret_id)}
    return JSONResponse(answer, headers={"cache-control": "no-store"})


def _parse(body: bytes) -> Wanted:
    try:
        wanted = msgspec.json.decode(body or b"{}", type=Wanted)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestRefused(400, "invalid_value", f"Invalid body: {error}.") from None
    if not SECONDS_MIN <= wanted.expires_after.seconds <= SECONDS_MAX:
        message = f"A client secret lives for {SECONDS_MIN} to {SECONDS_MAX} seconds."
        raise RequestRefused(400, "invalid_value", message, "expires_after.seconds")
    return wanted


def _session(wanted: Wanted) -> SessionPatch:
    if len(wanted.session) > SESSION_BYTES_MAX:
        raise RequestRefused(400, "invalid_value", f"The session is larger than {SESSION_BYTES_MAX} bytes.", "session")
    try:
        patch = parse_session(bytes(wanted.session))
    except ValueError as error:
        raise RequestRefused(400, "invalid_value", str(error), "session") from None
    if patch.type != "realtime":
        message = f"Sessions of type {patch.type!r:.100} are not served."
        raise RequestRefused(400, "invalid_value", message, "session.type")
    return patch


def _user(principal: Principal, wanted: Wanted) -> str:
    if wanted.user is None:
        return principal.user_id
    try:
        user_id = check_user(wanted.user.strip())
    except ValueError as error:
        raise RequestRefused(400, "invalid_value", str(error), "user") from None
    if user_id != principal.user_id and not principal.scope.names_users:
        raise RequestRefused(403, "forbidden", "This key makes client secrets for its own user only.", "user")
    return user_id


def _conversation(wanted: Wanted) -> UUID | None:
    if wanted.conversation is None:
        return None
    try:
        return parse_public_id("conv", wanted.conversation)
    except ValueError:
        message = "A conversation's id looks like conv_ and 32 hex digits."
        raise RequestRefused(400, "invalid_value", message, "conversation") from None


def _shown(patch: SessionPatch, instructions: str) -> dict[str, object]:
    """The session as the protocol shows one: each session that is begun has an id of its own."""
    given = {key: value for key, value in msgspec.to_builtins(patch).items() if value is not None}
    return {
        "object": "realtime.session",
        "id": public_id("sess", uuid4()),
        "output_modalities": ["text"],
        "instructions": instructions,
        **given,
    }
