"""Garbage is collected in small pieces beside the work; what is old is looked through only where it has grown."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import trio
from lastcall.runtime.garbage import LOOK_SECONDS, YOUNG_SECONDS, Collector
from lastcall.runtime.start_up import no_collections
from trio.testing import MockClock

from ..support.clients import connect
from ..support.processes import run_server

LOOKED_SECONDS = LOOK_SECONDS + 2 * YOUNG_SECONDS


class Knot:
    """Refers to itself, so that no last reference ever goes."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector_at_rest() -> Iterator[None]:
    gc.collect()
    with no_collections():
        yield


@pytest.fixture
def collector(nursery: trio.Nursery) -> Collector:
    collector = Collector(more=5_000)
    nursery.start_soon(collector.run)
    return collector


async def test_a_cycle_is_collected_within_a_tenth_of_a_second(collector: Collector, autojump_clock: MockClock) -> None:
    knot = weakref.ref(Knot())
    assert knot() is not None
    await trio.sleep(1.5 * YOUNG_SECONDS)
    assert knot() is None


async def test_what_has_grown_old_is_left_alone_for_as_long_as_there_is_little_of_it(
    collector: Collector, autojump_clock: MockClock
) -> None:
    await trio.sleep(LOOKED_SECONDS)  # the test runner's own objects are old, and many
    knot = old_knot()
    await trio.sleep(3 * LOOK_SECONDS)
    assert knot() is not None


async def test_old_cycles_are_collected_before_there_are_half_as_many_objects_again(
    collector: Collector, autojump_clock: MockClock
) -> None:
    await trio.sleep(LOOKED_SECONDS)
    knot = old_knot()
    many = [[] for _ in range(len(gc.get_objects(generation=2)) // 2 + 10_000)]  # type: ignore[var-annotated]
    await trio.sleep(LOOKED_SECONDS)
    assert knot() is None
    del many


def old_knot() -> weakref.ref[Knot]:
    knot = Knot()
    gc.collect(1)
    return weakref.ref(knot)


async def test_a_server_never_has_python_collect_by_itself(database_url: str) -> None:
    with run_server("--database-url", database_url, "--agent", "tests.support.scripted_agents:Introspective") as server:
        async with connect(server.url) as client:
            answer = await client.ask("Hello")
    [part] = answer["response"]["output"][0]["content"]
    assert part["text"].endswith(" at rest")
