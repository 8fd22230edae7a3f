"""`lastcall top` and `lastcall sessions show`: what an operator sees without psql."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from lastcall.store.postgres import PostgresStore

from ..support.clients import connect
from ..support.lastcall_command import Answer, process
from ..support.processes import ServerProcess, run_server
from ..support.terminal import CTRL_C, at_terminal
from ..support.waiting import eventually

WAIT_SECONDS = 30.0
READ_BYTES = 65_536
AGREE = "rows active 1 = sockets live 1"


async def asked(*arguments: str) -> Answer:
    return await trio.to_thread.run_sync(lambda: process(*arguments))


async def said(server: ServerProcess, text: str) -> str:
    """Has a session with one turn; returns its id, as clients see it."""
    async with connect(server.url, user="ada") as client:
        await client.say(text)
        await client.send({"type": "response.create"})
        await client.until("response.done")
        return str(client.created["session"]["id"])


async def test_a_session_is_shown_with_what_was_said_and_remembered(
    postgres_store: PostgresStore, database_url: str
) -> None:
    database = ("--database-url", database_url)
    with run_server(*database, "--agent", "echo") as server:
        session = await said(server, "My name is Ada.\nAnd \x1b[31mred\x1b[0m.")
        await eventually(
            lambda: postgres_store.select("SELECT memory_status FROM conversation_sessions"),
            lambda rows: [row[0] for row in rows] == ["done"],
            within=WAIT_SECONDS,
        )
    done = await asked("sessions", "show", session, *database)
    assert done.code == 0
    assert "ended: client_closed, close code 1000" in done.out
    assert "user       My name is Ada. And " in done.out
    assert "assistant  You said: My name is Ada. " in done.out
    assert "name: My name is Ada., from “My name is Ada.”" in done.out
    assert "\x1b" not in done.out
    told: dict[str, Any] = json.loads((await asked("sessions", "show", session, "--json", *database)).out)
    assert told["session"]["session_id"].replace("-", "") == session.removeprefix("sess_")
    assert [item["role"] for item in told["items"]] == ["user", "assistant"]
    assert [memory["kind"] for memory in told["memories"]] == ["name"]
    short = await asked("sessions", "show", told["session"]["session_id"], "--limit", "1", *database)
    assert "Only the first 1 are shown." in short.out


@pytest.mark.parametrize(
    ("session", "fix"),
    [("mine", "is not the id of a session"), ("00000000-0000-0000-0000-000000000001", "see lastcall sessions")],
)
async def test_a_session_that_is_not_there_is_told_in_one_line(
    session: str, fix: str, postgres_store: PostgresStore, database_url: str
) -> None:
    done = await asked("sessions", "show", session, "--database-url", database_url)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert fix in done.err


async def test_top_says_whether_rows_and_sockets_agree(postgres_store: PostgresStore, database_url: str) -> None:
    database = ("--database-url", database_url)
    nobody = await asked("top", *database)
    assert nobody.out.startswith("rows active 0 ? sockets live 0\n  no server runs\n")
    with run_server(*database, "--agent", "echo") as server:
        async with connect(server.url, user="ada"):
            await eventually(
                lambda: asked("top", *database), lambda answer: answer.out.startswith(AGREE), within=WAIT_SECONDS
            )
            told = json.loads((await asked("top", "--json", *database)).out)
            assert told["truth"]["state"] == "green"
            assert [each["user_id"] for each in told["sessions"]] == ["ada"]


def test_top_at_a_terminal_looks_again_until_ctrl_c(sql: object, database_url: str) -> None:
    with (
        run_server("--database-url", database_url, "--agent", "echo") as server,
        at_terminal("top", "--seconds", "0.2", "--database-url", database_url) as watching,
    ):
        watching.sees("rows active 0 = sockets live 0")
        with at_terminal("chat", "--url", server.url):
            watching.sees(AGREE)
        watching.sees("rows active 0 = sockets live 0")
        watching.types(CTRL_C)
        assert watching.ends() == 0
