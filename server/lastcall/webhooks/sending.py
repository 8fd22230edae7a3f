"""One try at one delivery: an HTTP request, bounded in time, and in what is read of its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
import trio

from .. import __version__
from ..logs import printable, redact
from ..protocol.ids import public_id
from ..store.webhooks.outbox import ENDPOINTS_MAX, ClaimedDelivery
from .signing import signed_headers

SEND_SECONDS = 10.0  # for one try, up to the head of the answer
BODY_SECONDS = 1.0  # for the rest of the answer, which nobody needs: only so that the connection can be used again
BODY_BYTES_MAX = 16_384
LENGTH_DIGITS_MAX = 9
IDLE_SECONDS = 30.0  # that a connection is kept for the next delivery
ENDPOINT_SENDS_MAX = 4  # at once, from one server
ERROR_CHARS_MAX = 300

_OWN_HOSTS = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class TryOutcome:
    """What came of a try. status: of the answer; None: there was none. error: None where it was accepted."""

    status: int | None
    error: str | None


@asynccontextmanager
async def open_client() -> AsyncIterator[httpx2.AsyncClient]:
    """The HTTP client of all deliveries. Follows no redirects and keeps no cookies; proxies are the environment's."""
    context = await trio.to_thread.run_sync(httpx2.create_ssl_context)  # reading all authorities takes tens of ms
    sends = ENDPOINT_SENDS_MAX * ENDPOINTS_MAX
    async with httpx2.AsyncClient(
        verify=context,
        timeout=SEND_SECONDS,
        limits=httpx2.Limits(max_connections=sends, max_keepalive_connections=sends, keepalive_expiry=IDLE_SECONDS),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        mounts={f"all://{host}": None for host in _OWN_HOSTS},  # a proxy would connect to its own loopback
        headers={
            "user-agent": f"lastcall/{__version__}",
            "content-type": "application/json",
            "accept-encoding": "identity",
        },
    ) as client:
        yield client


async def send(client: httpx2.AsyncClient, delivery: ClaimedDelivery) -> TryOutcome:
    """Sends a delivery once. Raises nothing but cancellation."""
    body = delivery.body.encode()
    headers = signed_headers(delivery.secret, public_id("msg", delivery.event_id), int(delivery.claimed_at), body)
    outcome: TryOutcome | None = None
    try:
        with trio.fail_after(SEND_SECONDS) as limit:
            async with client.stream("POST", delivery.url, content=body, headers=headers) as response:
                outcome = _outcome(response.status_code)  # whatever becomes of the rest of the answer
                limit.deadline = trio.current_time() + BODY_SECONDS
                await _skip_body(response)
    except (trio.TooSlowError, httpx2.TimeoutException):
        outcome = outcome or TryOutcome(None, f"no answer within {SEND_SECONDS:g} s")
    except Exception as error:  # noqa: BLE001 - whatever an endpoint's answer or address does, it is that endpoint's
        outcome = outcome or TryOutcome(None, _error_text(error))
    return outcome


async def _skip_body(response: httpx2.Response) -> None:
    """Reads the rest of a short answer. Any other is left, and its connection closed."""
    length = response.headers.get("content-length", "")
    is_short = length.isascii() and length.isdecimal() and len(length) <= LENGTH_DIGITS_MAX
    if is_short and int(length) <= BODY_BYTES_MAX and "content-encoding" not in response.headers:
        await response.aread()


def _outcome(status: int) -> TryOutcome:
    if 200 <= status < 300:
        return TryOutcome(status, None)
    return TryOutcome(status, f"HTTP {status}" + (", and redirects are not followed" if 300 <= status < 400 else ""))


def _error_text(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return printable(redact(text))[:ERROR_CHARS_MAX]
