"""The echo agent, with patience: for `--agent tests.system.official.agent:Patient`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import trio
from lastcall.agents.agent import Turn
from lastcall.agents.echo import EchoAgent

ENDLESS = "Go on for ever."


class Patient(EchoAgent):
    """Echoes; asked to go on for ever, it says one word and waits to be cancelled."""

    async def reply(self, turn: Turn) -> AsyncGenerator[Any, None]:
        if turn.messages and turn.messages[-1].text == ENDLESS:
            yield "Well … "
            await trio.sleep_forever()
        async for piece in super().reply(turn):
            yield piece
