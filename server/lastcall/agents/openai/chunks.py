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
    """The endpoint sent an error in place of a chunk. code: as it names it, or empty."""

    def __init__(self, error: Any) -> None:
        super().__init__("the endpoint sent an error")
        details = error if isinstance(error, dict) else {}
        self.code = next((each for key in ("code", "type") if isinstance(each := details.get(key), str)), "")
        self.wording = str(error)


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
        yield _chunk(await _whole(response))
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
                yield _chunk(data)


async def _whole(response: httpx2.Response) -> bytes:
    data = bytearray()
    async for part in response.aiter_bytes():
        data += part
        if len(data) > WHOLE_BYTES_MAX:
            raise ValueError("the endpoint's answer is too long")
    return bytes(data)


def _chunk(data: str | bytes) -> Any:
    chunk = msgspec.json.decode(data)
    if isinstance(chunk, dict) and chunk.get("error"):
        raise StreamRefused(chunk["error"])
    return chunk
