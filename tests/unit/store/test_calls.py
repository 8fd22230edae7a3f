"""Calls into asyncpg: their bound, and which failures are worth a retry."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
import trio
import trio.testing
from lastcall.store.errors import InvalidRow, ItemExists, StoreError, StoreUnavailable
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call, connection_at_fault, store_error
from lastcall.store.postgres.loop import open_loop
from trio.testing import MockClock


async def test_a_call_is_abandoned_at_its_bound(autojump_clock: MockClock) -> None:
    """And cancelled, so that it ends by its own timeout."""
    cancelled = trio.Event()

    async def hang() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    async with open_loop() as loop:
        began = trio.current_time()
        with trio.fail_after(10 * CALL_SECONDS):
            with pytest.raises(StoreUnavailable):
                await bounded_call(loop, CALL_SECONDS, hang)
            assert trio.current_time() - began == pytest.approx(CALL_SECONDS, abs=0.1)
            await cancelled.wait()


async def test_a_call_that_is_cancelled_is_not_waited_for_and_its_operation_is_cancelled() -> None:
    cancelled = trio.Event()

    async def hang() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    async with open_loop() as loop:
        with trio.fail_after(CALL_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bounded_call, loop, CALL_SECONDS, hang)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await cancelled.wait()


async def test_a_caller_that_is_cancelled_already_begins_nothing() -> None:
    begun = False

    async def begin() -> None:
        nonlocal begun
        begun = True

    async with open_loop() as loop:
        with trio.CancelScope() as scope:
            scope.cancel()
            await bounded_call(loop, CALL_SECONDS, begin)
    assert scope.cancelled_caught
    assert not begun


async def test_a_call_that_never_waits_returns_and_lets_others_run() -> None:
    async def answer() -> int:
        return 42

    async with open_loop() as loop:
        with trio.testing.assert_checkpoints():
            assert await bounded_call(loop, CALL_SECONDS, answer) == 42


async def test_an_operation_that_asyncio_cancels_fails_like_one_without_an_answer() -> None:
    async def be_cancelled() -> None:
        raise asyncio.CancelledError

    async with open_loop() as loop:
        with pytest.raises(StoreUnavailable):
            await bounded_call(loop, CALL_SECONDS, be_cancelled)


def duplicate(constraint: str) -> Exception:
    error: Any = asyncpg.UniqueViolationError("duplicate key")
    error.constraint_name = constraint
    return error  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncpg.ConnectionDoesNotExistError("gone"), StoreUnavailable),
        (asyncpg.TooManyConnectionsError("too many"), StoreUnavailable),
        (asyncpg.DeadlockDetectedError("deadlock"), StoreUnavailable),
        (asyncpg.QueryCanceledError("statement timeout"), StoreUnavailable),
        (asyncpg.CannotConnectNowError("starting up"), StoreUnavailable),
        (asyncpg.ReadOnlySQLTransactionError("a standby"), StoreUnavailable),
        (asyncpg.InterfaceError("connection is closed"), StoreUnavailable),
        (asyncpg.InternalClientError("odd state"), StoreUnavailable),
        (TimeoutError(), StoreUnavailable),
        (ConnectionResetError(), StoreUnavailable),
        (FileNotFoundError("no socket"), StoreUnavailable),
        (asyncpg.CheckViolationError("no"), InvalidRow),
        (asyncpg.CharacterNotInRepertoireError("NUL"), InvalidRow),
        (asyncpg.DataError("not a UUID"), InvalidRow),
        (asyncpg.ProgramLimitExceededError("index row too large"), InvalidRow),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), InvalidRow),
        (duplicate("memory_once_per_user"), InvalidRow),
        (duplicate("item_once_per_conversation"), ItemExists),
        (asyncpg.UndefinedTableError("no table"), StoreError),
        (ValueError("a mistake of ours"), StoreError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_failures_that_may_pass_are_told_from_others(error: Exception, kind: type[StoreError]) -> None:
    assert type(store_error(error)) is kind


def fatal(code: str, severity: str = "ERROR") -> Exception:
    return asyncpg.PostgresError.new({"C": code, "M": "it failed", "S": severity, "V": severity})


@pytest.mark.parametrize(
    "error",
    [
        fatal("25006"),  # read-only
        fatal("0A000"),  # cached plan must not change result type
        fatal("26000"),  # prepared statement does not exist
        fatal("42P05"),  # prepared statement already exists
        fatal("08P01"),
        fatal("08006"),
        fatal("57P01", "FATAL"),
        fatal("57P05", "FATAL"),  # idle_session_timeout
        fatal("25P03", "FATAL"),  # idle_in_transaction_session_timeout
        fatal("25P04", "FATAL"),  # transaction_timeout
        fatal("58030"),
        fatal("XX000"),
        fatal("53200", "FATAL"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("odd state"),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=repr,
)
def test_a_connection_that_may_be_at_fault_is_not_used_again(error: Exception) -> None:
    assert connection_at_fault(error)


@pytest.mark.parametrize(
    "error",
    [
        fatal("23505"),  # unique violation
        fatal("40001"),  # serialization failure
        fatal("40P01"),  # deadlock
        fatal("42501"),  # insufficient privilege
        fatal("42P01"),  # undefined table
        fatal("53100"),  # disk full
        fatal("53200"),  # out of memory
        fatal("55P03"),  # lock not available
        fatal("57014"),  # statement timeout
        fatal("P0001"),  # raised by a trigger
        asyncpg.DataError("not a UUID"),
        StoreUnavailable("too late"),
        asyncio.CancelledError(),
        ValueError("a mistake of ours"),
    ],
    ids=repr,
)
def test_a_failure_of_a_statement_leaves_its_connection_in_use(error: BaseException) -> None:
    assert not connection_at_fault(error)
