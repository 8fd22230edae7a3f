"""A strike: what is done to a server, exactly before one step of one of its tasks.

A step is what a task does between two checkpoints. What is done before step k therefore meets the checkpoint at which
that step ends; every other task of the server is hit at the one where it waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args
from uuid import UUID

import trio
from lastcall.agents.agent import Memory
from lastcall.memory.finalizer import Finalizer

from tests.support.fake_store import Write

from ..simulation.database import Link
from ..simulation.seeding import OWNER

if TYPE_CHECKING:
    from .run import Ending

T = TypeVar("T")
FINALIZER = Finalizer.work.__qualname__
Kind = Literal["cancel", "crash", "error-before", "error-after", "signal", "by-hand"]
"""cancel: the scope around the connection's task, as its nursery would. crash: SIGKILL, and another server starts.
error-before, error-after: the task's next operation on the store fails once, without its effect or in spite of it.
signal: SIGTERM; the second one where one came before. by-hand: somebody closes the session's row."""
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Strike:
    """kind, before the step number `at`, counted from 1, in the world of this seed."""

    scenario: str
    kind: Kind
    at: int
    seed: int


@dataclass(slots=True)
class Moment:
    """Before a step. What can be struck then: open: a connection; active: a row. operation: begins in this step."""

    at: float
    task: str
    open: bool
    active: bool
    operation: str = ""

    def can(self, kind: Kind) -> bool:
        """Whether a strike of this kind changes anything here. An error does where an operation begins."""
        match kind:
            case "cancel":
                return self.open
            case "by-hand":
                return self.active
            case "error-before" | "error-after":
                return bool(self.operation)
        return True


class StruckLink(Link):
    """A link that fails one operation when told to, and says which ones begin.

    doomed: the task whose next operation fails. failed: that operation's name and when it began. writers: the tasks
    that stand for the real store's writer.
    """

    ending: Ending
    doomed: trio.lowlevel.Task | None = None
    after = False
    failed: tuple[str, float] | None = None
    _effect: Callable[[], Any] | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.writers: set[trio.lowlevel.Task] = set()

    async def append_items(self, items: Any, *, within: float) -> None:
        self.ending.break_down(items[0].session_id)
        await super().append_items(items, within=within)

    async def _ask(self, name: str, effect: Callable[[], T]) -> T:
        self._begins(name, effect)
        return await super()._ask(name, effect)

    async def _submit(self, write: Write, within: float) -> Any:
        self._begins(write.name, write.effect)
        return await super()._submit(write, within)

    async def _commit_queued(self) -> None:
        self.writers.add(trio.lowlevel.current_task())
        await super()._commit_queued()

    def _finish(self, session_id: UUID, memories: Sequence[Memory]) -> bool:
        applied = super()._finish(session_id, memories)
        self.ending.remembered[session_id] += applied
        return applied

    def _begins(self, name: str, effect: Callable[[], Any]) -> None:
        task = trio.lowlevel.current_task()
        self.ending.steps.operation(task, name)
        if task is self.doomed:
            self.doomed, self._effect, self.failed = None, effect, (name, trio.current_time())

    async def _attempt(self, name: str, effect: Callable[[], T]) -> T:
        if effect is not self._effect:
            return await super()._attempt(name, effect)
        self._effect = None
        if self.after:
            await super()._attempt(name, effect)
        else:
            await self._go(name)
        self._fail(name, "an error after the effect" if self.after else "an error before the effect")
        raise AssertionError


class Counted(trio.abc.Instrument):
    """Counts the steps of a scenario's tasks, and strikes before one of them.

    error: what went wrong in here. Trio would only log it, and go on without us.
    """

    def __init__(self, ending: Ending, strike: Strike | None) -> None:
        self.moments: list[Moment] = []
        self.error: Exception | None = None
        self._ending = ending
        self._strike = strike
        self._of_connection: dict[trio.lowlevel.Task, bool] = {}
        self._stepping: trio.lowlevel.Task | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        try:
            self._stepping = task if self._counts(task) else None
            if self._stepping is not None:
                self._count(task)
        except Exception as error:  # noqa: BLE001 - as above
            self.error = self.error or error

    def _counts(self, task: trio.lowlevel.Task) -> bool:
        ending = self._ending
        server = ending.server
        if server is None or server.over_at is not None or not ending.counts():
            return False
        if isinstance(server.link, StruckLink) and task in server.link.writers:
            return True
        match ending.scenario.steps:
            case "connection":
                return self.belongs(task)
            case "memory":
                return task.context.get(OWNER) is server and task.name.endswith(FINALIZER)
        return task.context.get(OWNER) is server

    def _count(self, task: trio.lowlevel.Task) -> None:
        ending = self._ending
        active = any(row.is_active for row in ending.rows())
        self.moments.append(Moment(trio.current_time(), task.name, bool(ending.scopes), active))
        if self._strike is not None and len(self.moments) == self._strike.at:
            ending.strike(self._strike.kind, task)

    def operation(self, task: trio.lowlevel.Task, name: str) -> None:
        """A task begins an operation on the store."""
        if task is self._stepping:
            self.moments[-1].operation = name

    def root(self, task: trio.lowlevel.Task) -> None:
        """It and all that it starts are the connection."""
        self._of_connection[task] = True

    def belongs(self, task: trio.lowlevel.Task) -> bool:
        known = self._of_connection.get(task)
        if known is None:
            nursery = task.parent_nursery
            known = nursery is not None and self.belongs(nursery.parent_task)
            self._of_connection[task] = known
        return known
