"""Trio's loop and its traps, without what a world has no use for: sockets, other threads, guests, outcomes of nothing.

A session takes 130 steps of tasks in 80 turns of the loop, and its own work is less than what Trio adds to each. What
is not plain (a cancelled scope that is left with a group of errors, Ctrl-C) is left to Trio's own code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextvars import copy_context
from functools import cache, partial
from math import inf
from types import coroutine
from typing import TYPE_CHECKING, Any

import trio
import trio._core._run as trio_run
from outcome import Error, Value

from . import scopes
from .context import CONTEXT

if TYPE_CHECKING:
    from .seeding import Scheduler, VirtualClock

POLL_TURNS = 256  # between two looks at the kernel; Ctrl-C comes this way
_TRIO: Any = trio_run  # whose private names are no part of its types
_SUCCEEDED = trio.lowlevel.Abort.SUCCEEDED
_CREATE: Any = partial(type.__call__, trio.Cancelled)  # without the check that keeps others from it
_TASK: Any = partial(type.__call__, trio.lowlevel.Task)
_SPAWN: Any = _TRIO.Runner.spawn_impl
_MISNESTED = _TRIO.CancelReason(source="unknown", reason="misnesting")


class Loop:
    """One world's. Its methods stand for Trio's functions of the same names (`run`: for `unrolled_run`)."""

    def __init__(self, clock: VirtualClock, scheduler: Scheduler) -> None:
        self._clock = clock
        self._scheduler = scheduler

    @trio.lowlevel.enable_ki_protection
    def run(self, runner: Any, main: Callable[..., Any], args: tuple[Any, ...]) -> Generator[float, Any, None]:
        """The loop: in the same order as Trio's, with its clock asked for the time only where no task can run."""
        try:
            runner.entry_queue.wakeup.wakeup_on_signals()
            self._scheduler.begin(runner.runq)
            if not self._scheduler.counts_steps:
                runner.instruments = {}  # nobody listens: in Trio's own, to see that takes a call at each step
            runner.init_task = runner.spawn_impl(runner.init, (main, args), None, "<init>", system_task=True)
            while runner.tasks:
                for _ in range(POLL_TURNS):
                    if runner.tasks:
                        self._turn(runner)
                runner.io_manager.process_events((yield 0.0))
        except trio.TrioInternalError:
            raise
        except BaseException as error:
            raise trio.TrioInternalError("in the loop of a world") from error
        finally:
            runner.close()
            CONTEXT.__dict__.clear()
            if runner.ki_pending:
                runner.main_task_outcome = Error(KeyboardInterrupt())

    def _turn(self, runner: Any) -> None:
        clock, deadlines = self._clock, runner.deadlines
        if not runner.runq:
            clock.advance(deadlines.next_deadline())
        if deadlines._heap and deadlines._heap[0][0] <= clock.now:
            deadlines.expire(clock.now)
        batch = self._scheduler.next_batch()
        while batch:
            task = CONTEXT.task = batch.pop()
            if "before_task_step" in runner.instruments:
                runner.instruments.call("before_task_step", task)
            self._step(runner, task)

    def _step(self, runner: Any, task: Any) -> None:
        send, value = task._next_send_fn, task._next_send
        task._next_send_fn = task._next_send = None
        try:
            abort = task.context.run(send, value)
        except StopIteration as stop:
            outcome: Any = Value(stop.value)
        except BaseException as error:  # noqa: BLE001 - it is the task's nursery's
            outcome = Error(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
        else:
            if abort is None:  # it only yields
                task._next_send_fn = task.coro.send
                runner.runq.append(task)
            else:
                task._abort_func = abort
                self._interrupt(runner, task)
            return
        # Not within `except`: the error would become the context of what is raised here.
        runner.task_exited(task, outcome)

    def _interrupt(self, runner: Any, task: Any) -> None:
        if runner.ki_pending and task is runner.main_task:
            task._attempt_delivery_of_pending_ki()
        if task._cancel_status.effectively_cancelled:
            deliver_cancel(task)

    @coroutine
    def cancel_shielded_checkpoint(self) -> Generator[None, None, None]:
        if self._scheduler.may_yield_to_others():
            yield

    @coroutine
    def checkpoint(self) -> Generator[Any, None, None]:
        if self._scheduler.may_yield_to_others():
            yield
        task = CONTEXT.task
        if task._cancel_status.effectively_cancelled or (task._runner.ki_pending and task is task._runner.main_task):
            yield from wait_task_rescheduled(_give_up)


@coroutine
def wait_task_rescheduled(abort: Callable[[Any], Any]) -> Generator[Any, Any, Any]:
    """Trio's wraps the abort function, and gets an outcome where there is nothing to tell."""
    outcome = yield abort
    try:
        return None if outcome is None else outcome.unwrap()
    finally:
        del outcome  # its error's traceback holds this frame


def _give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
    return _SUCCEEDED


def _spawn(runner: Any, function: Any, args: Any, nursery: Any, name: Any, **options: Any) -> Any:
    """Trio's looks for common mistakes first."""
    named, system_task = name or function, options.get("system_task", False)
    if nursery is None or nursery._closed or options.get("context") or not hasattr(named, "__qualname__"):
        return _SPAWN(runner, function, args, nursery, name, **options)
    context = runner.system_context.copy() if system_task else copy_context()
    task = _TASK(
        coro=context.run(function, *args),
        parent_nursery=nursery,
        runner=runner,
        name=f"{named.__module__}.{named.__qualname__}",
        context=context,
        ki_protected=system_task,
    )
    runner.tasks.add(task)
    nursery._children.add(task)
    task._activate_cancel_status(nursery._cancel_status)
    reschedule(task)
    return task


def current_task() -> Any:
    try:
        return CONTEXT.task
    except AttributeError:
        raise RuntimeError("must be called from async context") from None


def reschedule(task: Any, outcome: Any = None) -> None:
    assert task._next_send_fn is None  # else it would run twice
    task._next_send_fn, task._next_send = task.coro.send, outcome
    task._abort_func = task.custom_sleep_data = None
    task._runner.runq.append(task)


def _runner_reschedule(_runner: object, task: Any, outcome: Any = None) -> None:
    reschedule(task, outcome)


def deliver_cancel(task: Any) -> None:
    """Trio's way raises the error once more than it needs, for a first line of its traceback."""
    abort, status = task._abort_func, task._cancel_status
    if abort is None or not status.effectively_cancelled:
        return
    reason = status._scope._cancel_reason or _MISNESTED

    def cancelled() -> BaseException:
        error: BaseException = _CREATE(source=reason.source, reason=reason.reason, source_task=reason.source_task)
        return error

    def raise_cancel() -> None:
        raise cancelled()

    if abort(raise_cancel) is _SUCCEEDED:
        reschedule(task, Error(cancelled()))
    else:
        task._abort_func = None


def unpark(lot: Any, *, count: float = 1) -> list[Any]:
    parked = lot._parked
    tasks: list[Any] = []
    while parked and len(tasks) < count:
        task, _ = parked.popitem(last=False)
        reschedule(task)
        tasks.append(task)
    return tasks


def _unpark_all(lot: Any) -> list[Any]:
    return unpark(lot, count=inf) if lot._parked else []


@cache
def _modules_with(name: str) -> list[Any]:
    """Those of Trio's modules that have something under a name."""
    modules = [module for path, module in sys.modules.items() if path.split(".")[0] == "trio"]
    return [module for module in modules if hasattr(module, name)]


def replacements(loop: Loop, clock: VirtualClock) -> Iterator[tuple[Any, str, Any]]:
    """Where Trio has what under which name, and what a world has there instead."""
    functions = {
        "GLOBAL_RUN_CONTEXT": CONTEXT,
        "cancel_shielded_checkpoint": loop.cancel_shielded_checkpoint,
        "checkpoint": loop.checkpoint,
        "current_task": current_task,
        "current_time": clock.current_time,
        "reschedule": reschedule,
        "sleep": clock.sleep,
        "sleep_until": clock.sleep_until,
        "unrolled_run": loop.run,
        "wait_task_rescheduled": wait_task_rescheduled,
    }
    for name, function in functions.items():
        yield from ((module, name, function) for module in _modules_with(name))
    yield _TRIO.Runner, "reschedule", _runner_reschedule
    yield _TRIO.Runner, "spawn_impl", _spawn
    yield _TRIO.Task, "_attempt_delivery_of_any_pending_cancel", deliver_cancel
    yield trio.lowlevel.ParkingLot, "unpark", unpark
    yield trio.lowlevel.ParkingLot, "unpark_all", _unpark_all
    yield from ((trio.CancelScope, name, function) for name, function in scopes.NAMES.items())
