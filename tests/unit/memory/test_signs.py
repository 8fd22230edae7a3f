"""What a pattern cannot match without: texts that have none of it are not searched, and none of them has a match."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from lastcall.memory.facts import redaction, requests
from lastcall.memory.sentences import has_sign, lowered


def _matching(pattern: re.Pattern[str]) -> st.SearchStrategy[str]:
    return st.from_regex(pattern)


REQUESTS = {
    "an order": (requests._ORDER, requests._ORDER_SIGNS),
    "a refusal to be remembered": (requests._DECLINED, requests._DECLINED_SIGNS),
}
PATTERNS = [value for value in vars(redaction).values() if isinstance(value, re.Pattern)]
RANDOM = st.text(string.ascii_letters + string.digits, min_size=16, max_size=40)
IBANS = st.sampled_from(["DE89 3704 0044 0532 0130 00", "GB33BUKB20201555555555", "no9386011117947"])
SECRETS: dict[str, st.SearchStrategy[str]] = {
    "what a pattern matches": st.sampled_from(PATTERNS).flatmap(_matching),
    "random characters": RANDOM | RANDOM.map("my token is {}".format),
    "a bank account": IBANS,
    "a key without a digit": st.sampled_from(["bearer ", "Basic ", "sk-", "password: "]).map(
        lambda each: each + "x" * 20
    ),
}


def alternatives(pattern: str) -> list[str]:
    """Those at the top: each is drawn as often as the others."""
    found, depth, escaped, in_set = [""], 0, False, False
    for each in pattern:
        if not escaped:
            in_set = each == "[" or (in_set and each != "]")
            depth += 0 if in_set else (each == "(") - (each == ")")
        if each == "|" and depth == 0 and not escaped and not in_set:
            found.append("")
        else:
            found[-1] += each
        escaped = each == "\\" and not escaped
    return found


@pytest.mark.parametrize("name", REQUESTS)
@given(data=st.data())
def test_whatever_a_request_says_has_one_of_its_signs(name: str, data: st.DataObject) -> None:
    pattern, signs = REQUESTS[name]
    said: Sequence[str] = alternatives(pattern.pattern)
    text = lowered(data.draw(st.sampled_from(said).flatmap(lambda each: st.from_regex(each, fullmatch=True))))
    assume(pattern.search(text))
    assert has_sign(text, signs)


@pytest.mark.parametrize("kind", SECRETS)
@given(data=st.data())
def test_whatever_is_taken_out_as_a_secret_looks_as_if_it_may_be_one(kind: str, data: st.DataObject) -> None:
    text = data.draw(SECRETS[kind])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_may_have_secret", lambda _text: True)
        expected = redaction.redacted(text)
    assert redaction.redacted(text) == expected
