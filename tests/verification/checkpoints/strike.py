"""A strike: something that happens to a server exactly before one step of one of its tasks.

A step is what a task does between two checkpoints. A strike before step k therefore takes effect at the checkpoint
where that step ends; every other task of the server is hit at the checkpoint where it waits.
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

from ..simulation.fakes.link import Link
from ..simulation.fakes.seeding import OWNER

if TYPE_CHECKING:
    from .run import ScenarioRun

T = TypeVar("T")
FINALIZER = Finalizer.work.__qualname__
Kind = Literal["cancel", "crash", "error-before", "error-after", "signal", "by-hand"]
"""cancel: cancels the scope around the connection's task, as its nursery would. crash: SIGKILL, and another server
starts. error-before, error-after: the task's next operation on the store fails once, before or after its effect.
signal: SIGTERM, perhaps the second one. by-hand: a person closes the session's row."""
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Strike:
    """at: number of the step, from 1, before which it happens. seed: of the order of tasks."""

    scenario: str
    kind: Kind
    at: int
    seed: int


@dataclass(slots=True)
class Checkpoint:
    """The beginning of a step. open: there is a connection. active: there is an active row.

    operation: on the store, that begins in this step.
    """

    at: float
    task: str
    open: bool
    active: bool
    operation: str = ""

    def can(self, kind: Kind) -> bool:
        """Whether a strike of this kind has any effect here. An error needs an operation that begins."""
        match kind:
            case "cancel":
                return self.open
            case "by-hand":
                return self.active
            case "error-before" | "error-after":
                return bool(self.operation)
        return True


class StruckLink(Link):
    """A link that can fail one operation, and reports which ones begin.

    failing_task: the task whose next operation fails. failed: that operation's name and when it began.
    writers: the tasks that play the real store's writer.
    """

    run: ScenarioRun
    failing_task: trio.lowlevel.Task | None = None
    after = False
    failed: tuple[str, float] | None = None
    _effect: Callable[[], Any] | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.writers: set[trio.lowlevel.Task] = set()

    async def append_items(self, items: Any, *, within: float) -> None:
        self.run.maybe_fail(items[0].session_id)
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
        self.run.finalized[session_id] += applied
        return applied

    def _begins(self, name: str, effect: Callable[[], Any]) -> None:
        task = trio.lowlevel.current_task()
        self.run.steps.operation(task, name)
        if task is self.failing_task:
            self.failing_task, self._effect, self.failed = None, effect, (name, trio.current_time())

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


class StepCounter(trio.abc.Instrument):
    """Counts the steps of a scenario's tasks, and strikes before one of them.

    error: the first exception in here. Trio would only log it, and continue without the instrument.
    """

    def __init__(self, run: ScenarioRun, strike: Strike | None) -> None:
        self.checkpoints: list[Checkpoint] = []
        self.error: Exception | None = None
        self._run = run
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
        run = self._run
        server = run.server
        if server is None or server.over_at is not None or not run.counts():
            return False
        if isinstance(server.link, StruckLink) and task in server.link.writers:
            return True
        match run.scenario.steps:
            case "connection":
                return self.belongs(task)
            case "memory":
                return task.context.get(OWNER) is server and task.name.endswith(FINALIZER)
        return task.context.get(OWNER) is server

    def _count(self, task: trio.lowlevel.Task) -> None:
        run = self._run
        active = any(row.is_active for row in run.rows())
        self.checkpoints.append(Checkpoint(trio.current_time(), task.name, bool(run.scopes), active))
        if self._strike is not None and len(self.checkpoints) == self._strike.at:
            run.strike(self._strike.kind, task)

    def operation(self, task: trio.lowlevel.Task, name: str) -> None:
        """A task begins an operation on the store."""
        if task is self._stepping:
            self.checkpoints[-1].operation = name

    def root(self, task: trio.lowlevel.Task) -> None:
        """Takes a task for the connection: its steps count, and those of all tasks that it starts."""
        self._of_connection[task] = True

    def belongs(self, task: trio.lowlevel.Task) -> bool:
        known = self._of_connection.get(task)
        if known is None:
            nursery = task.parent_nursery
            known = nursery is not None and self.belongs(nursery.parent_task)
            self._of_connection[task] = known
        return known
