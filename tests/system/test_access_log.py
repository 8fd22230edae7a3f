"""The access log: who asked for what, how it ended, and no secret."""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx2
import trio
from trio_websocket import open_websocket_url

from tests.support.clients import connect
from tests.support.databases import new_database, psql
from tests.support.processes import run_server

WITHIN_SECONDS = 30
WRONG_KEY = "whatever-somebody-took-for-a-key"
EVENTS = ("http_request", "websocket_handshake")
UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
CLIENT = "203.0.113.7"


def lines_of(log: list[dict[str, Any]], event: str, *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(line[each] for each in fields) for line in log if line["event"] == event]


async def test_requests_and_handshakes_are_logged_with_their_key_and_without_secrets(database_url: str) -> None:
    with new_database(database_url) as url:
        create = [sys.executable, "-m", "lastcall", "keys", "create", "ada", "--json", "--database-url", url]
        key = json.loads((await trio.run_process(create, capture_stdout=True)).stdout)["key"]
        bearer = {"authorization": f"Bearer {key}"}
        behind_proxy = {**bearer, "x-forwarded-for": CLIENT}
        arguments = ("--agent", "echo", "--access-log", "--trusted-proxy", "127.0.0.1")
        with run_server("--database-url", url, *arguments) as server, trio.fail_after(WITHIN_SECONDS):
            address = f"ws{server.url.removeprefix('http')}/v1/realtime"
            async with httpx2.AsyncClient(base_url=server.url) as http:
                await http.get("/v1/conversations", headers=bearer)
                await http.get("/v1/conversations", headers=behind_proxy)
                await http.get("/v1/conversations", params={"api-key": WRONG_KEY})
                await http.get(f"/c/{WRONG_KEY}")
                await http.get(f"/nothing/{WRONG_KEY}")
                await http.put("/openai/v1/conversations")
                await http.get("/v1/conversations", headers={**behind_proxy, "forwarded": "for=192.0.2.9"})
            for each in (bearer, behind_proxy):
                headers = [(name.encode(), value.encode()) for name, value in each.items()]
                async with open_websocket_url(address, extra_headers=headers):
                    pass
            async with httpx2.AsyncClient(base_url=server.url, headers=UPGRADE) as refused:
                await refused.get("/v1/realtime", params={"api-key": WRONG_KEY})
                await refused.get(f"/v1/realtime/{WRONG_KEY}")
            log = await trio.to_thread.run_sync(server.stop_and_read)
        key_id = psql(url, "SELECT key_id FROM api_keys")
    requests = lines_of(log, "http_request", "method", "route", "status", "address", "key_id")
    assert requests == [
        ("GET", "/v1/conversations", 200, "127.0.0.1", key_id),
        ("GET", "/v1/conversations", 200, CLIENT, key_id),
        ("GET", "/v1/conversations", 401, "127.0.0.1", None),
        ("GET", "/c/{conversation_id}", 200, "127.0.0.1", None),
        ("GET", None, 404, "127.0.0.1", None),
        ("PUT", "/v1/conversations", 405, "127.0.0.1", None),
        ("GET", "/v1/conversations", 400, "127.0.0.1", None),
    ]
    handshakes = lines_of(log, "websocket_handshake", "route", "status", "address", "key_id", "refused")
    assert handshakes == [
        ("/v1/realtime", 101, "127.0.0.1", key_id, None),
        ("/v1/realtime", 101, CLIENT, key_id, None),
        ("/v1/realtime", 401, "127.0.0.1", None, "missing_api_key"),
        (None, 404, "127.0.0.1", None, "not_found"),
    ]
    for (seconds,) in lines_of(log, "http_request", "seconds") + lines_of(log, "websocket_handshake", "seconds"):
        assert 0 < seconds < WITHIN_SECONDS
    assert WRONG_KEY not in str(log)
    assert key not in str(log)


async def test_the_admin_port_has_it_too_and_without_the_setting_there_is_none(database_url: str) -> None:
    asked = {}
    for options in (["--access-log"], []):
        arguments = ("--database-url", database_url, "--agent", "echo", "--admin-port", "0", *options)
        with run_server(*arguments) as server, trio.fail_after(WITHIN_SECONDS):
            async with connect(server.url, user="ada"):
                pass
            async with httpx2.AsyncClient(base_url=server.url) as http:
                await http.get("/healthz")
            log = await trio.to_thread.run_sync(server.stop_and_read)
        asked[bool(options)] = [line["event"] for line in log if line["event"] in EVENTS]
    assert asked == {True: ["websocket_handshake", "http_request"], False: []}
