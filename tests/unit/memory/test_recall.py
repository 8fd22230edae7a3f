"""What a session begins with: the briefing, and memory that is still being finalized when its user comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import uuid4

import pytest
import trio
from lastcall.memory.facts.quoting import LAST_CHARS_MAX, TOKENS_MAX
from lastcall.memory.fence import tokens_of
from lastcall.memory.recall import PENDING_POLL_SECONDS, PENDING_SECONDS_MAX, briefing, recall
from lastcall.sessions.registry import Registry
from lastcall.sessions.session import Session
from lastcall.store.people.memories import LastTalk
from lastcall.store.records import Recollection, RememberedFact
from trio.testing import MockClock

from tests.support.fake_store import FakeStore

FACT = RememberedFact("name", "Called Ada.")
A_HAIR = 1e-6  # seconds


class ScriptedStore(FakeStore):
    """Answers `recall` as its list says; the last answer stays."""

    def __init__(self, *answers: Recollection) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked = 0
        self.seconds = 0.0

    async def recall(self, user_id: str, limit: int) -> Recollection:
        self.asked += 1
        await trio.sleep(self.seconds)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


PENDING, DONE, NOTHING = Recollection([], True), Recollection([FACT], False), Recollection([], False)


async def recalled(store: ScriptedStore, *leaving: Registry) -> tuple[Sequence[RememberedFact], float]:
    """The facts, and how long they took in virtual seconds; the begin has the store's first answer."""

    async def begin() -> Recollection:
        return await store.recall("ada", 10)

    began = trio.current_time()
    with trio.fail_after(100 * PENDING_SECONDS_MAX):
        known = await recall(store, leaving[0] if leaving else Registry(), "ada", 10, begin)
    return known.facts, trio.current_time() - began


def test_a_stranger_has_no_briefing() -> None:
    assert briefing(Recollection([], pending=False)) == ""


def test_a_briefing_quotes_every_fact_on_a_line_of_its_own_with_its_date() -> None:
    facts = [RememberedFact("name", "Called Ada.", "name", 1_764_201_600.0), RememberedFact("note", "Two\nlines.")]
    head, *lines, foot = briefing(Recollection(facts, pending=False)).splitlines()[1:]
    assert [json.loads(line) for line in lines] == [
        {"text": "Called Ada.", "date": "2025-11-27"},
        {"text": "Two lines."},
    ]
    assert head.startswith("<<<known ")
    assert head.split()[1] == foot.split()[1]


def test_a_briefing_tells_what_the_last_conversation_was_about_but_not_the_one_that_goes_on() -> None:
    here = uuid4()
    card = "4111 1111 1111 1111"
    last = LastTalk(here, 1_764_201_600.0, f"My boat\u200b is\npaid with {card} <|im_end|> {'and so on ' * 20}")
    known = Recollection([FACT], pending=False, last=last)
    _, fact, line, _ = briefing(known, uuid4()).splitlines()[1:]
    told = json.loads(line)
    assert json.loads(fact) == {"text": "Called Ada."}
    assert told["date"] == "2025-11-27"
    assert told["last_conversation"].startswith("My boat is paid with [redacted] and so on")
    assert len(told["last_conversation"]) == LAST_CHARS_MAX
    assert "last_conversation" not in briefing(known, here)
    assert briefing(Recollection([], pending=False, last=last), here) == ""
    assert "My boat" in briefing(Recollection([], pending=False, last=last), uuid4())


def test_of_too_many_facts_the_last_conversation_is_told_too_within_300_tokens() -> None:
    facts = [RememberedFact("name", f"Called Ada {number}, and so on.", "name") for number in range(50)]
    last = LastTalk(uuid4(), 0.0, "船" * 200)
    text = briefing(Recollection(facts, pending=False, last=last))
    assert tokens_of(text) <= TOKENS_MAX
    assert "船" * LAST_CHARS_MAX in text
    assert "Called Ada 49" in text


def test_each_briefing_has_marks_that_nobody_can_know() -> None:
    assert len({briefing(Recollection([FACT], pending=False)) for _ in range(100)}) == 100


def test_a_briefing_has_at_most_300_tokens_and_keeps_who_the_user_is() -> None:
    facts = [RememberedFact("name", "Called Ada.", "name")]
    facts += [RememberedFact("like", f"I like dish {number} very much indeed.", "taste") for number in range(50)]
    text = briefing(Recollection(facts, pending=False))
    assert tokens_of(text) <= TOKENS_MAX
    assert "Called Ada." in text
    assert "dish 49" in text
    assert "dish 0 " not in text


@pytest.mark.parametrize("answer", [NOTHING, DONE], ids=["stranger", "known"])
async def test_without_pending_memory_there_is_one_statement_and_no_wait(
    answer: Recollection, autojump_clock: MockClock
) -> None:
    store = ScriptedStore(answer)
    assert await recalled(store) == (answer.facts, 0.0)
    assert store.asked == 1


async def test_where_the_begin_cannot_tell_the_store_is_asked(autojump_clock: MockClock) -> None:
    async def begin() -> None:
        await trio.lowlevel.checkpoint()

    store = ScriptedStore(DONE)
    assert await recall(store, Registry(), "ada", 10, begin) == DONE
    assert store.asked == 1


async def test_pending_memory_is_waited_for_until_it_is_there(autojump_clock: MockClock) -> None:
    facts, took = await recalled(ScriptedStore(PENDING, PENDING, PENDING, DONE))
    assert facts == [FACT]
    assert took == pytest.approx(3 * PENDING_POLL_SECONDS)


async def test_memory_that_hangs_is_waited_for_no_longer_than_the_bound(autojump_clock: MockClock) -> None:
    facts, took = await recalled(ScriptedStore(Recollection([FACT], True)))
    assert facts == [FACT]
    assert took <= PENDING_SECONDS_MAX + A_HAIR


async def test_a_store_that_is_slow_is_not_cut_off_by_the_bound(autojump_clock: MockClock) -> None:
    store = ScriptedStore(DONE)
    store.seconds = 10 * PENDING_SECONDS_MAX
    assert await recalled(store) == ([FACT], store.seconds)


async def test_an_end_that_is_still_being_written_counts_as_pending(autojump_clock: MockClock) -> None:
    """The store does not know of it yet, and its commit may come between the two questions."""
    registry, store, session = Registry(), ScriptedStore(NOTHING, PENDING, DONE), Session("ada", uuid4())
    session.began()
    session.user_spoke()
    async with trio.open_nursery() as exits:

        async def leave(task_status: trio.TaskStatus[None]) -> None:
            with registry.leaving(session):
                task_status.started()
                await trio.sleep(PENDING_POLL_SECONDS / 2)

        await exits.start(leave)
        facts, _ = await recalled(store, registry)
    assert facts == [FACT]
    assert store.asked == 3
