"""The proof of a commit: rarely asked, bounded in time, and in a few words."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
import trio
from lastcall.store.errors import CommitRefused, StoreError, StoreUnavailable
from lastcall.store.proof import FRESH_SECONDS, PROOF_SECONDS, REASON_CHARS_MAX, CommitProof
from trio.testing import MockClock

from tests.support.fake_store import FakeStore

ME = uuid4()


class ProvingStore(FakeStore):
    """Counts the proofs; `result` is what one does."""

    def __init__(self) -> None:
        super().__init__()
        self.proofs = 0
        self.result: Callable[[], None] = lambda: None
        self.seconds = 0.0

    async def prove_commit(self, instance_id: UUID) -> None:
        assert instance_id == ME
        self.proofs += 1
        await trio.sleep(self.seconds)
        self.result()


def failing(error: StoreError) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


async def test_many_questions_at_once_are_one_proof(autojump_clock: MockClock) -> None:
    store = ProvingStore()
    store.seconds = 0.1
    proof, answers = CommitProof(store), list[str | None]()

    async def ask() -> None:
        answers.append(await proof.missing(ME))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    assert (store.proofs, answers) == (1, [None] * 100)


async def test_a_proof_is_fresh_for_some_seconds(autojump_clock: MockClock) -> None:
    store = ProvingStore()
    proof = CommitProof(store)
    assert await proof.missing(ME) is None
    store.result = failing(CommitRefused("permission denied for table messages"))
    await trio.sleep(FRESH_SECONDS - 0.1)
    assert await proof.missing(ME) is None
    await trio.sleep(0.1)
    assert await proof.missing(ME) == "no commit: permission denied for table messages"
    assert store.proofs == 2
    store.result = lambda: None
    await trio.sleep(FRESH_SECONDS)
    assert await proof.missing(ME) is None


@pytest.mark.parametrize("error", [StoreUnavailable("refused"), StoreError("what")])
async def test_a_database_that_gives_no_reason_is_unreachable(autojump_clock: MockClock, error: StoreError) -> None:
    store = ProvingStore()
    store.result = failing(error)
    assert await CommitProof(store).missing(ME) == "database unreachable"


async def test_a_proof_that_takes_too_long_is_given_up(autojump_clock: MockClock) -> None:
    store = ProvingStore()
    store.seconds = 60.0
    began = trio.current_time()
    assert await CommitProof(store).missing(ME) == "database unreachable"
    assert trio.current_time() - began == PROOF_SECONDS


async def test_one_who_leaves_does_not_keep_others_from_their_answer(autojump_clock: MockClock) -> None:
    store = ProvingStore()
    store.seconds = 1.0
    proof = CommitProof(store)
    with trio.move_on_after(0.5):
        await proof.missing(ME)
    assert await proof.missing(ME) is None
    assert store.proofs == 2


async def test_a_long_reason_is_cut(autojump_clock: MockClock) -> None:
    store = ProvingStore()
    store.result = failing(CommitRefused("no " * 1000))
    assert len(await CommitProof(store).missing(ME) or "") == REASON_CHARS_MAX
