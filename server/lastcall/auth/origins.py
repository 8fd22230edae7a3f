"""Checks of the Origin and Host headers. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit

HOSTS_KEPT = 64  # and whether they are this machine's: nearly all requests name the same one


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(HOSTS_KEPT)
def is_own_host(host: str, bound: str) -> bool:
    """Whether a Host header names this machine or the address that the server is bound to.

    Stops DNS rebinding: a page whose host name was made to point at 127.0.0.1 has the server's own origin.
    """
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and (is_loopback(name) or name == bound.lower())


def is_allowed_origin(origin: str | None, host: str, allowed: Collection[str], scheme: str | None = None) -> bool:
    """Whether a page of this origin may connect. None: not a browser.

    allowed: normalized origins, besides the server's own. scheme: of the URL that was asked for; None: not known.
    """
    if origin is None:
        return True
    try:
        page = origin_of(origin)
        return page in allowed or (host != "" and page in _own_origins(host, scheme))
    except ValueError:
        return False


def is_own_origin(origin: str, host: str, scheme: str | None = None) -> bool:
    """Whether a page of this origin is the server's own. host, scheme: as for `is_allowed_origin`."""
    return is_allowed_origin(origin, host, (), scheme)


def is_safe_url(url: str) -> bool:
    """Whether what is fetched from there cannot be replaced on the way: by TLS, or on this machine."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (
            parts.scheme == "https" or (parts.scheme == "http" and is_loopback(str(parts.hostname)))
        )
    except ValueError:
        return False


def _own_origins(host: str, scheme: str | None) -> set[str]:
    """Of the Host header. With either scheme where it is not known: a proxy in front may speak TLS."""
    return {origin_of(f"{each}://{host}") for each in ((scheme,) if scheme else ("http", "https"))}


def origin_of(text: str) -> str:
    """Normalizes an origin to the form that browsers send. Raises `ValueError` for anything else."""
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError(f"{text!r} is not an origin")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{text!r} has a path")
    port = {"http": 80, "https": 443}[parts.scheme]
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + ("" if parts.port in (None, port) else f":{parts.port}")
