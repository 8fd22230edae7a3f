"""Trio's cancel scopes, which a session enters fifty times, without what a world does not need.

Whatever is not plain (a scope that is left by an exception, or out of order, or is over before it begins) is left to
Trio's own code.
"""

from __future__ import annotations

from math import inf
from typing import Any

import trio
import trio._core._run as trio_run

_TRIO: Any = trio_run  # whose private names are no part of its types
_SCOPE: Any = trio.CancelScope
_ENTER, _CLOSE = _SCOPE.__enter__, _SCOPE._close


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
        before, now = scope._registered_deadline, inf if over else scope._deadline
        if before != now:
            scope._registered_deadline = now
            deadlines = _TRIO.GLOBAL_RUN_CONTEXT.runner.deadlines
            if before != inf:
                deadlines.remove(before, scope)
            if now != inf:
                deadlines.add(now, scope)


def _change_deadline(scope: Any) -> DeadlineChange:
    return DeadlineChange(scope)


def _enter(scope: Any) -> Any:
    context, now = _TRIO.GLOBAL_RUN_CONTEXT, trio.current_time()
    deadline = scope._deadline if scope._relative_deadline == inf else now + scope._relative_deadline
    if scope._has_been_entered or now >= deadline:
        return _ENTER(scope)
    scope._has_been_entered, scope._deadline, scope._relative_deadline = True, deadline, inf
    task = context.task
    status = scope._cancel_status = _TRIO.CancelStatus(scope=scope, parent=task._cancel_status)
    task._activate_cancel_status(status)
    if deadline != inf and not scope._cancel_called:
        scope._registered_deadline = deadline
        context.runner.deadlines.add(deadline, scope)
    return scope


def _close(scope: Any, error: BaseException | None) -> BaseException | None:
    context, status = _TRIO.GLOBAL_RUN_CONTEXT, scope._cancel_status
    task = context.task
    if error is not None or status is None or task._cancel_status is not status:
        rest: BaseException | None = _CLOSE(scope, error)
        return rest
    task._activate_cancel_status(status.parent)
    status.close()
    scope._cancel_status = None
    if scope._registered_deadline != inf:
        context.runner.deadlines.remove(scope._registered_deadline, scope)
        scope._registered_deadline = inf
    return None


NAMES = {"__enter__": _enter, "_close": _close, "_might_change_registered_deadline": _change_deadline}
"""What `trio.CancelScope` is to have instead of its own."""
