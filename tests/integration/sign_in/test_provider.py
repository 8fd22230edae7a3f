"""Signing in at an identity provider: a real one on a real socket, that also lies, fails and is away."""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from jwt.utils import base64url_encode
from lastcall import logs
from lastcall.auth import jwt as tokens
from lastcall.auth import key_admin
from lastcall.auth.provider import discovery, provider
from lastcall.auth.provider.attempt import Attempt
from lastcall.config import BadSettings, Settings
from lastcall.store.postgres import PostgresStore
from structlog.testing import capture_logs

from tests.support.identity_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    Claims,
    IdentityProvider,
    SigningKey,
    encode_id_token,
    open_identity_provider,
)
from tests.support.operators import OPERATOR
from tests.support.servers import open_server
from tests.support.sign_in import Browser


@pytest.fixture
def identity() -> Iterator[IdentityProvider]:
    with open_identity_provider() as provider:
        yield provider


@pytest.fixture
def settings(identity: IdentityProvider, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of a server at which people sign in, and nobody without."""
    monkeypatch.setenv(provider.CLIENT_SECRET_VARIABLE, CLIENT_SECRET)
    # Keys and failures are asked for again at once: what time does is tested with a clock of its own.
    monkeypatch.setattr(tokens, "REFRESH_SECONDS_MIN", 0.0)
    monkeypatch.setattr(discovery, "RETRY_SECONDS", 0.0)
    return {"oidc_issuer": identity.url, "oidc_client_id": CLIENT_ID}


@pytest.fixture
async def browser(postgres_store: PostgresStore, settings: dict[str, Any]) -> AsyncIterator[Browser]:
    async with open_server(postgres_store, **settings) as server:
        yield Browser(server.url)


async def test_whoever_signs_in_has_a_session_until_they_sign_out(browser: Browser, identity: IdentityProvider) -> None:
    assert await browser.user() == "missing_api_key"
    url = await browser.to_provider("/c/conv_" + "0" * 32)
    [attempt] = browser.set_cookies
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=600"} <= set(attempt.split("; "))
    query = dict(parse_qsl(urlsplit(url).query))
    assert query["redirect_uri"] == f"{browser.url}/sign-in/callback"
    assert not [name for name in ("state", "nonce", "code_challenge") if query[name] in attempt]
    assert await browser.back(identity.authorize(query)) == "/c/conv_" + "0" * 32
    assert [line.split("=")[0] for line in browser.set_cookies] == ["lastcall", "lastcall-attempt"]
    assert list(browser.cookies) == ["lastcall"]
    assert {"HttpOnly", "SameSite=strict"} <= set(browser.set_cookies[0].split("; "))
    assert await browser.signed_in() == "ada"
    assert await browser.user() == "ada"
    assert (await browser.ask("DELETE", "/sign-in")).status_code == 200
    assert await browser.user() == "missing_api_key"


def unsigned(claims: Claims, _: SigningKey) -> str:
    return jwt.encode(claims, "", algorithm="none")


def by_secret(claims: Claims, key: SigningKey) -> str:
    """As whoever confuses kinds of keys would believe: the public key is no secret."""
    public = key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head = {"alg": "HS256", "typ": "JWT", "kid": key.key_id}
    signed = b".".join(base64url_encode(json.dumps(part).encode()) for part in (head, claims))
    return (signed + b"." + base64url_encode(hmac.digest(public, signed, "sha256"))).decode()


def by_client_secret(claims: Claims, key: SigningKey) -> str:
    return jwt.encode(claims, CLIENT_SECRET * 2, algorithm="HS256", headers={"kid": key.key_id})


def by_another_key(claims: Claims, key: SigningKey) -> str:
    other = SigningKey()
    other.key_id = key.key_id
    return encode_id_token(claims, other)


def of_another_type(claims: Claims, key: SigningKey) -> str:
    headers = {"kid": key.key_id, "typ": "logout+jwt"}
    return jwt.encode(claims, key.private, algorithm="RS256", headers=headers)


def with_other_claims(claims: Claims, key: SigningKey) -> str:
    head, _, signature = encode_id_token(claims, key).split(".")
    body = base64url_encode(json.dumps(claims | {"sub": "eve"}).encode()).decode()
    return f"{head}.{body}.{signature}"


def by_hand(claims: Claims, key: SigningKey) -> str:
    """Also claims that the library does not write."""
    head = {"alg": "RS256", "typ": "JWT", "kid": key.key_id}
    signed = b".".join(base64url_encode(json.dumps(part).encode()) for part in (head, claims))
    signature = key.private.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return (signed + b"." + base64url_encode(signature)).decode()


def without(name: str) -> Callable[[Claims], Claims]:
    return lambda claims: {key: value for key, value in claims.items() if key != name}


def changed(**changes: object) -> Callable[[Claims], Claims]:
    return lambda claims: claims | changes


LIES = {
    "another nonce": changed(nonce="x" * 43),
    "a nonce that is no text": changed(nonce=["x"]),
    "no nonce": without("nonce"),
    "another audience": changed(aud="another"),
    "no audience": without("aud"),
    "an audience that is no text": changed(aud={"x": 1}),
    "an issuer that is no text": changed(iss=["x"]),
    "that expires at infinity": changed(exp=float("inf")),
    "that expires at no time": changed(exp="tomorrow"),
    "several audiences, given to nobody": changed(aud=[CLIENT_ID, "another"]),
    "several audiences, given to another": changed(aud=[CLIENT_ID, "another"], azp="another"),
    "given to another": changed(azp="another"),
    "another issuer": changed(iss="http://127.0.0.1:9"),
    "no issuer": without("iss"),
    "expired": lambda claims: claims | {"exp": time.time() - 31},
    "that never expires": without("exp"),
    "issued later": lambda claims: claims | {"iat": time.time() + 90},
    "issued at no time": without("iat"),
    "not valid yet": lambda claims: claims | {"nbf": time.time() + 90},
    "of nobody": without("sub"),
    "of an empty name": changed(sub=" "),
    "of a number": changed(sub=17),
    "of an invisible name": changed(sub="a\u200bda"),
    "of a name that is too long": changed(sub="x" * 300),
}
FORGERIES = {
    each.__name__: each
    for each in (unsigned, by_secret, by_client_secret, by_another_key, of_another_type, with_other_claims)
} | {
    "no token": lambda *_: None,
    "garbage": lambda *_: "garbage",
    "a token that is too long": lambda *_: "e" * 100_000,
}


async def test_no_token_that_lies_signs_anybody_in(browser: Browser, identity: IdentityProvider) -> None:
    found, signed_in, identity.encode = {}, {}, by_hand
    for name, change in LIES.items():
        identity.change = change
        found[name] = await browser.sign_in_at(identity)
        signed_in[name] = await browser.signed_in()
    assert found == dict.fromkeys(LIES, "/#sign-in=refused")
    assert signed_in == dict.fromkeys(LIES)
    assert browser.cookies == {}


async def test_no_token_that_is_forged_signs_anybody_in(browser: Browser, identity: IdentityProvider) -> None:
    found = {}
    for name, encode in FORGERIES.items():
        identity.encode = encode  # type: ignore[assignment]
        found[name] = await browser.sign_in_at(identity)
    assert found == dict.fromkeys(FORGERIES, "/#sign-in=refused")
    assert browser.cookies == {}


async def test_a_clock_that_is_a_little_off_and_several_audiences_are_no_lie(
    browser: Browser, identity: IdentityProvider
) -> None:
    for change in (
        lambda claims: claims | {"iat": time.time() + 20, "exp": time.time() - 20},
        changed(aud=[CLIENT_ID, "another"], azp=CLIENT_ID),
        changed(aud=[CLIENT_ID]),
    ):
        identity.change = change
        assert await browser.sign_in_at(identity) == "/"
        assert await browser.signed_in() == "ada"


async def test_the_provider_may_change_its_keys(browser: Browser, identity: IdentityProvider) -> None:
    assert await browser.sign_in_at(identity) == "/"
    old, identity.key = identity.key, SigningKey()
    assert await browser.sign_in_at(identity) == "/"
    identity.encode = lambda claims, _: encode_id_token(claims, old)
    assert await browser.sign_in_at(identity) == "/#sign-in=refused", "with a key that was withdrawn"


# --- the way back


async def test_only_the_browser_that_left_comes_back_and_only_once(
    browser: Browser, identity: IdentityProvider
) -> None:
    other = Browser(browser.url)
    url = identity.authorize(dict(parse_qsl(urlsplit(await browser.to_provider()).query)))
    assert await other.back(url) == "/#sign-in=expired", "another browser, such as that of whom the link was sent to"
    await other.to_provider()
    assert await other.back(url) == "/#sign-in=expired", "it has an attempt of its own"
    assert other.cookies == {}
    assert await browser.back(url) == "/"
    assert await browser.back(url) == "/#sign-in=expired"


@pytest.mark.parametrize("change", [{"state": ""}, {"state": "x" * 43}, {"state": "\xff"}])
async def test_a_state_that_is_another_one_is_refused(
    browser: Browser, identity: IdentityProvider, change: dict[str, str]
) -> None:
    query = dict(parse_qsl(urlsplit(await browser.to_provider()).query))
    assert await browser.back(identity.authorize(query | change)) == "/#sign-in=expired"
    assert "/token" not in identity.asked


async def test_a_code_that_was_made_for_another_attempt_is_refused(
    browser: Browser, identity: IdentityProvider
) -> None:
    """PKCE: an attacker's code, put into somebody's own attempt, or the other way round."""
    attackers = dict(parse_qsl(urlsplit(await Browser(browser.url).to_provider()).query))
    own = dict(parse_qsl(urlsplit(await browser.to_provider()).query))
    back = identity.authorize(attackers | {"state": own["state"]})
    assert await browser.back(back) == "/#sign-in=refused"


async def test_another_issuers_answer_is_refused(browser: Browser, identity: IdentityProvider) -> None:
    query = dict(parse_qsl(urlsplit(await browser.to_provider()).query))
    back = identity.authorize(query).replace("iss=", "iss=x")
    assert await browser.back(back) == "/#sign-in=refused"


async def test_an_answer_without_an_issuer_is_refused_where_the_provider_always_names_itself(
    browser: Browser, identity: IdentityProvider
) -> None:
    identity.discovery = {"authorization_response_iss_parameter_supported": True}
    query = dict(parse_qsl(urlsplit(await browser.to_provider()).query))
    assert await browser.back(identity.authorize(query).partition("&iss=")[0]) == "/#sign-in=refused"
    assert await browser.sign_in_at(identity) == "/"


async def test_somebody_whom_the_provider_does_not_let_in_is_told(browser: Browser, identity: IdentityProvider) -> None:
    identity.refuse = "access_denied"
    assert await browser.sign_in_at(identity) == "/#sign-in=denied"
    identity.refuse = None
    assert await browser.sign_in_at(identity) == "/"


PLACES = [
    "//evil.example",
    "https://evil.example",
    "/\\evil.example",
    "/c/../../evil",
    "javascript:alert(1)",
    "/console",
]


@pytest.mark.parametrize("path", PLACES)
async def test_the_way_back_leads_to_the_page_only(browser: Browser, identity: IdentityProvider, path: str) -> None:
    assert await browser.sign_in_at(identity, path) == "/"
    await browser.to_provider()
    name, value = next((name, value) for name, value in browser.cookies.items() if name.endswith("attempt"))
    secret = value.partition(".")[0]
    browser.cookies[name] = f"{secret}.{urlsafe_b64encode(f'{browser.url} {path}'.encode()).decode()}"
    assert await browser.back(f"{browser.url}/sign-in/callback?state=x") == "/#sign-in=expired"


@pytest.mark.parametrize(
    "place", ["", "!", "https://x.example", "ftp://x /", "https://x.example / /", "\xff", "https:// /"]
)
def test_a_cookie_that_holds_no_attempt_is_none(place: str) -> None:
    encoded = urlsafe_b64encode(place.encode("latin-1")).decode()
    assert Attempt.from_cookie(f"{'a' * 43}.{encoded}") is None
    assert Attempt.from_cookie(f"{'a' * 42}.{urlsafe_b64encode(b'https://x.example /').decode()}") is None
    assert Attempt.from_cookie(place) is None


# --- who may


async def test_the_user_is_the_claim_that_the_settings_name(
    postgres_store: PostgresStore, identity: IdentityProvider, settings: dict[str, Any]
) -> None:
    async with open_server(postgres_store, **settings, oidc_user_claim="email") as server:
        browser = Browser(server.url)
        assert await browser.sign_in_at(identity) == "/"
        assert await browser.user() == "ada@example.org"
        for verified in (False, None, "false", 1):
            identity.user = {"sub": "eve", "email": "ada@example.org", "email_verified": verified}
            assert await Browser(server.url).sign_in_at(identity) == "/#sign-in=domain"
    async with open_server(postgres_store, **settings, oidc_user_claim="nickname") as server:
        assert await Browser(server.url).sign_in_at(identity) == "/#sign-in=refused"


async def test_only_verified_addresses_of_the_domains_sign_in(
    postgres_store: PostgresStore, identity: IdentityProvider, settings: dict[str, Any]
) -> None:
    async with open_server(postgres_store, **settings, oidc_email_domain=("Example.org",)) as server:
        assert await Browser(server.url).sign_in_at(identity) == "/"
        for email in ("ada@evil.example", "ada@sub.example.org", "ada@example.org.evil", "example.org", "", None):
            identity.user = {"sub": "ada", "email": email, "email_verified": True}
            expected = "/" if email == "example.org" else "/#sign-in=domain"
            assert await Browser(server.url).sign_in_at(identity) == expected, email
        identity.user = {"sub": "ada", "email": "ada@EXAMPLE.org", "email_verified": "true"}
        assert await Browser(server.url).sign_in_at(identity) == "/"
        identity.user = {"sub": "ada", "email": "ada@example.org", "email_verified": False}
        assert await Browser(server.url).sign_in_at(identity) == "/#sign-in=domain"


async def test_claims_that_the_id_token_lacks_come_from_the_user_info(
    postgres_store: PostgresStore, identity: IdentityProvider, settings: dict[str, Any]
) -> None:
    verified = {"email": "ada@example.org", "email_verified": True}
    async with open_server(postgres_store, **settings, oidc_user_claim="email") as server:

        async def sign_in(user: Claims, info: Claims | None) -> tuple[str, bool]:
            """Where the way back leads, and whether the user info was asked."""
            identity.user, identity.info, identity.asked = {"sub": "ada", **user}, info, []
            return await Browser(server.url).sign_in_at(identity), "/userinfo" in identity.asked

        assert await sign_in({}, verified) == ("/", True)
        assert await sign_in(verified, {"email": "eve@example.org"}) == ("/", False), "the ID token says all"
        assert await sign_in({"email": "eve@example.org"}, verified) == ("/", True)
        for info in ({}, verified | {"email_verified": False}, {"email_verified": True}, verified | {"email": 1}):
            assert await sign_in({"email": "eve@example.org"}, info) == ("/#sign-in=domain", True), info
        assert await sign_in({}, verified | {"sub": "eve"}) == ("/#sign-in=refused", True)
        identity.broken = {"/userinfo"}
        assert await sign_in({}, verified) == ("/#sign-in=away", True)
    rows = await postgres_store.select("SELECT DISTINCT user_id FROM client_secrets")
    assert [row["user_id"] for row in rows] == ["ada@example.org"]


async def test_user_info_is_asked_with_the_access_token_or_not_at_all(
    postgres_store: PostgresStore, identity: IdentityProvider, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = identity.token
    identity.info = {"nickname": "countess"}
    async with open_server(postgres_store, **settings, oidc_user_claim="nickname") as server:
        browser = Browser(server.url)
        assert await browser.sign_in_at(identity) == "/"
        assert await browser.user() == "countess"
        for token in (None, "", "two\r\nlines", "x" * 16_385, ["a"]):

            def answer(form: dict[str, str], authorization: str, token: object = token) -> tuple[int, Any]:
                status, document = given(form, authorization)
                return status, document | {"access_token": token}

            monkeypatch.setattr(identity, "token", answer)
            assert await Browser(server.url).sign_in_at(identity) == "/#sign-in=refused"
        identity.discovery = {"userinfo_endpoint": "http://evil.example/userinfo"}
    async with open_server(postgres_store, **settings, oidc_user_claim="nickname") as server:
        assert await Browser(server.url).sign_in_at(identity) == "/#sign-in=refused", "none that can be used"


# --- signing out there too


async def test_whoever_signs_out_here_is_led_to_the_provider_and_back(
    postgres_store: PostgresStore, identity: IdentityProvider, settings: dict[str, Any]
) -> None:
    identity.signs_out = True
    async with open_server(postgres_store, **settings) as server:
        browser = Browser(server.url)
        await browser.sign_in_at(identity)
        [line] = [each for each in browser.set_cookies if each.startswith("lastcall-id-token=")]
        assert {"HttpOnly", "SameSite=strict", "Path=/sign-in", "Max-Age=604800"} <= set(line.split("; "))
        answer = await browser.ask("DELETE", "/sign-in")
        assert browser.cookies == {}
        url = urlsplit(answer.json()["url"])
        query = dict(parse_qsl(url.query))
        assert f"{url.scheme}://{url.netloc}{url.path}" == f"{identity.url}/end"
        assert query["post_logout_redirect_uri"] == f"{server.url}/sign-in/out"
        assert (query["tenant"], query["client_id"], len(query["state"]) > 20) == ("1", CLIENT_ID, True)
        assert await browser.back(identity.end_session(query)) == "/"
        assert await browser.signed_in() is None
        assert (await browser.ask("DELETE", "/sign-in")).json()["url"] is None, "nobody was signed in"


async def test_a_token_that_no_cookie_holds_signs_out_without_a_hint(
    postgres_store: PostgresStore, identity: IdentityProvider, settings: dict[str, Any]
) -> None:
    identity.signs_out, identity.user = True, {"sub": "ada", "groups": "x" * 4_000}
    async with open_server(postgres_store, **settings) as server:
        browser = Browser(server.url)
        assert await browser.sign_in_at(identity) == "/"
        assert all(len(line) < 4_096 for line in browser.set_cookies)
        query = dict(parse_qsl(urlsplit((await browser.ask("DELETE", "/sign-in")).json()["url"]).query))
        assert "id_token_hint" not in query
        assert query["client_id"] == CLIENT_ID


async def test_one_signs_out_here_though_the_provider_is_away(
    postgres_store: PostgresStore, identity: IdentityProvider, settings: dict[str, Any]
) -> None:
    identity.signs_out = True
    async with open_server(postgres_store, **settings) as server:
        browser = Browser(server.url)
        await browser.sign_in_at(identity)
    async with open_server(postgres_store, **settings) as server:  # which has not asked the provider yet
        browser.url, before = server.url, dict(browser.cookies)
        identity.broken = {"/.well-known/openid-configuration"}
        answer = await browser.ask("DELETE", "/sign-in")
        assert (answer.status_code, answer.json()["url"], browser.cookies) == (200, None, {})
        browser.cookies = before
        assert await browser.signed_in() is None


async def test_whoever_came_by_a_link_stays_signed_in_at_the_provider(
    postgres_store: PostgresStore, identity: IdentityProvider, settings: dict[str, Any]
) -> None:
    identity.signs_out = True
    async with open_server(postgres_store, **settings) as server:
        browser = Browser(server.url)
        await browser.sign_in_at(identity)
        made = await key_admin.create_link(postgres_store, "bob", 60.0, OPERATOR)
        assert (await browser.ask("POST", "/sign-in", json={"secret": made.secret})).json()["user"] == "bob"
        assert (await browser.ask("DELETE", "/sign-in")).json()["url"] is None


async def test_without_the_provider_its_cookies_are_worth_nothing(
    postgres_store: PostgresStore, identity: IdentityProvider, settings: dict[str, Any]
) -> None:
    async with open_server(postgres_store, **settings) as server:
        browser = Browser(server.url)
        await browser.sign_in_at(identity)
    async with open_server(postgres_store) as server:
        browser.url = server.url
        assert await browser.signed_in() is None
        answer = await browser.ask("POST", "/sign-in/provider", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


# --- a provider in trouble


@pytest.mark.parametrize(
    "lie",
    [
        {"issuer": "http://127.0.0.1:9"},
        {"token_endpoint": "http://id.example/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": None},
    ],
)
async def test_a_discovery_document_that_cannot_be_believed_signs_nobody_in(
    browser: Browser, identity: IdentityProvider, lie: dict[str, object]
) -> None:
    identity.discovery = lie
    answer = await browser.ask("POST", "/sign-in/provider", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "provider_unavailable")
    assert browser.cookies == {}
    identity.discovery = {}
    assert await browser.sign_in_at(identity) == "/"


async def test_a_provider_that_fails_stops_neither_the_server_nor_those_who_are_signed_in(
    browser: Browser, identity: IdentityProvider
) -> None:
    identity.broken = {"/.well-known/openid-configuration"}
    assert (await browser.ask("POST", "/sign-in/provider", json={})).status_code == 503
    assert (await browser.ask("GET", "/readyz")).status_code == 200
    identity.broken = {"/keys"}
    assert await browser.sign_in_at(identity) == "/#sign-in=away"
    identity.broken = {"/token"}
    assert await browser.sign_in_at(identity) == "/#sign-in=away"
    identity.broken = set()
    assert await browser.sign_in_at(identity) == "/"
    identity.broken = {"/.well-known/openid-configuration", "/keys", "/token"}
    assert await browser.user() == "ada"


async def test_what_a_provider_says_of_itself_is_asked_once(browser: Browser, identity: IdentityProvider) -> None:
    for _ in range(3):
        assert await browser.sign_in_at(identity) == "/"
    assert identity.asked.count("/.well-known/openid-configuration") == 1


async def test_a_document_without_end_is_not_read(browser: Browser, identity: IdentityProvider) -> None:
    identity.discovery = {"more": "x" * 300_000}
    assert (await browser.ask("POST", "/sign-in/provider", json={})).status_code == 503


async def test_the_secret_goes_into_the_form_where_the_provider_wants_it(
    browser: Browser, identity: IdentityProvider
) -> None:
    identity.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert await browser.sign_in_at(identity) == "/"


async def test_no_log_line_has_a_secret(browser: Browser, identity: IdentityProvider) -> None:
    logs.configure(json_logs=False, level="warning")
    identity.change = changed(nonce="x")
    back = identity.authorize(dict(parse_qsl(urlsplit(await browser.to_provider()).query)))
    with capture_logs() as lines:
        assert await browser.back(back) == "/#sign-in=refused"
    assert "nonce" in str(lines)
    for secret in (dict(parse_qsl(urlsplit(back).query))["code"], CLIENT_SECRET, "eyJ"):
        assert secret not in str(lines)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"oidc_client_id": None}, "--oidc-client-id"),
        ({"oidc_issuer": "http://id.example"}, "--oidc-issuer"),
        ({"oidc_issuer": "https://id.example?x=1"}, "--oidc-issuer"),
        ({"oidc_issuer": "id.example"}, "--oidc-issuer"),
        ({"oidc_scopes": "email"}, "--oidc-scopes"),
    ],
)
def test_settings_that_cannot_work_are_told_at_the_start(changes: dict[str, object], flag: str) -> None:
    given: dict[str, object] = {"oidc_issuer": "https://id.example", "oidc_client_id": "x", **changes}
    with pytest.raises(BadSettings, match=flag):
        provider.IdentityProvider(Settings(**given))  # type: ignore[arg-type]


async def test_people_of_a_provider_have_quotas_of_their_own(
    postgres_store: PostgresStore, identity: IdentityProvider, settings: dict[str, Any]
) -> None:
    async with open_server(postgres_store, **settings, key_connections_max=1) as server:
        browser, other = Browser(server.url), Browser(server.url)
        await browser.sign_in_at(identity)
        identity.user = {"sub": "eve"}
        await other.sign_in_at(identity)
        async with browser.socket() as ws:
            await ws.get_message()
            assert await browser.user() == 429
            assert await other.user() == "eve"


async def test_with_a_provider_a_server_without_keys_is_not_open_to_its_machine(browser: Browser) -> None:
    assert (await browser.ask("GET", "/v1/memories")).status_code == 401
    assert (await browser.ask("GET", "/metrics")).status_code == 401
