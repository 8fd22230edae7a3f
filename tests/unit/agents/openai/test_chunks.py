"""A body is read however its bytes are cut."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx2
import pytest
from lastcall.agents.openai.chunks import DONE, chunks_of

# The HTTP client leaves its own generators unfinished at the end of a stream; its connection is closed all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
STREAM = 'data: {"choices": ["日本"]}\r\n\r\ndata: [DONE]\r\n\r\n'.encode()
DOCUMENT = '{"choices": ["日本"]}'.encode()


async def read(body: bytes, size: int) -> list[Any]:
    async def parts() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    response = httpx2.Response(200, content=parts(), request=httpx2.Request("POST", "http://model"))
    async with aclosing(await chunks_of(response)) as chunks:
        return [chunk async for chunk in chunks]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
@pytest.mark.parametrize("body", [STREAM, DOCUMENT])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\r\n \n"])
async def test_a_body_is_read_in_pieces_of_any_size(before: bytes, body: bytes, size: int) -> None:
    assert await read(before + body, size) == [{"choices": ["日本"]}, DONE]
