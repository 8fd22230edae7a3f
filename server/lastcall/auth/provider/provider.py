"""The identity provider: sends browsers there, and finds out who comes back."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit

import trio

from ...config import BadSettings, Settings
from ..origins import is_safe_url
from .attempt import SIGNED_OUT_PATH, Attempt
from .discovery import Discovery, ProviderFacts
from .documents import Documents
from .failures import SignInFailed
from .id_token import IdTokenRules, read_id_token, user_of_claims, with_user_info

CLIENT_SECRET_VARIABLE = "LASTCALL_OIDC_CLIENT_SECRET"  # noqa: S105 - a name
EXCHANGES_MAX = 32  # sign-ins that ask the provider at the same time
CODE_CHARS_MAX = 4_096
DETAIL_CHARS_MAX = 200  # of what the provider says, in the log

_BEARER = re.compile(r"[\x21-\x7e]{1,16384}")  # what a header can hold


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who has signed in. id_token: by which the provider knows whom to sign out; None: it signs nobody out."""

    user: str
    id_token: str | None = field(repr=False)


class IdentityProvider:
    """The provider that the settings name. Raises `BadSettings` where they are incomplete or not safe."""

    def __init__(self, settings: Settings) -> None:
        issuer, client_id = settings.oidc_issuer or "", settings.oidc_client_id
        if not is_safe_url(issuer) or urlsplit(issuer).query or urlsplit(issuer).fragment:
            raise BadSettings("--oidc-issuer must be an https:// URL; over plain HTTP, answers could be replaced.")
        if not client_id:
            raise BadSettings("--oidc-issuer needs --oidc-client-id: the id that the provider gave this server.")
        if "openid" not in settings.oidc_scopes.split():
            raise BadSettings("--oidc-scopes must contain openid, for which the provider gives an ID token.")
        self.name = urlsplit(issuer).netloc
        self._issuer = issuer
        self._client_id = client_id
        self._secret = os.environ.get(CLIENT_SECRET_VARIABLE) or None
        self._scopes = " ".join(settings.oidc_scopes.split())
        self._rules = IdTokenRules(
            issuer=issuer,
            client_id=client_id,
            user_claim=settings.oidc_user_claim,
            domains={each.strip().lower().removeprefix("@") for each in settings.oidc_email_domain},
        )
        self._documents = Documents()
        self._discovery = Discovery(issuer, self._documents)
        self._exchanges = trio.CapacityLimiter(EXCHANGES_MAX)

    async def authorization_url(self, attempt: Attempt) -> str:
        """Where the browser goes to sign in. Raises `SignInFailed`."""
        endpoint = (await self._discovery.facts()).authorization_endpoint
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": attempt.redirect_uri,
            "scope": self._scopes,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        return _with_query(endpoint, query)

    async def sign_out_url(self, origin: str, id_token: str | None) -> str | None:
        """Where the browser goes to sign out there too; None: the provider offers that to nobody.

        Args:
            origin: Of the page, to which the browser comes back.
            id_token: With which the person signed in; without it, the provider asks whom to sign out.

        Raises:
            SignInFailed: It cannot be reached.
        """
        endpoint = (await self._discovery.facts()).end_session_endpoint
        if endpoint is None:
            return None
        query = {
            "client_id": self._client_id,
            "post_logout_redirect_uri": origin + SIGNED_OUT_PATH,
            "state": secrets.token_urlsafe(),  # some want one; nothing depends on what comes back
            **({"id_token_hint": id_token} if id_token else {}),
        }
        return _with_query(endpoint, query)

    async def user_of(self, attempt: Attempt, answer: Mapping[str, str]) -> SignedIn:
        """Who has signed in.

        Args:
            attempt: That of the browser which comes back.
            answer: What it brings from the provider: `state`, and `code` or `error`.

        Raises:
            SignInFailed: Nobody who may.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(errors="replace"), attempt.state.encode()):
            raise SignInFailed("expired", "the browser comes back from another attempt: the state is another one")
        if "error" in answer:
            said = f"{answer['error']} {answer.get('error_description', '')}"
            raise SignInFailed("denied", f"the provider says: {said:.{DETAIL_CHARS_MAX}}")
        try:
            self._exchanges.acquire_nowait()
        except trio.WouldBlock:
            raise SignInFailed("busy", f"{EXCHANGES_MAX} sign-ins are under way") from None
        try:
            return await self._exchange(attempt, answer)
        finally:
            self._exchanges.release()

    async def _exchange(self, attempt: Attempt, answer: Mapping[str, str]) -> SignedIn:
        facts = await self._discovery.facts()
        if answer.get("iss", None if facts.names_itself else self._issuer) != self._issuer:
            raise SignInFailed("refused", "the answer is not this provider's: it names another issuer")
        code = answer.get("code", "")
        if not 0 < len(code) <= CODE_CHARS_MAX:
            raise SignInFailed("refused", "the browser brings no code")
        given = await self._tokens(facts, attempt, code)
        token = given.get("id_token")
        claims = await read_id_token(token, attempt.nonce, facts.keys, self._rules)
        if facts.userinfo_endpoint is not None and self._rules.claims - claims.keys():
            claims = with_user_info(claims, await self._user_info(facts.userinfo_endpoint, given), self._rules)
        return SignedIn(user_of_claims(claims, self._rules), str(token) if facts.end_session_endpoint else None)

    async def _user_info(self, url: str, given: Mapping[str, object]) -> object:
        token = given.get("access_token")
        if not isinstance(token, str) or not _BEARER.fullmatch(token):
            raise SignInFailed("refused", "the provider gave no access token, with which to ask for the user info")
        return await self._documents.get(url, token)

    async def _tokens(self, facts: ProviderFacts, attempt: Attempt, code: str) -> Mapping[str, object]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": attempt.redirect_uri,
            "code_verifier": attempt.verifier,
        }
        credentials = None
        if self._secret is not None and not facts.secret_in_form:
            credentials = quote(self._client_id, safe=""), quote(self._secret, safe="")  # by RFC 6749, section 2.3.1
        else:
            form["client_id"] = self._client_id
            if self._secret is not None:
                form["client_secret"] = self._secret
        status, document = await self._documents.post(facts.token_endpoint, form, credentials)
        if not isinstance(document, dict):
            raise SignInFailed("away", "the token endpoint gave no JSON object")
        if status >= 500:
            raise SignInFailed("away", f"the token endpoint failed with HTTP {status}")
        if status != 200:
            said = f"{document.get('error')} {document.get('error_description', '')}"
            raise SignInFailed("refused", f"the token endpoint refused the code: {said:.{DETAIL_CHARS_MAX}}")
        return document


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"
