"""Sets and reads the cookies of signing in."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ...auth.cookies import ATTEMPT, SIGN_IN, cookie_name, find_cookie, is_of_own_page
from ...auth.provider.attempt import ATTEMPT_SECONDS, Attempt
from ...protocol.errors import RequestRefused
from ..access import presented_by


def own_origin_of(request: Request) -> str:
    """The origin of the server's own page, as its browser sees it. Raises `RequestRefused` for any other request."""
    presented = presented_by(request)
    origin = presented.headers.get("origin")
    if origin is None or not is_of_own_page(presented):
        raise RequestRefused("forbidden_origin", "Only the server's own page may do this; its Origin is required.")
    return origin


def is_encrypted(origin: str) -> bool:
    return origin.startswith("https:")


def set_sign_in(response: Response, secret: str, seconds: float, *, secure: bool) -> None:
    """Signs the browser in. Strict: no other site's page can make the browser send the cookie."""
    name = cookie_name(SIGN_IN, secure=secure)
    response.set_cookie(name, secret, max_age=int(seconds), secure=secure, httponly=True, samesite="strict")


def forget_sign_in(response: Response, *, secure: bool) -> None:
    _forget(response, SIGN_IN, secure=secure, samesite="strict")


def set_attempt(response: Response, attempt: Attempt) -> None:
    """Lax: the browser comes back from the provider, which is another site."""
    secure = is_encrypted(attempt.origin)
    response.set_cookie(
        cookie_name(ATTEMPT, secure=secure),
        attempt.cookie,
        max_age=ATTEMPT_SECONDS,
        secure=secure,
        httponly=True,
        samesite="lax",
    )


def forget_attempt(response: Response, *, secure: bool) -> None:
    """An attempt is good for one return."""
    _forget(response, ATTEMPT, secure=secure, samesite="lax")


def attempt_of(request: Request) -> tuple[Attempt | None, bool]:
    """The attempt with which a browser comes back, None where it has none; and whether it left by https."""
    found = find_cookie(request.headers.get("cookie", ""), ATTEMPT, presented_by(request).scheme)
    return (None, False) if found is None else (Attempt.from_cookie(found[0]), found[1])


def _forget(response: Response, name: str, *, secure: bool, samesite: str) -> None:
    response.delete_cookie(cookie_name(name, secure=secure), secure=secure, httponly=True, samesite=samesite)  # type: ignore[arg-type]
