"""Reads the body of a chat completion: a stream of server-sent events, or one JSON document in its place."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, cast

import httpx2
import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

WHOLE_BYTES_MAX = 8_388_608  # of an answer that comes as one document
SSE = "text/event-stream"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_ERROR_KEYS = frozenset({"detail", "errors", "error_code", "error_msg", "error_message"})  # where no choices are
_log = structlog.get_logger(__name__)

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
    """What the body is, its beginning says: endpoints name any type for it, or none."""
    async with aclosing(response.aiter_bytes()) as body:
        head = b""
        async for part in body:
            head = beginning_of(head + part)
            if head and not _BYTE_ORDER_MARK.startswith(head):  # which may come in pieces
                break
        if head.startswith((b"{", b"[")):
            for chunk in chunks_in(await _read(body, head)):
                yield chunk
            yield DONE
            return
        async with aclosing(_streamed(_following(head, body), response.request)) as chunks:
            async for chunk in chunks:
                yield chunk


async def _streamed(body: AsyncGenerator[bytes, None], request: httpx2.Request) -> AsyncGenerator[Any, None]:
    """The chunks in a stream of events, up to `DONE`."""
    stream = httpx2.Response(200, headers={"content-type": SSE}, content=body, request=request)
    events = cast("AsyncGenerator[httpx2.ServerSentEvent, None]", aiter(httpx2.EventSource(stream)))
    async with aclosing(body), aclosing(events):
        async for event in events:
            for chunk in _chunks_of_event(event):
                yield chunk
                if chunk is DONE:
                    return


async def _following(head: bytes, body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    yield head
    async for part in body:
        yield part
    yield b"\n\n"  # some endpoints do not end their last event


def _chunks_of_event(event: httpx2.ServerSentEvent) -> Iterator[Any]:
    """The chunks of one event. Some endpoints end events by one newline, which makes lines of one event of them."""
    data = event.data.strip()
    if event.event == "error" and data:
        raise StreamRefused(_error_in(data))
    try:
        yield from _chunks_of_data(data)
    except ValueError:
        for line in data.splitlines():
            yield from chunks_of_line(line.strip())


def chunks_of_line(data: str) -> Iterator[Any]:
    """The chunk in one line's data, or `DONE`. One that was torn costs no others."""
    try:
        yield from _chunks_of_data(data)
    except ValueError:
        _log.warning("unreadable_chunk_skipped")


def _error_in(data: str) -> Any:
    try:
        error = _decoded(data)
    except ValueError:
        return data
    return error.get("error") or error if isinstance(error, dict) else error


def _chunks_of_data(data: str) -> Iterator[Any]:
    """The chunk in the data of an event, or `DONE`; anything else is to keep the connection alive."""
    if data.strip('"').upper() == "[DONE]":
        yield DONE
    elif data.startswith("{"):
        yield _checked(_decoded(data))


def beginning_of(body: bytes) -> bytes:
    """The body without what may stand before the first byte that says what it is."""
    return body.removeprefix(_BYTE_ORDER_MARK).lstrip()


def chunks_in(body: bytes) -> list[Any]:
    """The chunks of a body that is no stream of events: one, a list of them, or one a line.

    Raises `StreamRefused` where an error or no answer stands there, and `ValueError` where it is no JSON.
    """
    try:
        decoded = _decoded(body)
    except ValueError:
        lines = body.splitlines()
        if len(lines) < 2:
            raise
        decoded = [_decoded(line) for line in lines if line.strip()]
    chunks = [_checked(chunk) for chunk in (decoded if isinstance(decoded, list) else [decoded])]
    if not any(isinstance(chunk, dict) and chunk.get("choices") for chunk in chunks):
        raise StreamRefused(decoded)
    return chunks


async def whole(response: httpx2.Response) -> bytes:
    """The body of an answer that is no stream. Raises `ValueError` where it is too long."""
    return await _read(response.aiter_bytes())


async def _read(body: AsyncIterator[bytes], head: bytes = b"") -> bytes:
    data = bytearray(head)
    async for part in body:
        data += part
        if len(data) > WHOLE_BYTES_MAX:
            raise ValueError("the endpoint's answer is too long")
    return bytes(data)


def _status(value: Any) -> int:
    """An HTTP status that says that something failed, or 0."""
    status = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0
    return status if 400 <= status <= 599 else 0


def _decoded(data: str | bytes) -> Any:
    """A decoded JSON value. Raises `ValueError`.

    Some endpoints write NaN, control characters as they are, and halves of characters.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return json.loads(data, strict=False)


def _checked(chunk: Any) -> Any:
    """The chunk. Raises `StreamRefused` where it is an error, in anybody's form."""
    if isinstance(chunk, dict):
        if chunk.get("error"):
            raise StreamRefused(chunk["error"])
        says_error = "error" in (chunk.get("object"), chunk.get("type")) or not _ERROR_KEYS.isdisjoint(chunk)
        if "choices" not in chunk and (says_error or {"code", "message"} <= chunk.keys()):
            raise StreamRefused(chunk)
    return chunk
