"""Redaction: no secret that the server makes or accepts gets into a log."""

from __future__ import annotations

import time
from collections.abc import Callable

import jwt
import pytest
from lastcall import secret_prefixes
from lastcall.auth.secret import new_client_secret, new_key
from lastcall.logs import cut, printable, redact
from lastcall.logs.redaction import TRACEBACK_CHARS_MAX, VALUE_CHARS_MAX
from lastcall.webhooks.signing import secret_text

TOKEN = jwt.encode({"sub": "ada"}, "x" * 32, algorithm="HS256")
SECRETS = {
    secret_prefixes.KEY: new_key().value,
    secret_prefixes.CLIENT_SECRET: new_client_secret().value,
    secret_prefixes.WEBHOOK_SECRET: secret_text(b"\xfb\xff" * 16),
    secret_prefixes.TOKEN: TOKEN,
    secret_prefixes.KEY_SUBPROTOCOL: f"{secret_prefixes.KEY_SUBPROTOCOL}any-other-key",
    secret_prefixes.API_KEY: f"{secret_prefixes.API_KEY}=any-other-key",
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


@pytest.mark.parametrize("text", ["?api-key={}&user=ada", "Api-Key: {}", "{{'api-key': '{}'}}", "(b'api-key', b'{}')"])
@pytest.mark.parametrize("prefix", [*SECRETS, "none of ours"])
def test_a_key_is_redacted_wherever_clients_of_azure_put_it(prefix: str, text: str) -> None:
    secret = SECRETS.get(prefix, "any-other-word")
    assert secret not in redact(text.format(secret))


def test_passwords_of_urls_are_redacted() -> None:
    assert redact("at postgresql://u:p@ss@h/db now") == "at postgresql://u:***@h/db now"
    assert redact("postgresql:///db?user=u&password=p%20q") == "postgresql:///db?user=u&password=***"


# --- linear time ------------------------------------------------------------------------------------------------------

SMALL_CHARS, FACTOR = 5_000, 8
SHAPES = (
    "A",
    "a.",
    "-",
    "eyJaaaaaaaa-",
    "eyJaaaaaaaa.",
    "eyJaaaaaaaa.a.a ",
    "eyJeyJ",
    "sk-",
    "sk-abcdef-",
    "ek_",
    "a://x:",
    "a://x:@",
    "://",
    ":@",
    "@",
    "?password=",
    "&",
    "openai-insecure-api-key.",
    "openai-insecure-api-key.sk-",
    "api-key=",
    "api-key: sk-",
    "\x1b[",
    " ",
    "\u202e",
    "\U0001f4a5",
)


@pytest.mark.parametrize("end", ["", "@", ".x.y"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_time_of_every_pattern_grows_with_the_text(shape: str, end: str) -> None:
    """A quadratic one would take 64 times as long for a text of eight times the length."""
    for function in (redact, printable, cut):
        small, large = (shape * (chars // len(shape)) + end for chars in (SMALL_CHARS, SMALL_CHARS * FACTOR))
        ratio = best_seconds(function, large) / (best_seconds(function, small) + 1e-4)
        assert ratio < 3 * FACTOR, function.__name__


def best_seconds(function: Callable[[str], str], text: str) -> float:
    """Of three runs, in CPU time of this thread."""

    def once() -> float:
        began = time.thread_time()
        function(text)
        return time.thread_time() - began

    return min(once() for _ in range(3))


# --- cutting ----------------------------------------------------------------------------------------------------------


def test_a_text_within_the_limit_stays_as_it_is() -> None:
    text = "word " * (VALUE_CHARS_MAX // 5)
    assert cut(text) == text


def test_a_cut_text_keeps_both_ends_and_says_what_is_missing() -> None:
    text = " ".join(str(number) for number in range(5_000))
    shown = cut(text)
    assert len(shown) <= VALUE_CHARS_MAX + 50
    assert shown.startswith("0 1 2 ")
    assert shown.endswith(" 4998 4999")
    before, _, after = shown.partition(" [")
    missing, _, after = after.partition(" characters cut] ")
    assert len(before) + int(missing) + len(after) == len(text)
    assert before + text[len(before) : len(before) + int(missing)] + after == text


def test_one_endless_word_is_cut_as_a_whole() -> None:
    assert cut("error: " + "A" * 300_000) == "error: [300001 characters cut]"


@pytest.mark.parametrize("prefix", SECRETS)
@pytest.mark.parametrize("chars_max", [VALUE_CHARS_MAX, TRACEBACK_CHARS_MAX])
def test_no_part_of_a_secret_survives_a_cut_wherever_it_falls(prefix: str, chars_max: int) -> None:
    secret = SECRETS[prefix]
    rest = secret.removeprefix(prefix)[secret_prefixes.KEY_SHOWN_CHARS - len(secret_prefixes.KEY) :]
    parts = [rest[at : at + 6] for at in range(0, len(rest) - 6, 3)]
    for edge in (chars_max * 3 // 4, 3 * chars_max - chars_max // 4):
        for offset in range(-len(secret) - 2, 3, 7):
            text = ("x " * 2 * chars_max)[: edge + offset] + f" {secret} "
            text += "y " * ((3 * chars_max - len(text)) // 2)
            shown = redact(cut(text, chars_max))
            assert not [part for part in parts if part in shown], (edge, offset)


def test_a_password_that_the_cut_divides_is_cut_too() -> None:
    for offset in range(-40, 3):
        text = "x " * 1_500
        text = text[: VALUE_CHARS_MAX * 3 // 4 + offset] + " postgresql://u:correct-horse@h/db " + "y " * 3_000
        assert "horse" not in redact(cut(text))
