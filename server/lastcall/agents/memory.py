"""What an agent leaves behind of a session, and what it is told of earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class KnownFact:
    """What the user once said of themselves. said_at: Unix seconds, or None. slot: as in `Memory`."""

    content: str
    slot: str
    said_at: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    """A fact worth knowing when the user returns.

    kind: name, place, need, like, dislike, note, or a word of the agent's own (at most 32 characters).
    content: one sentence, at most 1,000 characters.
    item_id: the item that it comes from.
    quote: the words of that item that say it, at most 1,000 characters.
    slot: what it is about, such as "home" (memory/facts/slots.py); of some slots only the newest memory is current.
    words: what it is about in words, by which endings find it; taken from the content where there are none.
    op: "close" also ends memories of the slots `closes` that share a word with it; "forget" removes those, and
        is none itself: its quote is what shall not be learned again.
    replaces: ids of earlier memories of the user that it supersedes.
    """

    kind: str
    content: str
    item_id: str
    quote: str
    slot: str = ""
    words: Sequence[str] = field(default=(), compare=False)
    op: Literal["add", "close", "forget"] = "add"
    closes: tuple[str, ...] = ()
    replaces: tuple[int, ...] = ()
