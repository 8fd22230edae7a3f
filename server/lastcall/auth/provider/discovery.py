"""What a provider says about itself, at `/.well-known/openid-configuration`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from ..jwt import ProviderKeys
from ..origins import is_safe_url
from .documents import Documents
from .failures import SignInFailed

WELL_KNOWN = "/.well-known/openid-configuration"
FRESH_SECONDS = 3_600.0  # before it is asked again
STALE_SECONDS = 86_400.0  # the same while the provider does not answer
RETRY_SECONDS = 2.0  # after a failure, however many people want to sign in

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """A provider's endpoints and keys.

    secret_in_form: whether the client's secret is sent in the form, and not by HTTP Basic.
    names_itself: whether each answer by way of the browser names the issuer (RFC 9207).
    userinfo_endpoint, end_session_endpoint: None where it has none that can be used.
    """

    authorization_endpoint: str
    token_endpoint: str
    keys_url: str
    keys: ProviderKeys
    secret_in_form: bool
    names_itself: bool
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None


class Discovery:
    """Finds out about the provider when somebody wants to sign in, and remembers it.

    Not at the start: a provider that is away does not keep the server from starting, nor those who are signed in out.
    """

    def __init__(self, issuer: str, documents: Documents) -> None:
        self._issuer = issuer
        self._documents = documents
        self._known: ProviderFacts | None = None
        self._known_at = float("-inf")
        self._failed: tuple[float, SignInFailed] | None = None  # when, and why, it was last asked in vain
        self._asking = trio.Lock()

    async def facts(self) -> ProviderFacts:
        """Raises `SignInFailed`."""
        async with self._asking:  # others wait for the same answer, which is bounded
            now = trio.current_time()
            if self._known is not None and now - self._known_at < FRESH_SECONDS:
                return self._known
            if self._failed is None or now - self._failed[0] >= RETRY_SECONDS:
                await self._ask()
            if self._known is not None and trio.current_time() - self._known_at < STALE_SECONDS:
                return self._known
            assert self._failed is not None
            raise self._failed[1]

    async def _ask(self) -> None:
        try:
            document = await self._documents.get(self._issuer.rstrip("/") + WELL_KNOWN)
            self._known = self._read(document)
        except SignInFailed as failed:
            self._failed = trio.current_time(), failed
            _log.warning("provider_not_discovered", issuer=self._issuer, error=str(failed))
        else:
            self._known_at, self._failed = trio.current_time(), None

    def _read(self, document: Any) -> ProviderFacts:
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise SignInFailed("away", f"it does not call itself {self._issuer}, as --oidc-issuer does")
        keys_url = _endpoint(document, "jwks_uri")
        methods = document.get("token_endpoint_auth_methods_supported")
        return ProviderFacts(
            authorization_endpoint=_endpoint(document, "authorization_endpoint"),
            token_endpoint=_endpoint(document, "token_endpoint"),
            keys_url=keys_url,
            # Those that are known stay: to forget them would fetch them again.
            keys=self._known.keys if self._known and self._known.keys_url == keys_url else ProviderKeys(keys_url),
            secret_in_form=isinstance(methods, list) and "client_secret_basic" not in methods,
            names_itself=document.get("authorization_response_iss_parameter_supported") is True,
            userinfo_endpoint=_optional_endpoint(document, "userinfo_endpoint"),
            end_session_endpoint=_optional_endpoint(document, "end_session_endpoint"),
        )


def _endpoint(document: Mapping[str, Any], name: str) -> str:
    url = document.get(name)
    if not isinstance(url, str) or not is_safe_url(url):
        raise SignInFailed("away", f"its {name} is no https:// URL")
    return url


def _optional_endpoint(document: Mapping[str, Any], name: str) -> str | None:
    url = document.get(name)
    return url if isinstance(url, str) and is_safe_url(url) else None
