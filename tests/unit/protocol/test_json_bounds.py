"""The bounds of an event's JSON, which are part of parsing it."""

from __future__ import annotations

import pytest
from lastcall.config import Settings
from lastcall.protocol.client_events import TooComplex
from lastcall.protocol.json_bounds import JsonBounds
from lastcall.protocol.parsing import parse_event

BOUNDS = JsonBounds(Settings().json_values_max, Settings().json_depth_max)


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ('{"x":' + "[" * 63 + "]" * 63 + "}", True),
        ('{"x":' + "[" * 64 + "]" * 64 + "}", False),
        ('{"x":' + '{"y":' * 64 + "0" + "}" * 64 + "}", False),
        ("[" + "0," * 19_990 + "0]", True),
        ("[" + "0," * 20_001 + "0]", False),
        ('["' + "[{,:" * 100_000 + '"]', True),
        ('["' + '\\"[{' * 100_000 + '"]', True),
        ('["' + "\\\\" * 100 + '",' + "[" * 70 + "]" * 70 + "]", False),
        ('"","",' * 50_000, False),
        ("", True),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_is_bounded_outside_of_its_strings(text: str, fine: bool) -> None:
    assert (BOUNDS.problem(text) is None) is fine


def test_the_bounds_of_json_are_configurable() -> None:
    assert JsonBounds(values_max=4, depth_max=2).problem("[[1, 2]]") is None
    assert JsonBounds(values_max=4, depth_max=1).problem("[[1, 2]]") is not None
    assert JsonBounds(values_max=4, depth_max=2).problem("[[1, 2, 3, 4]]") is not None


@pytest.mark.parametrize("tracing", ["[" + "[]," * 30_000 + "[]]", "[" * 65 + "]" * 65], ids=["wide", "deep"])
def test_an_event_beyond_the_bounds_is_rejected_with_its_event_id(tracing: str) -> None:
    message = '{"type":"session.update","event_id":"e","session":{"tracing":' + tracing + "}}"
    with pytest.raises(TooComplex) as caught:
        parse_event(message, BOUNDS)
    assert (caught.value.detail.code, caught.value.event_id) == ("invalid_value", "e")
