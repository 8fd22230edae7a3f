"""A small OpenID provider on a real socket, with real keys; it can be told to lie."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.support.threads import in_a_thread

CLIENT_ID, CLIENT_SECRET = "lastcall-test", "what only the client knows: +/%&"
LIFETIME_SECONDS = 300

Claims = dict[str, Any]


def encode_id_token(claims: Claims, key: SigningKey) -> str:
    return jwt.encode(claims, key.private, algorithm="RS256", headers={"kid": key.key_id})


class SigningKey:
    """A key pair under an id of its own."""

    def __init__(self) -> None:
        self.key_id = secrets.token_hex(4)
        self.private = rsa.generate_private_key(public_exponent=65_537, key_size=2048)

    @property
    def public(self) -> dict[str, Any]:
        return {**RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True), "kid": self.key_id, "use": "sig"}


@dataclass
class IdentityProvider:
    """The provider. What a test changes, the next request sees.

    url: its issuer. user: who is signed in there. info: what only the user info says of them, besides `sub`; None: it
    has none. signs_out: whether it offers that. signed_out: the requests for it.
    change: applied to the claims of a token before it is signed. encode: signs them.
    discovery: overrides members of that document. refuse: the error with which it sends browsers
    back. broken: paths that are answered with HTTP 500. asked: the paths of all requests.
    """

    url: str
    user: Claims = field(default_factory=lambda: {"sub": "ada", "email": "ada@example.org", "email_verified": True})
    info: Claims | None = None
    signs_out: bool = False
    signed_out: list[dict[str, str]] = field(default_factory=list)
    key: SigningKey = field(default_factory=SigningKey)
    change: Callable[[Claims], Claims] = lambda claims: claims
    encode: Callable[[Claims, SigningKey], str] = encode_id_token
    discovery: dict[str, Any] = field(default_factory=dict)
    refuse: str | None = None
    broken: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    grants: dict[str, dict[str, str]] = field(default_factory=dict)
    access_token: str = ""

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser is sent back to."""
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        answer = {"state": query["state"]}
        if self.refuse:
            answer |= {"error": self.refuse, "error_description": "as the test wants it"}
        else:
            code = secrets.token_urlsafe(16)
            self.grants[code] = query
            answer |= {"code": code, "iss": self.url}
        return f"{query['redirect_uri']}?{urlencode(answer)}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        """The answer of the token endpoint: a code is good once, for the client that can prove that it asked for it."""
        grant = self.grants.pop(form.get("code", ""), None)
        if not self._is_client(form, authorization):
            return 401, {"error": "invalid_client"}
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
        if grant is None or grant["redirect_uri"] != form.get("redirect_uri") or grant["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + LIFETIME_SECONDS, "nonce": grant["nonce"]}
        token = self.encode(self.change(claims | self.user), self.key)
        self.access_token = secrets.token_urlsafe(16)
        return 200, {"access_token": self.access_token, "token_type": "Bearer", "id_token": token}

    def user_info(self, authorization: str) -> tuple[int, Any]:
        if self.info is None or authorization != f"Bearer {self.access_token}":
            return 401, {"error": "invalid_token"}
        return 200, {"sub": self.user["sub"], **self.info}

    def end_session(self, query: dict[str, str]) -> str:
        """Where the browser is sent back to. Of a token that was given to this client, also an expired one counts."""
        jwt.decode(
            query["id_token_hint"], self.key.private.public_key(), ["RS256"], audience=query["client_id"],
            issuer=self.url, options={"verify_exp": False},
        )  # fmt: skip
        self.signed_out.append(query)
        return f"{query['post_logout_redirect_uri']}?{urlencode({'state': query['state']})}"

    def _is_client(self, form: dict[str, str], authorization: str) -> bool:
        if authorization:
            given = base64.b64decode(authorization.removeprefix("Basic ")).decode().split(":")
        else:
            given = [form.get("client_id", ""), form.get("client_secret", "")]
        return [unquote(each) for each in given] == [CLIENT_ID, CLIENT_SECRET]

    def document(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            **({"userinfo_endpoint": f"{self.url}/userinfo"} if self.info is not None else {}),
            **({"end_session_endpoint": f"{self.url}/end?tenant=1"} if self.signs_out else {}),
            **self.discovery,
        }

    def get(self, path: str, query: dict[str, str], authorization: str) -> tuple[int, Any]:
        """A status, and a document or the text of a page."""
        if path == "/.well-known/openid-configuration":
            return 200, self.document()
        if path == "/keys":
            return 200, {"keys": [self.key.public]}
        if path == "/authorize":
            back = self.authorize(query).replace("&", "&amp;")
            return 200, f'<!doctype html><title>Provider</title><a href="{back}">Continue as {self.user["sub"]}</a>'
        if path == "/userinfo":
            return self.user_info(authorization)
        if path == "/end":
            back = self.end_session(query).replace("&", "&amp;")
            return 200, f'<!doctype html><title>Provider</title><a href="{back}">Signed out; back</a>'
        return 404, {}


@contextmanager
def open_identity_provider() -> Iterator[IdentityProvider]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    provider = IdentityProvider(f"http://127.0.0.1:{server.server_port}")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._answer(parts.path, lambda: provider.get(parts.path, _flat(parts.query), self._authorization))

        def do_POST(self) -> None:
            form = _flat(self.rfile.read(int(self.headers["content-length"])).decode())
            self._answer(self.path, lambda: provider.token(form, self._authorization))

        @property
        def _authorization(self) -> str:
            return self.headers.get("authorization", "")

        def _answer(self, path: str, answer: Callable[[], tuple[int, Any]]) -> None:
            provider.asked.append(path)
            status, content = (500, {}) if path in provider.broken else answer()
            is_page = isinstance(content, str)
            body = (str(content) if is_page else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("content-type", "text/html" if is_page else "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server.RequestHandlerClass = Handler
    with in_a_thread(server):
        yield provider


def _flat(text: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}
