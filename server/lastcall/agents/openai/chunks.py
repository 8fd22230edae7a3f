"""Reads the body of a chat completion: a stream of server-sent events, or one JSON document in its place."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, cast

import httpx2
import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

WHOLE_BYTES_MAX = 8_388_608  # of an answer that comes as one document
SSE = "text/event-stream"

DONE: Final = object()
"""Comes last where the endpoint says that the answer is complete."""


class StreamRefused(Exception):
    """The endpoint sent an error in place of a chunk.

    code: as it names it, or empty. status: the HTTP status that it gives for it, or 0.
    """

    def __init__(self, error: Any) -> None:
        super().__init__("the endpoint sent an error")
        details = error if isinstance(error, dict) else {}
        self.code = next((each for key in ("code", "type") if isinstance(each := details.get(key), str)), "")
        self.wording = str(error)
        self.status = next((each for key in ("code", "status") if (each := _status(details.get(key)))), 0)


async def chunks_of(response: httpx2.Response) -> AsyncGenerator[Any, None]:
    """The chunks, each a decoded JSON value, and `DONE`. The first one is read already.

    Raises `StreamRefused` where that is an error: nothing of the answer is lost yet.
    """
    chunks = _chunks(response)
    try:
        first = await anext(chunks, None)
    except BaseException:
        await chunks.aclose()
        raise
    return _with_first(first, chunks)


async def _with_first(first: Any, chunks: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    async with aclosing(chunks):
        if first is not None:
            yield first
        async for chunk in chunks:
            yield chunk


async def _chunks(response: httpx2.Response) -> AsyncGenerator[Any, None]:
    if "json" in response.headers.get("content-type", ""):
        yield chunk_in(await whole(response))
        yield DONE
        return
    response.headers["content-type"] = SSE  # some endpoints name another type, or none
    events = cast("AsyncGenerator[httpx2.ServerSentEvent, None]", aiter(httpx2.EventSource(response)))
    async with aclosing(events):
        async for event in events:
            data = event.data.strip()
            if data == "[DONE]":
                yield DONE
                return
            if data.startswith("{"):  # anything else is to keep the connection alive
                yield chunk_in(data)


async def whole(response: httpx2.Response) -> bytes:
    """The body of an answer that is no stream. Raises `ValueError` where it is too long."""
    data = bytearray()
    async for part in response.aiter_bytes():
        data += part
        if len(data) > WHOLE_BYTES_MAX:
            raise ValueError("the endpoint's answer is too long")
    return bytes(data)


def _status(value: Any) -> int:
    """An HTTP status that says that something failed, or 0."""
    status = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0
    return status if 400 <= status <= 599 else 0


def chunk_in(data: str | bytes) -> Any:
    """One decoded chunk. Raises `StreamRefused` where it is an error, and `ValueError` where it is no JSON."""
    chunk = msgspec.json.decode(data)
    if isinstance(chunk, dict) and chunk.get("error"):
        raise StreamRefused(chunk["error"])
    return chunk
