"""The census and the truth that is made of it, on the real database."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from lastcall.metrics import Metrics
from lastcall.sessions.registry import Registry
from lastcall.sessions.upkeep.census import LISTED_LOOKS, Census
from lastcall.store.operators.census import UNMATCHED_MAX, read_truth
from lastcall.store.postgres import PostgresStore

from tests.support.instances import instance


class Place:
    """A server's census, with rows and sockets as a test has them."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.instance_id = uuid4()
        self.registry = Registry()
        self.metrics = Metrics()
        self.census = Census(store, cast("Any", self), self.registry, self.metrics)

    async def row(self) -> UUID:
        session_id = uuid4()
        await self.store.select(
            "INSERT INTO conversation_sessions (session_id, user_id, instance_id) VALUES ($1, 'ada', $2)",
            session_id,
            self.instance_id,
        )
        return session_id

    def socket(self, session_id: UUID, *, stored: bool = True) -> Any:
        session: Any = SimpleNamespace(session_id=session_id, row_stored=stored)
        self.registry.add(session)
        return session

    async def truth(self, *, looks: int = 3) -> tuple[str, list[tuple[UUID, str]]]:
        for _ in range(looks):
            await self.census.look()
        found = await read_truth(self.store)
        return found.state, [(each.session_id, each.lacks) for each in found.unmatched]


@pytest.fixture
async def place(postgres_store: PostgresStore) -> Place:
    place = Place(postgres_store)
    await postgres_store.register_instance(instance(place.instance_id))
    return place


async def test_rows_with_sockets_are_green(place: Place) -> None:
    for _ in range(3):
        place.socket(await place.row())
    assert await place.truth() == ("green", [])
    found = await read_truth(place.store)
    assert (found.rows, found.sockets, found.orphaned) == (3, 3, 0)


async def test_a_row_without_a_socket_is_red_at_the_second_look_and_green_once_it_is_closed(place: Place) -> None:
    lost = await place.row()
    assert await place.truth(looks=1) == ("green", []), "it may just be ending"
    assert await place.truth(looks=1) == ("red", [(lost, "socket")])
    await place.store.select("UPDATE conversation_sessions SET is_active = false")
    assert await place.truth(looks=2) == ("green", [])


async def test_what_was_counted_is_in_the_metrics(place: Place) -> None:
    sample = place.metrics.registry.get_sample_value
    place.socket(await place.row())
    await place.row()
    await place.truth()
    assert sample("lastcall_session_rows_active") == 2
    assert sample("lastcall_sessions_unmatched") == 1
    assert sample("lastcall_census_timestamp_seconds") == pytest.approx(time.time(), abs=60)


async def test_a_socket_without_a_row_is_red(place: Place) -> None:
    lost = uuid4()
    place.socket(lost)
    assert await place.truth() == ("red", [(lost, "row")])


async def test_a_session_whose_begin_is_not_answered_yet_is_in_no_doubt(place: Place) -> None:
    place.socket(await place.row(), stored=False)
    place.socket(uuid4(), stored=False)
    assert await place.truth() == ("green", [])


async def test_equal_numbers_of_wrong_ones_are_found_too(place: Place) -> None:
    row, socket = await place.row(), uuid4()
    place.socket(socket)
    state, unmatched = await place.truth(looks=LISTED_LOOKS + 1)
    assert (state, set(unmatched)) == ("red", {(row, "socket"), (socket, "row")})


async def test_sessions_that_come_and_go_are_not_unmatched(place: Place) -> None:
    for _ in range(6):
        ending = await place.row()
        assert (await place.truth(looks=1))[0] == "green"
        await place.store.select("UPDATE conversation_sessions SET is_active = false WHERE session_id = $1", ending)


async def test_a_server_that_has_not_counted_of_late_makes_it_unknown(place: Place) -> None:
    assert await place.truth(looks=0) == ("unknown", [])
    assert (await place.truth(looks=1))[0] == "green"
    await place.store.select("UPDATE server_census SET taken_at = now() - interval '7 s'")
    found = await read_truth(place.store)
    assert (found.state, len(found.silent)) == ("unknown", 1)


async def test_without_a_server_nothing_is_known(postgres_store: PostgresStore) -> None:
    assert (await read_truth(postgres_store)).state == "unknown"


async def test_a_row_without_a_living_server_is_red_whatever_the_others_count(place: Place) -> None:
    await place.store.select(
        "INSERT INTO conversation_sessions (user_id) SELECT 'ada' FROM generate_series(1, $1)", 150
    )
    assert (await place.truth())[0] == "red"
    found = await read_truth(place.store)
    assert (found.rows, found.sockets, found.orphaned, len(found.unmatched)) == (150, 0, 150, UNMATCHED_MAX)


async def test_a_server_that_ended_counts_no_more(place: Place) -> None:
    place.socket(await place.row())
    await place.truth()
    await place.store.select("UPDATE conversation_sessions SET is_active = false")
    await place.store.select("UPDATE server_instances SET stopped_at = now()")
    found = await read_truth(place.store)
    assert (found.state, found.rows, found.sockets) == ("unknown", 0, 0)
    assert [each.runs for each in found.servers] == [False]
