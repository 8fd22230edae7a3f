"""Databases with several hosts, and links that hang: each host has a deadline, and what works is remembered."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import trio
from lastcall.store.address import DatabaseAddress, DatabaseHost, read_address
from lastcall.store.address.reading import HOST_SECONDS
from lastcall.store.errors import StoreError, StoreUnavailable
from lastcall.store.postgres import PostgresStore, open_store
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.postgres.connections import CHECK_SECONDS
from lastcall.store.postgres.loop import open_loop
from lastcall.store.postgres.network import Connector

from tests.support.instances import instance
from tests.support.links import Link, open_link

GIVES_UP_SECONDS = 0.5
QUICK_SECONDS = 4.0  # for what takes a few milliseconds on a machine that is not busy
NOBODY = "127.0.0.1:1"


@pytest.fixture
async def good(database_url: str) -> AsyncIterator[Link]:
    async with open_link(database_url) as link:
        yield link


@pytest.fixture
async def hole(database_url: str) -> AsyncIterator[Link]:
    """Accepts connections and never answers."""
    async with open_link(database_url) as link:
        link.hangs = True
        yield link


def address(*places: str, words: str = "") -> DatabaseAddress:
    return read_address(f"postgresql://postgres@{','.join(places)}/postgres?{words}", {})


def took(began: float) -> float:
    return trio.current_time() - began


@pytest.fixture
async def loop() -> AsyncIterator[Any]:
    async with open_loop() as loop:
        yield loop


async def open_and_drop(loop: Any, connector: Connector) -> None:
    """Opens a connection and drops it."""
    connection: Any = await bounded_call(loop, CALL_SECONDS, partial(connector.open, command_seconds=CALL_SECONDS))
    connection.terminate()


async def test_a_host_that_hangs_costs_its_deadline_and_then_nothing(good: Link, hole: Link) -> None:
    began = trio.current_time()
    async with open_store(address(hole.place, NOBODY, good.place)) as store:
        assert HOST_SECONDS <= took(began) < HOST_SECONDS + QUICK_SECONDS
        await store.warm_up()
        me = uuid4()
        await store.register_instance(instance(me))
        async with store.open_lease_connection(me) as lease:
            assert await lease.renew()
    assert hole.accepted == 1


async def test_the_host_that_worked_last_is_tried_first(good: Link, database_url: str, loop: Any) -> None:
    async with open_link(database_url) as broken:
        broken.closes = True
        connector = Connector(address(broken.place, good.place))
        await open_and_drop(loop, connector)
        assert (tried := broken.accepted) > 0
        await open_and_drop(loop, connector)
        assert (broken.accepted, good.accepted) == (tried, 2)


async def test_a_host_that_begins_to_hang_is_left_for_another(good: Link, database_url: str) -> None:
    async with open_link(database_url) as other, open_store(address(good.place, other.place)) as store:
        await store.keys_exist()
        assert (good.accepted, other.accepted) == (1, 0)
        good.hangs = True
        good.reset()
        with trio.fail_after(HOST_SECONDS + QUICK_SECONDS):
            await store.keys_exist()
        assert other.accepted == 1


async def test_a_caller_that_gives_up_leaves_a_hanging_host_behind(good: Link, hole: Link, loop: Any) -> None:
    """The bound of a call may be below the deadline of a host."""
    connector = Connector(replace(address(hole.place, good.place), host_seconds=60.0))
    with trio.move_on_after(GIVES_UP_SECONDS) as waiting:
        await open_and_drop(loop, connector)
    assert waiting.cancelled_caught
    await trio.testing.wait_all_tasks_blocked(0.05)
    with trio.fail_after(QUICK_SECONDS):
        await open_and_drop(loop, connector)


async def test_connections_that_are_reset_all_at_once_cost_nobody_a_failure(good: Link) -> None:
    async with open_store(good.url) as store:
        await store.warm_up()
        for _ in range(3):
            good.reset()
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(store.keys_exist)


async def test_connections_whose_packets_vanish_are_found_out_in_half_a_second(
    good: Link, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a firewall that forgets quiet connections: one check fails, and none of the others is waited for."""
    async with open_link(database_url) as other, open_store(address(good.place, other.place)) as store:
        await store.warm_up()
        monkeypatch.setattr("lastcall.store.postgres.connections.QUIET_SECONDS", 0.0)
        good.hangs = True
        checks: list[object] = []
        check = store._connections._is_of_use

        async def count_checks(connection: object) -> bool:
            checks.append(connection)
            return await check(connection)

        monkeypatch.setattr(store._connections, "_is_of_use", count_checks)
        began = trio.current_time()
        await store.keys_exist()
        assert took(began) < CHECK_SECONDS + HOST_SECONDS + QUICK_SECONDS
        assert (len(checks), store._connections.count) == (1, 1)


async def test_a_server_that_accepts_no_writes_is_passed_over_unless_asked_for(
    postgres_store: PostgresStore, good: Link, loop: Any
) -> None:
    await postgres_store.select("ALTER DATABASE postgres SET default_transaction_read_only = on")
    try:
        with pytest.raises(StoreUnavailable, match="it accepts no writes"):
            await open_and_drop(loop, Connector(address(good.place)))
        with pytest.raises(StoreUnavailable, match=f"{good.place}: it accepts no writes.*; {NOBODY}: "):
            await open_and_drop(loop, Connector(address(good.place, NOBODY)))
        for target in ("any", "prefer-standby", "read-only"):
            await open_and_drop(loop, Connector(address(good.place, words=f"target_session_attrs={target}")))
    finally:
        await postgres_store.select("ALTER DATABASE postgres RESET default_transaction_read_only")
    await open_and_drop(loop, Connector(address(good.place)))


async def test_what_any_host_would_say_is_not_asked_of_the_next(good: Link, database_url: str, loop: Any) -> None:
    async with open_link(database_url) as other:
        nowhere = replace(address(good.place, other.place), database="nobody_made_it")
        with pytest.raises(StoreError, match="nobody_made_it"):
            await open_and_drop(loop, Connector(nowhere))
        assert good.accepted > 0
        assert other.accepted == 0


async def test_a_name_whose_look_up_hangs_is_given_up(good: Link, loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    release = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def hang(*_: object, **__: object) -> list[Any]:
        trio.from_thread.run(release.wait, trio_token=token)
        raise socket.gaierror("at last")

    monkeypatch.setattr("lastcall.store.postgres.network.sockets.socket.getaddrinfo", hang)
    hosts = (DatabaseHost("slow.example", 1), address(good.place).hosts[0])
    reachable = replace(address(good.place), hosts=(hosts[0], replace(hosts[1], at="127.0.0.1")))
    began = trio.current_time()
    await open_and_drop(loop, Connector(reachable))
    assert took(began) < HOST_SECONDS + QUICK_SECONDS
    release.set()


async def test_each_address_of_a_name_is_tried(good: Link, loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the last ones known serve where the look-up fails."""
    port = address(good.place).hosts[0].port
    answers: list[Any] = [["127.0.0.9", "127.0.0.1"], socket.gaierror("the resolver is away")]

    async def look_up(*_: object) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    monkeypatch.setattr("lastcall.store.postgres.network.connector.addresses_of", look_up)
    connector = Connector(replace(address(good.place), hosts=(DatabaseHost("db.example", port),)))
    await open_and_drop(loop, connector)
    await open_and_drop(loop, connector)
    assert (good.accepted, answers) == (2, [])


async def test_the_kernel_finds_out_that_a_connection_is_dead(good: Link, loop: Any) -> None:
    words = "keepalives_idle=7&keepalives_interval=2&keepalives_count=4&tcp_user_timeout=5000"
    connector = Connector(address(good.place, words=words))
    connection: Any = await bounded_call(loop, CALL_SECONDS, partial(connector.open, command_seconds=1.0))
    mine = connection._transport.get_extra_info("socket")
    assert mine.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    options = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    numbers = [getattr(socket, name) for name in options if hasattr(socket, name)]
    values = [mine.getsockopt(socket.IPPROTO_TCP, number) for number in numbers]
    assert values == [7, 2, 4, 5000][-len(values) :]
    connection.terminate()
