"""An answer that was not asked for as a stream, and came as one."""

from __future__ import annotations

import pytest
from lastcall.agents.openai.whole_answer import words_of

FIRST = b'data: {"choices": [{"delta": {"content": "It "}, "finish_reason": null}]}\n\n'
LAST = b'data: {"choices": [{"delta": {"content": "rains."}, "finish_reason": "stop"}]}\n\n'


@pytest.mark.parametrize("torn", [b"data: {torn\n\n", b'data: {"choices": [\n\n', b": ping\n\n", b"data: {}}\n\n"])
def test_a_chunk_that_was_torn_costs_no_others(torn: bytes) -> None:
    assert words_of(FIRST + torn + LAST) == "It rains."


def test_an_answer_whose_end_was_torn_off_is_none() -> None:
    with pytest.raises(ValueError, match="breaks off"):
        words_of(FIRST + LAST[:-20])
