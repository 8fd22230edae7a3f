"""Asks the provider for documents in JSON, within bounds."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import trio

from ..origins import is_loopback
from .failures import SignInFailed

ANSWER_SECONDS = 5.0  # from the request to the last byte of the answer
DOCUMENT_BYTES_MAX = 262_144


class Documents:
    """Asks over HTTP. Redirects are not followed: no endpoint of a provider moves in the middle of a sign-in."""

    def __init__(self) -> None:
        self._tls: ssl.SSLContext | None = None

    async def get(self, url: str, token: str | None = None) -> Any:
        """The document at a URL. token: by which it is asked for. Raises `SignInFailed`."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        status, document = await self._ask("GET", url, headers=headers)
        if status != httpx2.codes.OK:
            raise SignInFailed("away", f"{url} was answered with HTTP {status}")
        return document

    async def post(
        self, url: str, form: Mapping[str, str], credentials: tuple[str, str] | None = None
    ) -> tuple[int, Any]:
        """The status and the document that answer a form. credentials: for HTTP Basic. Raises `SignInFailed`."""
        auth = httpx2.BasicAuth(*credentials) if credentials else None
        return await self._ask("POST", url, data=dict(form), auth=auth)

    async def _ask(self, method: str, url: str, **rest: Any) -> tuple[int, Any]:
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                return await self._answer(method, url, **rest)
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                raise SignInFailed("away", f"{url}: {error!r}") from error
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                raise SignInFailed("away", f"{url} was not answered with JSON") from error
        raise SignInFailed("away", f"{url} was not answered within {ANSWER_SECONDS:g} s")

    async def _answer(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, **rest: Any
    ) -> tuple[int, Any]:
        if self._tls is None:  # it reads all authorities, which takes tens of milliseconds
            self._tls = await trio.to_thread.run_sync(httpx2.create_ssl_context, abandon_on_cancel=True)
        is_near = is_loopback(urlsplit(url).hostname or "")  # a proxy would connect to its own loopback
        sent = {"accept": "application/json", "accept-encoding": "identity", **(headers or {})}
        async with (
            httpx2.AsyncClient(verify=self._tls, timeout=ANSWER_SECONDS, trust_env=not is_near) as client,
            client.stream(method, url, headers=sent, **rest) as response,
        ):
            body = bytearray()
            async for piece in response.aiter_raw():
                if len(body) <= DOCUMENT_BYTES_MAX:  # no break: the library leaves its generators open then
                    body += piece
            if len(body) > DOCUMENT_BYTES_MAX:
                raise SignInFailed("away", f"{url} was answered with more than {DOCUMENT_BYTES_MAX} bytes")
            return response.status_code, msgspec.json.decode(bytes(body))
