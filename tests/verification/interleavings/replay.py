"""One order, or one meeting, again: as a failure names it, with every step told."""

from __future__ import annotations

from collections.abc import Callable

from .database import Source, database
from .model import BATCHES, NAMES
from .orders import Failure
from .together import Meeting, Meetings, Stage

Tell = Callable[[str], None]


def parse(text: str) -> Meeting | list[str]:
    """`order`, or `scene / X & Y / commit`. Raises `ValueError`."""
    scene, *rest = (part.strip() for part in text.split("/"))
    _check(scene.split())
    if not rest:
        return scene.split()
    if len(rest) != 2 or rest[1] not in ("commit", "rollback"):
        raise ValueError("a meeting is written: scene / X & Y / commit (or rollback)")
    first, *others = (name.strip() for name in rest[0].split("&"))
    name, _, paused = first.partition("@")
    _check([name, *others])
    if paused and paused not in map(str, range(1, len(BATCHES.get(name, ())))):
        raise ValueError(f"{name} cannot be paused at {paused!r}")
    if len(others) not in (1, 2):
        raise ValueError("a meeting is of two or three statements")
    return Meeting(scene, (name, *others), int(paused) if paused else None, rest[1] == "commit")


def _check(names: list[str]) -> None:
    for name in names:
        if name not in NAMES:
            raise ValueError(f"there is no statement {name!r}; there are {', '.join(NAMES)}")


async def again(url: str, source: Source, what: Meeting | list[str], tell: Tell) -> list[Failure]:
    """Plays it on a database of its own; what it broke."""
    async with database(url, source) as made:
        stage = await Stage.set_up(made, tell)
        if not isinstance(what, Meeting):
            return await stage.prepare(" ".join(what))
        found = Meetings(failures=await stage.prepare(what.scene))
        await stage.meet(what, found)
        return found.failures
