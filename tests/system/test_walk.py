"""Whoever follows the pages on a bare machine ends with two servers behind nginx, and then on PgBouncer."""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import trio

from ..support.clients import answer_text, connect_with
from ..support.databases import psql
from ..support.deployed_proxies import require
from ..support.walk import Walk, commands, open_walk

pytestmark = pytest.mark.slow

PAGES = ("production.md", "pgbouncer.md")
WALK_SECONDS = 240.0
SAID = ["hello", "still there?", "through the pooler"]  # in the pages


@dataclass
class Walked:
    """walk: the root in which the pages were followed. said: what their commands said. database_url: of the role."""

    walk: Walk
    said: str
    database_url: str

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.walk.tls))

    @property
    def key(self) -> str:
        found = re.search(r"^\+ KEY=(\S+)$", self.said, re.MULTILINE)
        assert found is not None
        return found[1]


@pytest.fixture(scope="module")
def walked(database_url: str) -> Iterator[Walked]:
    for program in ("nginx", "pgbouncer"):
        require(program)
    if os.geteuid() != 0:
        pytest.skip("the pages' commands are root's")
    with tempfile.TemporaryDirectory(prefix="lastcall-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        try:
            with open_walk(root, database_url) as walk:
                said = walk.follow(commands(*PAGES), WALK_SECONDS)
                yield Walked(walk, said, database_url.replace("/postgres?", "/lastcall?"))
        finally:
            psql(database_url, "DROP DATABASE IF EXISTS lastcall WITH (FORCE)", "DROP ROLE IF EXISTS lastcall")


def test_two_servers_answer_through_the_proxy(walked: Walked) -> None:
    """And each has been restarted while the other one went on."""
    servers = [f"lastcall@{port}" for port in walked.walk.ports]
    assert walked.walk.manager.started == [*servers, "nginx", *servers, "pgbouncer", *servers]
    with httpx2.Client(verify=walked.tls) as client:
        assert client.get(f"{walked.walk.url}/readyz").status_code == 200
        assert client.get(f"{walked.walk.url}/v1/conversations?user=ada").status_code == 401
        for port in walked.walk.ports:
            assert client.get(f"http://127.0.0.1:{port}/readyz").status_code == 200


def test_what_was_said_is_answered_and_stored(walked: Walked) -> None:
    for text in SAID:
        assert f"You said: {text}\n" in walked.said
    texts = "SELECT content FROM messages WHERE role = 'user' ORDER BY created_at"
    assert psql(walked.database_url, texts).splitlines() == SAID


def test_doctor_has_nothing_to_warn_of(walked: Walked) -> None:
    found = re.findall(r"^(ok|warn|fail) {2,}(\w+)", walked.said, re.MULTILINE)
    assert [name for status, name in found if status != "ok"] == []
    assert [name for _, name in found].count("pooler") == 3  # before there is a server, after, and by way of PgBouncer


async def test_a_session_survives_a_restart_of_the_pooler(walked: Walked) -> None:
    async with connect_with(walked.walk.url, {"user": "ada"}, walked.key, walked.tls) as client:
        await client.ask("before")
        assert await trio.to_thread.run_sync(walked.walk.manager.do, ["restart", "pgbouncer"]) == ""
        assert answer_text(await client.ask("after")) == "You said: after"
