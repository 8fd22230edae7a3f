"""What an operator reads of a session: its lines in the log, and the metrics of all of them."""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import UUID

import httpx2
import pytest
import trio
from trio_websocket import open_websocket_url

from tests.support.clients import connect
from tests.support.databases import new_database, psql
from tests.support.processes import run_server

WITHIN_SECONDS = 30
NAMES = ("session_id", "conversation_id", "user_id", "address", "instance_id")
CRASHING = "tests.support.scripted_agents:Crashing"


def events(log: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [line for line in log if line["event"] == name]


async def test_every_line_of_a_session_names_it(database_url: str) -> None:
    with run_server("--database-url", database_url, "--agent", CRASHING) as server, trio.fail_after(WITHIN_SECONDS):
        async with connect(server.url, user="ada") as ada, connect(server.url, user="eve") as eve:
            await ada.ask("Hello")
            sessions = {"ada": ada.session_id, "eve": eve.session_id}
            conversation = ada.conversation_id
        async with connect(server.url, user="ada", conversation=conversation):
            pass
        log = await trio.to_thread.run_sync(server.stop_and_read)
    (instance,) = events(log, "instance_stopped")
    started, ended = events(log, "session_started"), events(log, "session_ended")
    assert [(line["user_id"], line["resumed"]) for line in started] == [("ada", False), ("eve", False), ("ada", True)]
    assert sorted(line["session_id"] for line in ended) == sorted(line["session_id"] for line in started)
    (crash,) = events(log, "agent_raised")
    for line in (*started, *ended, crash):
        assert line["address"] == "127.0.0.1"
        assert line["instance_id"] == instance["instance_id"]
        assert set(NAMES) <= set(line)
        assert "key_id" not in line
    assert {started[0][name] for name in NAMES} == {crash[name] for name in NAMES}
    assert crash["user_id"] == "ada"
    assert UUID(crash["session_id"]).hex in sessions["ada"]
    assert not events(log, "websocket_handshake"), "nobody asked for the access log"
    assert started[0]["conversation_id"] == started[2]["conversation_id"] != started[1]["conversation_id"]


async def test_a_session_names_its_key(database_url: str) -> None:
    with new_database(database_url) as url:
        create = [sys.executable, "-m", "lastcall", "keys", "create", "ada", "--json", "--database-url", url]
        made = json.loads((await trio.run_process(create, capture_stdout=True)).stdout)
        with run_server("--database-url", url, "--agent", "echo") as server, trio.fail_after(WITHIN_SECONDS):
            address = f"ws{server.url.removeprefix('http')}/v1/realtime"
            headers = [(b"authorization", f"Bearer {made['key']}".encode())]
            async with open_websocket_url(address, extra_headers=headers) as socket:
                await socket.get_message()
            log = await trio.to_thread.run_sync(server.stop_and_read)
        key_id = psql(url, "SELECT key_id FROM api_keys")
    assert [line["key_id"] for line in log if line["event"].startswith("session_")] == [key_id, key_id]
    assert made["key"] not in str(log)


@pytest.mark.parametrize(("agent", "status"), [("echo", "completed"), (CRASHING, "failed")])
async def test_metrics_count_sessions_and_responses(database_url: str, agent: str, status: str) -> None:
    with run_server("--database-url", database_url, "--agent", agent) as server, trio.fail_after(WITHIN_SECONDS):
        async with connect(server.url) as client:
            await client.ask("Hello")
        async with httpx2.AsyncClient() as http:
            text = (await http.get(f"{server.url}/metrics")).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["lastcall_sessions_started_total"]) == 1
    assert float(values["lastcall_lease_held"]) == 1
    for each in ("completed", "cancelled", "incomplete", "failed"):
        assert float(values[f'lastcall_responses_total{{status="{each}"}}']) == (each == status)
    assert float(values["lastcall_response_first_piece_seconds_count"]) == 1
    assert float(values["process_open_fds"]) > 0
    assert any(name.startswith("lastcall_build_info{") and 'version="' in name for name in values)
