"""Asks a server that runs on the port of the settings whether it is ready."""

from __future__ import annotations

import ipaddress

import httpx2
import msgspec

from ..config import Settings
from ..runtime.check import Check, fail, ok

READYZ = "readyz"
ANSWER_SECONDS = 10.0  # above what a proof of a commit may take
ANSWER_BYTES_MAX = 65_536


class _ReadyzAnswer(msgspec.Struct):
    status: str
    reason: str | None = None


async def check_running(settings: Settings) -> Check:
    """A port where nobody listens is no failure: the server may be about to start."""
    url = f"{'http' if settings.tls_cert is None else 'https'}://{_reachable(settings.host)}:{settings.port}/readyz"
    if settings.port == 0:
        return ok(READYZ, "port 0 is a free one: a running server cannot be found")
    try:
        # Not verified: the certificate is for the name that clients use, and the checks before looked at it.
        async with (
            httpx2.AsyncClient(verify=False, trust_env=False, timeout=ANSWER_SECONDS) as client,
            client.stream("GET", url) as response,
        ):
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    break
    except httpx2.ConnectError:
        return ok(READYZ, f"no server runs at {url}")
    except httpx2.HTTPError as error:
        return _not_ours(url, type(error).__name__)
    try:
        answer = msgspec.json.decode(body, type=_ReadyzAnswer)
    except msgspec.MsgspecError:
        return _not_ours(url, f"status {response.status_code}")
    if answer.status == "ready":
        return ok(READYZ, f"{url} says ready")
    mend = "mend what it names; the other checks and the server's log say more"
    return fail(READYZ, f"{url} says {answer.reason or answer.status}", mend)


def _not_ours(url: str, answer: str) -> Check:
    mend = "end that program or choose another --port; for a server with TLS, pass its --tls-cert and --tls-key"
    return fail(READYZ, f"something else answers at {url} ({answer})", mend)


def _reachable(host: str) -> str:
    """An address of this machine for a server that listens on all of them, as a part of a URL."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"[{address}]" if address.version == 6 else str(address)
