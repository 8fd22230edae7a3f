"""One attempt to sign in: what it needs on the way to the provider and back. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field

from ..origins import origin_of

ATTEMPT_SECONDS = 600  # for a person to sign in at the provider
CALLBACK_PATH = "/sign-in/callback"
SIGNED_OUT_PATH = "/sign-in/out"
PATH_DEFAULT = "/"

_SECRET_BYTES = 32
_SECRET = re.compile(r"[\w-]{43}", re.ASCII)
_PAGE_PATH = re.compile(r"/(c/conv_[0-9a-f]{32})?", re.ASCII)
_SEPARATOR = "."  # of a cookie; in none of the parts


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt of one browser.

    The browser keeps it in a cookie until it comes back, so that it may come back to any server. `state`, `nonce` and
    `verifier` are made from one secret, and none of them tells the others.

    origin: of the page, as its browser sees it. path: where the page is shown again.
    """

    secret: str = field(repr=False)
    origin: str
    path: str = PATH_DEFAULT

    @classmethod
    def begin(cls, origin: str, path: str) -> Attempt:
        """A new attempt. A path that is not one of the chat page's becomes `/`."""
        return cls(secrets.token_urlsafe(_SECRET_BYTES), origin, _page_path(path))

    @classmethod
    def from_cookie(cls, value: str) -> Attempt | None:
        """The attempt that a cookie holds; None for any other value."""
        secret, _, place = value.partition(_SEPARATOR)
        if not _SECRET.fullmatch(secret):
            return None
        try:
            origin, path = urlsafe_b64decode(place.encode()).decode().split()
            return cls(secret, origin_of(origin), _page_path(path))
        except ValueError:
            return None

    @property
    def cookie(self) -> str:
        # With : or / as they are, it would be quoted.
        place = urlsafe_b64encode(f"{self.origin} {self.path}".encode()).decode()
        return f"{self.secret}{_SEPARATOR}{place}"

    @property
    def redirect_uri(self) -> str:
        return self.origin + CALLBACK_PATH

    @property
    def state(self) -> str:
        return self._derived("state")

    @property
    def nonce(self) -> str:
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        return _base64url(hashlib.sha256(self.verifier.encode()).digest())

    def _derived(self, purpose: str) -> str:
        return _base64url(hmac.digest(self.secret.encode(), purpose.encode(), "sha256"))


def _page_path(path: str) -> str:
    """Only the chat page's own addresses: a path such as `//evil.example` would lead to another site."""
    return path if _PAGE_PATH.fullmatch(path) else PATH_DEFAULT


def _base64url(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
