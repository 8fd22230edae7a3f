"""A role that owns nothing and may only read and write rows runs the server and every command."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio
from lastcall.cli import entry
from lastcall.memory.reading import read_in_process
from lastcall.memory.search.recalling import question_of, search_turns
from lastcall.runtime.check import Check, CheckStatus, ok
from lastcall.store.address import read_address
from lastcall.store.postgres import MEANING, diagnose, migrate_schema, open_store
from lastcall.store.postgres.preparation.grants import DELETED_FROM, WRITTEN
from lastcall.store.postgres.preparation.state import SEQUENCES
from lastcall.store.records import FinishedMemory, ItemDeletion

from tests.support.databases import as_role, new_database, new_role, psql
from tests.support.instances import instance
from tests.support.meanings import encode_subjects, finished

from .world import HASH, LEASE_SECONDS, OTHER_HASH, WITHIN, PostgresWorld, end, item, key_of, memory, secret_of

SCHEMA = "chat"
OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"


def grants(schema: str, role: str) -> list[str]:
    """The statements of docs/operations.md, for the owner to run after each `lastcall migrate`."""
    (text,) = re.findall(r"^```sql\n(.*?)^```$", OPERATIONS.read_text(), re.DOTALL | re.MULTILINE)
    ours = re.sub(r"\bSCHEMA s\b", f"SCHEMA {schema}", re.sub(r"\bs\.", f"{schema}.", text))
    return [each.strip() for each in ours.replace("TO chat;", f"TO {role};").split(";") if each.strip()]


@pytest.fixture
def owned(database_url: str) -> Iterator[tuple[str, str]]:
    """A database with a schema of its own: the URLs of its owner, who is no superuser, and of a role with grants."""
    with new_database(database_url) as url, new_role(url) as owner, new_role(url) as role:
        psql(url, "REVOKE ALL ON SCHEMA public FROM public", f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {owner}")
        psql(url, f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE EXECUTE ON FUNCTIONS FROM public")
        psql(url, f"ALTER ROLE {role} SET default_transaction_isolation = 'serializable'")
        owners, roles = as_role(url, owner, schema=SCHEMA), as_role(url, role, schema=SCHEMA)
        trio.run(lambda: migrate_schema(owners, check=False))
        psql(owners, *grants(SCHEMA, role))
        yield owners, roles
        psql(url, f"DROP OWNED BY {role}", f"DROP OWNED BY {owner}")


@asynccontextmanager
async def _world(url: str) -> AsyncIterator[PostgresWorld]:
    async with open_store(url) as store:
        world = PostgresWorld(store)
        await store.register_instance(instance(world.instance_id, lease_seconds=LEASE_SECONDS))
        yield world


def test_a_role_with_grants_runs_the_server(owned: tuple[str, str]) -> None:
    """Sessions, items, memory, keys, client secrets, the lease, the reaper, and the proof of a commit."""

    async def run() -> None:
        async with _world(owned[1]) as world:
            store = world.store
            await store.warm_up()
            await store.prove_commit(world.instance_id)
            key = await key_of(world)
            assert await store.keys_exist()
            secret = secret_of(key)
            await store.create_client_secret(secret)
            assert await store.find_credential(OTHER_HASH)
            start = await world.begin(credential_id=secret.secret_id)
            stored = item(start)
            await world.append(stored, item(start, "more boats", position=1))
            await store.delete_item(ItemDeletion(start.session_id, stored.item_id), within=WITHIN)
            assert len(await world.history(start.conversation_id, "ada", 10) or ()) == 1
            assert await store.list_conversations("ada", 10, search="MORE")
            assert await store.rename_conversation(start.conversation_id, "ada", "a title")
            unwanted = await world.begin()
            assert await store.delete_conversation(unwanted.conversation_id, "ada")
            assert await store.end_session(end(start))
            await _remember(world)
            await world.begin(credential_id=key.credential_id)
            assert key.credential_id is not None
            await world.revoke(key.credential_id)
            assert await store.find_credential(HASH) is None
            assert await store.finish_revocations() == 0
            async with store.open_lease_connection(world.instance_id) as lease:
                assert await lease.renew()
            await _reap(world)
            await world.begin()
            assert await store.close_instance_sessions(world.instance_id, ())
            await store.stop_instance(world.instance_id)

    trio.run(run)


async def _remember(world: PostgresWorld) -> None:
    (claim,) = await world.store.claim_memory(1, 60.0)
    session_id = UUID(claim.transcript.session_id)
    (reading,) = await read_in_process([claim.transcript])
    await world.store.fail_memory(session_id, "it failed", retry_after=0.0)
    await world.store.claim_memory(1, 60.0)
    await world.store.release_memory([session_id])
    await world.store.claim_memory(1, 60.0)
    assert await world.store.finish_memory([FinishedMemory(session_id, [memory("likes tea")], reading.passages)])
    known = await world.store.recall("ada", 10)
    assert known.facts
    assert known.has_past
    assert await search_turns(world.store, "ada", question_of("Which boats?"), 10)
    again = await world.begin(conversation_id=(await world.session(session_id)).conversation_id)
    await world.store.delete_item(ItemDeletion(again.session_id, claim.transcript.messages[0].item_id), within=WITHIN)
    assert not (await world.store.recall("ada", 10)).has_past
    await world.store.end_session(end(again))


async def _reap(world: PostgresWorld) -> None:
    judge = uuid4()
    await world.store.register_instance(instance(judge))
    await world.begin()
    (suspect,) = await world.store.suspects(judge)
    assert await world.store.reap(suspect, judge) == 1
    await world.sql("UPDATE server_instances SET reaped_at = NULL")


def test_what_search_by_meaning_lacks_is_told_one_by_one_and_each_mend_works(owned: tuple[str, str]) -> None:
    """The extension is made by a superuser, the tables by the owner; the role is granted them. doctor says the same."""
    owners, roles = owned
    superuser = re.sub(r"//[^@]+@", "//postgres@", owners)
    owner, role = (re.findall(r"//([^@]+)@", each)[0] for each in owned)
    address = read_address(roles, {})

    async def prepared() -> Check:
        async with open_store(roles) as store:
            check = await store.prepare_meanings()
        told = (await diagnose(address, meaning=True))[-1]
        assert told == check or "the next lastcall serve" in told.found
        return check

    extension = trio.run(prepared)
    assert f"{role} may not create the extension vector" in extension.found
    assert extension.mend.startswith("CREATE EXTENSION vector as a superuser")
    psql(superuser, "CREATE SCHEMA shared", f"GRANT USAGE ON SCHEMA shared TO {owner}, {role}")
    psql(superuser, "CREATE EXTENSION vector SCHEMA shared")  # in a schema that no session of ours searches
    tables = trio.run(prepared)
    assert f"{role} may not make" in tables.found
    assert tables.mend.startswith("run lastcall migrate as the owner")
    trio.run(lambda: migrate_schema(owners, check=False, meaning=True))
    lacking = trio.run(prepared)
    assert {each.status for each in (extension, tables, lacking)} == {CheckStatus.WARN}
    psql(owners, *lacking.mend.removeprefix("as the owner: ").split("; "))
    assert trio.run(prepared) == ok(MEANING, "turns are found by meaning, too")
    trio.run(_find_by_meaning, roles)


async def _find_by_meaning(url: str) -> None:
    async with _world(url) as world:
        start = await world.begin()
        await world.append(item(start, "Our home is in Lyon.", item_id="home"))
        await world.store.end_session(end(start))
        assert await world.store.finish_memory([await finished(world, start)])
        question = question_of("Which town do I live in?")
        (turn,) = await search_turns(world.store, "ada", question, 10, encode_subjects)
        assert turn.text == "Our home is in Lyon."
        again = await world.begin(conversation_id=start.conversation_id)
        await world.store.delete_item(ItemDeletion(again.session_id, "home"), within=WITHIN)
        assert await world.sql("SELECT FROM recall_meanings") == []
        await world.store.end_session(end(again))


def test_the_grants_that_doctor_looks_for_are_those_of_the_docs() -> None:
    written, deleted = (each for each in grants("s", "chat") if "DELETE" in each or "INSERT" in each)
    assert set(re.findall(r"s\.(\w+)", written)) == set(WRITTEN)
    assert set(re.findall(r"s\.(\w+)", deleted)) == set(DELETED_FROM)
    (used,) = (each for each in grants("s", "chat") if "SEQUENCE" in each)
    assert set(re.findall(r"s\.(\w+)", used)) == set(SEQUENCES)


COMMANDS = (
    "migrate --check",
    "doctor --port 0",
    "sessions",
    "stats",
    "orphans",
    "orphans --close",
    "memories",
    "memories retry",
    "users erase eve --yes",
    "keys create ada",
    "keys list",
)


def test_a_role_with_grants_runs_every_command(owned: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    url = owned[1]
    psql(owned[0], "INSERT INTO conversation_sessions (user_id) VALUES ('ada'), ('eve')")
    session_id = psql(owned[0], "SELECT session_id FROM conversation_sessions WHERE user_id = 'eve'")
    commands = [f"sessions close {session_id}", *COMMANDS]
    for command in commands:
        assert entry.run([*command.split(), "--database-url", url]) == 0, (command, capsys.readouterr())
    key_id = psql(owned[0], "SELECT key_id FROM api_keys")
    assert entry.run(["keys", "revoke", key_id, "--database-url", url]) == 0


def test_an_older_schema_is_left_to_its_owner(owned: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and nothing half done; afterwards the owner brings it up to date."""
    owner, role = owned
    psql(owner, "UPDATE lastcall_schema SET digest = 'older', release = '0.0.1'")
    assert entry.run(["migrate", "--check", "--json", "--database-url", role]) == 1
    assert '"outdated"' in capsys.readouterr().out
    assert entry.run(["migrate", "--database-url", role]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "run lastcall migrate as their owner" in said
    assert entry.run(["stats", "--database-url", role]) == 2
    assert "run lastcall migrate" in capsys.readouterr().err
    assert entry.run(["migrate", "--database-url", owner]) == 0
    assert capsys.readouterr().out == f"Updated the tables in the schema {SCHEMA} (version 1).\n"
    assert entry.run(["stats", "--database-url", role]) == 0
    assert entry.run(["migrate", "--database-url", role]) == 0
