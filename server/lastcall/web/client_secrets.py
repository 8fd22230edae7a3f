"""Client secrets: a backend with a key creates them for browsers, which must not have the key."""

from __future__ import annotations

from typing import Literal
from uuid import UUID, uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..auth.identity import Principal, Scope, canonical_user
from ..auth.secret import new_client_secret
from ..conversation.configuration import check_patch
from ..protocol.client_events import WITHOUT_EFFECT, EventRejected, SessionPatch, SessionUpdate
from ..protocol.errors import RequestRefused
from ..protocol.half_characters import without_half_characters
from ..protocol.ids import parse_public_id, public_id
from ..protocol.parsing import parse_session, unknown_field
from ..store.credentials import ClientSecret
from ..store.errors import CredentialRevoked, InvalidRow
from .access import principal_of, services_of

SECONDS_MIN, SECONDS_MAX, SECONDS = 10, 7200, 600  # for which a secret may begin sessions
SESSION_BYTES_MAX = 65_536


class ExpiresAfter(msgspec.Struct, forbid_unknown_fields=True):
    anchor: Literal["created_at"] = "created_at"
    seconds: int = SECONDS


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """The request's body. user, conversation: not in the public API; the only ones that the secret is for."""

    expires_after: ExpiresAfter = msgspec.field(default_factory=ExpiresAfter)
    session: msgspec.Raw = msgspec.Raw(b"{}")
    user: str | None = None
    conversation: str | None = None


async def create_client_secret(request: Request) -> Response:
    """`{"value": "ek_…", "expires_at", "session", "id"}`. id: not in the public API; for `lastcall keys revoke`."""
    principal = await principal_of(request)
    if not (principal.scope is Scope.OPEN or (principal.key_id is not None and principal.scope is not Scope.CLIENT)):
        raise RequestRefused("forbidden", "Creating a client secret needs an API key.")
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
        expires_at = await services_of(request).store.create_client_secret(secret)
    except CredentialRevoked:
        raise RequestRefused("invalid_api_key", "The key was revoked.") from None
    except InvalidRow:
        message = "The user has no such conversation."
        raise RequestRefused("conversation_not_found", message, "conversation") from None
    session = _shown(patch, services_of(request).settings.instructions)
    answer = {"value": made.value, "expires_at": expires_at, "session": session, "id": str(secret.secret_id)}
    return JSONResponse(answer, headers={"cache-control": "no-store"})


def _parse(body: bytes) -> Wanted:
    try:
        wanted = msgspec.json.decode(body or b"{}", type=Wanted)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        if (whole := _without_half_characters(body)) != body:
            return _parse(whole)
        if (name := unknown_field(error)) is not None:
            raise RequestRefused("unknown_parameter", f"Unknown parameter: '{name}'.", name) from None
        raise RequestRefused("invalid_value", f"Invalid body: {error}.") from None
    if not SECONDS_MIN <= wanted.expires_after.seconds <= SECONDS_MAX:
        message = f"expires_after.seconds must be from {SECONDS_MIN} to {SECONDS_MAX}."
        raise RequestRefused("invalid_value", message, "expires_after.seconds")
    return wanted


def _without_half_characters(body: bytes) -> bytes:
    """As in the events of a WebSocket; a body that is not UTF-8 stays as it is."""
    try:
        return without_half_characters(body.decode()).encode()
    except UnicodeError:
        return body


def _session(wanted: Wanted) -> SessionPatch:
    if len(wanted.session) > SESSION_BYTES_MAX:
        raise RequestRefused("invalid_value", f"session must have at most {SESSION_BYTES_MAX} bytes.", "session")
    try:
        patch = parse_session(bytes(wanted.session))
        check_patch(SessionUpdate(session=patch))
    except EventRejected as rejected:
        detail = rejected.detail
        raise RequestRefused(detail.code, detail.message, detail.param) from None
    for name in WITHOUT_EFFECT:
        setattr(patch, name, msgspec.UNSET)
    return patch


def _user(principal: Principal, wanted: Wanted) -> str:
    if wanted.user is None:
        return principal.user_id
    try:
        user_id = canonical_user(wanted.user)
    except ValueError as error:
        raise RequestRefused("invalid_value", str(error), "user") from None
    if user_id != principal.user_id and not principal.scope.names_users:
        raise RequestRefused("forbidden", "This key may create client secrets for its own user only.", "user")
    return user_id


def _conversation(wanted: Wanted) -> UUID | None:
    if wanted.conversation is None:
        return None
    try:
        return parse_public_id("conv", wanted.conversation)
    except ValueError:
        message = "conversation must be conv_ and 32 hex digits."
        raise RequestRefused("invalid_value", message, "conversation") from None


def _shown(patch: SessionPatch, instructions: str) -> dict[str, object]:
    """The session as in `session.created`. Its id is new: each session that begins has its own."""
    given = {key: value for key, value in msgspec.to_builtins(patch).items() if value is not None}
    return {
        "object": "realtime.session",
        "id": public_id("sess", uuid4()),
        "output_modalities": ["text"],
        "instructions": instructions,
        **given,
    }
