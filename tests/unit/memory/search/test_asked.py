from __future__ import annotations

from collections.abc import Sequence

import trio
from lastcall.agents.recalled import RecalledTurn
from lastcall.memory.search.asked import SEARCH_SECONDS, SEARCHES_MAX, TurnSearch
from lastcall.store.errors import StoreUnavailable
from trio.testing import MockClock

TURN = RecalledTurn("2026-11-27", "user", "My boat is called Gannet.")


async def test_what_is_found_comes_as_quotations_a_few_times() -> None:
    asked: list[str] = []

    async def find(query: str) -> Sequence[RecalledTurn]:
        asked.append(query)
        return [TURN]

    search = TurnSearch(find)
    found = [await search(f"boat {number}") for number in range(SEARCHES_MAX + 1)]
    assert len(asked) == SEARCHES_MAX
    assert all("Gannet" in each and each.splitlines()[1].startswith("<<<said ") for each in found[:-1])
    assert found[-1] == ""


async def test_a_database_that_is_away_or_slow_finds_nothing(autojump_clock: MockClock) -> None:
    async def away(_query: str) -> Sequence[RecalledTurn]:
        raise StoreUnavailable("away")

    async def slow(_query: str) -> Sequence[RecalledTurn]:
        await trio.sleep(2 * SEARCH_SECONDS)
        return [TURN]

    began = trio.current_time()
    assert await TurnSearch(away)("boat") == ""
    assert await TurnSearch(slow)("boat") == ""
    assert trio.current_time() - began == SEARCH_SECONDS
