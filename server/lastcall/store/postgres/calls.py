"""Calls from Trio into asyncpg: each one asyncio coroutine, bounded from the Trio side, its failures as `StoreError`s.

An operation is entered once: a context manager that crosses from Trio to asyncio leaks its connection when the Trio
side is cancelled. And asyncpg waits without limit for the answer to its own cancel request when the server is frozen.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import asyncpg
import trio
import trio_asyncio

from ..errors import InvalidRow, ItemExists, StoreError, StoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")

CALL_SECONDS = 7.0  # above asyncpg's own limits: only for a server that does not answer at all

# Trying again will not help. Class 54 is a row that fits no index, such as a very long item id.
ROW_AT_FAULT = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    UnicodeError,
)


def _transient(error: BaseException) -> bool:
    """Whether the same idempotent statement may succeed later (SQLSTATE classes 08, 53 and the single codes below)."""
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        single = {"57P01", "57P02", "57P03", "57P05", "57014", "25006", "40001", "40P01", "55P03", "25P03", "25P04"}
        return code[:2] in ("08", "53") or code in single
    # InterfaceError: a connection or pool that was closed under us. OSError: refused, reset, timed out.
    return isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError) and not isinstance(
        error, asyncpg.DataError
    )


def store_error(error: Exception) -> StoreError:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, asyncpg.UniqueViolationError) and error.constraint_name == "item_once_per_conversation":
        return ItemExists(detail)
    if isinstance(error, ROW_AT_FAULT):
        return InvalidRow(detail)
    if _transient(error):
        return StoreUnavailable(detail)
    return StoreError(detail)


async def bounded(
    loop: trio_asyncio.BaseTrioEventLoop,
    seconds: float,
    operation: Callable[P, Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Awaits an asyncio operation from Trio for at most `seconds`, then leaves it behind, cancelled.

    A cancel scope alone is no bound: trio-asyncio waits for the asyncio task, and asyncpg's release of a connection
    waits for a frozen server. What is left behind ends by its own command timeout. Cancelled from outside, the
    operation is cancelled too, and not waited for.
    """
    done = trio.Event()

    async def run() -> T:
        return await operation(*args, **kwargs)

    # Not `aio_as_trio`, which would cross over and back once only to begin. asyncio must find the loop it runs in.
    context = contextvars.copy_context()
    context.run(trio_asyncio.current_loop.set, loop)
    task: asyncio.Task[T] = loop.create_task(run(), context=context)
    # Reading the exception keeps asyncio from reporting it as never retrieved.
    task.add_done_callback(lambda ended: (ended.cancelled() or ended.exception(), done.set()), context=context)
    try:
        with trio.move_on_after(seconds):
            await done.wait()
    except trio.Cancelled:
        task.cancel()
        raise
    if done.is_set():
        return task.result()
    task.cancel()
    raise StoreUnavailable(f"the database did not answer within {seconds:g} s")


async def call(
    loop: trio_asyncio.BaseTrioEventLoop, operation: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Runs an asyncio operation to its end, or for `CALL_SECONDS`. Raises only `StoreError`s."""
    try:
        return await bounded(loop, CALL_SECONDS, operation, *args, **kwargs)
    except StoreError:
        raise
    except Exception as error:
        raise store_error(error) from error
