"""Searches that an agent asks for itself, while it answers one turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import structlog
import trio

from ...agents.recalled import RecalledTurn
from ...store.errors import StoreError
from .quoting import quoted

SEARCHES_MAX = 3  # of one turn
SEARCH_SECONDS = 1.0  # an agent that asks for it can wait longer than every message does

Find: TypeAlias = Callable[[str], Awaitable[Sequence[RecalledTurn]]]
"""Finds what was said in the user's past, best first. Raises `StoreError`."""

_log = structlog.get_logger(__name__)


class TurnSearch:
    """`Turn.search`: what is found, as quotations; empty where nothing is, or the turn has searched enough."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._left = SEARCHES_MAX

    async def __call__(self, query: str) -> str:
        await trio.lowlevel.checkpoint()
        if not self._left:
            return ""
        self._left -= 1
        try:
            with trio.move_on_after(SEARCH_SECONDS):
                return quoted(await self._find(query))
        except StoreError as error:
            _log.debug("past_not_searched", error=str(error))
        return ""
