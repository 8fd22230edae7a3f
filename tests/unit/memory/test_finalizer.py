"""The memory finalizer: passes over pending sessions, and sessions whose exit path waits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import trio
from lastcall.agents.agent import Agent, AgentFailed, Memory, Message, ModelUnavailable, Transcript, Turn
from lastcall.config import Settings
from lastcall.memory.attempts import CLAIM_SECONDS, RELEASE_SECONDS, STORE_RETRY_SECONDS
from lastcall.memory.by_model.outage import PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN
from lastcall.memory.extract import RulesUnavailable
from lastcall.memory.finalizer import GATHER_SECONDS, TOGETHER_MAX, open_finalizer
from lastcall.memory.outcomes import CONTENT_CHARS_MAX, KIND_CHARS_MAX, MEMORIES_MAX
from lastcall.memory.reading import Reading, SessionReader
from lastcall.store.errors import InvalidRow, StoreUnavailable
from lastcall.store.people.memories import StoredMemory
from lastcall.store.records import FinishedMemory, MemoryClaim
from lastcall.store.store import Store
from trio.testing import MockClock, wait_all_tasks_blocked

SETTINGS = Settings(memory_workers=2, memory_seconds=60.0, memory_sweep_seconds=1_000.0, memory_attempts_max=3)
FACT = Memory("name", "The user is called Ada.", "item_1", "I am Ada")
EXTRACTED = replace(FACT, slot="name", words=("user", "ada"))  # as the server completes what a model says


@dataclass
class Work:
    """A pending session as the scripted store holds it."""

    session_id: UUID = field(default_factory=uuid4)
    attempts: int = 0
    due: float = 0.0
    claimed_until: float = 0.0
    memories: Sequence[Memory] | None = None
    failures: list[tuple[str, float | None]] = field(default_factory=list)
    failed_for_good: bool = False
    released: int = 0
    text: str = "I am Ada"


class ScriptedStore:
    """The memory operations of a store, on a list, with the store's own rules of claims and retries.

    before_claim, before_finish, before_fail: called first; they may wait or raise.
    """

    def __init__(self, *works: Work) -> None:
        self.works = list(works)
        self.passes: list[float] = []
        self.claimed: list[int] = []  # how many sessions each claim took
        self.refused: set[UUID] = set()  # sessions whose memory cannot be stored
        self.told: list[str] = []  # users whose memories a model was told
        self.before_claim: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.before_finish: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.before_fail: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    async def claim_memory(
        self, limit: int, lease_seconds: float, *, session_ids: Sequence[UUID] | None = None
    ) -> Sequence[MemoryClaim]:
        now = trio.current_time()
        if session_ids is None:
            self.passes.append(now)
        asked_for = [work for work in self.works if session_ids is None or work.session_id in session_ids]
        found = [work for work in asked_for if self._is_free(work, now)][:limit]
        for work in found:
            work.attempts += 1
            work.claimed_until = now + lease_seconds
        self.claimed.append(len(found))
        await self.before_claim()
        return [MemoryClaim(transcript(work), work.attempts) for work in found]

    async def known_memories(self, user_id: str, limit: int) -> Sequence[StoredMemory]:
        await trio.lowlevel.checkpoint()
        self.told.append(user_id)
        return ()

    def _is_free(self, work: Work, now: float) -> bool:
        over = work.memories is not None or work.failed_for_good
        return not over and work.due <= now and work.claimed_until <= now

    async def finish_memory(
        self, finished: Sequence[FinishedMemory], *, lifetime_seconds: float | None = None
    ) -> Collection[UUID]:
        await self.before_finish()
        if any(each.session_id in self.refused for each in finished):
            raise InvalidRow("refused")
        for each in finished:
            self._work(each.session_id).memories = each.memories
        return [each.session_id for each in finished]

    async def renew_memory(self, claims: Sequence[MemoryClaim], lease_seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        for claim in claims:
            self._work(UUID(claim.transcript.session_id)).claimed_until = trio.current_time() + lease_seconds

    async def release_memory(self, session_ids: Sequence[UUID]) -> None:
        await self.before_fail()
        for work in map(self._work, session_ids):
            work.released += 1
            work.attempts = max(work.attempts - 1, 0)
            work.claimed_until = 0.0

    async def fail_memory(self, session_id: UUID, error: str, *, retry_after: float | None) -> None:
        await self.before_fail()
        work = self._work(session_id)
        work.failures.append((error, retry_after))
        work.claimed_until = 0.0
        work.failed_for_good = retry_after is None
        work.due = trio.current_time() + (retry_after or 0.0)

    def _work(self, session_id: UUID) -> Work:
        return next(work for work in self.works if work.session_id == session_id)


def transcript(work: Work) -> Transcript:
    return Transcript(str(work.session_id), "ada", [Message("user", work.text, "item_1")])


class ScriptedAgent:
    """An agent that only remembers, as its function says."""

    describe = "scripted"

    def __init__(self, finalize: Callable[[Transcript], Awaitable[Sequence[Memory]]]) -> None:
        self._finalize = finalize

    def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        raise NotImplementedError

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        return await self._finalize(transcript)


class Silent:
    """An agent that leaves memory to the rules."""

    describe = "silent"


async def remember(_transcript: Transcript) -> Sequence[Memory]:
    await trio.lowlevel.checkpoint()
    return [FACT]


def finalizing(
    store: ScriptedStore, finalize: Callable[[Transcript], Awaitable[Any]] = remember, **changes: Any
) -> Any:
    """The workers, on a scripted store and agent; `changes` are settings."""
    agent: Agent = ScriptedAgent(finalize)
    return open_finalizer(cast("Store", store), agent, replace(SETTINGS, **changes))


# --- finalizing -----------------------------------------------------------------------------------------------------


async def test_an_announced_session_does_not_wait_for_the_sweep(
    autojump_clock: MockClock,
) -> None:
    store = ScriptedStore()
    async with finalizing(store) as finalizer:
        await wait_all_tasks_blocked()
        work = Work()
        store.works.append(work)
        began = trio.current_time()
        finalizer.announce()
        await wait_all_tasks_blocked()
        assert work.memories == [FACT]
        assert trio.current_time() == began


async def test_a_session_that_nobody_announced_is_finalized_by_the_sweep(autojump_clock: MockClock) -> None:
    store = ScriptedStore()
    async with finalizing(store, memory_sweep_seconds=5.0):
        await wait_all_tasks_blocked()
        work = Work()
        store.works.append(work)
        await trio.sleep(5.0)
        await wait_all_tasks_blocked()
        assert work.memories == [FACT]


async def test_idle_workers_make_one_pass_per_sweep_interval(autojump_clock: MockClock) -> None:
    store = ScriptedStore()
    async with finalizing(store, memory_sweep_seconds=5.0, memory_workers=1):
        await trio.sleep(12.0)
        passes = [*store.passes]
    assert [each - passes[0] for each in passes] == [0.0, 5.0, 10.0]


async def test_an_announcement_during_an_empty_pass_is_not_lost(autojump_clock: MockClock) -> None:
    store, gate = ScriptedStore(), trio.Event()
    store.before_claim = gate.wait
    async with finalizing(store) as finalizer:
        await wait_all_tasks_blocked()
        work = Work()
        store.works.append(work)  # after both passes began, before they are answered
        began = trio.current_time()
        finalizer.announce()
        gate.set()
        await wait_all_tasks_blocked()
        assert work.memories == [FACT]
        assert trio.current_time() == began


async def test_an_announcement_during_the_last_pass_of_a_shutdown_is_not_lost(autojump_clock: MockClock) -> None:
    store, gate = ScriptedStore(), trio.Event()
    store.before_claim = gate.wait
    work = Work()
    async with finalizing(store) as finalizer:
        await wait_all_tasks_blocked()
        store.works.append(work)
        finalizer.announce()
        finalizer.close()
        gate.set()
    assert work.memories == [FACT]


async def test_a_shutdown_drains_what_is_pending(autojump_clock: MockClock) -> None:
    works = [Work() for _ in range(20)]

    async def slowly(transcript: Transcript) -> Sequence[Memory]:
        await trio.sleep(1)
        return await remember(transcript)

    began = trio.current_time()
    async with finalizing(ScriptedStore(*works), slowly):
        pass
    assert all(work.memories == [FACT] and work.attempts == 1 for work in works)
    assert trio.current_time() - began == 10  # 20 sessions, 2 workers, 1 s each


async def test_a_hung_agent_costs_only_its_own_try(autojump_clock: MockClock) -> None:
    hung, *others = works = [Work() for _ in range(6)]
    store = ScriptedStore(*works)

    async def finalize(transcript: Transcript) -> Sequence[Memory]:
        if transcript.session_id == str(hung.session_id):
            await trio.sleep_forever()
        return await remember(transcript)

    async with finalizing(store, finalize):
        await wait_all_tasks_blocked()
        assert all(work.memories == [FACT] for work in others)
        await trio.sleep(SETTINGS.memory_seconds + 1)
        ((error, retry_after),) = hung.failures
        assert "60 s" in error
        assert retry_after is not None
        assert retry_after > 0
    assert hung.memories is None


async def test_a_hung_write_is_a_failed_try_as_well(autojump_clock: MockClock) -> None:
    work = Work()
    store = ScriptedStore(work)
    store.before_finish = trio.sleep_forever
    async with finalizing(store):
        await trio.sleep(SETTINGS.memory_seconds + 1)
    assert [retry is not None for _, retry in work.failures] == [True]


@pytest.mark.parametrize(
    "error",
    [
        AgentFailed("model_error", "no model"),
        ValueError("no model"),
        InvalidRow("no model"),
        StoreUnavailable("no model"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_agent_or_a_write_that_raises_is_noted_and_tried_again_later(
    error: Exception, autojump_clock: MockClock
) -> None:
    work, fine = Work(), Work()
    store = ScriptedStore(work, fine)

    async def finalize(transcript: Transcript) -> Sequence[Memory]:
        if transcript.session_id == str(work.session_id) and not work.failures:
            raise error
        return await remember(transcript)

    async with finalizing(store, finalize, memory_sweep_seconds=5.0):
        await wait_all_tasks_blocked()
        assert fine.memories == [FACT]
        ((reason, retry_after),) = work.failures
        assert "no model" in reason
        assert retry_after is not None
        await trio.sleep(retry_after + 5.0)
        assert work.memories == [FACT]


@pytest.mark.parametrize("returned", [None, ["text"], [None], 5], ids=repr)
async def test_an_agent_that_returns_no_memories_at_all_is_a_failed_try(
    returned: Any, autojump_clock: MockClock
) -> None:
    work = Work()

    async def finalize(_transcript: Transcript) -> Any:
        await trio.lowlevel.checkpoint()
        return returned

    async with finalizing(ScriptedStore(work), finalize):
        pass
    assert work.memories is None
    assert [retry is not None for _, retry in work.failures] == [True]


async def test_tries_are_bounded_with_growing_pauses_and_then_it_has_failed_for_good(autojump_clock: MockClock) -> None:
    work = Work()

    async def finalize(_transcript: Transcript) -> Sequence[Memory]:
        raise ValueError("never")

    async with finalizing(ScriptedStore(work), finalize, memory_sweep_seconds=1.0):
        await trio.sleep(3_600)
    assert work.failed_for_good
    assert work.attempts == SETTINGS.memory_attempts_max
    pauses = [retry for _, retry in work.failures]
    assert pauses[-1] is None
    waited = [pause for pause in pauses if pause is not None]
    assert waited == sorted(set(waited))
    assert len(waited) == SETTINGS.memory_attempts_max - 1


# --- by the rules, together -----------------------------------------------------------------------------------------


def by_rules(store: ScriptedStore, read: SessionReader | None = None, **changes: Any) -> Any:
    """The workers with an agent that leaves memory to the rules."""
    agent = cast("Agent", Silent())
    return open_finalizer(cast("Store", store), agent, replace(SETTINGS, **changes), read or read_names)


async def read_names(transcripts: Sequence[Transcript]) -> Sequence[Reading]:
    await trio.lowlevel.checkpoint()
    return [Reading([FACT]) for _ in transcripts]


async def test_many_pending_sessions_are_claimed_read_and_stored_together(autojump_clock: MockClock) -> None:
    works = [Work() for _ in range(TOGETHER_MAX + 1)]
    store, finished = ScriptedStore(*works), 0

    async def count() -> None:
        nonlocal finished
        finished += 1
        await trio.lowlevel.checkpoint()

    store.before_finish = count
    async with by_rules(store):
        await trio.sleep(1)
    assert all(work.memories == [FACT] and work.attempts == 1 for work in works)
    assert sorted(store.claimed, reverse=True)[:2] == [TOGETHER_MAX, 1]
    assert finished == 2


async def test_a_session_that_asks_alone_does_not_wait_for_others(autojump_clock: MockClock) -> None:
    store = ScriptedStore()
    async with by_rules(store) as finalizer:
        await wait_all_tasks_blocked()
        work = Work()
        store.works.append(work)
        began = trio.current_time()
        await finalizer.finalize(work.session_id)
        assert work.memories == [FACT]
        assert trio.current_time() == began


async def test_sessions_that_ask_one_after_the_other_are_gathered(autojump_clock: MockClock) -> None:
    store = ScriptedStore()
    async with by_rules(store) as finalizer:
        await wait_all_tasks_blocked()
        works = [Work() for _ in range(11)]
        store.works.extend(works)
        waited: list[float] = []

        async def ask(work: Work) -> None:
            began = trio.current_time()
            await finalizer.finalize(work.session_id)
            waited.append(trio.current_time() - began)

        async with trio.open_nursery() as exits:
            for work in works:
                exits.start_soon(ask, work)
                await trio.sleep(GATHER_SECONDS / 20)
        assert [count for count in store.claimed if count] == [1, 10]
        assert all(work.memories == [FACT] for work in works)
        assert max(waited) <= GATHER_SECONDS


@pytest.mark.parametrize("trouble", ["unreadable", "ends its process", "not storable"])
async def test_a_session_that_cannot_be_finalized_costs_no_other_a_try(trouble: str, autojump_clock: MockClock) -> None:
    poison, *others = works = [Work() for _ in range(6)]
    store = ScriptedStore(*works)

    async def read(transcripts: Sequence[Transcript]) -> Sequence[Reading]:
        await trio.lowlevel.checkpoint()
        if trouble == "ends its process" and any(each.session_id == str(poison.session_id) for each in transcripts):
            raise AgentFailed("extraction_failed", "the rules took more than 2 s of CPU time")
        error = "the rules failed" if trouble == "unreadable" else None
        return [
            Reading([FACT], error=error if each.session_id == str(poison.session_id) else None) for each in transcripts
        ]

    if trouble == "not storable":
        store.refused = {poison.session_id}
    async with by_rules(store, read):
        await wait_all_tasks_blocked()
        assert all(work.memories == [FACT] and (work.attempts, work.failures) == (1, []) for work in others)
        await trio.sleep(3_600)
    assert poison.failed_for_good
    assert poison.attempts == SETTINGS.memory_attempts_max


async def test_sessions_wait_untried_where_the_rules_cannot_run(autojump_clock: MockClock) -> None:
    works, away = [Work() for _ in range(3)], True

    async def read(transcripts: Sequence[Transcript]) -> Sequence[Reading]:
        if away:
            await trio.sleep(30)
            raise RulesUnavailable("no process")
        return await read_names(transcripts)

    async with by_rules(ScriptedStore(*works), read, memory_sweep_seconds=5.0, memory_workers=1):
        await trio.sleep(100)
        assert all((work.memories, work.failures) == (None, []) for work in works)
        away = False
        await trio.sleep(100)
    assert all(work.memories == [FACT] and work.attempts == 1 for work in works)


async def test_claims_last_as_long_as_the_work_and_hardly_longer_than_their_server(autojump_clock: MockClock) -> None:
    work, reading = Work(), trio.Event()

    async def read(_transcripts: Sequence[Transcript]) -> Sequence[Reading]:
        reading.set()
        await trio.sleep_forever()
        raise AssertionError

    store = ScriptedStore(work)
    async with by_rules(store, read):
        await reading.wait()
        for _ in range(10):
            await trio.sleep(SETTINGS.memory_seconds / 20)
            assert trio.current_time() < work.claimed_until <= trio.current_time() + CLAIM_SECONDS
        assert work.attempts == 1
        work.failed_for_good = True


async def test_a_very_long_error_is_cut(autojump_clock: MockClock) -> None:
    work = Work()

    async def finalize(_transcript: Transcript) -> Sequence[Memory]:
        raise AgentFailed("model_error", "x" * 100_000)

    async with finalizing(ScriptedStore(work), finalize):
        pass
    assert len(work.failures[0][0]) <= CONTENT_CHARS_MAX


# --- sessions whose exit path waits ---------------------------------------------------------------------------------


async def test_a_session_that_asks_is_finalized_at_once_by_a_claim_of_its_own(
    autojump_clock: MockClock,
) -> None:
    older, own = Work(due=1_000.0), Work()
    store = ScriptedStore(older)
    async with finalizing(store) as finalizer:
        await wait_all_tasks_blocked()
        passes, older.due = len(store.passes), 0.0
        store.works.append(own)
        await finalizer.finalize(own.session_id)
        assert own.memories == [FACT]
        await wait_all_tasks_blocked()
        assert older.memories is None, "a session claims no other's memory"
        assert len(store.passes) == passes, "and costs no pass"


async def test_sessions_beyond_the_workers_do_not_wait_and_are_left_to_passes(autojump_clock: MockClock) -> None:
    works, release = [Work() for _ in range(5)], trio.Event()
    running = 0
    most = 0

    async def slowly(transcript: Transcript) -> Sequence[Memory]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return await remember(transcript)

    store = ScriptedStore()
    async with finalizing(store, slowly) as finalizer:
        await wait_all_tasks_blocked()
        store.works.extend(works)
        async with trio.open_nursery() as exits:
            for work in works[:2]:
                exits.start_soon(finalizer.finalize, work.session_id)
            await wait_all_tasks_blocked()
            with trio.fail_after(0.01):
                for work in works[2:]:
                    await finalizer.finalize(work.session_id)
            assert [work.attempts for work in works] == [1, 1, 0, 0, 0]
            release.set()
        await trio.sleep(1)
    assert all(work.memories == [FACT] and work.attempts == 1 for work in works)
    assert most == SETTINGS.memory_workers


async def test_a_session_that_stops_waiting_does_not_stop_the_work(autojump_clock: MockClock) -> None:
    work = Work()

    async def slowly(transcript: Transcript) -> Sequence[Memory]:
        await trio.sleep(5)
        return await remember(transcript)

    store = ScriptedStore()
    async with finalizing(store, slowly) as finalizer:
        await wait_all_tasks_blocked()
        store.works.append(work)
        with trio.move_on_after(1) as waiting:
            await finalizer.finalize(work.session_id)
        assert waiting.cancelled_caught
        await trio.sleep(5)
        assert work.memories == [FACT]
    assert work.attempts == 1


async def test_a_shutdown_releases_the_sessions_that_wait_and_those_to_come(autojump_clock: MockClock) -> None:
    first, second = Work(), Work()

    async def slowly(transcript: Transcript) -> Sequence[Memory]:
        await trio.sleep(5)
        return await remember(transcript)

    store = ScriptedStore()
    async with finalizing(store, slowly) as finalizer:
        await wait_all_tasks_blocked()
        store.works.extend([first, second])
        async with trio.open_nursery() as exits:
            exits.start_soon(finalizer.finalize, first.session_id)
            await wait_all_tasks_blocked()
            with trio.fail_after(0.01):
                finalizer.drain()
                await finalizer.finalize(second.session_id)
    assert [work.memories for work in (first, second)] == [[FACT], [FACT]]


@pytest.mark.parametrize("trouble", ["no claim", "no memory"])
async def test_a_session_waits_no_longer_than_until_its_try_has_failed(trouble: str, autojump_clock: MockClock) -> None:
    async def unavailable() -> None:
        raise StoreUnavailable("no database")

    async def fail(_transcript: Transcript) -> Sequence[Memory]:
        raise AgentFailed("model_error", "no model")

    work, store = Work(), ScriptedStore()
    async with finalizing(store, fail) as finalizer:
        await wait_all_tasks_blocked()
        store.works.append(work)
        if trouble == "no claim":
            store.before_claim = unavailable
        with trio.fail_after(0.01):
            await finalizer.finalize(work.session_id)
    assert work.memories is None


# --- the budget of a shutdown ---------------------------------------------------------------------------------------


async def hang(_transcript: Transcript) -> Sequence[Memory]:
    await trio.sleep_forever()
    raise AssertionError


async def hang_in_tasks(_transcript: Transcript) -> Sequence[Memory]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(trio.sleep_forever)
    raise AssertionError


async def fail_when_cancelled(_transcript: Transcript) -> Sequence[Memory]:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("my own clean-up failed")


@pytest.mark.parametrize("finalize", [hang, hang_in_tasks, fail_when_cancelled], ids=lambda agent: agent.__name__)
@pytest.mark.parametrize("attempts", [0, SETTINGS.memory_attempts_max - 1], ids=["first try", "last try"])
async def test_beyond_the_budget_a_claim_is_given_back_at_once(
    finalize: Callable[[Transcript], Awaitable[Sequence[Memory]]], attempts: int, autojump_clock: MockClock
) -> None:
    work = Work(attempts=attempts)
    began = trio.current_time()
    with trio.move_on_after(5) as budget:
        async with finalizing(ScriptedStore(work), finalize):
            pass
    assert budget.cancelled_caught
    assert trio.current_time() - began == 5
    assert (work.released, work.failures) == (1, [])


async def test_a_transcript_that_ends_its_server_each_time_is_not_tried_for_ever(autojump_clock: MockClock) -> None:
    work = Work(attempts=SETTINGS.memory_attempts_max)
    async with finalizing(ScriptedStore(work), hang):
        pass
    assert work.failed_for_good


async def test_a_store_that_hangs_at_the_end_holds_up_a_shutdown_only_so_long(autojump_clock: MockClock) -> None:
    store = ScriptedStore(Work(), Work())
    store.before_fail = trio.sleep_forever
    began = trio.current_time()
    with trio.move_on_after(5):
        async with finalizing(store, hang):
            pass
    assert trio.current_time() - began <= 5 + RELEASE_SECONDS


# --- a store that fails ---------------------------------------------------------------------------------------------


async def test_a_pass_that_fails_does_not_end_the_worker(autojump_clock: MockClock) -> None:
    work = Work(due=1.0)
    store = ScriptedStore(work)

    async def unavailable() -> None:
        raise StoreUnavailable("no database")

    store.before_claim = unavailable
    async with finalizing(store, memory_sweep_seconds=5.0):
        await trio.sleep(20)
        assert len(store.passes) <= 2 * 5  # 2 workers; no busy loop
        store.before_claim = trio.lowlevel.checkpoint
        await trio.sleep(SETTINGS.memory_seconds + 30)
        assert work.memories == [FACT]


async def test_a_failure_that_cannot_be_noted_does_not_end_the_worker(autojump_clock: MockClock) -> None:
    work, other = Work(), Work(due=1.0)
    store = ScriptedStore(work, other)

    async def unavailable() -> None:
        raise StoreUnavailable("no database")

    async def finalize(transcript: Transcript) -> Sequence[Memory]:
        if work.attempts == 1 and transcript.session_id == str(work.session_id):
            raise ValueError("once")
        return await remember(transcript)

    store.before_fail = unavailable
    async with finalizing(store, finalize, memory_sweep_seconds=5.0, memory_workers=1):
        await trio.sleep(10)
        assert other.memories == [FACT]
        await trio.sleep(SETTINGS.memory_seconds + 30)  # the claim runs out by itself
        assert work.memories == [FACT]


async def test_a_store_that_is_away_is_asked_again_and_nothing_is_extracted_anew(autojump_clock: MockClock) -> None:
    work, extracted = Work(), 0
    store = ScriptedStore(work)

    async def away() -> None:
        if trio.current_time() - began < 30:
            raise StoreUnavailable("no database")

    async def finalize(transcript: Transcript) -> Sequence[Memory]:
        nonlocal extracted
        extracted += 1
        return await remember(transcript)

    store.before_finish, began = away, trio.current_time()
    async with finalizing(store, finalize):
        await trio.sleep(30 + STORE_RETRY_SECONDS)
        assert (work.memories, work.attempts, extracted) == ([FACT], 1, 1)


async def test_what_one_try_extracted_is_stored_by_the_next(autojump_clock: MockClock) -> None:
    work, extracted = Work(), 0
    store = ScriptedStore(work)

    async def unavailable() -> None:
        raise StoreUnavailable("no database")

    async def finalize(transcript: Transcript) -> Sequence[Memory]:
        nonlocal extracted
        extracted += 1
        return await remember(transcript)

    store.before_finish = unavailable
    async with finalizing(store, finalize, memory_sweep_seconds=5.0):
        await trio.sleep(SETTINGS.memory_seconds)
        assert [reason for reason, _ in work.failures] == ["not stored: no database"]
        store.before_finish = trio.lowlevel.checkpoint
        await trio.sleep(60)
        assert (work.memories, work.attempts, extracted) == ([FACT], 2, 1)


async def test_a_store_that_is_away_does_not_hold_up_a_shutdown(autojump_clock: MockClock) -> None:
    store = ScriptedStore(Work(), Work())

    async def unavailable() -> None:
        raise StoreUnavailable("no database")

    store.before_finish = store.before_fail = unavailable
    began = trio.current_time()
    async with finalizing(store):
        await wait_all_tasks_blocked()
    assert trio.current_time() - began <= STORE_RETRY_SECONDS


# --- a model that is away -------------------------------------------------------------------------------------------


class Modelled:
    """An agent that leaves memory to its model."""

    describe = "modelled"

    def __init__(self, answer: Callable[[str], Awaitable[str]]) -> None:
        self._answer = answer
        self.asked: list[float] = []

    @property
    def extractor(self) -> Modelled:
        return self

    async def complete_json(self, instructions: str, prompt: str, **_: Any) -> str:
        self.asked.append(trio.current_time())
        return await self._answer(prompt)


def with_model(store: ScriptedStore, agent: Modelled, **changes: Any) -> Any:
    return open_finalizer(cast("Store", store), cast("Agent", agent), replace(SETTINGS, **changes))


LISTED = '[{"kind": "name", "content": "The user is called Ada.", "item": 1, "quote": "I am Ada"}]'
AWAY = {
    "unreachable": ModelUnavailable("code", "away"),
    "failing": ModelUnavailable("code", "failed", certain=False),
    "silent": None,
}


def model_that_is_back_at(back: float, trouble: Exception | None) -> Modelled:
    async def answer(prompt: str) -> str:
        if trio.current_time() >= back:
            return LISTED
        if trouble is None:
            await trio.sleep_forever()
        raise trouble

    return Modelled(answer)


@pytest.mark.parametrize("trouble", AWAY)
async def test_an_outage_of_the_model_uses_up_no_tries(trouble: str, autojump_clock: MockClock) -> None:
    works = [Work() for _ in range(6)]
    back = trio.current_time() + 86_400.0
    agent = model_that_is_back_at(back, AWAY[trouble])
    async with with_model(ScriptedStore(*works), agent, memory_sweep_seconds=5.0):
        await trio.sleep(86_400.0)
        assert [(work.memories, work.failures) for work in works] == [(None, [])] * len(works)
        assert sum(work.attempts for work in works) <= SETTINGS.memory_workers, "those that are under way"
        await trio.sleep(SETTINGS.memory_seconds + PAUSE_SECONDS_MAX + 1.0)
        assert [(work.attempts, work.memories) for work in works] == [(1, [EXTRACTED])] * len(works)


async def test_a_model_is_told_what_is_known_of_the_sessions_user(autojump_clock: MockClock) -> None:
    store = ScriptedStore(Work())
    async with with_model(store, model_that_is_back_at(0.0, None)):
        await trio.sleep(1.0)
    assert store.works[0].memories == [EXTRACTED]
    assert store.told == [transcript(store.works[0]).user_id]


@pytest.mark.parametrize("workers", [1, 4])
async def test_a_model_that_is_away_is_asked_after_growing_bounded_pauses(
    workers: int, autojump_clock: MockClock
) -> None:
    agent = model_that_is_back_at(inf, AWAY["unreachable"])
    store = ScriptedStore(*(Work() for _ in range(6)))
    async with with_model(store, agent, memory_workers=workers, memory_sweep_seconds=5.0) as finalizer:
        for _ in range(600):
            await trio.sleep(1.0)
            finalizer.announce()
    pauses = [round(later - earlier) for earlier, later in pairwise(sorted(set(agent.asked)))]
    assert pauses[:6] == [1, 2, 4, 8, 16, 30]
    assert set(pauses[6:]) == {PAUSE_SECONDS_MAX}


async def test_no_session_waits_for_a_model_that_is_away(autojump_clock: MockClock) -> None:
    work, store = Work(), ScriptedStore(Work())
    agent = model_that_is_back_at(inf, AWAY["unreachable"])
    async with with_model(store, agent) as finalizer:
        await wait_all_tasks_blocked()
        store.works.append(work)
        with trio.fail_after(0.01):
            await finalizer.finalize(work.session_id)
        assert len(agent.asked) == 1


@pytest.mark.parametrize("trouble", ["unreachable", "failing"])
async def test_a_model_that_is_away_does_not_hold_up_a_shutdown(trouble: str, autojump_clock: MockClock) -> None:
    works = [Work() for _ in range(20)]
    began = trio.current_time()
    agent = model_that_is_back_at(inf, AWAY[trouble])
    async with with_model(ScriptedStore(*works), agent):
        pass
    assert trio.current_time() == began
    assert len(agent.asked) <= 2 * SETTINGS.memory_workers
    assert {work.attempts for work in works} == {0}


async def test_after_an_outage_the_next_one_begins_with_a_short_pause(autojump_clock: MockClock) -> None:
    store, agent = ScriptedStore(Work()), model_that_is_back_at(trio.current_time() + 100.0, AWAY["unreachable"])
    async with with_model(store, agent, memory_sweep_seconds=5.0) as finalizer:
        await trio.sleep(200.0)
        assert store.works[0].memories == [EXTRACTED]
        began = trio.current_time()
        agent._answer = model_that_is_back_at(began + 1.0, AWAY["unreachable"])._answer
        store.works.append(Work())
        finalizer.announce()
        await trio.sleep(PAUSE_SECONDS_MIN + 0.1)
        assert store.works[1].memories == [EXTRACTED]


@pytest.mark.parametrize("trouble", ["failing", "silent"])
async def test_a_session_that_the_model_fails_on_each_time_is_left_to_the_rules(
    trouble: str, autojump_clock: MockClock
) -> None:
    poison, *others = works = [Work() for _ in range(4)]
    for work in others:
        work.text = "I am Ada, too"

    async def answer(prompt: str) -> str:
        if "too" in prompt or prompt == "[]":
            return LISTED
        if trouble == "silent":
            await trio.sleep_forever()
        raise AWAY["failing"] or AssertionError

    agent = Modelled(answer)
    async with with_model(ScriptedStore(*works), agent, memory_sweep_seconds=5.0):
        await wait_all_tasks_blocked()
        await trio.sleep(1.0)
        assert all(work.memories for work in others), "nobody waits for it"
        await trio.sleep(600.0)
    assert [memory.quote for memory in poison.memories or ()] == ["I am Ada"]
    assert (poison.attempts, len(poison.failures)) == (SETTINGS.memory_attempts_max, SETTINGS.memory_attempts_max - 1)


async def test_an_agents_own_finalize_may_say_that_its_model_is_away(autojump_clock: MockClock) -> None:
    work = Work()
    back = trio.current_time() + 1_000.0

    async def finalize(transcript: Transcript) -> Sequence[Memory]:
        if trio.current_time() < back:
            raise ModelUnavailable("code", "away")
        return await remember(transcript)

    async with finalizing(ScriptedStore(work), finalize):
        await trio.sleep(1_000.0 + PAUSE_SECONDS_MAX)
    assert (work.memories, work.attempts, work.failures) == ([FACT], 1, [])


# --- what an agent may leave behind ---------------------------------------------------------------------------------


async def left(*memories: Memory) -> Sequence[Memory]:
    """What is stored of an agent's memories."""
    work = Work()

    async def finalize(_transcript: Transcript) -> Sequence[Memory]:
        await trio.lowlevel.checkpoint()
        return memories

    async with finalizing(ScriptedStore(work), finalize):
        pass
    assert work.memories is not None
    return work.memories


async def test_memories_beyond_the_bounds_are_cut() -> None:
    (memory,) = await left(Memory("k" * 100, "c" * 5_000, "item_1", "q" * 5_000))
    assert (len(memory.kind), len(memory.content)) == (KIND_CHARS_MAX, CONTENT_CHARS_MAX)
    assert len(memory.quote) <= CONTENT_CHARS_MAX
    assert memory.item_id == "item_1"


async def test_no_more_memories_are_kept_than_the_bound() -> None:
    kept = await left(*(Memory("note", f"Fact {number}.", "item_1", "") for number in range(MEMORIES_MAX + 5)))
    assert [memory.content for memory in kept] == [f"Fact {number}." for number in range(MEMORIES_MAX)]


async def test_nul_is_taken_out_of_memories() -> None:
    assert await left(Memory("no\0te", "a\0b", "item_1", "c\0d")) == [Memory("note", "ab", "item_1", "cd")]


@pytest.mark.parametrize("content", ["", "\0", "  ", "\n\t"])
async def test_a_memory_that_says_nothing_is_left_out(content: str) -> None:
    assert await left(Memory("note", content, "item_1", ""), FACT) == [FACT]


async def test_a_memory_without_a_kind_is_a_note() -> None:
    (memory,) = await left(Memory("", "Likes tea.", "item_1", "tea"))
    assert memory.kind == "note"
