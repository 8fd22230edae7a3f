"""Signatures are those of Standard Webhooks."""

from __future__ import annotations

import base64

import pytest
from lastcall.webhooks.signing import SECRET_BYTES, new_secret, secret_text, signed_headers

from tests.support.webhook_receiver import VERIFIER

NOON = 1_614_265_330
FOR_EVER = 10**10  # seconds of tolerance
BODY = b'{"test": 2432232314}'


def test_the_example_of_the_specification_is_signed_as_there() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert signed_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", NOON, BODY) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": str(NOON),
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_new_secret_is_one_that_receivers_take() -> None:
    secret = new_secret()
    assert len(secret) == SECRET_BYTES
    headers = signed_headers(secret, "msg_1", NOON, BODY)
    VERIFIER.verify_signature(BODY, headers, secret=secret_text(secret), tolerance=FOR_EVER)


@pytest.mark.parametrize(
    ("body", "message_id", "timestamp"),
    [(b"{}", "msg_1", NOON), (BODY, "msg_2", NOON), (BODY, "msg_1", NOON + 1)],
)
def test_whatever_is_changed_breaks_the_signature(body: bytes, message_id: str, timestamp: int) -> None:
    secret = new_secret()
    changed = signed_headers(secret, "msg_1", NOON, BODY) | {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
    }
    with pytest.raises(ValueError, match="signature"):
        VERIFIER.verify_signature(body, changed, secret=secret_text(secret), tolerance=FOR_EVER)
