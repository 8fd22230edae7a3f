"""Turns the credentials of a request into a `Principal`, for HTTP and WebSockets alike."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
import trio

from ..config import BadSettings, Settings
from ..protocol.errors import RequestRefused
from ..store.credentials import Credential, Form
from ..store.errors import StoreUnavailable
from ..store.store import Store
from .cookies import sign_in_of
from .identity import ANONYMOUS, USER_QUERY, Presented, Principal, Scope, user_of
from .origins import is_allowed_origin, is_loopback, is_own_host
from .secret import digest, is_client_secret, is_key_or_client_secret

if TYPE_CHECKING:
    from .jwt import TokenVerifier
    from .provider.provider import IdentityProvider

KEYS_CHECK_SECONDS = 1.0  # between checks whether keys exist, and for one such check
PROXY_LOG_SECONDS = 60.0  # between log lines about refused requests of a proxy

_log = structlog.get_logger(__name__)


class Authenticator:
    """Authenticates by keys, client secrets, tokens and cookies; without any, everybody on loopback is let in.

    provider: where people sign in; None: nowhere.

    Raises `BadSettings` where the settings for tokens or for the provider cannot be used.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._tokens = _token_verifier(settings)
        self.provider = _identity_provider(settings)
        self._may_be_open = is_loopback(settings.host) and self._tokens is None and self.provider is None
        self._keys_exist = True
        self._checked_at = float("-inf")
        self._checking = trio.Lock()
        self._proxy_logged_at = float("-inf")

    async def principal(self, presented: Presented) -> Principal:
        """Authenticates a request of a user or backend. Raises `RequestRefused` and `StoreUnavailable`."""
        principal = await self.overseer(presented)
        if principal.scope is Scope.READER:
            raise RequestRefused("forbidden", "A key of scope reader is for the console only.")
        return principal

    async def overseer(self, presented: Presented) -> Principal:
        """Authenticates a request that may also be of an operator who only reads. Raises as `principal` does."""
        if presented.sign_of_proxy is not None:
            await self.check_proxy(presented.sign_of_proxy, presented.address)
        self.check_origin(presented)
        token = presented.token
        if token is None and (signed_in := await self.signed_in(presented)) is not None:
            return signed_in
        if not await self.is_open():
            return _on_behalf(await self._authenticated(token, presented.address), presented)
        if token is not None and is_client_secret(token):
            return await self._authenticated(token, presented.address)
        # It may be the first key, made a moment ago: whose it is counts, not whom the request names.
        if token is not None and is_key_or_client_secret(token) and (known := await self._found(token, "bearer")):
            return _on_behalf(known, presented)
        if not is_own_host(presented.host, self._settings.host):
            message = "The Host header must name this machine while the server has no keys (see lastcall keys create)."
            raise RequestRefused("forbidden_host", message)
        return _on_behalf(Principal(user_id=ANONYMOUS, scope=Scope.OPEN), presented)

    async def signed_in(self, presented: Presented) -> Principal | None:
        """Whoever is signed in with the browser that asks from the server's own page; None: nobody.

        A cookie that is worth nothing counts as none: another server on this machine may have set it.

        Raises `StoreUnavailable`.
        """
        cookie = sign_in_of(presented)
        if cookie is None:
            return None
        return await self._found(cookie, "cookie")

    async def check_proxy(self, sign: str | None, address: str) -> None:
        """Refuses what came through a proxy while no credential is needed: behind one, everybody seems to be local.

        Args:
            sign: What shows the proxy, such as the name of a header; None: nothing does.
            address: Of the peer, for the log.

        Raises:
            RequestRefused: It came through a proxy, and the server has no keys, or had none before an outage.
        """
        if sign is None or not self._may_be_open:
            return
        try:
            is_open = await self.is_open()
        except StoreUnavailable:
            is_open = self.was_open
        if not is_open:
            return
        advice = "create a key with lastcall keys create, or connect without the proxy"
        if trio.current_time() - self._proxy_logged_at >= PROXY_LOG_SECONDS:
            self._proxy_logged_at = trio.current_time()
            _log.warning("proxied_request_refused", sign=sign, peer=address, advice=advice)
        raise RequestRefused(
            "forbidden_proxy",
            f"Without keys this server is for its own machine only, and {sign:.100} shows that this request came"
            f" through a proxy: {advice}.",
        )

    def check_origin(self, presented: Presented) -> None:
        """Refuses pages of other origins. Raises `RequestRefused`."""
        origin = presented.headers.get("origin")
        if not is_allowed_origin(origin, presented.host, self._settings.allow_origin, presented.scheme):
            raise RequestRefused("forbidden_origin", f"Origin {origin:.200} is not allowed (see --allow-origin).")

    async def is_open(self) -> bool:
        """Whether no credential is needed: on loopback, until up to a second after the first key is created.

        Raises `StoreUnavailable`.
        """
        if not self._may_be_open:
            return False
        if not self._checked:
            with trio.move_on_after(self._settings.begin_seconds) as waiting:
                async with self._checking:
                    if not self._checked:
                        await self._check_keys()
            if waiting.cancelled_caught:  # others were asking before, in vain
                raise StoreUnavailable("the database did not answer in time")
        return not self._keys_exist

    @property
    def _checked(self) -> bool:
        return trio.current_time() - self._checked_at < KEYS_CHECK_SECONDS

    async def has_credentials(self) -> bool:
        """Whether any key exists, or tokens or sign-ins are accepted. Raises `StoreUnavailable`."""
        return self._tokens is not None or self.provider is not None or await self._store.keys_exist()

    @property
    def was_open(self) -> bool:
        """The last result of `is_open`, for routes that must work while the database is unavailable."""
        return self._may_be_open and not self._keys_exist

    async def _check_keys(self) -> None:
        asked = trio.current_time()
        with trio.move_on_after(KEYS_CHECK_SECONDS):
            self._keys_exist = await self._store.keys_exist()
            self._checked_at = asked
            return
        raise StoreUnavailable(f"the database did not answer within {KEYS_CHECK_SECONDS:g} s")

    async def _authenticated(self, token: str | None, address: str) -> Principal:
        if token is None:
            raise RequestRefused(
                "missing_api_key", "An API key is required; send it as Authorization: Bearer KEY, or as api-key: KEY."
            )
        if is_key_or_client_secret(token):
            if (principal := await self._found(token, "bearer")) is None:
                raise RequestRefused("invalid_api_key", "The key or client secret is wrong, expired or revoked.")
            return principal
        if self._tokens is None:
            raise RequestRefused("invalid_api_key", "This is not a key of this server.")
        with trio.move_on_after(self._settings.begin_seconds):
            return await self._of_token(self._tokens, token, address)
        raise StoreUnavailable("the token could not be checked in time")

    async def _found(self, secret: str, form: Form) -> Principal | None:
        """Whose credential of this form it is; None: nobody's. Raises `StoreUnavailable`."""
        with trio.move_on_after(self._settings.begin_seconds):
            credential = await self._store.find_credential(digest(secret))
            if credential is None or credential.form != form or not await self._is_vouched_for(credential):
                return None
            return _principal(credential)
        raise StoreUnavailable("the credential could not be checked in time")

    async def _is_vouched_for(self, credential: Credential) -> bool:
        """Whether it has a key, was made by somebody else who may, or was made without one while there is none."""
        if credential.key_id is not None:
            return True
        if credential.origin == "provider":
            return self.provider is not None
        return credential.origin == "operator" or await self.is_open()

    async def _of_token(self, tokens: TokenVerifier, token: str, address: str) -> Principal:
        from .jwt import InvalidToken

        try:
            return await tokens.principal(token)
        except InvalidToken as error:
            # The client gets no details: it may be an attacker.
            _log.info("token_refused", client=address, reason=str(error))
            raise RequestRefused("invalid_api_key", "The token is wrong, expired or for another audience.") from error


async def require_credentials_unless_loopback(authenticator: Authenticator, settings: Settings) -> None:
    """Prevents a server without keys from listening beyond loopback. Raises `BadSettings`, `StoreUnavailable`."""
    if not is_loopback(settings.host) and not await authenticator.has_credentials():
        raise BadSettings(
            f"{settings.host} can be reached by other machines, and no API keys exist;"
            " create one with lastcall keys create backend --scope service, or use --host 127.0.0.1."
        )


def _token_verifier(settings: Settings) -> TokenVerifier | None:
    if settings.jwt_secret_file is None and settings.jwt_jwks is None:
        return None
    from .jwt import TokenVerifier  # here, because cryptography is slow to import

    return TokenVerifier(settings)


def _identity_provider(settings: Settings) -> IdentityProvider | None:
    if settings.oidc_issuer is None:
        return None
    from .provider.provider import IdentityProvider  # here, because cryptography is slow to import

    return IdentityProvider(settings)


def _principal(credential: Credential) -> Principal:
    return Principal(
        user_id=credential.user_id,
        subject=credential.user_id,
        scope=Scope(credential.scope),
        credential_id=credential.credential_id,
        key_id=credential.key_id,
        conversation_id=credential.conversation_id,
        session=credential.session,
        valid_until=None if credential.seconds_left is None else trio.current_time() + credential.seconds_left,
        vouched=credential.key_id is None and credential.origin != "backend",
    )


def _on_behalf(principal: Principal, presented: Presented) -> Principal:
    """Applies the user that a backend's request names; from any other request that name is ignored."""
    if not principal.scope.names_users:
        return principal
    try:
        user_id = user_of(presented.headers, presented.query)
    except ValueError as error:
        raise RequestRefused("invalid_value", str(error), USER_QUERY) from error
    return principal if user_id is None else replace(principal, user_id=user_id)
