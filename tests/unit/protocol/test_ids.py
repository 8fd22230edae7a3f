"""Random ids: distinct, of one shape, and never of the same randomness twice."""

from __future__ import annotations

import os
import re
from uuid import RFC_4122

import pytest
from lastcall.protocol import ids
from lastcall.protocol.ids import POOL_BYTES, new_id, new_uuid


def test_ids_are_distinct_across_pools_and_of_one_shape() -> None:
    made = [new_id("item") for _ in range(POOL_BYTES)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"item_[0-9a-f]{32}", each) for each in made)


def test_uuids_are_random_ones() -> None:
    made = [new_uuid() for _ in range(POOL_BYTES)]
    assert len(set(made)) == len(made)
    assert {(each.version, each.variant) for each in made} == {(4, RFC_4122)}


def test_every_byte_of_the_kernels_randomness_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[bytes] = []
    real = os.urandom

    def note(size: int) -> bytes:
        fetched.append(real(size))
        return fetched[-1]

    monkeypatch.setattr(os, "urandom", note)
    pool = ids._RandomPool()
    taken = b"".join(pool.take() for _ in range(3 * POOL_BYTES // 16))
    assert taken == b"".join(fetched)
    assert len(fetched) == 3
