"""All orders of the statements, one after the other.

Orders that lead to the same essence (`state.py`) are continued once: when no new states are left, all orders of any
length are covered. Nothing is ever committed: a savepoint before each statement restores the state. What one
transaction cannot show, since it never waits for its own locks, is in `overlaps.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ..promises import Promise
from .checks import Broken, broken
from .database import Source, clock, database, observe
from .model import NAMES, expected, possible
from .state import SILENCE, TICK, Known, Snapshot, State, essence, learned
from .statements import Sql, create_servers, send

LANES = 3  # connections, each with a database of its own
CHUNK = 6  # neighbouring states, which share most of their order
FAILURES_MAX = 20  # after which it stops
Essence = tuple[object, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """A state and the order that led to it."""

    state: State
    name: str = ""
    before: Node | None = None

    @property
    def chain(self) -> list[Node]:
        """From the beginning."""
        found: list[Node] = []
        node: Node | None = self
        while node is not None:
            found.append(node)
            node = node.before
        return found[::-1]

    @property
    def order(self) -> str:
        return " ".join(node.name for node in self.chain[1:])


@dataclass(frozen=True, slots=True)
class Failure:
    """An order whose last statement broke something."""

    order: str
    broken: Sequence[Broken]


@dataclass
class Orders:
    """All results. arrows: what each statement answers (in one word) and leads to, by essence."""

    root: Essence = ()
    known: set[Essence] = field(default_factory=set)
    arrows: dict[Essence, dict[str, tuple[str, Essence]]] = field(default_factory=dict)
    merged: list[Node] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    executed: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    length: int = 0
    complete: bool = False
    seconds: float = 0.0

    @property
    def states(self) -> int:
        return len(self.known)

    @property
    def steps(self) -> int:
        return sum(self.executed.values())

    def orders(self, length: int) -> int:
        """How many orders of at most this length were covered."""
        paths: dict[Essence, int] = {self.root: 1}
        total = 0
        for _ in range(length):
            after: Counter[Essence] = Counter()
            for at, count in paths.items():
                for _, to in self.arrows.get(at, {}).values():
                    after[to] += count
            paths = dict(after)
            total += sum(paths.values())
        return total


def following(name: str, now: int) -> int:
    return now + (SILENCE if name == "silence" else TICK)


class Lane:
    """A connection in one long transaction, which is at some state and can go to any other."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self._chain: list[Node] = []
        self.others: str | None = None

    async def begin(self) -> Node:
        await self._sql.raw.execute("BEGIN")

        async def set_clock(now: int) -> None:
            await self._sql.raw.execute(clock(now))

        await create_servers(self._sql, set_clock)
        await self._sql.raw.execute(f"{clock(TICK)}; SAVEPOINT s0")
        snapshot, self.others = await observe(self._sql, None)
        return Node(State(snapshot, Known(), 0))

    def stand_at(self, root: Node) -> None:
        """Begins at the state that all lanes share."""
        self._chain = [root]

    async def go_to(self, node: Node) -> None:
        """Goes back to the last common state, and on from there by sending the statements."""
        chain = node.chain
        shared = sum(1 for _ in _shared(self._chain, chain))
        self._chain = chain[:shared]
        await self._sql.raw.execute(f"ROLLBACK TO s{shared - 1}")
        for each in chain[shared:]:
            await self.try_out(each.name)
            self._chain.append(each)
            # The clock is set before the savepoint, so that a rollback to it has the next statement's time.
            ahead = clock(each.state.now + TICK)
            await self._sql.raw.execute(f"{ahead}; SAVEPOINT s{len(self._chain) - 1}")

    async def try_out(self, name: str) -> str:
        """Sends a statement. Returns its answer."""
        at = self._chain[-1].state
        now = following(name, at.now)
        if name == "silence":
            await self._sql.raw.execute(clock(now))
        answer = await send(self._sql, name, at, now)
        if _failed(answer):
            await self.undo()
        return answer

    async def look(self) -> Snapshot:
        return (await observe(self._sql, self.others))[0]

    async def undo(self) -> None:
        await self._sql.raw.execute(f"ROLLBACK TO s{len(self._chain) - 1}")


def _failed(answer: str) -> bool:
    return answer == "refused" or answer.startswith("error")


def _shared(one: Sequence[Node], other: Sequence[Node]) -> Iterator[Node]:
    for left, right in zip(one, other, strict=False):
        if left is not right:
            return
        yield left


def differences(before: State, name: str, answer: str, after: State) -> list[Broken]:
    """What a statement broke: promises first, then its differences from the model."""
    state = State(before.snapshot, before.known, after.now)
    snapshot, word = expected(name, state)
    found = broken(before, name, answer, after.snapshot, after.now)
    if answer != word:
        found.append(Broken(Promise.AS_MODELLED, f"answered {answer!r}, expected {word!r}"))
    for part in Snapshot.__slots__:
        is_, should = getattr(after.snapshot, part), getattr(snapshot, part)
        if is_ != should:
            found.append(Broken(Promise.AS_MODELLED, f"{part} is {is_!r}, expected {should!r}"))
    return found


class Explorer:
    """Goes through all states, nearest first.

    Args:
        length: Statements in the longest orders; None: until no statement leads to a new state.
        until: When to stop, on the monotonic clock, in seconds.
        apart: Do not merge states of one essence: each order is played by itself.
        failures_max: After so many failures, it stops.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        length: int | None = None,
        until: float = float("inf"),
        apart: bool = False,
        names: Sequence[str] = NAMES,
        failures_max: int = FAILURES_MAX,
        found: Orders | None = None,
    ) -> None:
        self.found = found or Orders()
        self._failures_max = failures_max
        self._lanes = lanes
        self._length = length
        self._until = until
        self._apart = apart
        self._names = names
        self._next: list[Node] = []

    async def run(self) -> Orders:
        roots = [await lane.begin() for lane in self._lanes]
        for lane in self._lanes:
            lane.stand_at(roots[0])
        self.found.root = self._essence(roots[0])
        self.found.known.add(self.found.root)
        level = roots[:1]
        while level and self.found.length != self._length and await self._through(level, self._go_on):
            self.found.length += 1
            level, self._next = self._next, []
        self.found.complete = not level
        return self.found

    async def compare(self, share: float, random: Random) -> None:
        """Continues from states that were merged into others: they must have the same futures."""
        merged = [node for node in self.found.merged if self._essence(node) in self.found.arrows]
        await self._through(random.sample(merged, round(len(merged) * share)), self._compare_one)

    async def _through(self, nodes: Sequence[Node], visit: Callable[[Lane, Node], Awaitable[None]]) -> bool:
        """Visits all nodes. Returns False if it stopped before, for lack of time or after too many failures."""
        waiting = iter([nodes[at : at + CHUNK] for at in range(0, len(nodes), CHUNK)])

        async def work(lane: Lane) -> bool:
            for chunk in waiting:
                for node in chunk:
                    if time.monotonic() > self._until or len(self.found.failures) >= self._failures_max:
                        return False
                    await visit(lane, node)
            return True

        return all(await asyncio.gather(*(work(lane) for lane in self._lanes)))

    async def _go_on(self, lane: Lane, node: Node) -> None:
        arrows: dict[str, tuple[str, Essence]] = {}
        async for name, answer, child in self._children(lane, node):
            essence_of = self._essence(child)
            arrows[name] = (answer.split()[0], essence_of)
            if essence_of not in self.found.known:
                self.found.known.add(essence_of)
                self._next.append(child)
            elif child.state.snapshot != node.state.snapshot:
                self.found.merged.append(child)
        self.found.arrows[self._essence(node)] = arrows

    async def _compare_one(self, lane: Lane, node: Node) -> None:
        arrows = {
            name: (answer.split()[0], self._essence(child)) async for name, answer, child in self._children(lane, node)
        }
        self.found.compared += 1
        known = self.found.arrows[self._essence(node)]
        for name in known.keys() | arrows.keys():
            if arrows.get(name) != known.get(name) and not self.found.failures:
                how = f"{arrows.get(name)}, where a state of the same essence has {known.get(name)}"
                self.found.failures.append(Failure(f"{node.order} {name}", [Broken(Promise.REPEATABLE, how)]))

    async def _children(self, lane: Lane, node: Node) -> AsyncIterator[tuple[str, str, Node]]:
        """Tries every statement from here. Those that break something are not continued."""
        await lane.go_to(node)
        for name in self._names:
            if not possible(name, node.state):
                continue
            answer, state = await self._try(lane, name, node.state)
            child = Node(state, name, node)
            wrong = differences(node.state, name, answer, state)
            if wrong:
                self.found.failures.append(Failure(child.order, wrong))
            else:
                yield name, answer, child

    async def _try(self, lane: Lane, name: str, at: State) -> tuple[str, State]:
        """Returns the answer of a statement and the state that it leads to. The lane stays where it was."""
        self.found.executed[name] += 1
        answer = await lane.try_out(name)
        snapshot = at.snapshot if _failed(answer) else await lane.look()
        if snapshot != at.snapshot or name == "silence":
            await lane.undo()
        return answer, State(snapshot, learned(at.known, name, answer), following(name, at.now))

    def _essence(self, node: Node) -> Essence:
        return (node.order,) if self._apart else essence(node.state)


async def explore(url: str, source: Source, *, compare: float = 0.0, lanes: int = LANES, **options: Any) -> Orders:
    """Plays all orders, on databases of their own.

    compare: share of the merged states from which it continues once more. options: of `Explorer`.
    """
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(database(url, source)) for _ in range(lanes)]
        explorer = Explorer([Lane(await each.connect()) for each in made], **options)
        found = await explorer.run()
        if not found.failures:
            await explorer.compare(compare, Random(0))
        found.seconds = time.monotonic() - began
        return found
