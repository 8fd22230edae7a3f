"""Every test of this folder runs over both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from tests.support.instances import instance

from .world import World, open_world


@pytest.fixture(params=["memory", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """The database's URL; None for the store in memory."""
    return request.getfixturevalue("database_url") if request.param == "postgres" else None


@pytest.fixture
def clock(url: str | None) -> MockClock | None:
    """Virtual time where no real database is waited for; tests that wait ask for it."""
    return MockClock(autojump_threshold=0) if url is None else None


@pytest.fixture
async def world(url: str | None) -> AsyncIterator[World]:
    async with open_world(url) as world:
        await world.store.register_instance(instance(world.instance_id))
        yield world
