"""All checks of a world that is at rest."""

from __future__ import annotations

from ..visits import Visit
from ..world import World
from .connection_checks import ConnectionChecks
from .memory_checks import MemoryChecks
from .server_checks import ServerChecks
from .session_checks import SessionChecks
from .step_checks import StepChecks


def check_at_rest(world: World, checks: StepChecks, visits: list[Visit]) -> None:
    """Checks every session, memory, visit and server; findings go to `checks`."""
    SessionChecks(world, checks, visits).run()
    MemoryChecks(world, checks).run()
    ConnectionChecks(world, checks, visits).run()
    ServerChecks(world, checks, visits).run()
