"""Trio's cancel scopes, which a session enters fifty times, without what a world does not need.

Whatever is not plain (a scope that is left with a group of errors, or out of order, or is over before it begins) is
left to Trio's own code.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isnan
from typing import Any

import trio
import trio._core._run as trio_run

from .context import CONTEXT

_TRIO: Any = trio_run  # whose private names are no part of its types
_SCOPE: Any = trio.CancelScope
_DEADLINE = _SCOPE.deadline
_ENTER, _EXIT = _SCOPE.__enter__, _SCOPE.__exit__
_CLOSE: Callable[[Any, BaseException | None], BaseException | None] = _SCOPE._close
_Status: Any = _TRIO.CancelStatus
_EXPLICIT = _TRIO.CancelReason(source="explicit")


class DeadlineChange:
    """Trio's way to note a scope's deadline, without the generator that it makes for that."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        """The deadline may change now."""

    def __exit__(self, *_: object) -> None:
        scope = self._scope
        over = scope._cancel_status is None or scope._cancel_called
        _register(scope, inf if over else scope._deadline)


def _register(scope: Any, deadline: float) -> None:
    before = scope._registered_deadline
    if before != deadline:
        scope._registered_deadline = deadline
        deadlines = CONTEXT.runner.deadlines
        if before != inf:
            deadlines.remove(before, scope)
        if deadline != inf:
            deadlines.add(deadline, scope)


def _set_deadline(scope: Any, deadline: float) -> None:
    if scope._relative_deadline != inf or isnan(deadline):
        _DEADLINE.fset(scope, deadline)
        return
    scope._deadline = float(deadline)
    if scope._cancel_status is not None and not scope._cancel_called:
        _register(scope, scope._deadline)


def _enter(scope: Any) -> Any:
    now = trio.current_time()
    deadline = scope._deadline if scope._relative_deadline == inf else now + scope._relative_deadline
    task = CONTEXT.task
    parent = task._cancel_status
    if scope._has_been_entered or now >= deadline or parent is None:
        return _ENTER(scope)
    scope._has_been_entered, scope._deadline, scope._relative_deadline = True, deadline, inf
    status = scope._cancel_status = _new_status(scope, parent)
    # It is this task that runs, so there is no wait of its own that could be cancelled.
    parent._tasks.remove(task)
    status._tasks.add(task)
    task._cancel_status = status
    if deadline != inf and not scope._cancel_called:
        _register(scope, deadline)
    return scope


def _new_status(scope: Any, parent: Any) -> Any:
    status = _Status.__new__(_Status)
    status._scope, status._parent = scope, parent
    status._children, status._tasks = set(), set()
    status.abandoned_by_misnesting = False
    inherits = parent.effectively_cancelled and not scope._shield
    status.effectively_cancelled = scope._cancel_called or inherits
    if inherits and scope._cancel_reason is None:
        scope._cancel_reason = parent._scope._cancel_reason
    parent._children.add(status)
    return status


def _close(scope: Any, error: BaseException | None) -> BaseException | None:
    status, task = scope._cancel_status, CONTEXT.task
    parent = status and status._parent
    if parent is None or task._cancel_status is not status or status._children or len(status._tasks) > 1:
        return _CLOSE(scope, error)
    if error is not None and status.effectively_cancelled and (scope._shield or not parent.effectively_cancelled):
        if type(error) is not trio.Cancelled:
            return _CLOSE(scope, error)
        scope.cancelled_caught, error = True, None
    parent._tasks.add(task)
    task._cancel_status = parent
    parent._children.remove(status)
    status._parent = scope._cancel_status = None
    if scope._registered_deadline != inf:
        _register(scope, inf)
    return error


def _exit(scope: Any, kind: Any, error: BaseException | None, trace: Any) -> bool:
    if error is not None and type(error) is not trio.Cancelled:
        caught: bool = _EXIT(scope, kind, error, trace)
        return caught
    rest = _close(scope, error)
    if rest is not None and rest is not error:
        raise rest
    return rest is None


def _cancel(scope: Any, reason: str | None = None) -> None:
    """Trio's puts the task that cancels into words, for an error that nobody reads here."""
    scope._cancel(_EXPLICIT if reason is None else _TRIO.CancelReason(source="explicit", reason=reason))


NAMES = {
    "__enter__": _enter,
    "__exit__": _exit,
    "_close": _close,
    "cancel": _cancel,
    "deadline": _DEADLINE.setter(_set_deadline),
    "_might_change_registered_deadline": lambda scope: DeadlineChange(scope),
}
"""What `trio.CancelScope` is to have instead of its own."""
