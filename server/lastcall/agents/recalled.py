"""What comes back from earlier conversations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RecalledTurn:
    """What was said in an earlier conversation with the user. date: ISO, UTC. who: said it."""

    date: str
    who: Literal["user", "assistant"]
    text: str
