"""What a session was about: a turn whose beginning is told when its user returns. Pure; for the rules' process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...agents.agent import Message
from ..facts.requests import declined, is_order, to_forget

if TYPE_CHECKING:
    from .indexing import Passage

TOPIC = 4  # flag of that turn
EARLY_TURNS_MAX = 8  # of the user: among these
GREETING_BYTES_MAX = 20  # a turn below that says little; some languages need few characters
READ_CHARS_MAX = 300  # of the beginning of a turn


def mark_topic(passages: Sequence[Passage], turns: Sequence[Message]) -> None:
    """Flags the turn, the first one of the user that is more than a greeting.

    None is where the user asked to forget something or not to remember it: that may be what the session was about. Nor
    is it a turn that tells the assistant how to behave.
    """
    said = {turn.item_id: " ".join(turn.text[:READ_CHARS_MAX].split()) for turn in turns if turn.role == "user"}
    if not passages or any(declined(text) or to_forget(text) is not None for text in said.values()):
        return
    first = passages[0]
    early = [number for number, item_id in enumerate(first.items) if item_id in said][:EARLY_TURNS_MAX]
    told = [number for number in early if not is_order(said[first.items[number]])]
    if told:
        topic = min(told, key=lambda number: len(said[first.items[number]].encode()) < GREETING_BYTES_MAX)
        first.flags[topic] |= TOPIC
