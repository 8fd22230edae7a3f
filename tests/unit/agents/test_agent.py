"""What authors of agents import, and what an agent's code may raise into the server."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio
from lastcall.agents.agent import AgentBroken, contained


def test_the_public_names_are_quick_to_import() -> None:
    code = (
        "import sys; from lastcall.agents import *; Turn, Agent, Memory;"
        " heavy = {'trio', 'openai', 'httpx2', 'structlog', 'msgspec', 'lastcall.memory', 'lastcall.agents.select'};"
        " sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "raised", [SystemExit(3), GeneratorExit(), BaseExceptionGroup("", [GeneratorExit()])], ids=repr
)
def test_what_is_no_exception_becomes_one(raised: BaseException) -> None:
    with pytest.raises(AgentBroken), contained():
        raise raised


async def test_a_cancellation_in_a_group_still_cancels() -> None:
    """A `yield` in an agent's nursery mixes `Cancelled` with `GeneratorExit`."""
    with trio.CancelScope() as scope, contained():
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            raise BaseExceptionGroup("", [cancelled, GeneratorExit()]) from None
    assert scope.cancelled_caught
