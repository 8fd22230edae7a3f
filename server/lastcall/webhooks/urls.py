"""Which URLs events are sent to. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..auth.origins import is_loopback

URL_CHARS_MAX = 2048


def check_url(url: str, *, allow_http: bool = False) -> str:
    """Returns the URL of an endpoint. Raises `ValueError`, which says what is wrong with it.

    allow_http: without TLS, what is sent can be read on its way; to this machine itself it may always be.
    """
    if len(url) > URL_CHARS_MAX:
        raise ValueError(f"the URL must have at most {URL_CHARS_MAX} characters")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("the URL must be printable ASCII, with everything else percent-encoded")
    try:
        parts = urlsplit(url)
        host, has_port = parts.hostname, parts.port != 0
    except ValueError as error:
        raise ValueError(f"the URL is not valid: {error}") from None
    if parts.scheme not in ("http", "https") or not host or not has_port:
        raise ValueError("the URL must be like https://example.com/hook")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL must not have a user or password: the signature says who sends")
    if "#" in url:
        raise ValueError("the URL must not have a fragment")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise ValueError("the URL must be https, unless http to another machine is allowed explicitly")
    return url


def host_of(url: str) -> str:
    """The host of a URL, for logs: the rest may hold a secret of the receiver."""
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"
