"""What a run tells the helpers that it starts: a line for each command."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import trio


async def lines_of_stdin() -> AsyncIterator[bytes]:
    """Each line, without its end, until stdin ends."""
    pending = b""
    stdin = trio.lowlevel.FdStream(os.dup(0))
    async for data in stdin:
        *lines, pending = (pending + bytes(data)).split(b"\n")
        for line in lines:
            yield line
