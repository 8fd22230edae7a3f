"""Calls from Trio into asyncpg: one asyncio coroutine each, bounded from the Trio side, failing with `StoreError`s.

An operation crosses to asyncio once. A context manager that crosses for its entry and again for its exit leaks its
connection when the Trio side is cancelled in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar

import asyncpg
import trio

from ...metrics import DatabaseCall, Metrics
from ..errors import InvalidRow, ItemExists, StoreError, StoreUnavailable, reason_of
from .loop import AsyncioLoop

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
    loop: AsyncioLoop,
    seconds: float,
    operation: Callable[P, Coroutine[Any, Any, T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Runs an asyncio operation from Trio for at most `seconds`, then abandons it, cancelled.

    A cancel scope alone is no bound: trio-asyncio waits for the asyncio task to end, and asyncpg waits without limit
    for a frozen server to answer its cancel request. An abandoned operation ends by its own command timeout. If the
    caller is cancelled, so is the operation, and it is not waited for; if it is cancelled already, nothing is begun.

    Raises:
        StoreError: It failed; `StoreUnavailable` also where `seconds` have passed.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    call: _AwaitedCall[T] = _AwaitedCall()
    task = loop.start(call.run(operation(*args, **kwargs)))
    if task.done():
        await trio.lowlevel.cancel_shielded_checkpoint()
    else:
        # asyncio's timer, not a cancel scope, which costs as much as the rest of the call.
        timer = loop.asyncio.call_later(seconds, call.wake)
        try:
            await call.wait()
        finally:
            timer.cancel()
            task.cancel()  # has no effect where it has ended
    if not call.ended:
        raise StoreUnavailable(f"the database did not answer within {seconds:g} s")
    return call.result()


@contextmanager
def timed(metrics: Metrics, call: DatabaseCall) -> Iterator[None]:
    """Counts how long the database took for what the block asks. A row at fault is no failure of the database."""
    began, failed = trio.current_time(), False
    try:
        yield
    except StoreError as error:
        failed = not isinstance(error, InvalidRow)
        raise
    finally:
        metrics.count_database_call(call, trio.current_time() - began, failed=failed)


class _AwaitedCall(Generic[T]):
    """An operation that asyncio runs, and the Trio task that waits for it."""

    def __init__(self) -> None:
        self.ended = False
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._waiting: trio.lowlevel.Task | None = None

    async def run(self, operation: Coroutine[Any, Any, T]) -> None:
        """The operation, in asyncio. Its failure is kept for `result`: asyncio would report it if nobody asked."""
        try:
            self._results.append(await operation)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - `result` tells
            self._error = error
        self.ended = True
        self.wake()

    def wake(self) -> None:
        """Has `wait` return. Without effect where nobody waits any more."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            trio.lowlevel.reschedule(waiting)

    async def wait(self) -> None:
        """Waits for `wake`, in Trio."""
        self._waiting = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._waiting = None
        return trio.lowlevel.Abort.SUCCEEDED

    def result(self) -> T:
        """Raises a `StoreError` for its failure."""
        error, self._error = self._error, None  # no reference cycle, through the traceback, is left behind
        if error is None:
            return self._results[0]
        try:
            if isinstance(error, StoreError):
                raise error
            if isinstance(error, Exception):
                raise store_error(error) from error
            raise StoreUnavailable("the call was cancelled") from error
        finally:
            del error


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
