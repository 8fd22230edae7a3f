"""Redaction: no secret that the server makes or accepts gets into a log."""

from __future__ import annotations

import jwt
import pytest
from lastcall import secret_prefixes
from lastcall.auth.secret import new_client_secret, new_key
from lastcall.logs import redact

TOKEN = jwt.encode({"sub": "ada"}, "x" * 32, algorithm="HS256")
SECRETS = {
    secret_prefixes.KEY: new_key().value,
    secret_prefixes.CLIENT_SECRET: new_client_secret().value,
    secret_prefixes.TOKEN: TOKEN,
    secret_prefixes.KEY_SUBPROTOCOL: f"{secret_prefixes.KEY_SUBPROTOCOL}any-other-key",
}
PRESENTED = (
    "{}",
    "Authorization: Bearer {}",
    "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{}, openai-agents-sdk.0.20.0",
    '{{"key": "{}"}}',
    "[b'{}']",
    "https://chat.example/?key={}&user=ada",
)


def test_every_prefix_of_the_table_has_a_secret_here() -> None:
    assert set(SECRETS) == {
        value for name, value in vars(secret_prefixes).items() if name.isupper() and type(value) is str
    }


@pytest.mark.parametrize("text", PRESENTED)
@pytest.mark.parametrize("prefix", SECRETS)
def test_every_kind_of_secret_is_redacted_wherever_it_is_presented(prefix: str, text: str) -> None:
    secret = SECRETS[prefix]
    shown = redact(text.format(secret))
    assert "***" in shown
    assert secret not in shown
    rest = secret.removeprefix(prefix)[secret_prefixes.KEY_SHOWN_CHARS - len(secret_prefixes.KEY) :]
    assert rest not in shown
    assert shown.count("realtime") == text.count("realtime"), "and no more than the secret"


def test_passwords_of_urls_are_redacted() -> None:
    assert redact("at postgresql://u:p@ss@h/db now") == "at postgresql://u:***@h/db now"
    assert redact("postgresql:///db?user=u&password=p%20q") == "postgresql:///db?user=u&password=***"
