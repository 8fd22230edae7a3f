"""The table of docs/upgrade.md: what each command does with each schema that it may find."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
from lastcall.store.errors import DatabaseUnusable
from lastcall.store.postgres import open_store
from lastcall.store.queries import SCHEMA

from ..support.command_line import unwrapped
from ..support.databases import new_database, psql
from ..support.lastcall_command import Lastcall

UPGRADE = Path(__file__).resolve().parents[2] / "docs" / "upgrade.md"
REFUSED = 2
PLANTED = {
    "nothing": ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"),
    "an older schema": ("UPDATE lastcall_schema SET digest = 'older', release = '0.0.1'",),
    "half of it: a table, index, function or trigger is missing": (
        "DROP TABLE webhook_deliveries",
        "DROP FUNCTION queue_event",
        "DROP TRIGGER keep_audit ON audit_log",
    ),
    "tables without their primary keys": ("ALTER TABLE webhook_deliveries DROP CONSTRAINT webhook_deliveries_pkey",),
    "`schema.sql`, applied by hand": (SCHEMA,),
    "its own schema": (),
    "the same version, of a newer release": ("UPDATE lastcall_schema SET digest = 'newer', release = '99.1'",),
    "a newer version": ("INSERT INTO lastcall_schema (version, digest) VALUES (99, 'newer')",),
    "tables of somebody else with our names": (
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public",
        "CREATE TABLE messages (id integer)",
    ),
}
DIGEST = "SELECT digest FROM lastcall_schema ORDER BY version DESC LIMIT 1"


def documented() -> dict[str, list[str]]:
    """The cells of each line of the table."""
    (table,) = re.findall(r"<!-- states -->\n(.*?)<!-- end of states -->", UPGRADE.read_text(), re.DOTALL)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {state: cells for state, *cells in lines}


def test_every_state_of_the_page_is_planted() -> None:
    assert documented().keys() == PLANTED.keys()


@pytest.mark.slow
@pytest.mark.parametrize("state", PLANTED)
def test_a_command_does_what_the_page_says(database_url: str, lastcall: Lastcall, state: str) -> None:
    check, migrate, serve, ask, change = documented()[state]
    with new_database(database_url) as url:
        place = ("--database-url", url)
        assert lastcall("migrate", *place).code == 0
        psql(url, *PLANTED[state])
        for command, code in (
            (("migrate", "--check"), check),
            (("sessions", "--json"), ask),
            (("prune", "--audit-days", "1"), change),
        ):
            done = lastcall(*command, *place)
            assert done.code == int(code), done.err
            assert done.code != REFUSED or done.err.count("\n") == 1
        before = "" if state.startswith(("nothing", "tables of")) else psql(url, DIGEST)
        assert serves(url) is (serve != str(REFUSED))
        if serve in ("serves", str(REFUSED)) and before:
            assert psql(url, DIGEST) == before
        if serve not in ("serves", str(REFUSED)):
            psql(url, *PLANTED[state])  # once more, for `migrate`
        assert lastcall("migrate", *place).code == int(migrate.partition(":")[0])
        assert lastcall("migrate", "--check", *place).code == (int(check) if check == str(REFUSED) else 0)


def serves(url: str) -> bool:
    """Whether a server would start on it."""

    async def open_and_close() -> None:
        async with open_store(url):
            pass

    try:
        trio.run(open_and_close)
    except BaseExceptionGroup as errors:
        if unwrapped(errors, DatabaseUnusable) is None:
            raise
        return False
    return True
