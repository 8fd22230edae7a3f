"""An agent whose answer only ends by cancellation, for `--agent tests.support.endless_agent:EndlessAgent`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from lastcall.agents.agent import Memory, Transcript, Turn


class EndlessAgent:
    """Yields one word, then waits to be cancelled."""

    describe = "endless"

    async def reply(self, _turn: Turn) -> AsyncGenerator[str, None]:
        yield "Well … "
        await trio.sleep_forever()

    async def finalize(self, _transcript: Transcript) -> Sequence[Memory]:
        return []
