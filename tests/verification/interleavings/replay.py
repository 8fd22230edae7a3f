"""Replays one order or one overlap, as a failure names it, and tells every step."""

from __future__ import annotations

from collections.abc import Callable

from .database import Source, database
from .model import BATCHES, NAMES
from .orders import Failure
from .overlap_lane import Overlap, OverlapLane, Overlaps

Tell = Callable[[str], None]


def parse(text: str) -> Overlap | list[str]:
    """Parses `order`, or `setup / X & Y / commit`.

    Raises:
        ValueError: It is neither; the message says why.
    """
    setup, *rest = (part.strip() for part in text.split("/"))
    _check(setup.split())
    if not rest:
        return setup.split()
    if len(rest) != 2 or rest[1] not in ("commit", "rollback"):
        raise ValueError("an overlap is written as: setup / X & Y / commit (or rollback)")
    first, *others = (name.strip() for name in rest[0].split("&"))
    name, _, paused = first.partition("@")
    _check([name, *others])
    if paused and paused not in map(str, range(1, len(BATCHES.get(name, ())))):
        raise ValueError(f"{name} cannot be paused at {paused!r}")
    if len(others) not in (1, 2):
        raise ValueError("an overlap has two or three statements")
    return Overlap(setup, (name, *others), int(paused) if paused else None, rest[1] == "commit")


def _check(names: list[str]) -> None:
    for name in names:
        if name not in NAMES:
            raise ValueError(f"there is no statement {name!r}; the statements are {', '.join(NAMES)}")


async def again(url: str, source: Source, what: Overlap | list[str], tell: Tell) -> list[Failure]:
    """Plays it on a database of its own. Returns what it broke."""
    async with database(url, source) as made:
        lane = await OverlapLane.open(made, tell)
        if not isinstance(what, Overlap):
            return await lane.set_up(" ".join(what))
        found = Overlaps(failures=await lane.set_up(what.setup))
        await lane.play(what, found)
        return found.failures
