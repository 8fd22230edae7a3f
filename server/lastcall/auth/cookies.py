"""The cookies of browsers: which stand for somebody who is signed in, and from which pages they count. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .identity import Presented
from .origins import is_own_origin

SIGN_IN = "lastcall"  # holds the secret of whoever is signed in
ATTEMPT = "lastcall-attempt"  # holds what a sign-in at the identity provider needs on the way back
ID_HINT = "lastcall-id-token"  # holds that by which the identity provider knows whom to sign out
# Browsers keep such a cookie from plain HTTP, and from the pages of all other hosts, which could set one of this name.
HOST_PREFIX = "__Host-"

_OWN_PAGES = frozenset({"same-origin", "none"})  # none: the user typed the address


def cookie_name(name: str, *, secure: bool) -> str:
    """The name under which a cookie is set. secure: whether the page was asked for by https."""
    return f"{HOST_PREFIX}{name}" if secure else name


def sign_in_of(presented: Presented) -> str | None:
    """The secret of the browser's sign-in; None where there is none, or where it does not count.

    It counts only for the server's own page. A browser may send it along with requests of other pages: of another port
    of the same host, or of an origin that is allowed to connect with a key of its own. So the request must have the
    server's own Origin; only where it reads, browsers do not send one.
    """
    header = presented.headers.get("cookie")
    if not header or (found := find_cookie(header, SIGN_IN, presented.scheme)) is None:
        return None
    return found[0] if is_of_own_page(presented) else None


def is_of_own_page(presented: Presented) -> bool:
    """Whether a browser sends this request for the server's own page, as far as browsers tell."""
    origin = presented.headers.get("origin")
    if origin is None:
        return presented.only_reads and presented.headers.get("sec-fetch-site", "same-origin") in _OWN_PAGES
    return is_own_origin(origin, presented.host, presented.scheme)


def find_cookie(header: str, name: str, scheme: str | None) -> tuple[str, bool] | None:
    """A cookie's value, and whether it was set by https; None where there is none.

    scheme: of the URL that was asked for; None: not known, because a proxy in front may speak TLS.
    """
    found = dict(_pairs(header))
    for secure in (True,) if scheme == "https" else (True, False):
        if value := found.get(cookie_name(name, secure=secure)):
            return value, secure
    return None


def _pairs(header: str) -> Iterable[tuple[str, str]]:
    for each in header.split(";"):
        name, _, value = each.partition("=")
        yield name.strip(), value.strip()
