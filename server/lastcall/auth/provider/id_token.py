"""Verifies ID tokens, and reads from them who has signed in."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from ..identity import canonical_user
from ..jwt import LEEWAY_SECONDS, InvalidToken, KeysUnavailable, ProviderKeys
from .failures import SignInFailed

TOKEN_CHARS_MAX = 65_536
EMAIL = "email"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdTokenRules:
    """What an ID token must say. domains: in lower case, those of addresses that may sign in; none: all may."""

    issuer: str
    client_id: str
    user_claim: str
    domains: Collection[str] = ()


async def read_id_token(token: object, nonce: str, keys: ProviderKeys, rules: IdTokenRules) -> str:
    """The user whom an ID token names, in the one form of names.

    Args:
        token: As the token endpoint gave it.
        nonce: That the token must have: it was made for this attempt.
        keys: The provider's.
        rules: For this server.

    Raises:
        SignInFailed: It is not valid, or names nobody who may sign in.
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
    return _user(claims, rules)


async def _claims(token: str, keys: ProviderKeys, rules: IdTokenRules) -> Mapping[str, Any]:
    header = jwt.get_unverified_header(token)
    if str(header.get("typ") or "JWT").lower().removeprefix("application/") != "jwt":
        raise InvalidToken("it is a token for another purpose")
    key_id = header.get("kid")
    # The key decides about the algorithms, so that neither `none` nor one with a shared secret is among them.
    key = await keys.find(key_id if isinstance(key_id, str) else None)
    claims: Mapping[str, Any] = jwt.decode(
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


def _user(claims: Mapping[str, Any], rules: IdTokenRules) -> str:
    if rules.domains or rules.user_claim == EMAIL:
        _check_email(claims, rules.domains)
    value = claims.get(rules.user_claim)
    if not isinstance(value, str):
        raise SignInFailed("refused", f"the ID token has no text in its claim {rules.user_claim} (--oidc-user-claim)")
    try:
        return canonical_user(value)
    except ValueError as error:
        raise SignInFailed("refused", f"the claim {rules.user_claim} cannot be a user id: {error}") from error


def _check_email(claims: Mapping[str, Any], domains: Collection[str]) -> None:
    address, verified = claims.get(EMAIL), claims.get("email_verified")
    if not isinstance(address, str) or not (verified is True or verified == "true"):  # some providers write text
        raise SignInFailed("domain", "the ID token has no verified e-mail address")
    if domains and address.rpartition("@")[2].strip().lower() not in domains:
        raise SignInFailed("domain", "the domain of the e-mail address is none of --oidc-email-domain")


def _equal(value: object, expected: str) -> bool:
    return isinstance(value, str) and hmac.compare_digest(value.encode(errors="replace"), expected.encode())
