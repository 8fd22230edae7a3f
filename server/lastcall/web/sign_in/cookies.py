"""Sets and reads the cookies of signing in."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ...auth.cookies import ATTEMPT, ID_HINT, SIGN_IN, cookie_name, find_cookie, is_of_own_page
from ...auth.provider.attempt import ATTEMPT_SECONDS, Attempt
from ...protocol.errors import RequestRefused
from ..access import presented_by

SIGN_IN_PATH = "/sign-in"  # no other request carries the ID token
VALUE_CHARS_MAX = 3_800  # of a cookie; browsers refuse one of more than 4,096 bytes in all
NO_ID_TOKEN = "-"  # noqa: S105 - in place of one that no cookie can hold


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


def set_id_token(response: Response, id_token: str, seconds: float, *, secure: bool) -> None:
    """Keeps with the browser what signs it out at the provider. The server stores no token."""
    value = id_token if len(id_token) <= VALUE_CHARS_MAX else NO_ID_TOKEN
    response.set_cookie(
        ID_HINT, value, max_age=int(seconds), path=SIGN_IN_PATH, secure=secure, httponly=True, samesite="strict"
    )


def forget_id_token(request: Request, response: Response, *, secure: bool) -> None:
    """Only where the browser has one: most never sign in at a provider."""
    if id_token_of(request) is not None:
        response.delete_cookie(ID_HINT, path=SIGN_IN_PATH, secure=secure, httponly=True, samesite="strict")


def id_token_of(request: Request) -> str | None:
    """What `set_id_token` has kept; "": a token that was too long. None: nobody has signed in at the provider."""
    value = request.cookies.get(ID_HINT)
    return "" if value == NO_ID_TOKEN else value


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
