"""`/sign-in`: who is signed in, by a link, at the identity provider, and out again."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import structlog
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ...auth.cookies import sign_in_of
from ...auth.provider.attempt import CALLBACK_PATH, PATH_DEFAULT, SIGNED_OUT_PATH, Attempt
from ...auth.provider.failures import FailureCode, SignInFailed
from ...auth.secret import Secret, digest, new_client_secret
from ...protocol.errors import RequestRefused
from ...store.credentials import ClientSecret
from ...store.errors import StoreError
from ..access import presented_by, services_of
from ..admin.parameters import body_of
from ..answers import SignedOut, SignInAddress, SignInState, answer
from .cookies import (
    attempt_of,
    forget_attempt,
    forget_id_token,
    forget_sign_in,
    id_token_of,
    is_encrypted,
    own_origin_of,
    set_attempt,
    set_id_token,
    set_sign_in,
)

SECRET_CHARS_MAX = 256
SEE_OTHER = 303

_log = structlog.get_logger(__name__)


class _LinkShown(Struct, forbid_unknown_fields=True):
    secret: str


class _PlaceWanted(Struct, forbid_unknown_fields=True):
    path: str = PATH_DEFAULT


async def sign_in_state(request: Request) -> Response:
    """Who is signed in with this browser, and where people can sign in."""
    authenticator, presented = services_of(request).authenticator, presented_by(request)
    authenticator.check_origin(presented)
    principal = await authenticator.signed_in(presented)
    return _signed_in(request, None if principal is None else principal.user_id)


async def sign_in_by_link(request: Request) -> Response:
    """Signs the browser in with the secret of a link, which is used up, or with a client secret."""
    origin, services = own_origin_of(request), services_of(request)
    secret = (await body_of(request, _LinkShown)).secret
    cookie = new_client_secret()
    made = None
    if len(secret) <= SECRET_CHARS_MAX:
        made = await services.store.trade_secret(
            digest(secret), uuid4(), cookie.digest, link_seconds=services.settings.sign_in_seconds
        )
    if made is None:
        raise RequestRefused("invalid_api_key", "The link is wrong, was used before, or has expired or been revoked.")
    await _sign_out(request)  # whoever was signed in before: the browser forgets that cookie
    response = _signed_in(request, made.user_id)
    set_sign_in(response, cookie.value, made.seconds, secure=is_encrypted(origin))
    forget_id_token(request, response, secure=is_encrypted(origin))
    return response


async def sign_in_at_provider(request: Request) -> Response:
    """Begins a sign-in at the identity provider; the browser goes on at the address in the answer."""
    origin, provider = own_origin_of(request), services_of(request).authenticator.provider
    wanted = await body_of(request, _PlaceWanted)
    if provider is None:
        raise RequestRefused("not_found", "This server has no identity provider (see --oidc-issuer).")
    attempt = Attempt.begin(origin, wanted.path)
    try:
        url = await provider.authorization_url(attempt)
    except SignInFailed as failed:
        _log.warning("sign_in_failed", code=failed.code, reason=str(failed))
        message = "The identity provider cannot be reached or does not answer as it should; try again later."
        raise RequestRefused("provider_unavailable", message) from failed
    response = answer(SignInAddress(url=url))
    set_attempt(response, attempt)
    return response


async def back_from_provider(request: Request) -> Response:
    """Where the identity provider sends the browser back; signs it in, and shows the page, which tells of a failure."""
    attempt, secure = attempt_of(request)
    try:
        cookie, id_token, seconds = await _of_provider(request, attempt)
    except SignInFailed as failed:
        _log.warning("sign_in_failed", code=failed.code, reason=str(failed), client=presented_by(request).address)
        response: Response = _to_page(attempt, failed.code)
    except StoreError as error:
        _log.warning("sign_in_failed", code="busy", reason=str(error))
        response = _to_page(attempt, "busy")
    else:
        response = _to_page(attempt)
        set_sign_in(response, cookie.value, seconds, secure=secure)
        if id_token is None:
            forget_id_token(request, response, secure=secure)
        else:
            set_id_token(response, id_token, seconds, secure=secure)
    forget_attempt(response, secure=secure)
    return response


async def sign_out(request: Request) -> Response:
    """Signs the browser out, which ends the sessions of all its tabs; also tells where to sign out at the provider."""
    origin = own_origin_of(request)
    await _sign_out(request)
    response = answer(SignedOut(url=await _sign_out_url(request, origin)))
    forget_sign_in(response, secure=is_encrypted(origin))
    forget_id_token(request, response, secure=is_encrypted(origin))
    return response


async def signed_out(request: Request) -> Response:
    """Where the identity provider sends the browser that has signed out there: back to the page."""
    return RedirectResponse(PATH_DEFAULT, status_code=SEE_OTHER)


async def _of_provider(request: Request, attempt: Attempt | None) -> tuple[Secret, str | None, float]:
    """The cookie of whoever has signed in, what signs them out, and the seconds for which the cookie is valid."""
    services = services_of(request)
    provider = services.authenticator.provider
    if provider is None or attempt is None:
        raise SignInFailed("expired", "the browser comes back without an attempt: it began too long ago, or elsewhere")
    who = await provider.user_of(attempt, request.query_params)
    cookie, seconds = new_client_secret(), services.settings.sign_in_seconds
    secret = ClientSecret(
        key_id=None,
        user_id=who.user,
        conversation_id=None,
        session="{}",
        secret_hash=cookie.digest,
        seconds=seconds,
        form="cookie",
        origin="provider",
    )
    await services.store.create_client_secret(secret)
    return cookie, who.id_token, seconds


async def _sign_out_url(request: Request, origin: str) -> str | None:
    """Where to sign out of the provider too. Whoever is there under another name, or came by a link, stays there."""
    provider, id_token = services_of(request).authenticator.provider, id_token_of(request)
    if provider is None or id_token is None:
        return None
    try:
        return await provider.sign_out_url(origin, id_token)
    except SignInFailed as failed:
        _log.warning("sign_out_failed", code=failed.code, reason=str(failed))
        return None


async def _sign_out(request: Request) -> None:
    cookie = sign_in_of(presented_by(request))
    if cookie is not None:
        await services_of(request).store.sign_out(digest(cookie))


def _signed_in(request: Request, user: str | None) -> Response:
    provider = services_of(request).authenticator.provider
    return answer(SignInState(user=user, provider=None if provider is None else provider.name))


def _to_page(attempt: Attempt | None, failure: FailureCode | None = None) -> Response:
    """To one of the page's own addresses, whatever the browser brings. In the fragment, so that no log has it."""
    path = PATH_DEFAULT if attempt is None else attempt.path
    return RedirectResponse(path if failure is None else f"{path}#sign-in={failure}", status_code=SEE_OTHER)


SIGN_IN_ROUTES: Sequence[BaseRoute] = (
    Route("/sign-in", sign_in_state),
    Route("/sign-in", sign_in_by_link, methods=["POST"]),
    Route("/sign-in", sign_out, methods=["DELETE"]),
    Route("/sign-in/provider", sign_in_at_provider, methods=["POST"]),
    Route(CALLBACK_PATH, back_from_provider),
    Route(SIGNED_OUT_PATH, signed_out),
)
