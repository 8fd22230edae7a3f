"""The echo agent, with patience: for `--agent tests.system.official.agent:Patient`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import trio
from lastcall.agents.agent import Turn
from lastcall.agents.echo import EchoAgent

ENDLESS = "Go on for ever."
RECITE = "What has been said?"


class Patient(EchoAgent):
    """Echoes; asked to go on for ever, it says one word and waits to be cancelled; asked to, it recites."""

    async def reply(self, turn: Turn) -> AsyncGenerator[Any, None]:
        if turn.messages and turn.messages[-1].text == ENDLESS:
            yield "Well … "
            await trio.sleep_forever()
        if turn.messages and turn.messages[-1].text == RECITE:
            yield "\n".join(f"{each.role}: {each.text}" for each in turn.messages[:-1])
            return
        async for piece in super().reply(turn):
            yield piece
