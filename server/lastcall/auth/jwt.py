"""Verifies JSON Web Tokens of an identity provider, with its shared secret or its public keys."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import structlog
import trio
from jwt import PyJWK, PyJWKClient

from ..config import BadSettings, Settings
from .identity import Principal, Scope, canonical_user
from .origins import is_safe_url

LEEWAY_SECONDS = 30.0  # between the provider's clock and ours
FETCH_SECONDS = 5.0  # for the provider's keys
REFRESH_SECONDS_MIN = 10.0  # between fetches, however many tokens name an unknown key
KEYS_SECONDS = 300.0  # before the keys are fetched again: how long a withdrawn one may still be accepted
KEYS_SECONDS_MAX = 3_600.0  # the same while the provider does not answer

# By the type of key, never by the token's header: a public key must not be accepted as a shared secret.
SECRET_ALGORITHMS = {"HS256": 32, "HS384": 48, "HS512": 64}  # with the least bytes of the secret, by RFC 7518
SECRET_BYTES_MIN = min(SECRET_ALGORITHMS.values())
KEY_ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
RSA_BITS_MIN = 2_048  # by RFC 7518, section 3.3
# RFC 8725, section 3.11: a provider signs tokens for other purposes too, such as logout.
TYPES = frozenset({"jwt", "at+jwt"})

_log = structlog.get_logger(__name__)


class InvalidToken(Exception):
    """The token is not valid; the message says why, without quoting it."""


class KeysUnavailable(InvalidToken):
    """It cannot be told, because the provider's keys cannot be fetched."""


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A public key. algorithms: those that its signatures may have; one only where the provider names it."""

    key_id: str | None
    key: Any
    algorithms: Sequence[str]


class ProviderKeys:
    """The public keys of the provider. source: a file, read once, or a URL, fetched again now and then."""

    def __init__(self, source: str) -> None:
        self._url = source if "://" in source else None
        self._keys: Mapping[str | None, ProviderKey] = {}
        self._fetched_at = self._asked_at = float("-inf")
        self._asking = trio.Lock()
        if self._url is None:
            self._keys = _key_set(_read(Path(source), "--jwt-jwks"))
        elif not is_safe_url(self._url):
            raise BadSettings("--jwt-jwks must be a file or an https:// URL; over plain HTTP, keys could be replaced.")

    async def find(self, key_id: str | None) -> ProviderKey:
        """The key of a token. Raises `InvalidToken`."""
        if self._url is not None and self._is_due(key_id):
            async with self._asking:
                if self._is_due(key_id):  # nobody else has fetched them meanwhile
                    await self._fetch(self._url)
        if self._url is not None and trio.current_time() - self._fetched_at > KEYS_SECONDS_MAX:
            raise KeysUnavailable("the provider's keys cannot be fetched")
        found = self._keys.get(key_id)
        if found is None and key_id is None and len(self._keys) == 1:
            [found] = self._keys.values()
        if found is None:
            raise InvalidToken("it was signed with a key that is not among the provider's")
        return found

    def _is_due(self, key_id: str | None) -> bool:
        now = trio.current_time()
        unknown = key_id is not None and key_id not in self._keys
        return (unknown or now - self._fetched_at > KEYS_SECONDS) and now - self._asked_at > REFRESH_SECONDS_MIN

    async def _fetch(self, url: str) -> None:
        self._asked_at = trio.current_time()
        client = PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        with trio.move_on_after(FETCH_SECONDS) as limit:
            try:
                self._keys = _key_set(await trio.to_thread.run_sync(client.fetch_data, abandon_on_cancel=True))
                self._fetched_at = trio.current_time()
            except (jwt.PyJWTError, BadSettings, ValueError) as error:
                _log.warning("jwks_not_fetched", error=str(error))
        if limit.cancelled_caught:
            _log.warning("jwks_not_fetched", error=f"no answer within {FETCH_SECONDS:g} s")


class TokenVerifier:
    """Verifies tokens by the settings. Raises `BadSettings` where a file cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._lifetime = settings.jwt_lifetime_seconds
        self._secret = _secret(settings.jwt_secret_file) if settings.jwt_secret_file else None
        self._keys = ProviderKeys(settings.jwt_jwks) if settings.jwt_jwks else None
        if self._keys is not None and self._audience is None:
            raise BadSettings("--jwt-jwks needs --jwt-audience: a provider signs tokens for other applications too.")

    async def principal(self, token: str) -> Principal:
        """The principal of a token. Raises `InvalidToken`."""
        try:
            header = jwt.get_unverified_header(token)
            if _type_of(header) not in TYPES:
                raise InvalidToken("it is a token for another purpose")
            key, algorithms = await self._key(header)
            claims = self._claims(token, key, algorithms)
            until = trio.current_time() + _seconds_left(claims)
            return Principal(user_id=canonical_user(str(claims["sub"])), scope=Scope.USER, valid_until=until)
        except (jwt.PyJWTError, ValueError, TypeError) as error:  # TypeError: an issuer that is no text
            raise InvalidToken(str(error)) from error

    async def _key(self, header: Mapping[str, Any]) -> tuple[Any, Sequence[str]]:
        if header.get("alg") in SECRET_ALGORITHMS and self._secret is not None:
            return self._secret, [name for name, size in SECRET_ALGORITHMS.items() if len(self._secret) >= size]
        if self._keys is None:
            raise InvalidToken("its algorithm is not allowed")
        key_id = header.get("kid")
        key = await self._keys.find(key_id if isinstance(key_id, str) else None)
        return key.key, key.algorithms

    def _claims(self, token: str, key: Any, algorithms: Sequence[str]) -> Mapping[str, Any]:
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(algorithms),
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "sub"]},
        )
        # Without the time of issue, what is left of it: a token that is always valid proves nothing about today.
        if _seconds(claims, "exp") - _issued(claims) > self._lifetime + LEEWAY_SECONDS:
            raise InvalidToken(f"it is valid for longer than {self._lifetime:g} s")
        return claims


def _issued(claims: Mapping[str, Any]) -> float:
    return _seconds(claims, "iat") if "iat" in claims else time.time()


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    """A time of the token, in Unix seconds. The library, which refuses what is not finite, accepts text too."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(f"its {name} is not a number")
    return float(value)


def _seconds_left(claims: Mapping[str, Any]) -> float:
    """Until the token expires; one that the leeway admitted is given the leeway.

    The longest lifetime bounds it, even where this machine's clock was set back.
    """
    left = _seconds(claims, "exp") - time.time()
    return left if left > 0 else left + LEEWAY_SECONDS


def _type_of(header: Mapping[str, Any]) -> str:
    """In lower case and without the media type's `application/`; a token need not say."""
    return str(header.get("typ") or "JWT").lower().removeprefix("application/")


def _key_set(content: Any) -> Mapping[str | None, ProviderKey]:
    """The public keys for signatures, by key id. Raises `BadSettings` where there are none."""
    listed = content.get("keys") if isinstance(content, dict) else None
    keys = [_provider_key(each) for each in (listed if isinstance(listed, list) else ()) if isinstance(each, dict)]
    usable = {key_id: key for key_id, key in keys if key is not None}
    if not usable:
        raise BadSettings(f"--jwt-jwks has no public key for signatures (RSA keys need {RSA_BITS_MIN} bits).")
    return usable


def _provider_key(content: dict[str, Any]) -> tuple[str | None, ProviderKey | None]:
    """A key's id and the key; None where it is of no use here: too weak, not public, or for encryption."""
    try:
        key = PyJWK.from_dict(content)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None, None
    algorithms = KEY_ALGORITHMS.get(str(key.key_type), ())
    if "alg" in content:
        algorithms = tuple(name for name in algorithms if name == content["alg"])
    too_weak = key.key_type == "RSA" and key.key.key_size < RSA_BITS_MIN
    if not algorithms or too_weak or key.public_key_use not in (None, "sig"):
        return key.key_id, None
    return key.key_id, ProviderKey(key.key_id, key.key, algorithms)


def _read(path: Path, flag: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise BadSettings(f"{flag}: cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise BadSettings(f"{flag}: {path} is not JSON.") from error


def _secret(path: Path) -> bytes:
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise BadSettings(f"--jwt-secret-file: cannot read {path}: {error.strerror or error}.") from error
    if len(secret) < SECRET_BYTES_MIN:
        raise BadSettings(f"--jwt-secret-file: {path} must hold at least {SECRET_BYTES_MIN} bytes.")
    return secret
