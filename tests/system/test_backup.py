"""Backup and restore with the commands of docs/backup.md, while a server has sessions open."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from lastcall.embedded import programs

from ..support.clients import connect, texts
from ..support.databases import new_database, psql
from ..support.lastcall_command import Lastcall, process
from ..support.processes import ServerProcess, run_server
from ..support.waiting import eventually
from ..support.webhook_receiver import Receiver, open_receiver

pytestmark = pytest.mark.slow

BACKUP = Path(__file__).resolve().parents[2] / "docs" / "backup.md"
IN_TIME = 40.0  # above a lease: the original's server still runs on this host
COMMAND_SECONDS = 60.0
COUNTED = (
    "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM conversation_sessions),"
    " (SELECT count(*) FROM conversations), (SELECT count(*) FROM user_memories WHERE user_id = 'ada'),"
    " (SELECT count(*) FROM agent_responses), (SELECT count(*) FROM recall_passages WHERE user_id = 'ada')"
)
LAST_SIGN = (
    "SELECT greatest(i.heartbeat_at, (SELECT max(created_at) FROM messages m WHERE m.session_id = s.session_id))"
    " FROM conversation_sessions s JOIN server_instances i USING (instance_id) WHERE is_active"
)
UNDONE = (
    "SELECT count(*) FILTER (WHERE is_active OR memory_status = 'pending')"
    " + (SELECT count(*) FROM webhook_deliveries WHERE state <> 'delivered') FROM conversation_sessions"
)
UNDONE_WITHOUT_WEBHOOKS = "SELECT count(*) FROM conversation_sessions WHERE is_active OR memory_status = 'pending'"
OF_EVE = "SELECT end_reason, session_end FROM conversation_sessions WHERE user_id = 'eve'"
FACTS = "SELECT user_id, count(*) FROM user_memories GROUP BY user_id ORDER BY user_id"


def commands(section: str) -> list[str]:
    """Each block of commands in a section of the page, as a script."""
    text = BACKUP.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert blocks
    return ["\n".join(re.findall(r"^\$ (.*)$", block, re.MULTILINE)) for block in blocks]


@dataclass
class Original:
    """A database of which a backup was made while eve's session was open; ada's was over. url: of the database."""

    url: str
    server: ServerProcess
    receiver: Receiver
    folder: Path
    eves_conversation: str = ""
    counted: str = ""
    reported: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def restored(self) -> str:
        name = psql(self.url, "SELECT current_database()")
        return self.url.replace(f"/{name}?", "/restored?")

    def run(self, script: str) -> None:
        path = os.pathsep.join([str(programs.programs()), str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            ["sh", "-euc", script],
            cwd=self.folder,
            env={**os.environ, "PATH": path, "DATABASE": self.url, "RESTORED": self.restored},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"

    def ids(self) -> dict[tuple[str, str], set[str]]:
        """What the receiver has got, by event and user: the ids."""
        found: dict[tuple[str, str], set[str]] = {}
        for each in self.receiver.received:
            found.setdefault((each.event["type"], each.event["data"]["user"]), set()).add(each.id)
        return found


@pytest.fixture(scope="module")
def original(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Original]:
    with new_database(database_url) as url, open_receiver() as receiver:
        added = process("webhooks", "add", receiver.url, "--database-url", url)
        assert added.code == 0, added.err
        with run_server("--database-url", url, "--agent", "echo", "--lease-seconds", "4") as server:
            made = Original(url, server, receiver, tmp_path_factory.mktemp("backup"))
            trio.run(back_up, made)
            yield made
        psql(database_url, "DROP DATABASE IF EXISTS restored WITH (FORCE)")


async def back_up(original: Original) -> None:
    async with connect(original.server.url, user="ada") as client:
        await client.ask("My name is Ada.")
    await done(original.url, UNDONE)
    async with connect(original.server.url, user="eve") as client:
        await client.ask("My name is Eve.")
        original.eves_conversation = client.conversation_id
        original.counted = psql(original.url, COUNTED)
        for script in commands("Back up"):
            await trio.to_thread.run_sync(original.run, script)
    await done(original.url, UNDONE)


async def done(url: str, undone: str) -> None:
    async def look() -> str:
        return await trio.to_thread.run_sync(psql, url, undone)

    await eventually(look, lambda left: left == "0", within=IN_TIME)


@pytest.fixture
def restored(original: Original) -> Iterator[str]:
    """The URL of a database that a test restores."""
    yield original.restored
    psql(original.url, "DROP DATABASE IF EXISTS restored WITH (FORCE)")


def restore(original: Original, block: int) -> str:
    """By that block of the page. Returns the last sign of the one session that is active in the backup."""
    original.run(commands("Restore")[block])
    assert psql(original.restored, COUNTED) == original.counted
    return psql(original.restored, LAST_SIGN)


@pytest.mark.parametrize("block", range(2))
def test_a_restored_database_is_as_well_as_its_original(
    original: Original, restored: str, lastcall: Lastcall, block: int
) -> None:
    def statuses(url: str) -> dict[str, str]:
        told = json.loads(lastcall("doctor", "--json", "--port", "0", "--database-url", url).out)
        return {each["name"]: each["status"] for each in told["checks"]}

    restore(original, block)
    found = statuses(restored)
    assert found == statuses(original.url)
    assert "fail" not in found.values()


async def test_a_copy_beside_the_original_closes_its_own_rows_and_tells_nobody(
    original: Original, restored: str
) -> None:
    last_sign = restore(original, 1)
    received = len(original.receiver.received)
    original.run(commands("A copy beside the original")[0])
    async with connect(original.server.url, user="bob") as client:
        with run_server("--database-url", restored, "--agent", "echo") as server:
            await done(restored, UNDONE_WITHOUT_WEBHOOKS)
            async with connect(server.url, user="mia") as other:
                await other.ask("My name is Mia.")
            await done(restored, UNDONE_WITHOUT_WEBHOOKS)
        assert psql(restored, OF_EVE) == f"owner_died|{last_sign}"
        assert len(original.receiver.received) == received
        await client.ask("Still here?")
    assert psql(original.url, OF_EVE).startswith("client_closed|")
    assert psql(original.url, "SELECT count(*) FROM conversation_sessions WHERE user_id = 'mia'") == "0"
    await done(original.url, UNDONE)


async def test_what_was_going_on_is_ended_once_after_the_original_is_lost(original: Original, restored: str) -> None:
    before = original.ids()
    original.server.process.kill()
    original.server.process.wait(IN_TIME)
    last_sign = restore(original, 0)
    with run_server("--database-url", restored, "--agent", "echo") as server:
        await done(restored, UNDONE)
        assert psql(restored, OF_EVE) == f"owner_died|{last_sign}"
        assert psql(restored, FACTS) == "ada|1\neve|1"
        assert psql(restored, COUNTED) == original.counted
        async with connect(server.url, user="eve", conversation=original.eves_conversation, replay="10") as client:
            assert texts(await client.replayed())[0] == "My name is Eve."
    # Reported once more, as it is known now, and under the id of before; ada's end was delivered before the backup.
    again = [each for each in original.receiver.received if each.event["data"].get("end_reason") == "owner_died"]
    assert [each.event["data"]["user"] for each in again] == ["eve"]
    of_eve = {key: ids for key, ids in original.ids().items() if key[1] == "eve"}
    assert of_eve.pop(("session.ended", "eve")) >= before["session.ended", "eve"] == {again[0].id}
    assert of_eve == {("memory.done", "eve"): before["memory.done", "eve"]}
