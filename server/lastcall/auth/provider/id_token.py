"""Verifies ID tokens, and reads from their claims who has signed in."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import jwt

from ..identity import canonical_user
from ..jwt import LEEWAY_SECONDS, InvalidToken, KeysUnavailable, ProviderKeys
from .failures import SignInFailed

TOKEN_CHARS_MAX = 65_536
EMAIL = "email"
EMAIL_CLAIMS = frozenset({EMAIL, "email_verified"})  # one is worth nothing without the other


Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdTokenRules:
    """What an ID token must say. domains: in lower case, those of addresses that may sign in; none: all may."""

    issuer: str
    client_id: str
    user_claim: str
    domains: AbstractSet[str] = frozenset()

    @property
    def claims(self) -> AbstractSet[str]:
        """The claims that tell who has signed in, and whether they may."""
        return {self.user_claim} | (EMAIL_CLAIMS if self.domains or self.user_claim == EMAIL else frozenset())


async def read_id_token(token: object, nonce: str, keys: ProviderKeys, rules: IdTokenRules) -> Claims:
    """The claims of an ID token.

    Args:
        token: As the token endpoint gave it.
        nonce: That the token must have: it was made for this attempt.
        keys: The provider's.
        rules: For this server.

    Raises:
        SignInFailed: It is not valid.
    """
    if not isinstance(token, str) or len(token) > TOKEN_CHARS_MAX:
        raise SignInFailed("refused", "the provider gave no ID token")
    try:
        claims = await _claims(token, keys, rules)
    except KeysUnavailable as error:
        raise SignInFailed("away", str(error)) from error
    except (jwt.PyJWTError, InvalidToken, ValueError, TypeError) as error:  # TypeError: an issuer that is no text
        raise SignInFailed("refused", f"the ID token is not valid: {error}") from error
    if not _equal(claims.get("nonce"), nonce):
        raise SignInFailed("refused", "the ID token was made for another attempt: its nonce is another one")
    return claims


def with_user_info(claims: Claims, info: object, rules: IdTokenRules) -> Claims:
    """The claims of an ID token, completed by what the provider's user info says of the same person.

    Raises:
        SignInFailed: It is of somebody else, or no JSON object.
    """
    if not isinstance(info, dict) or info.get("sub") != claims["sub"]:
        raise SignInFailed("refused", "the user info is not of whoever the ID token is of: its sub is another one")
    missing = set(rules.claims - claims.keys())
    if missing & EMAIL_CLAIMS:  # the address of one with the confirmation of the other would confirm any
        missing |= EMAIL_CLAIMS
    return {**claims, **{name: info.get(name) for name in missing}}


async def _claims(token: str, keys: ProviderKeys, rules: IdTokenRules) -> Claims:
    header = jwt.get_unverified_header(token)
    if str(header.get("typ") or "JWT").lower().removeprefix("application/") != "jwt":
        raise InvalidToken("it is a token for another purpose")
    key_id = header.get("kid")
    # The key decides about the algorithms, so that neither `none` nor one with a shared secret is among them.
    key = await keys.find(key_id if isinstance(key_id, str) else None)
    claims: Claims = jwt.decode(
        token,
        key.key,
        algorithms=list(key.algorithms),
        audience=rules.client_id,
        issuer=rules.issuer,
        leeway=LEEWAY_SECONDS,
        options={"require": ["exp", "iat", "iss", "aud", "sub"]},
    )
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    # Of several audiences, it was given to the one that `azp` names.
    if ("azp" in claims or several) and claims.get("azp") != rules.client_id:
        raise InvalidToken("it was given to another application")
    return claims


def user_of_claims(claims: Claims, rules: IdTokenRules) -> str:
    """Who has signed in, in the one form of names. Raises `SignInFailed` where that is nobody who may."""
    if rules.domains or rules.user_claim == EMAIL:
        _check_email(claims, rules.domains)
    value = claims.get(rules.user_claim)
    if not isinstance(value, str):
        raise SignInFailed("refused", f"the provider says no text in the claim {rules.user_claim} (--oidc-user-claim)")
    try:
        return canonical_user(value)
    except ValueError as error:
        raise SignInFailed("refused", f"the claim {rules.user_claim} cannot be a user id: {error}") from error


def _check_email(claims: Claims, domains: AbstractSet[str]) -> None:
    address, verified = claims.get(EMAIL), claims.get("email_verified")
    if not isinstance(address, str) or not (verified is True or verified == "true"):  # some providers write text
        raise SignInFailed("domain", "the provider names no verified e-mail address")
    if domains and address.rpartition("@")[2].strip().lower() not in domains:
        raise SignInFailed("domain", "the domain of the e-mail address is none of --oidc-email-domain")


def _equal(value: object, expected: str) -> bool:
    return isinstance(value, str) and hmac.compare_digest(value.encode(errors="replace"), expected.encode())
