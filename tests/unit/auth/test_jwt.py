"""Tokens of an identity provider: which are accepted, and how its keys are fetched."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode, der_to_raw_signature
from lastcall.auth import jwt as tokens
from lastcall.auth.identity import Principal, Scope
from lastcall.auth.jwt import InvalidToken, ProviderKeys, TokenVerifier
from lastcall.config import BadSettings, Settings
from trio.testing import MockClock

from tests.support.threads import in_a_thread

SECRET = "the identity provider's own secret, long enough for each of its algorithms"
AUDIENCE, ISSUER = "lastcall", "https://id.example"
RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
WEAK_RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=1024)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
EC_521_KEY = ec.generate_private_key(ec.SECP521R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def jwk(algorithm: Any, key: Any, key_id: str, **more: str) -> dict[str, Any]:
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, **more}


JWKS = {
    "keys": [
        jwk(RSAAlgorithm, RSA_KEY, "rsa", use="sig"),
        jwk(RSAAlgorithm, RSA_KEY, "only RS512", alg="RS512"),
        jwk(RSAAlgorithm, WEAK_RSA_KEY, "weak"),
        jwk(ECAlgorithm, EC_KEY, "ec"),
        jwk(ECAlgorithm, EC_521_KEY, "ec 521"),
        jwk(OKPAlgorithm, ED_KEY, "ed"),
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "oct"},
    ]
}
PUBLIC_PEM = RSA_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def token(
    key: Any = SECRET,
    algorithm: str = "HS256",
    key_id: str | None = None,
    headers: dict[str, str | None] | None = None,
    **changes: Any,
) -> str:
    claims = {"sub": "ada", "aud": AUDIENCE, "iss": ISSUER, "exp": time.time() + 600} | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers=({"kid": key_id} if key_id else {}) | (headers or {}))


def by_shared_secret(**changes: Any) -> str:
    claims = {"sub": "ada", "aud": AUDIENCE, "iss": ISSUER, "exp": time.time() + 600} | changes
    signed = b".".join(base64url_encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    signature = hmac.digest(SECRET.encode(), signed, "sha256")
    return (signed + b"." + base64url_encode(signature)).decode()


def with_header(header: bytes) -> str:
    return f"{base64url_encode(header).decode()}.e30.AAAA"


def signed_by_hand(key: ec.EllipticCurvePrivateKey, algorithm: str, key_id: str) -> str:
    """With SHA-256, whatever the curve: the library would not sign this."""
    parts = {"alg": algorithm, "typ": "JWT", "kid": key_id}, {"sub": "ada", "aud": AUDIENCE, "iss": ISSUER}
    claims = parts[1] | {"exp": int(time.time()) + 600}
    signed = b".".join(base64url_encode(json.dumps(part).encode()) for part in (parts[0], claims))
    signature = der_to_raw_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())), key.curve)
    return (signed + b"." + base64url_encode(signature)).decode()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Both kinds of keys, as they are most easily confused."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "keys.json").write_text(json.dumps(JWKS))
    return Settings(
        jwt_secret_file=tmp_path / "secret",
        jwt_jwks=str(tmp_path / "keys.json"),
        jwt_audience=AUDIENCE,
        jwt_issuer=ISSUER,
    )


GOOD: dict[str, Callable[[], str]] = {
    "a shared secret": lambda: token(),
    "a longer hash": lambda: token(algorithm="HS512"),
    "RSA": lambda: token(RSA_KEY, "RS256", "rsa"),
    "RSA-PSS": lambda: token(RSA_KEY, "PS256", "rsa"),
    "EC": lambda: token(EC_KEY, "ES256", "ec"),
    "Ed25519": lambda: token(ED_KEY, "EdDSA", "ed"),
    "one of several audiences": lambda: token(aud=["another", AUDIENCE]),
    "an access token": lambda: token(headers={"typ": "application/at+JWT"}),
    "of no type": lambda: token(headers={"typ": None}),
    "a key's own algorithm": lambda: token(RSA_KEY, "RS512", "only RS512"),
    "a day long": lambda: token(iat=time.time(), exp=time.time() + 86_400),
    "a clock that is a little slow": lambda: token(exp=time.time() - tokens.LEEWAY_SECONDS / 2),
}
BAD: dict[str, Callable[[], str]] = {
    # The library does not write these itself.
    "of an issuer that is no text": lambda: by_shared_secret(iss=[ISSUER]),
    "of a subject that is no text": lambda: by_shared_secret(sub={"x": 1}),
    "of an audience that is no text": lambda: by_shared_secret(aud={"x": 1}),
    "issued later": lambda: token(iat=time.time() + 600),
    "issued at no time": lambda: token(iat=str(int(time.time()))),
    "that expires at no time": lambda: token(exp=str(int(time.time() + 600))),
    "that never expires": lambda: token(exp=math.inf),
    "that expires at truth": lambda: token(exp=True),
    "with an extension that must be understood": lambda: token(headers={"crit": ["x"], "x": "y"}),  # type: ignore[dict-item]
    "of a curve for another algorithm": lambda: signed_by_hand(EC_521_KEY, "ES256", "ec 521"),
    "of a nested header": lambda: with_header(b"[" * 11_000),
    "of a key id that is no text": lambda: with_header(b'{"alg": "RS256", "kid": ["rsa"]}'),
    "of a weak key": lambda: token(WEAK_RSA_KEY, "RS256", "weak"),
    "not of its key's algorithm": lambda: token(RSA_KEY, "RS256", "only RS512"),
    "for a logout": lambda: token(headers={"typ": "logout+jwt"}),
    "a year long": lambda: token(iat=time.time(), exp=time.time() + 365 * 86_400),
    "for a year from now, issued long ago": lambda: token(exp=time.time() + 365 * 86_400),
    "none": lambda: token("", "none"),
    "none with a key id": lambda: token("", "none", "rsa"),
    "expired": lambda: token(exp=time.time() - 2 * tokens.LEEWAY_SECONDS),
    "without expiry": lambda: token(exp=None),
    "without a subject": lambda: token(sub=None),
    "of an empty subject": lambda: token(sub=""),
    "of a subject with controls": lambda: token(sub="a\nb"),
    "of a very long subject": lambda: token(sub="a" * 257),
    "not valid yet": lambda: token(nbf=time.time() + 600),
    "for others": lambda: token(aud="another"),
    "for nobody": lambda: token(aud=None),
    "of another issuer": lambda: token(iss="https://evil.example"),
    "of no issuer": lambda: token(iss=None),
    "of another secret": lambda: token("x" * 40),
    "of another key under a known id": lambda: token(OTHER_RSA_KEY, "RS256", "rsa"),
    "of an unknown key": lambda: token(OTHER_RSA_KEY, "RS256", "unknown"),
    "of no key among several": lambda: token(RSA_KEY, "RS256"),
    "of a secret among the public keys": lambda: token("secret-secret-secret-secret-secret", "HS256", "oct"),
    "of a key used for another kind's algorithm": lambda: token(EC_KEY, "ES256", "rsa"),
    "empty": lambda: "",
    "two parts": lambda: "a.b",
    "garbage": lambda: "eyJhbGciOiJIUzI1NiJ9.e30.AAAA",
}


@pytest.mark.parametrize("kind", GOOD)
async def test_a_good_token_is_its_subjects(settings: Settings, kind: str) -> None:
    assert await TokenVerifier(settings).principal(GOOD[kind]()) == Principal(user_id="ada", scope=Scope.USER)


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_token_is_refused(settings: Settings, kind: str) -> None:
    with pytest.raises(InvalidToken):
        await TokenVerifier(settings).principal(BAD[kind]())


@pytest.mark.parametrize(("expires", "left"), [(600.0, 600.0), (-10.0, tokens.LEEWAY_SECONDS - 10.0)])
async def test_a_principal_knows_until_when_its_token_is_accepted(
    settings: Settings, expires: float, left: float, mock_clock: MockClock
) -> None:
    principal = await TokenVerifier(settings).principal(token(exp=time.time() + expires))
    assert principal.valid_until == pytest.approx(trio.current_time() + left, abs=2.0)


async def test_a_public_key_is_never_used_as_a_shared_secret(settings: Settings) -> None:
    """The public key is known to all: a token that is signed with it as if it were a secret proves nothing."""
    header = {"alg": "HS256", "typ": "JWT", "kid": "rsa"}
    payload = {"sub": "ada", "aud": AUDIENCE, "iss": ISSUER, "exp": int(time.time()) + 600}
    signed = b".".join(base64url_encode(json.dumps(part).encode()) for part in (header, payload))
    forged = signed + b"." + base64url_encode(hmac.new(PUBLIC_PEM, signed, hashlib.sha256).digest())
    for secret_file in (settings.jwt_secret_file, None):
        checked = Settings(
            jwt_secret_file=secret_file, jwt_jwks=settings.jwt_jwks, jwt_audience=AUDIENCE, jwt_issuer=ISSUER
        )
        with pytest.raises(InvalidToken):
            await TokenVerifier(checked).principal(forged.decode())


# --- settings ---------------------------------------------------------------------------------------------------------


def test_insecure_settings_are_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("x" * 31)
    (tmp_path / "empty.json").write_text('{"keys": []}')
    (tmp_path / "oct.json").write_text(json.dumps({"keys": [JWKS["keys"][-1]]}))
    keys = settings.jwt_jwks
    for wrong, word in (
        (Settings(jwt_secret_file=tmp_path / "none"), "cannot read"),
        (Settings(jwt_secret_file=tmp_path / "short"), "at least 32 bytes"),
        (Settings(jwt_jwks=keys), "needs --jwt-audience"),
        (Settings(jwt_jwks="http://id.example/keys", jwt_audience=AUDIENCE), "https://"),
        (Settings(jwt_jwks=str(tmp_path / "none"), jwt_audience=AUDIENCE), "cannot read"),
        (Settings(jwt_jwks=str(tmp_path / "short"), jwt_audience=AUDIENCE), "not JSON"),
        (Settings(jwt_jwks=str(tmp_path / "empty.json"), jwt_audience=AUDIENCE), "no public key"),
        (Settings(jwt_jwks=str(tmp_path / "oct.json"), jwt_audience=AUDIENCE), "no public key"),
    ):
        with pytest.raises(BadSettings, match=word):
            TokenVerifier(wrong)


async def test_a_secret_that_is_too_short_for_an_algorithm_is_not_used_with_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET[:32])
    checks = TokenVerifier(Settings(jwt_secret_file=tmp_path / "secret", jwt_audience=AUDIENCE))
    assert (await checks.principal(token(SECRET[:32]))).user_id == "ada"
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        longer = token(SECRET[:32], "HS512")
    with pytest.raises(InvalidToken):
        await checks.principal(longer)


# --- the provider's keys ----------------------------------------------------------------------------------------------


class Provider:
    """A provider of keys on loopback; `asked`: how often. answer: what it says."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: Callable[[], bytes] = lambda: json.dumps(JWKS).encode()

    @contextmanager
    def serving(self) -> Iterator[str]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                body = provider.answer()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        with in_a_thread(server):
            yield f"http://127.0.0.1:{server.server_address[1]}/keys"


@pytest.fixture
def provider() -> Iterator[tuple[Provider, str]]:
    made = Provider()
    with made.serving() as url:
        yield made, url


async def test_keys_are_fetched_when_they_are_needed_and_kept(provider: tuple[Provider, str]) -> None:
    asked, url = provider
    keys = ProviderKeys(url)
    assert asked.asked == 0
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(keys.find, "rsa")
    assert (await keys.find("ec")).algorithms == tokens.KEY_ALGORITHMS["EC"]
    assert asked.asked == 1


async def test_unknown_keys_are_asked_for_at_a_bounded_rate(
    provider: tuple[Provider, str], mock_clock: MockClock
) -> None:
    asked, url = provider
    keys = ProviderKeys(url)
    await keys.find("rsa")

    async def unknown() -> None:
        with pytest.raises(InvalidToken):
            await keys.find("made up")

    for _ in range(50):
        await unknown()
    assert asked.asked == 1
    mock_clock.jump(tokens.REFRESH_SECONDS_MIN + 1)
    for _ in range(50):
        await unknown()
    assert asked.asked == 2


async def test_a_new_key_is_found_and_a_withdrawn_one_is_not(
    provider: tuple[Provider, str], mock_clock: MockClock
) -> None:
    asked, url = provider
    keys = ProviderKeys(url)
    await keys.find("rsa")
    asked.answer = lambda: json.dumps({"keys": [jwk(RSAAlgorithm, OTHER_RSA_KEY, "new")]}).encode()
    mock_clock.jump(tokens.REFRESH_SECONDS_MIN + 1)
    assert (await keys.find("new")).key_id == "new"
    with pytest.raises(InvalidToken):
        await keys.find("rsa")


async def test_a_withdrawn_key_is_noticed_though_nobody_names_a_new_one(
    provider: tuple[Provider, str], mock_clock: MockClock
) -> None:
    asked, url = provider
    keys = ProviderKeys(url)
    await keys.find("rsa")
    asked.answer = lambda: json.dumps({"keys": [jwk(RSAAlgorithm, OTHER_RSA_KEY, "new")]}).encode()
    mock_clock.jump(tokens.KEYS_SECONDS + 1)
    with pytest.raises(InvalidToken):
        await keys.find("rsa")


async def test_while_the_provider_fails_its_last_keys_serve_for_a_bounded_time(
    provider: tuple[Provider, str], mock_clock: MockClock
) -> None:
    asked, url = provider
    keys = ProviderKeys(url)
    await keys.find("rsa")
    asked.answer = lambda: b"out of order"
    mock_clock.jump(tokens.KEYS_SECONDS + 1)
    assert (await keys.find("rsa")).key_id == "rsa"
    assert asked.asked == 2
    mock_clock.jump(tokens.KEYS_SECONDS_MAX)
    with pytest.raises(InvalidToken, match="cannot be fetched"):
        await keys.find("rsa")


async def test_a_silent_provider_delays_a_request_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "FETCH_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        began = trio.current_time()
        with pytest.raises(InvalidToken):
            await ProviderKeys(f"http://127.0.0.1:{deaf.getsockname()[1]}/keys").find("rsa")
        assert trio.current_time() - began < 2.0
