"""What a refused connection is answered, counted and stored."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import trio
from lastcall.limits.limit import Limit
from lastcall.metrics import Metrics
from lastcall.store.postgres import PostgresStore

ANSWER_SECONDS = 5.0


async def answer_to(url: str, data: bytes) -> tuple[int, dict[str, str], dict[str, str]]:
    """Status, headers and error of the answer, once the server has closed the connection."""
    parts, heard = urlsplit(url), b""
    with trio.fail_after(ANSWER_SECONDS):
        async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as stream:
            await stream.send_all(data)
            async for chunk in stream:
                heard += chunk
    head, _, body = heard.rpartition(b"HTTP/1.1")[2].partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[0]), headers, json.loads(body)["error"]


async def sessions(store: PostgresStore) -> int:
    (row,) = await store.select("SELECT count(*) AS n FROM conversation_sessions")
    return int(row["n"])


def refusals(metrics: Metrics, limit: Limit) -> float:
    value = metrics.registry.get_sample_value("lastcall_limits_refused_total", {"limit": limit.value})
    assert value is not None
    return value
