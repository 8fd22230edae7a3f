"""Calls from Trio into asyncpg: one asyncio coroutine each, bounded from the Trio side, failing with `StoreError`s.

An operation crosses to asyncio once. A context manager that crosses for its entry and again for its exit leaks its
connection when the Trio side is cancelled in between.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import asyncpg
import trio
import trio_asyncio

from ..errors import InvalidRow, ItemExists, StoreError, StoreUnavailable, reason_of

P = ParamSpec("P")
T = TypeVar("T")

CALL_SECONDS = 7.0  # above asyncpg's own timeouts: only for a server that does not answer at all

# Retrying will not help. Class 54 is a row that fits no index, such as a very long item id.
ROW_AT_FAULT = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    UnicodeError,
)

# Of SQLSTATE: the network, cached plans (0A000), read-only and broken transactions (25), prepared statements that the
# server does not know (26), logins, the server's disk and itself (58, XX). 57P and 42P05 belong to them too: the server
# shuts down or ends idle sessions, and a prepared statement is somebody else's.
CONNECTION_CLASSES = ("08", "0A", "25", "26", "28", "58", "XX")


async def bounded_call(
    loop: trio_asyncio.BaseTrioEventLoop,
    seconds: float,
    operation: Callable[P, Coroutine[Any, Any, T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Runs an asyncio operation from Trio for at most `seconds`, then abandons it, cancelled.

    A cancel scope alone is no bound: trio-asyncio waits for the asyncio task to end, and asyncpg waits without limit
    for a frozen server to answer its cancel request. An abandoned operation ends by its own command timeout. If the
    caller is cancelled, so is the operation, and it is not waited for.

    Raises:
        StoreError: It failed; `StoreUnavailable` also where `seconds` have passed.
    """
    done = trio.Event()
    # Not `aio_as_trio`: it would cross to asyncio and back once only to start. asyncio must find the loop it runs in.
    context = contextvars.copy_context()
    context.run(trio_asyncio.current_loop.set, loop)
    task: asyncio.Task[T] = loop.create_task(operation(*args, **kwargs), context=context)
    # Reading the exception keeps asyncio from reporting it as never retrieved.
    task.add_done_callback(lambda ended: (ended.cancelled() or ended.exception(), done.set()), context=context)
    try:
        with trio.move_on_after(seconds):
            await done.wait()
        if done.is_set():
            return task.result()
    except StoreError:
        raise
    except Exception as error:
        raise store_error(error) from error
    finally:
        task.cancel()  # has no effect on a task that is done
    raise StoreUnavailable(f"the database did not answer within {seconds:g} s")


def store_error(error: Exception) -> StoreError:
    """The `StoreError` for a failure of asyncpg or of the network."""
    detail = reason_of(error)
    if isinstance(error, asyncpg.UniqueViolationError) and error.constraint_name == "item_once_per_conversation":
        return ItemExists(detail)
    if isinstance(error, ROW_AT_FAULT):
        return InvalidRow(detail)
    if _is_transient(error):
        return StoreUnavailable(detail)
    return StoreError(detail)


def refused(error: StoreError) -> bool:
    """Whether the database itself said so, and goes on running: not that it cannot be reached or is shutting down."""
    cause = error.__cause__
    return isinstance(cause, asyncpg.PostgresError) and not (cause.sqlstate or "08").startswith(("08", "57P", "53300"))


def _is_transient(error: BaseException) -> bool:
    """Whether the same idempotent statement may succeed later: SQLSTATE classes 08 and 53, and single codes."""
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        single = {"57P01", "57P02", "57P03", "57P05", "57014", "25006", "40001", "40P01", "55P03", "25P03", "25P04"}
        return code[:2] in ("08", "53") or code in single
    # InterfaceError: a connection or pool that was closed meanwhile. OSError: refused, reset, timed out.
    return isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError) and not isinstance(
        error, asyncpg.DataError
    )


def connection_at_fault(error: BaseException) -> bool:
    """Whether the connection, not the statement, is to blame, so that it must not be used again.

    Also where it only may be: another connection is soon opened. Not where a caller was cancelled.
    """
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        is_over = getattr(error, "severity_en", None) in ("FATAL", "PANIC")
        return is_over or code[:2] in CONNECTION_CLASSES or code[:3] == "57P" or code == "42P05"
    # InterfaceError: it was closed. OSError: reset, or no answer at all, as from a frozen server.
    kinds = asyncpg.InterfaceError | asyncpg.InternalClientError | OSError
    return isinstance(error, kinds) and not isinstance(error, asyncpg.DataError)
