"""The one place where what a client presents becomes a `Principal`, for HTTP and for WebSockets alike."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
import trio

from ..config import BadSettings, Settings
from ..store.errors import StoreUnavailable
from ..store.records import Credential
from ..store.store import Store
from . import keys
from .identity import ANONYMOUS, USER_QUERY, Presented, Principal, RequestRefused, Scope, user_of
from .origins import is_allowed_origin, is_loopback, is_own_host

if TYPE_CHECKING:
    from .jwt import Tokens

LOOK_SECONDS = 1.0  # between looks whether there are keys yet, and for one of them

_log = structlog.get_logger(__name__)


class Authenticator:
    """Who is who, by keys, client secrets and tokens; without any of these, whoever reaches this machine's loopback.

    Raises `BadSettings` for tokens' files that cannot be used.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._tokens = _tokens(settings)
        self._may_be_open = is_loopback(settings.host) and self._tokens is None
        self._keys_exist = True
        self._looked_at = float("-inf")
        self._looking = trio.Lock()

    async def principal(self, presented: Presented) -> Principal:
        """Raises `RequestRefused`, and `StoreUnavailable` where the database does not say in time."""
        self.check_origin(presented)
        token = presented.token
        if not await self.is_open():
            return _on_behalf(await self._authenticated(token), presented)
        if token is not None and token.startswith(keys.CLIENT_SECRET):
            return await self._authenticated(token)
        if not is_own_host(presented.host, self._settings.host):
            raise RequestRefused(
                403, "forbidden_host", "Without keys, this server answers to names of this machine only."
            )
        return _on_behalf(Principal(user_id=ANONYMOUS, scope=Scope.OPEN), presented)

    def check_origin(self, presented: Presented) -> None:
        """Keeps foreign pages out. Raises `RequestRefused`."""
        if not is_allowed_origin(presented.headers.get("origin"), presented.host, self._settings.allow_origin):
            raise RequestRefused(403, "forbidden_origin", "This page may not connect here: its origin is another one.")

    async def is_open(self) -> bool:
        """Whether no one needs a key: only on loopback, and until the first key is created, give or take a second.

        Raises `StoreUnavailable`.
        """
        if not self._may_be_open:
            return False
        async with self._looking:
            if trio.current_time() - self._looked_at >= LOOK_SECONDS:
                await self._look()
        return not self._keys_exist

    async def has_holders(self) -> bool:
        """Whether anybody could be let in by a key or token. Raises `StoreUnavailable`."""
        return self._tokens is not None or await self._store.keys_exist()

    @property
    def was_open(self) -> bool:
        """As the last look found it: for what has to be seen while the database is out of reach."""
        return self._may_be_open and not self._keys_exist

    async def _look(self) -> None:
        asked = trio.current_time()
        with trio.move_on_after(LOOK_SECONDS):
            self._keys_exist = await self._store.keys_exist()
            self._looked_at = asked
            return
        raise StoreUnavailable(f"the database did not answer within {LOOK_SECONDS:g} s")

    async def _authenticated(self, token: str | None) -> Principal:
        if token is None:
            raise _unauthorized("missing_api_key", "A key is needed: send it as Authorization: Bearer.")
        if keys.is_ours(token):
            credential = await self._store.find_credential(keys.digest(token))
            if credential is None or (credential.key_id is None and not await self.is_open()):
                raise _unauthorized("invalid_api_key", "The key or client secret is wrong, expired or revoked.")
            return _principal(credential)
        if self._tokens is None:
            raise _unauthorized("invalid_api_key", "That is no key of this server.")
        return await self._holder(self._tokens, token)

    async def _holder(self, tokens: Tokens, token: str) -> Principal:
        from .jwt import InvalidToken

        try:
            return await tokens.principal(token)
        except InvalidToken as error:
            _log.info("token_refused", reason=str(error))  # the client is told less: it may be a stranger
            raise _unauthorized("invalid_api_key", "The token is wrong, expired or meant for others.") from error


async def require_credentials_unless_loopback(authenticator: Authenticator, settings: Settings) -> None:
    """Refuses to listen where strangers could reach a server without keys. Raises `BadSettings`, `StoreUnavailable`."""
    if not is_loopback(settings.host) and not await authenticator.has_holders():
        raise BadSettings(
            f"{settings.host} would be open to others, and there are no keys to keep them out;"
            " create one with lastcall keys create, or take --host 127.0.0.1."
        )


def _tokens(settings: Settings) -> Tokens | None:
    if settings.jwt_secret_file is None and settings.jwt_jwks is None:
        return None
    from .jwt import Tokens  # cryptography takes a while to import: only for those who use it

    return Tokens(settings)


def _principal(credential: Credential) -> Principal:
    return Principal(
        user_id=credential.user_id,
        scope=Scope(credential.scope),
        credential_id=credential.credential_id,
        key_id=credential.key_id,
        conversation_id=credential.conversation_id,
        session=credential.session,
    )


def _on_behalf(principal: Principal, presented: Presented) -> Principal:
    """A backend's request is the user's that it names; anybody else's naming is not listened to."""
    if not principal.scope.names_users:
        return principal
    try:
        user_id = user_of(presented.headers, presented.query)
    except ValueError as error:
        raise RequestRefused(400, "invalid_value", str(error), USER_QUERY) from error
    return principal if user_id is None else replace(principal, user_id=user_id)


def _unauthorized(code: str, message: str) -> RequestRefused:
    return RequestRefused(401, code, message)
